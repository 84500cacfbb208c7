//! What others say ends up in front of a person: it is told from what this program says, and steers no terminal.

use syncagent_protocol::api::{PROBLEM, vault_path};
use syncagent_protocol::{Name, NodeId};
use syncagent_vault::chunker::Class;
use syncagent_vault::commit::{Position, seal};
use syncagent_vault::op::{Content, Draft, File, Genesis, MachineAdd, Put, PutBody};
use syncagent_vault::random::OsRandom;

use crate::court::{Court, hash_of};
use crate::field::liar::{Answer, Honest, Request};
use crate::field::{Done, Field};

/// Clears the line and says something else; a control character of one byte; a new line; right to left.
const STEERS: &str = "x\r\x1b[2Kall is well\u{9b}2K\u{7f}\nall is well\u{202e}\u{2066}";

/// Nothing that was printed does anything to a terminal, and no line begins with what somebody else wrote.
#[track_caller]
fn assert_harmless(case: &str, done: &Done) {
    for text in [&done.stdout, &done.stderr] {
        let steers = |c: char| c != '\n' && c != '\t' && syncagent_protocol::name::steers(c);
        assert_eq!(text.chars().find(|c| steers(*c)), None, "{case}: {done}");
        assert!(
            !text.lines().any(|line| line.starts_with("all is well")),
            "{case}: {done}"
        );
        assert!(text.len() < 10_000, "{case}: {} bytes", text.len());
    }
}

/// Commands that ask the server, as a person types them and as a script does.
const ASKING: [&[&str]; 4] = [
    &["sync", "--once"],
    &["sync", "--once", "--json"],
    &["machines", "list"],
    &["machines", "list", "--json"],
];

#[test]
fn what_a_server_says_steers_no_terminal() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    let problem = |code: &str, status: u16, title: String, detail: String| {
        let problem =
            serde_json::json!({"code": code, "status": status, "title": title, "detail": detail});
        Answer::new(status, PROBLEM, problem.to_string())
    };
    // Of the longest problem that is read at all, only a sentence is passed on.
    let long = STEERS.repeat(50_000);
    for (case, said) in [
        (
            "an error",
            problem("E_SERVER", 500, STEERS.into(), String::new()),
        ),
        (
            "a long one",
            problem("E_SERVER", 500, long.clone(), long.clone()),
        ),
        (
            "no vault",
            problem("E_NOT_FOUND", 404, "no".into(), STEERS.into()),
        ),
        (
            "no entry",
            problem("E_AUTH", 401, STEERS.into(), STEERS.into()),
        ),
        (
            "a code that is none",
            problem(STEERS, 500, STEERS.into(), STEERS.into()),
        ),
        (
            "nonsense",
            Answer::new(
                200,
                "application/json",
                serde_json::json!({"machines": [{"id": STEERS}]}).to_string(),
            ),
        ),
    ] {
        court.liar.lie(move |_, _| said.clone().into());
        for arguments in ASKING {
            let done = court.b.try_run(arguments);
            assert_ne!(done.exit, 0, "{case}: {done}");
            assert_harmless(&format!("{case}, {}", arguments.join(" ")), &done);
        }
        for arguments in [&["status"][..], &["status", "--json"]] {
            assert_harmless(case, &court.b.try_run(arguments));
        }
    }
    // It is shown all the same, as what it is.
    let said = problem("E_SERVER", 500, STEERS.into(), String::new());
    court.liar.lie(move |_, _| said.clone().into());
    let done = court.b.try_run(ASKING[0]);
    assert!(
        done.stderr
            .contains(r"x\u{d}\u{1b}[2Kall is well\u{9b}2K\u{7f}\u{a}all"),
        "{done}"
    );

    // Names of machines, from a server that makes them up.
    court.liar.lie(|request: &Request, honest: &Honest| {
        let answer = honest.ask(request);
        if !request.is("GET", "/machines") {
            return answer.into();
        }
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        for machine in body["machines"].as_array_mut().unwrap() {
            for word in ["name", "platform", "state"] {
                machine[word] = STEERS.into();
            }
        }
        Answer {
            body: body.to_string().into(),
            ..answer
        }
        .into()
    });
    for arguments in ASKING {
        let done = court.b.try_run(arguments);
        assert_eq!(done.exit, 0, "{done}");
        assert_harmless(&arguments.join(" "), &done);
    }
    assert!(
        court
            .b
            .try_run(ASKING[2])
            .stdout
            .contains(r"x\u{d}\u{1b}[2K")
    );
    court.recovers("names");
}

#[test]
fn the_name_of_a_machine_steers_no_terminal() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    court.recovers("before");
    // It has the key and an invitation, and calls itself what it likes.
    let c = field.unlocked("machine-c", &court.key, court.genesis, &court.url);
    let credentials = court.credentials(&c);
    let add = MachineAdd {
        public_key: *credentials.machine.public(),
        name: STEERS.into(),
        platform: STEERS.into(),
        web: false,
    };
    let content = b"of C".to_vec();
    let file = Put {
        parent: NodeId::ROOT,
        name: Name::parse("of C").unwrap(),
        mtime_ns: 0,
        body: PutBody::File(File {
            size: content.len() as u64,
            exec: false,
            hash: syncagent_protocol::ContentHash(*blake3::hash(&content).as_bytes()),
            scope: None,
            class: Class::of(0, None),
            content: Content::Inline(content),
        }),
        based_on: None,
        conflict_of: None,
    };
    let node = NodeId([7; 16]);
    let before = court.log().len() as u64;
    let mut n = 0;
    for drafts in [
        vec![
            Draft::machine_add(&add).unwrap(),
            Draft::put(node, &file).unwrap(),
        ],
        vec![Draft::trash(node)],
    ] {
        let log = court.log();
        n = log.len() as u64 + 1;
        let position = Position {
            n,
            prev: hash_of(&log[log.len() - 1]),
            time_ms: 1,
        };
        let random = OsRandom::default();
        let keys = court.key.keys().unwrap();
        let sealed = seal(&keys, &credentials.machine, position, drafts, &random).unwrap();
        let request = Request {
            method: "POST".into(),
            path: vault_path(court.key.vault(), "commits"),
            headers: vec![(
                "authorization".into(),
                format!("Bearer {}", **credentials.token.as_ref().unwrap()),
            )],
            body: sealed.bytes,
        };
        assert_eq!(Honest::at(&court.url).ask(&request).status, 200);
        let done = court.b.try_run(ASKING[0]);
        assert_eq!(done.exit, 0, "{done}");
        assert_harmless("a machine that joins", &done);
        let status: serde_json::Value =
            serde_json::from_str(&court.b.try_run(&["status", "--json"]).stdout).unwrap();
        let joined = status["notices"].to_string().contains("joined the vault");
        assert_eq!(joined, n == 1 + before, "{status}");
        let file: &[&str] = &["versions", "of C"];
        for arguments in [
            &["status"][..],
            &["status", "--json"],
            file,
            &["trash", "list"],
            &["machines", "list"],
        ] {
            assert_harmless(&arguments.join(" "), &court.b.try_run(arguments));
        }
    }
    // It was there to be seen.
    let said = |arguments: &[&str]| court.b.try_run(arguments).stdout;
    assert!(said(&["trash", "list"]).contains(r"x\u{d}\u{1b}[2K"));

    // What it wrote is lost with the end of the log: `recover` says whose that was.
    let log = court.log();
    court.liar.lie(crate::court::shows(
        log[..usize::try_from(n).unwrap() - 2].to_vec(),
        n - 2,
    ));
    let done = court.b.try_run(&["recover", "--dry-run"]);
    assert_harmless("recover", &done);
    assert!(done.stdout.contains(r"x\u{d}\u{1b}[2K"), "{done}");
}
