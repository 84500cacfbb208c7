//! Passwords, the agent, the ways a key takes to another machine.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::patience::until;
use crate::world::{Machine, Running, World};

#[test]
fn the_agent_answers_until_it_is_locked() {
    let world = World::new();
    let a = world.first("a");
    a.run(&["unlock", "--password-file", "password"]).exits(0);
    a.run(&["unlock"]).exits(0);
    a.run(&["sync", "--once"]).exits(0);
    a.run(&["lock"]).exits(0);
    a.run(&["lock"]).exits(0);
    a.run(&["sync", "--once"]).exits(11).says("E_LOCKED");
    assert!(!a.home().join("agent/agent.sock").exists());
}

#[test]
fn a_password_is_looked_for_in_its_order() {
    let world = World::new();
    let a = world.first("a");
    let sync = ["sync", "--once"];
    let with = |name: &str, value: &str, more: &[&str]| {
        crate::world::run(a.command(&[&sync, more].concat()).env(name, value))
    };
    with("SYNCAGENT_PASSWORD_FILE", "password", &[]).exits(0);
    with(
        "SYNCAGENT_PASSWORD_FILE",
        "wrong-password",
        &["--password-file", "password"],
    )
    .exits(0);
    with(
        "SYNCAGENT_PASSWORD_FILE",
        "wrong-password",
        &["--password-command", "cat password"],
    )
    .exits(0);
    with("SYNCAGENT_PASSWORD_FILE", "wrong-password", &[])
        .exits(11)
        .says("E_KEYSLOT");
    with("SYNCAGENT_PASSWORD_FILE", "", &[])
        .exits(11)
        .says("E_LOCKED");
    a.run(&["sync", "--once", "--password-command", "exit 3"])
        .exits(11)
        .says("E_LOCKED");
    let config = a.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("password_command = 'cat {}'\n{text}", a.password.display()),
    )
    .unwrap();
    a.run(&sync).exits(0);
}

#[test]
fn a_changed_password_is_the_one_that_opens() {
    let world = World::new();
    let a = world.first("a");
    a.sync_once().exits(0);
    fs::write(world.path("new"), "abandon zoo ladder cruise melody\n").unwrap();
    let change = [
        "change-password",
        "--password-file",
        "password",
        "--new-password-file",
        "new",
    ];
    a.run(&change).exits(0);
    a.run(&change).exits(11).says("E_KEYSLOT");
    a.run(&["sync", "--once", "--password-file", "new"])
        .exits(0);
    // The slot on the server follows.
    let link = format!("{}#{}", world.url, world.invite());
    let b = world.machine("b");
    b.run(&[
        "join",
        &link,
        "b",
        "--name",
        "bee",
        "--password-file",
        "new",
    ])
    .exits(0);
}

#[test]
fn a_machine_joins_by_password_recovery_code_or_export() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let link = || format!("{}#{}", world.url, world.invite());
    let b = world.machine("b");
    let wrong = b.run(&[
        "join",
        &link(),
        "b",
        "--name",
        "bee",
        "--password-file",
        "wrong-password",
    ]);
    wrong.exits(11).says("E_KEYSLOT");
    b.run(&[
        "join",
        &link(),
        "b",
        "--name",
        "bee",
        "--password-file",
        "password",
    ])
    .exits(0);
    fs::write(world.path("own"), "a password of its own\n").unwrap();
    let c = world.machine("c");
    let by_code = [
        "--recovery-code-file",
        "recovery-code",
        "--password-file",
        "own",
    ];
    c.run(&[&["join", &link(), "c", "--name", "sea"][..], &by_code].concat())
        .exits(0);
    c.run(&["sync", "--once", "--password-file", "own"])
        .exits(0);
    fs::write(
        world.path("export"),
        a.with_passwords("export-key").exits(0).stdout,
    )
    .unwrap();
    let d = world.machine("d");
    let by_export = [
        "--export-file",
        "export",
        "--export-password-file",
        "export-password",
        "--password-file",
        "own",
    ];
    d.run(&[&["join", &link(), "d", "--name", "dee"][..], &by_export].concat())
        .exits(0);
    for machine in [&b, &c, &d] {
        assert_eq!(machine.read("x").as_deref(), Some("x"));
    }
    // The same history, the same words.
    for machine in [&a, &b, &c] {
        let password = if std::ptr::eq(machine, &c) {
            "own"
        } else {
            "password"
        };
        machine
            .run(&["sync", "--once", "--password-file", password])
            .exits(0);
    }
    let words = [&a, &b, &c].map(|machine| machine.run(&["fingerprint", "--json"]).exits(0).json());
    assert!(words[0] == words[1] && words[1] == words[2], "{words:?}");
}

#[test]
fn the_recovery_code_is_proved_before_and_after_it_went_to_the_server() {
    let world = World::new();
    let a = world.first("a");
    a.run(&["recovery", "test", "--code-file", "recovery-code"])
        .exits(0);
    a.sync_once().exits(0);
    assert_eq!(a.status()["recovery_tested"], true);
    a.run(&["recovery", "test", "--code-file", "recovery-code"])
        .exits(0);
    a.run(&["recovery", "test", "--code-file", "password"])
        .exits(11)
        .says("E_KEYSLOT");
    let other = world.machine("other");
    let code = other
        .run(&["init", "--password-file", "password"])
        .exits(0)
        .stdout;
    fs::write(world.path("other-code"), code).unwrap();
    a.run(&["recovery", "test", "--code-file", "other-code"])
        .exits(11)
        .says("E_KEYSLOT");
    other
        .run(&["recovery", "test", "--code-file", "other-code"])
        .exits(0);
}

#[test]
fn a_lost_password_is_replaced_by_the_recovery_code() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    fs::write(world.path("new-password"), "quite another password\n").unwrap();
    let link = format!("{}#{}", world.url, world.invite());
    let by_code = ["--recovery-code-file", "recovery-code"];
    let password = ["--password-file", "new-password"];
    a.run(&[&["join", &link][..], &by_code, &password].concat())
        .exits(0);
    a.run(&[&["sync", "--once"][..], &password].concat())
        .exits(0);
    let old = a.sync_once().exits(11).says("E_KEYSLOT");
    assert!(
        old.stderr.contains("--recovery-code-file"),
        "{}",
        old.stderr
    );
    assert_eq!((a.read("x").as_deref(), a.names().len()), (Some("x"), 1));
    assert_eq!(
        a.run(&["machines", "--json"]).json()["machines"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_key_that_wrote_something_is_replaced_only_with_a_yes() {
    let world = World::new();
    let a = world.first("a");
    a.sync_once().exits(0);
    let other = world.machine("other");
    other.run(&["init", "--password-file", "password"]).exits(0);
    let export = other.with_passwords("export-key").exits(0).stdout;
    let import = [
        "import-key",
        "--password-file",
        "password",
        "--export-password-file",
        "export-password",
    ];
    let refused = a.feed(&import, &export).exits(2).says("E_USAGE");
    assert!(refused.stderr.contains("--yes"));
    a.run(&["init", "--password-file", "password", "--yes"])
        .exits(2)
        .says("E_USAGE");
    a.sync_once().exits(0);
    // One that never wrote anything goes without a question.
    let third = world.machine("third");
    third.run(&["init", "--password-file", "password"]).exits(0);
    third.feed(&import, &export).exits(0);
    third.feed(&import, "no export").exits(11).says("E_KEYSLOT");
}

#[cfg(unix)]
#[test]
fn files_with_secrets_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let a = world.first("a");
    a.run(&["unlock", "--password-file", "password"]).exits(0);
    let mode = |path: std::path::PathBuf| {
        fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777
    };
    for name in [
        "key.saks",
        "machine.json",
        "config.toml",
        "agent/agent.sock",
    ] {
        assert_eq!(mode(a.home().join(name)), 0o600, "{name}");
    }
    assert_eq!(
        (
            mode(world.path("recovery-code")),
            mode(a.home().join("agent"))
        ),
        (0o600, 0o700)
    );
    a.run(&["lock"]).exits(0);
}

/// What a daemon comes to after an `unlock`.
fn state_after_unlock(machine: &Machine) -> Value {
    machine
        .run(&["unlock", "--password-file", "password"])
        .exits(0);
    until("the daemon to work or pause", || {
        let status = machine.status();
        let state = status["state"].clone();
        (status["running"] == true && state != "locked" && state != "syncing").then_some(state)
    })
}

#[test]
fn a_pause_outlasts_a_lock() {
    let world = World::new();
    let a = world.first("a");
    a.write("one", "1");
    let daemon = a.start_daemon();
    a.run(&["pause"]).exits(0);
    for _ in 0..2 {
        a.run(&["lock"]).exits(0);
        assert_eq!(state_after_unlock(&a), "paused");
    }
    a.write("two", "2");
    assert_eq!(a.status()["files"], 1);
    a.run(&["resume"]).exits(0);
    until("what was written while paused", || {
        (a.status()["files"] == 2).then_some(())
    });
    a.run(&["lock"]).exits(0);
    assert_eq!(state_after_unlock(&a), "idle");
    a.run(&["lock"]).exits(0);
    assert_eq!(daemon.terminate(), 0);
}

#[cfg(unix)]
#[test]
fn a_daemon_that_is_just_opening_hears_of_a_lock() {
    let world = World::new();
    let a = world.first("a");
    let fifo = world.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let daemon = Running::start(
        a.command(&["sync", "--password-command", "touch asked; cat fifo"])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    until("the question for the password", || {
        world.path("asked").exists().then_some(())
    });
    a.run(&["lock"]).exits(0);
    fs::write(&fifo, fs::read(&a.password).unwrap()).unwrap();
    let state = until("the daemon to answer", || {
        let status = a.status();
        (status["running"] == true && status["state"] != "syncing").then(|| status["state"].clone())
    });
    assert_eq!(state, "locked");
    assert_eq!(state_after_unlock(&a), "idle");
    a.run(&["lock"]).exits(0);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_lock_removes_what_a_crash_left_of_an_unlock() {
    let world = World::new();
    let a = world.first("a");
    let left = a.home().join("unlocked.tmp");
    fs::write(&left, "half of a key").unwrap();
    a.run(&["lock"]).exits(0);
    assert!(!left.exists());
}
