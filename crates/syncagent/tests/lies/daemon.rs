//! Lies told to a daemon in the middle of its life: it has files, edits to send, and has believed this server so far.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use syncagent_protocol::api::{Head, PROBLEM, Problem};
use syncagent_protocol::{Code, Name, NodeId};
use syncagent_vault::commit::{Position, seal};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::{Draft, Genesis, Put, PutBody};
use syncagent_vault::random::OsRandom;

use crate::court::{Court, hash_of, shows};
use crate::field::liar::{Answer, Honest, Liar, Request, Said};
use crate::field::{Field, Rng, Running, until};
use crate::log::signed_anew;

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether it asks for anything but an answer. What a machine says of itself is no change of the vault.
fn changes(request: &Request) -> bool {
    let asks = ["/report", "/chunks/fetch", "/chunks/missing"];
    request.method != "GET" && !asks.iter().any(|end| request.path.ends_with(end))
}

fn heard(liar: &Liar, which: impl Fn(&Request) -> bool) -> usize {
    liar.heard().iter().filter(|request| which(request)).count()
}

fn looks(liar: &Liar) -> usize {
    heard(liar, |request| request.is("GET", "/commits"))
}

/// B as its daemon has it, once it is in this state.
#[track_caller]
fn reaches(court: &Court<'_>, case: &str, state: &str) -> Value {
    until(&format!("{case}: B is {state}"), PATIENCE, || {
        let status = status(court);
        (status["running"] == true && status["state"] == state).then_some(status)
    })
}

/// `status` ends with the code of what is wrong.
fn status(court: &Court<'_>) -> Value {
    let done = court.b.try_run(&["status", "--json"]);
    serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done}"))
}

fn look(court: &Court<'_>) {
    let done = court.b.try_run(&["now"]);
    assert_eq!(done.exit, 0, "{done}");
}

/// A daemon of B that is in sync, and what A has just done is here.
fn in_mid_life(court: &Court<'_>) -> Running {
    let running = court.b.start();
    court.put(&[("known", b"1")]);
    court.put(&[("known", b"2"), ("other", b"3")]);
    until("what A did", PATIENCE, || {
        let known = fs::read(court.b.folder.join("known"));
        (known.is_ok_and(|known| known == b"2") && court.b.is_idle()).then_some(())
    });
    running
}

/// B has something to send when it is lied to: it halts with this code, says so, writes nothing, and sends nothing,
/// however often it is told to look, and after a restart. Told the truth, it has what A has, and sends what it had.
#[track_caller]
fn halts(
    court: &Court<'_>,
    mut running: Running,
    case: &str,
    code: &str,
    lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
) -> Running {
    court.liar.lie(lie);
    let mine = format!("mine while {case}");
    fs::write(court.b.folder.join(&mine), case).unwrap();
    let halted = |when: &str| {
        let status = reaches(court, &format!("{case}, {when}"), "halted");
        assert_eq!(status["held"]["code"], code, "{case}, {when}: {status}");
    };
    look(court);
    halted("at once");
    for again in ["again", "and again"] {
        let before = looks(&court.liar);
        look(court);
        until(case, PATIENCE, || {
            (looks(&court.liar) > before).then_some(())
        });
        halted(again);
    }
    assert_eq!(running.has_ended(), None, "{case}: {}", court.b.log());
    running.kill();
    let before = looks(&court.liar);
    let running = court.b.start();
    until(case, PATIENCE, || {
        (looks(&court.liar) > before).then_some(())
    });
    halted("after a restart");
    assert_eq!(heard(&court.liar, changes), 0, "{case}: B sent something");
    assert!(!court.b.folder.join("planted").exists(), "{case}");
    for (file, content) in [("known", &b"2"[..]), ("other", b"3")] {
        assert_eq!(
            fs::read(court.b.folder.join(file)).unwrap(),
            content,
            "{case}"
        );
    }

    court.liar.tell_the_truth();
    look(court);
    reaches(court, &format!("{case}, and then the truth"), "idle");
    until(case, PATIENCE, || {
        court.a.sync_once();
        court.a.folder.join(&mine).exists().then_some(())
    });
    court.assert_equal(case);
    running
}

/// A directory that somebody plants, in a commit on top of `log`.
pub(crate) fn planted(court: &Court<'_>, log: &[Vec<u8>], machine: &MachineKey) -> Vec<u8> {
    let put = Put {
        parent: NodeId::ROOT,
        name: Name::parse("planted").unwrap(),
        mtime_ns: 0,
        body: PutBody::Directory,
        based_on: None,
        conflict_of: None,
    };
    let position = Position {
        n: log.len() as u64 + 1,
        prev: hash_of(&log[log.len() - 1]),
        time_ms: 4_000_000_000_000,
    };
    let draft = Draft::put(NodeId([9; 16]), &put).unwrap();
    let keys = court.key.keys().unwrap();
    let sealed = seal(&keys, machine, position, vec![draft], &OsRandom::default()).unwrap();
    syncagent_protocol::commit::Commit::parse(&sealed.bytes)
        .unwrap()
        .to_served()
}

#[test]
fn a_history_that_goes_back_or_another_way_halts_a_daemon_until_it_is_whole_again() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let mut running = in_mid_life(&court);
    for back in [1, 2] {
        let mut log = court.log();
        log.truncate(log.len() - back);
        let n = log.len();
        let case = format!("the last {back} are gone");
        running = halts(&court, running, &case, "E_ROLLBACK", shows(log, n));
    }
    // Signed by A, in A's own name: only that B has seen another one there.
    let a = court.credentials(&court.a).machine;
    let mut log = court.log();
    log.pop();
    for _ in 0..2 {
        log.push(planted(&court, &log, &a));
    }
    let n = log.len();
    let running = halts(
        &court,
        running,
        "A is shown to have done something else",
        "E_FORK",
        shows(log, n),
    );
    drop(running);
}

#[test]
fn a_commit_of_nobody_or_signed_anew_halts_a_daemon_and_changes_nothing() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let mut running = in_mid_life(&court);
    let stranger = MachineKey::generate(&OsRandom::default()).unwrap();
    let a = court.credentials(&court.a).machine;
    type Forge<'a> = &'a dyn Fn(&[Vec<u8>]) -> Vec<u8>;
    let cases: [(&str, &str, Forge<'_>); 3] = [
        ("a stranger writes", "E_MACHINE", &|log| {
            planted(&court, log, &stranger)
        }),
        (
            "what A writes is signed by a stranger",
            "E_MACHINE",
            &|log| signed_anew(&planted(&court, log, &a), &stranger),
        ),
        ("what A writes is signed badly", "E_COMMIT", &|log| {
            let mut commit = planted(&court, log, &a);
            *commit.last_mut().unwrap() ^= 1;
            commit
        }),
    ];
    for (case, code, forge) in cases {
        let log = court.log();
        let commit = forge(&log);
        let n = log.len() + 1;
        running = halts(
            &court,
            running,
            case,
            code,
            shows([&log[..], &[commit]].concat(), n),
        );
    }
    drop(running);
}

#[test]
fn what_is_of_another_vault_or_version_or_beyond_the_limits_halts_a_daemon_and_changes_nothing() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let mut running = in_mid_life(&court);
    let a = court.credentials(&court.a).machine;
    for (case, at, code) in [
        ("another vault", 8, "E_VAULT"),
        ("another version", 4, "E_VERSION"),
        ("more ops than there may be", 84, "E_LIMIT"),
    ] {
        let mut log = court.log();
        let mut commit = planted(&court, &log, &a);
        commit[at] ^= 1;
        log.push(commit);
        let n = log.len();
        running = halts(&court, running, case, code, shows(log, n));
    }
    drop(running);
}

#[test]
fn a_commit_that_is_refused_for_ever_is_tried_in_growing_distance_and_holds_up_nothing_else() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let running = in_mid_life(&court);
    let log = court.log();
    let head = Head {
        n: log.len() as u64,
        hash: hash_of(&log[log.len() - 1]),
    };
    let problem = Problem {
        code: Code::Conflict,
        status: 409,
        title: "no".into(),
        detail: String::new(),
        head: Some(head),
        missing: Vec::new(),
    };
    let refused = Answer::new(409, PROBLEM, serde_json::to_vec(&problem).unwrap());
    court.liar.lie(
        move |request, honest| match request.is("POST", "/commits") {
            true => refused.clone().into(),
            false => honest.ask(request).into(),
        },
    );
    let posts = || heard(&court.liar, |request| request.is("POST", "/commits"));
    let since = Instant::now();
    fs::write(court.b.folder.join("stuck"), "stuck").unwrap();
    let status = reaches(&court, "409", "error");
    let codes = status["errors"].as_array().unwrap().iter();
    assert!(
        codes.clone().any(|error| error["code"] == "E_BUSY"),
        "{status}"
    );
    // One pass asks a bounded number of times; from one to the next it waits 1, 2, 4 .. seconds.
    let of_a_pass = posts();
    assert!((1..50).contains(&of_a_pass), "{of_a_pass}");
    let tried = until("some passes more", PATIENCE, || {
        let tried = posts();
        (tried >= of_a_pass * 3).then_some(tried)
    });
    let seconds = since.elapsed().as_secs();
    let passes = 2 + usize::try_from((seconds + 1).ilog2()).unwrap();
    assert!(
        tried <= of_a_pass * passes,
        "{tried} in {seconds} s, {of_a_pass} in the first pass"
    );
    // What others do comes all the same.
    court.put(&[("of A", b"comes")]);
    until("what A did", PATIENCE, || {
        court.b.folder.join("of A").exists().then_some(())
    });
    court.liar.tell_the_truth();
    look(&court);
    reaches(&court, "409, and then the truth", "idle");
    court.a.sync_once();
    court.assert_equal("409");
    drop(running);
}

#[test]
fn a_daemon_that_is_given_wrong_chunks_names_the_file_and_goes_on_with_the_rest() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let running = in_mid_life(&court);
    court.liar.lie(|request, honest| {
        let answer = honest.ask(request);
        match request.is("POST", "/chunks/fetch") {
            true => answer
                .reframed(|parts| parts.iter_mut().for_each(|part| part[20] ^= 1))
                .into(),
            false => answer.into(),
        }
    });
    let content = Rng(1).bytes(50_000);
    court.put(&[("long", &content), ("short", b"in the log itself")]);
    let status = reaches(&court, "wrong chunks", "error");
    assert_eq!(
        (&status["errors"][0]["path"], &status["errors"][0]["code"]),
        (&"long".into(), &"E_CHUNK".into())
    );
    assert!(!court.b.folder.join("long").exists());
    assert_eq!(
        fs::read(court.b.folder.join("short")).unwrap(),
        b"in the log itself"
    );
    fs::write(court.b.folder.join("of B"), "goes").unwrap();
    until("what B did", PATIENCE, || {
        court.a.sync_once();
        court.a.folder.join("of B").exists().then_some(())
    });
    court.liar.tell_the_truth();
    look(&court);
    reaches(&court, "the right chunks", "idle");
    court.assert_equal("chunks");
    drop(running);
}
