//! Lies told to a machine that has something to send.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU8, Ordering};

use syncagent_protocol::api::{Head, PROBLEM, Problem};
use syncagent_protocol::commit::Commit;
use syncagent_protocol::{Code, NodeId};
use syncagent_vault::commit::{Position, seal};
use syncagent_vault::op::{Draft, Genesis};
use syncagent_vault::random::OsRandom;

use crate::court::{Court, assert_code, hash_of};
use crate::field::liar::{Answer, Honest, Request, Said, parts};
use crate::field::{Field, Rng};

fn problem(
    status: u16,
    code: Code,
    head: Option<Head>,
    missing: Vec<syncagent_protocol::ChunkId>,
) -> Answer {
    let problem = Problem {
        code,
        status,
        title: "no".into(),
        detail: String::new(),
        head,
        missing,
    };
    Answer::new(status, PROBLEM, serde_json::to_vec(&problem).unwrap())
}

/// Answers posted commits like this and is honest otherwise.
fn on_commits(answer: Answer) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    move |request, honest| match request.is("POST", "/commits") {
        true => answer.clone().into(),
        false => honest.ask(request).into(),
    }
}

/// B has a file to send and is lied to: it gives up with this code after a bounded number of tries, and says nothing
/// of being in sync; so it is after a restart. Told the truth, it sends the file.
#[track_caller]
fn gives_up(
    court: &Court<'_>,
    case: &str,
    code: &str,
    exit: i32,
    lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
) {
    let content = Rng(case.len() as u64).bytes(50_000);
    fs::write(court.b.folder.join(case), &content).unwrap();
    court.liar.lie(lie);
    for start in 1..=2 {
        assert_code(case, &court.b.try_sync(), code, exit);
        let asked = court.liar.heard().len();
        assert!(asked < start * 100, "{case}: {asked} requests");
    }
    court.liar.tell_the_truth();
    court.b.sync_once();
    court.a.sync_once();
    assert!(
        fs::read(court.a.folder.join(case)).unwrap() == content,
        "{case}"
    );
}

#[test]
fn a_server_that_never_takes_a_commit_is_given_up() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    court.recovers("before");
    let log = court.log();
    let n = log.len() as u64;
    let hash = hash_of(&log[log.len() - 1]);
    let same = Head { n, hash };
    let refused = |head| on_commits(problem(409, Code::Conflict, Some(head), Vec::new()));
    gives_up(
        &court,
        "409 with the head B stands on",
        "E_BUSY",
        5,
        refused(same),
    );
    let ahead = Head { n: 1 << 62, hash };
    gives_up(
        &court,
        "409 with a head that is never shown",
        "E_BUSY",
        5,
        refused(ahead),
    );
    let lost = vec![syncagent_protocol::ChunkId([7; 32])];
    let missing = on_commits(problem(422, Code::Missing, None, lost));
    gives_up(&court, "422 for ever", "E_BUSY", 5, missing);
    let failed = on_commits(problem(500, Code::Server, None, Vec::new()));
    gives_up(&court, "500 for ever", "E_SERVER", 1, failed);
    let no_head = on_commits(problem(409, Code::Conflict, None, Vec::new()));
    gives_up(&court, "409 without a head", "E_CONFLICT", 5, no_head);
}

#[test]
fn what_is_refused_is_sealed_anew_and_no_salt_comes_twice() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    court.put(&[("a", b"1")]);
    court.recovers("before");
    fs::write(court.b.folder.join("short"), "stands in the log").unwrap();
    // Whenever B posts, A is faster by an instant, five times.
    let (keys, a) = (court.key.keys().unwrap(), court.credentials(&court.a));
    let token = a.token.as_ref().unwrap().to_string();
    let vault = court.key.vault();
    let races = AtomicU8::new(0);
    court.liar.lie(move |request, honest| {
        if request.is("POST", "/commits") && races.fetch_add(1, Ordering::SeqCst) < 5 {
            let ask = |method: &str, resource: &str, body: Vec<u8>| {
                honest.ask(&Request {
                    method: method.into(),
                    path: syncagent_protocol::api::vault_path(vault, resource),
                    headers: vec![("authorization".into(), format!("Bearer {token}"))],
                    body,
                })
            };
            let log = parts(&ask("GET", "commits?after=0", Vec::new()).body);
            let position = Position {
                n: log.len() as u64 + 1,
                prev: hash_of(&log[log.len() - 1]),
                time_ms: 1,
            };
            let node = NodeId([races.load(Ordering::SeqCst); 16]);
            let drafts = vec![Draft::trash(node)];
            let random = OsRandom::default();
            let sealed = seal(&keys, &a.machine, position, drafts, &random).unwrap();
            assert_eq!(ask("POST", "commits", sealed.bytes).status, 200);
        }
        honest.ask(request).into()
    });
    assert_eq!(court.b.try_sync().exit, 0);
    let heard = court.liar.heard();
    let posted = heard.iter().filter(|asked| asked.is("POST", "/commits"));
    let posted: BTreeSet<_> = posted.map(|asked| &asked.body).collect();
    assert_eq!(posted.len(), 6);
    // A salt makes the key, whose nonces count from zero: two commits under one would undo both.
    let salts: BTreeSet<_> = posted
        .iter()
        .map(|body| Commit::parse(body).unwrap().header.salt)
        .collect();
    assert_eq!(salts.len(), posted.len());
    court.recovers_both("in the end");
}

#[test]
fn what_is_said_to_be_there_and_is_not_is_sent_all_the_same() {
    let field = Field::new();
    let genesis = Genesis {
        dedup_vault: true,
        ..Genesis::default()
    };
    let court = Court::new(&field, genesis);
    let content = Rng(21).bytes(300_000);
    fs::write(court.b.folder.join("new"), &content).unwrap();
    let octets = syncagent_protocol::api::OCTETS;
    court.liar.lie(
        |request, honest| match request.is("POST", "/chunks/missing") {
            true => Answer::new(200, octets, Vec::new()).into(),
            false => honest.ask(request).into(),
        },
    );
    // The server itself refuses a commit whose chunks are not there; then they are sent, whatever it said.
    let done = court.b.try_sync();
    assert_eq!(done.exit, 0, "{done}");
    court.a.sync_once();
    assert!(fs::read(court.a.folder.join("new")).unwrap() == content);

    // The other way round costs bytes and nothing else.
    fs::write(court.b.folder.join("again"), &content).unwrap();
    court.liar.lie(
        |request, honest| match request.is("POST", "/chunks/missing") {
            true => Answer::new(200, octets, request.body.clone()).into(),
            false => honest.ask(request).into(),
        },
    );
    assert_eq!(court.b.try_sync().exit, 0);
    court.a.sync_once();
    court.assert_equal("everything is missing");
    // Nonsense and too much of it.
    fs::write(court.b.folder.join("third"), Rng(22).bytes(100_000)).unwrap();
    court.liar.lie(
        |request, honest| match request.is("POST", "/chunks/missing") {
            true => Answer::new(200, octets, vec![1; 4_000_000]).into(),
            false => honest.ask(request).into(),
        },
    );
    for _ in 0..2 {
        assert_code("too many ids", &court.b.try_sync(), "E_LIMIT", 14);
    }
    court.assert_nothing_sent("too many ids");
    court.recovers_both("too many ids");
}

#[test]
fn ids_that_nobody_asked_for_or_that_are_none_are_no_reason_to_leave_anything_out() {
    let field = Field::new();
    let genesis = Genesis {
        dedup_vault: true,
        ..Genesis::default()
    };
    let court = Court::new(&field, genesis);
    court.put(&[("a", b"1")]);
    court.recovers("before");
    type Lie = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Lie); 6] = [
        ("nothing", |_| Vec::new()),
        ("ids of others", |_| [[7; 32], [8; 32]].concat()),
        ("ids of others, too", |asked| [asked, &[7; 32]].concat()),
        ("every id twice", |asked| [asked, asked].concat()),
        ("half an id", |_| vec![7; 16]),
        ("a byte too few", |asked| asked[..asked.len() - 1].to_vec()),
    ];
    for (seed, (case, lie)) in cases.into_iter().enumerate() {
        let content = Rng(seed as u64 + 31).bytes(300_000);
        fs::write(court.b.folder.join(case), &content).unwrap();
        court.liar.lie(
            move |request, honest| match request.is("POST", "/chunks/missing") {
                true => {
                    let octets = syncagent_protocol::api::OCTETS;
                    Answer::new(200, octets, lie(&request.body)).into()
                }
                false => honest.ask(request).into(),
            },
        );
        let done = court.b.try_sync();
        let asked = heard_missing(&court);
        assert!(asked > 0, "{case}: nobody asked what is missing");
        assert!(court.liar.heard().len() < 100, "{case}");
        assert!([0, 14].contains(&done.exit), "{case}: {done}");
        assert!(!done.stderr.contains("panicked"), "{case}: {done}");
        court.recovers_both(case);
        assert!(
            fs::read(court.a.folder.join(case)).unwrap() == content,
            "{case}"
        );
    }
}

fn heard_missing(court: &Court<'_>) -> usize {
    let heard = court.liar.heard();
    heard
        .iter()
        .filter(|request| request.is("POST", "/chunks/missing"))
        .count()
}

#[test]
fn a_pack_said_to_be_kept_and_thrown_away_is_sent_again() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let content = Rng(23).bytes(300_000);
    fs::write(court.b.folder.join("new"), &content).unwrap();
    let thrown_away = std::sync::atomic::AtomicUsize::new(0);
    court.liar.lie(move |request, honest| {
        let first = thrown_away.fetch_add(
            usize::from(request.is("POST", "/packs")),
            std::sync::atomic::Ordering::SeqCst,
        ) == 0;
        match request.is("POST", "/packs") && first {
            true => Answer::new(200, "application/json", r#"{"stored":1,"known":0}"#).into(),
            false => honest.ask(request).into(),
        }
    });
    let done = court.b.try_sync();
    assert_eq!(done.exit, 0, "{done}");
    court.a.sync_once();
    assert!(fs::read(court.a.folder.join("new")).unwrap() == content);
}
