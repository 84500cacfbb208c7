//! Answers that are none: what stands between a machine and its server, and what a person is told.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncagent_vault::op::Genesis;

use crate::court::{Court, assert_code};
use crate::field::liar::{Answer, Honest, Request, Said};
use crate::field::{Field, until};

const PORTAL: &str =
    "<!DOCTYPE html><html><body>Welcome to the hotel. Please log in.</body></html>";

fn court(field: &Field) -> Court<'_> {
    let court = Court::new(field, Genesis::default());
    court.put(&[("a", b"1"), ("b", &[2; 5000])]);
    court
}

#[test]
fn an_answer_that_is_not_the_servers_is_offline_and_says_so() {
    let field = Field::new();
    let court = court(&field);
    let always = |answer: Answer| move |_: &Request, _: &Honest| Said::Answer(answer.clone());
    let raw = |text: &str| {
        let bytes = text.as_bytes().to_vec();
        move |_: &Request, _: &Honest| Said::Raw(bytes.clone())
    };
    let html = |status| Answer::new(status, "text/html", PORTAL);
    // Both kinds of machines: one that has never seen the vault, and one that has.
    let mut cases = 0;
    let mut offline = |case: &str, hint: &str, lie: Box<dyn Fn(&Court<'_>)>| {
        cases += 1;
        lie(&court);
        court.forget();
        for _ in 0..2 {
            let done = court.b.try_sync();
            assert_code(case, &done, "E_OFFLINE", 5);
            assert!(done.stderr.contains(hint), "{case}: no {hint:?}: {done}");
        }
        court.assert_nothing_sent(case);
        court.recovers(case);
        lie(&court);
        assert_code(case, &court.b.try_sync(), "E_OFFLINE", 5);
        court.assert_equal(case);
        let status = court.b.try_run(&["status", "--json"]);
        assert!(status.stdout.contains("\"offline\""), "{case}: {status}");
        court.recovers(case);
    };
    offline(
        "a captive portal",
        "captive portal",
        Box::new(move |court| court.liar.lie(always(html(200)))),
    );
    offline(
        "a captive portal's 511",
        "captive portal",
        Box::new(move |court| court.liar.lie(always(html(511)))),
    );
    offline(
        "500",
        "status 500",
        Box::new(move |court| court.liar.lie(always(html(500)))),
    );
    offline(
        "502 of a proxy",
        "status 502",
        Box::new(move |court| court.liar.lie(always(html(502)))),
    );
    offline(
        "404 of something else",
        "status 404",
        Box::new(move |court| court.liar.lie(always(html(404)))),
    );
    offline(
        "nothing at all",
        "cannot reach",
        Box::new(move |court| court.liar.lie(raw(""))),
    );
    offline(
        "half a head",
        "cannot reach",
        Box::new(move |court| court.liar.lie(raw("HTTP/1.1 200 O"))),
    );
    offline(
        "no HTTP",
        "cannot reach",
        Box::new(move |court| court.liar.lie(raw("SSH-2.0-OpenSSH_9.9\r\n\r\n\r\n"))),
    );
    offline(
        "half an answer",
        "cannot reach",
        Box::new(move |court| {
            court.liar.lie(raw(
                "HTTP/1.1 200 OK\r\nsyncagent-head: 9\r\ncontent-length: 500\r\n\r\n\0\0\u{1}\0half",
            ))
        }),
    );
    offline(
        "a length of 2^64",
        "cannot reach",
        Box::new(move |court| {
            court.liar.lie(raw("HTTP/1.1 200 OK\r\nsyncagent-head: 9\r\ncontent-length: 18446744073709551616\r\n\r\n\0\0\u{1}\0half"))
        }),
    );
    offline(
        "a head that is no number",
        "captive portal",
        Box::new(move |court| {
            court.liar.lie(always(
                Answer::new(200, "application/octet-stream", "").with("syncagent-head", "-1"),
            ))
        }),
    );
    assert_eq!(cases, 11);
}

#[test]
fn a_body_without_end_or_a_bomb_is_read_to_a_limit() {
    let field = Field::new();
    let court = court(&field);
    // What it would be if somebody unpacked it: a gigabyte. Nobody asked for it, and nobody does.
    let zeros = std::io::repeat(0).take(1 << 30);
    let bomb = zstd::stream::encode_all(zeros, 1).unwrap();
    court.refuses("a compressed bomb", "E_LIMIT", 14, move |_, _| {
        Answer::new(200, "application/octet-stream", bomb.clone())
            .with("syncagent-head", "9")
            .with("content-encoding", "zstd")
            .into()
    });
    let endless = |head: &str| {
        let head = head.as_bytes().to_vec();
        move |_: &Request, _: &Honest| Said::Endless(head.clone(), vec![b'x'; 64 * 1024])
    };
    let problem = "HTTP/1.1 403 No\r\ncontent-type: application/problem+json\r\n\r\n";
    court.refuses("an error without end", "E_LIMIT", 14, endless(problem));
    let headers = "HTTP/1.1 200 OK\r\nx: ";
    court.forget();
    court.liar.lie(endless(headers));
    for _ in 0..2 {
        assert_code("headers without end", &court.b.try_sync(), "E_OFFLINE", 5);
    }
    court.assert_nothing_sent("headers without end");
    court.recovers("headers without end");
}

/// What is said to come and does, without end, takes no more than what the longest good answer would.
#[cfg(target_os = "linux")]
#[test]
fn a_body_without_end_or_a_bomb_takes_little_memory() {
    /// Two of the longest page (64 MiB and something): what grows is copied once. Nothing without a limit stays below
    /// it, because what is sent has no end and the bomb a gigabyte.
    const MOST_KIB: u64 = 160 * 1024;
    let field = Field::new();
    let court = court(&field);
    court.forget();
    court.liar.tell_the_truth();
    let (done, usual) = court.b.try_sync_measured();
    assert_eq!(done.exit, 0, "{done}");
    let bomb = zstd::stream::encode_all(std::io::repeat(0).take(1 << 30), 1).unwrap();
    let bomb = Answer::new(200, "application/octet-stream", bomb)
        .with("syncagent-head", "9")
        .with("content-encoding", "zstd");
    let bytes =
        "HTTP/1.1 200 OK\r\nsyncagent-head: 9\r\ncontent-length: 4611686018427387904\r\n\r\n";
    let problem = "HTTP/1.1 403 No\r\ncontent-type: application/problem+json\r\n\r\n";
    let headers = "HTTP/1.1 200 OK\r\nx: ";
    type Lie = Box<dyn Fn() -> Said + Send + Sync>;
    let endless = |head: &'static str, more: u8| -> Lie {
        Box::new(move || Said::Endless(head.into(), vec![more; 64 * 1024]))
    };
    let cases: [(&str, &str, Lie); 5] = [
        ("a compressed bomb", "E_LIMIT", {
            Box::new(move || bomb.clone().into())
        }),
        ("commits without end", "E_LIMIT", endless(bytes, 1)),
        ("empty commits without end", "E_COMMIT", endless(bytes, 0)),
        ("an error without end", "E_LIMIT", endless(problem, b'x')),
        ("headers without end", "E_OFFLINE", endless(headers, b'x')),
    ];
    for (case, code, lie) in cases {
        court.forget();
        court.liar.lie(move |_, _| lie());
        let (done, peak) = court.b.try_sync_measured();
        let exit = if code == "E_OFFLINE" { 5 } else { 14 };
        assert_code(case, &done, code, exit);
        assert!(
            peak < usual + MOST_KIB,
            "{case}: {peak} KiB, usually {usual}"
        );
        court.recovers(case);
    }
}

/// Another host, which counts who comes.
struct Elsewhere {
    address: SocketAddr,
    visits: Arc<AtomicUsize>,
}

impl Elsewhere {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&visits);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.unwrap().read(&mut [0; 10]);
            }
        });
        Self { address, visits }
    }

    /// The answer that sends whoever asked for `path` there.
    fn leads(address: SocketAddr, status: u16, path: &str) -> Answer {
        Answer::new(status, "text/plain", "").with("location", &format!("http://{address}{path}"))
    }

    /// Nobody came; and who comes is counted.
    #[track_caller]
    fn assert_unvisited(&self) {
        let visits = || self.visits.load(Ordering::SeqCst);
        assert_eq!(visits(), 0, "somebody else was asked");
        drop(std::net::TcpStream::connect(self.address).unwrap());
        until("a visit", Duration::from_secs(10), || {
            (visits() == 1).then_some(())
        });
    }
}

#[test]
fn a_token_never_follows_a_redirect() {
    let field = Field::new();
    // Where contents may be shared, a machine asks what is there already.
    let genesis = Genesis {
        dedup_vault: true,
        ..Genesis::default()
    };
    let court = Court::new(&field, genesis);
    court.put(&[("a", b"1"), ("b", &[2; 5000])]);
    let elsewhere = Elsewhere::new();
    let address = elsewhere.address;
    for status in [301, 302, 303, 307, 308] {
        court.forget();
        court
            .liar
            .lie(move |request, _| Elsewhere::leads(address, status, &request.path).into());
        let case = format!("status {status}");
        for _ in 0..2 {
            let done = court.b.try_sync();
            assert_code(&case, &done, "E_OFFLINE", 5);
            assert!(done.stderr.contains(&case), "{done}");
        }
        court.assert_nothing_sent(&case);
        court.recovers(&case);
    }
    // Only these say that the request goes along with its body: what a machine sends, and what it asks for.
    for (n, (resource, status)) in (["/chunks/missing", "/packs", "/commits"].iter())
        .flat_map(|resource| [307, 308].map(|status| (*resource, status)))
        .enumerate()
    {
        let case = format!("{status} for POST {resource}");
        let name = format!("sent {n}");
        let content = crate::field::Rng(40 + n as u64).bytes(300_000);
        fs::write(court.b.folder.join(&name), content).unwrap();
        court.liar.lie(move |request, honest| {
            match request.is("POST", resource) {
                true => Elsewhere::leads(address, status, &request.path),
                false => honest.ask(request),
            }
            .into()
        });
        for _ in 0..2 {
            let done = court.b.try_sync();
            assert_code(&case, &done, "E_OFFLINE", 5);
            let said = format!("status {status}");
            assert!(done.stderr.contains(&said), "{case}: {done}");
        }
        let heard = court.liar.heard();
        let asked = heard.iter().filter(|asked| asked.is("POST", resource));
        assert!(asked.count() >= 2, "{case}: B did not ask");
        court.recovers_both(&case);
    }
    court.put(&[("fetched", &crate::field::Rng(31).bytes(300_000))]);
    for status in [307, 308] {
        let case = format!("{status} for POST /chunks/fetch");
        court.liar.lie(move |request, honest| {
            match request.is("POST", "/chunks/fetch") {
                true => Elsewhere::leads(address, status, &request.path),
                false => honest.ask(request),
            }
            .into()
        });
        for _ in 0..2 {
            assert_code(&case, &court.b.try_sync(), "E_OFFLINE", 5);
        }
        assert!(!court.b.folder.join("fetched").exists());
    }
    court.recovers("fetched");
    elsewhere.assert_unvisited();
}

#[test]
fn an_invitation_never_follows_a_redirect() {
    let field = Field::new();
    let court = court(&field);
    let elsewhere = Elsewhere::new();
    let address = elsewhere.address;
    let url = court.liar.url();
    let password = field.path("password of another");
    fs::write(
        &password,
        "seven words that nobody would ever guess together\n",
    )
    .unwrap();
    let password = password.to_str().unwrap();
    for (n, status) in [307, 308].into_iter().enumerate() {
        let (home, folder) = (
            field.path(&format!("home {n}")),
            field.path(&format!("f {n}")),
        );
        let folder = folder.to_str().unwrap();
        let (name, invitation) = (format!("newcomer-{n}"), court.a.invitation());
        let link = format!("{url}#{invitation}");
        let register = [
            "register",
            "--server",
            &url,
            "--token",
            &invitation,
            "--name",
            &name,
            "--folder",
            folder,
        ];
        let join = [
            "join",
            &link,
            folder,
            "--name",
            &name,
            "--password-file",
            password,
        ];
        court
            .liar
            .lie(move |request, _| Elsewhere::leads(address, status, &request.path).into());
        for command in [&register[..], &register, &join, &join] {
            let case = format!("{status} for {}", command[0]);
            let done = field.try_run(&home, command, "");
            assert_code(&case, &done, "E_OFFLINE", 5);
            assert!(done.stderr.contains(&format!("status {status}")), "{done}");
        }
        let heard = court.liar.heard();
        let asked = heard.iter().filter(|asked| asked.is("POST", "/register"));
        assert_eq!(asked.count(), 4, "{status}");
        // Told the truth, the same invitation is as good as new.
        court.liar.tell_the_truth();
        let done = field.try_run(&home, &register, "");
        assert_eq!(done.exit, 0, "{status}: {done}");
    }
    elsewhere.assert_unvisited();
}

#[test]
fn a_daemons_token_never_follows_a_redirect() {
    let field = Field::new();
    let court = court(&field);
    court.recovers("before");
    let elsewhere = Elsewhere::new();
    let address = elsewhere.address;
    let patience = Duration::from_secs(60);
    for status in [301, 307, 308] {
        let case = format!("status {status}");
        // The event socket, and what only a daemon sends.
        let events = Elsewhere::leads(address, status, syncagent_protocol::api::EVENTS);
        court.liar.answer_events(Some(events));
        court.liar.lie(move |request, honest| {
            match request.is("PUT", "/report") {
                true => Elsewhere::leads(address, status, &request.path),
                false => honest.ask(request),
            }
            .into()
        });
        let before = court.liar.turned_away();
        let mut running = court.b.start();
        until(&format!("two tries, {case}"), patience, || {
            assert_eq!(running.has_ended(), None, "{case}: {}", court.b.log());
            (court.liar.turned_away() >= before + 2).then_some(())
        });
        until(&format!("a report, {case}"), patience, || {
            let heard = court.liar.heard();
            heard
                .iter()
                .any(|asked| asked.is("PUT", "/report"))
                .then_some(())
        });
        // Told the truth, it hears of what others do at once.
        court.liar.answer_events(None);
        court.liar.tell_the_truth();
        court.put(&[(&case, case.as_bytes())]);
        until(&format!("news after {case}"), patience, || {
            court.b.folder.join(&case).exists().then_some(())
        });
        running.kill();
    }
    elsewhere.assert_unvisited();
}

#[test]
fn forged_events_are_hints_and_nothing_more() {
    let field = Field::new();
    let court = court(&field);
    court.recovers("before");
    let patience = Duration::from_secs(60);
    let huge = format!(r#"{{"type":"head","n":1,"x":"{}"}}"#, "x".repeat(100_000));
    for (case, event) in [
        (
            "a head that is not there",
            r#"{"type":"head","n":9223372036854775807}"#,
        ),
        (
            "the highest number there is",
            r#"{"type":"head","n":18446744073709551615}"#,
        ),
        (
            "a number beyond",
            r#"{"type":"head","n":18446744073709551616}"#,
        ),
        ("a negative head", r#"{"type":"head","n":-1}"#),
        ("an older head", r#"{"type":"head","n":0}"#),
        ("an order", r#"{"type":"delete","path":"a"}"#),
        ("no JSON", "\u{0}\u{0}{{{"),
        ("a long message", &huge),
    ] {
        court.liar.tell_the_truth();
        court.liar.forge_events(&[event, event, event]);
        let before = tree_of(&court);
        let mut running = court.b.start();
        until("B comes to rest", patience, || {
            court.b.is_idle().then_some(())
        });
        // What A does from here on comes through the same socket, or through the next one if B gave this one up.
        court.liar.forge_events(&[]);
        let name = format!("after {case}");
        court.put(&[(&name, case.as_bytes())]);
        until(&format!("news after {case}"), patience, || {
            assert_eq!(running.has_ended(), None, "{case}: {}", court.b.log());
            court.b.folder.join(&name).exists().then_some(())
        });
        until("B comes to rest again", patience, || {
            court.b.is_idle().then_some(())
        });
        for (path, entry) in before {
            let now = crate::field::tree::entry(&court.b.folder.join(&path));
            assert_eq!(now, entry, "{case}: {}", path.display());
        }
        // A hint may cost a look or two. It must not keep the machine asking for ever.
        let asked = court
            .liar
            .heard()
            .iter()
            .filter(|request| request.is("GET", "/commits"))
            .count();
        assert!(asked < 30, "{case}: B asked for commits {asked} times");
        let status = court.b.status();
        assert_eq!(status["errors"], serde_json::json!([]), "{case}: {status}");
        running.kill();
        fs::remove_file(court.a.folder.join(&name)).unwrap();
    }
}

fn tree_of(court: &Court<'_>) -> crate::field::tree::Tree {
    ["a", "b"]
        .map(|name| {
            (
                name.into(),
                crate::field::tree::entry(&court.b.folder.join(name)),
            )
        })
        .into()
}
