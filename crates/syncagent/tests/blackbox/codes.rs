//! The table of codes and exits, row by row, and that nobody is asked where nobody sits.

use std::fs;

use crate::patience::until;
use crate::world::{World, command, run};

#[test]
fn what_is_not_set_up_says_what_is_missing() {
    let world = World::new();
    let a = world.machine("a");
    for verb in [
        &["sync", "--once"][..],
        &["status"],
        &["ls"],
        &["machines"],
        &["fingerprint"],
        &["trash", "list"],
    ] {
        a.run(verb).exits(3).says("E_SETUP");
    }
    for verb in [&["pause"][..], &["now"]] {
        a.run(verb).exits(3).says("E_NOT_FOUND");
    }
    a.run(&["frobnicate"]).exits(2);
    a.run(&["sync", "--sideways"]).exits(2);
    a.run(&["restore", "x"]).exits(2);
    a.run(&["--help"]).exits(0);
    a.run(&["--version"]).exits(0);
}

#[test]
fn what_is_not_understood_has_its_code_and_is_json_where_json_was_asked_for() {
    let world = World::without_server();
    let a = world.machine("a");
    for words in [
        &["frobnicate"][..],
        &["sync", "--sideways"],
        &["restore", "x"],
        &["restore", "x", "--version", "last"],
        &["conflicts", "resolve", "x", "--all"],
        &["trash", "restore"],
    ] {
        let plain = a.run(words).exits(2).says("E_USAGE");
        assert_eq!(plain.stdout, "", "{words:?}");
        let run = a.run(&[words, &["--json"]].concat());
        let error = run.exits(2).says("E_USAGE").json()["error"].clone();
        assert_eq!(
            (&error["code"], &error["exit"]),
            (&"E_USAGE".into(), &2.into())
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    a.run(&[]).exits(2).says("E_USAGE").names("syncagent demo");
    // Behind -- it is a name like any other.
    let run = a.run(&["frobnicate", "--", "--json"]).exits(2);
    assert_eq!(run.stdout, "");
    // Help is what was asked for, and no error.
    let help = a.run(&["sync", "--help", "--json"]).exits(0);
    assert_eq!(help.stderr, "");
    // A yes that nobody takes says who would.
    let run = a.run(&["now", "--yes"]).exits(3).says("E_NOT_FOUND");
    run.names("syncagent sync --once --yes");
}

#[test]
fn nobody_is_asked_where_nobody_sits() {
    let world = World::new();
    let a = world.machine("a");
    let named = |verb: &[&str], exit, code: &str, flag: &str| {
        let run = a.run(verb).exits(exit).says(code);
        assert!(run.stderr.contains(flag), "{flag} not in: {}", run.stderr);
        assert_eq!(run.stdout, "");
    };
    named(&["init"], 11, "E_LOCKED", "--password-file");
    assert!(!a.home().join("key.saks").exists());
    a.run(&["init", "--password-file", "password"]).exits(0);
    named(
        &["init", "--password-file", "password"],
        2,
        "E_USAGE",
        "--yes",
    );
    world.register(&a);
    named(&["sync", "--once"], 11, "E_LOCKED", "--password-file");
    named(
        &["export-key", "--password-file", "password"],
        11,
        "E_LOCKED",
        "--export-password-file",
    );
    named(&["import-key"], 2, "E_USAGE", "export-key");
    named(
        &["change-password", "--password-file", "password"],
        11,
        "E_LOCKED",
        "--new-password-file",
    );
    named(&["recovery", "test"], 11, "E_LOCKED", "--code-file");
    named(&["unlock"], 11, "E_LOCKED", "--password-file");
    named(&["reset"], 2, "E_USAGE", "--yes");
}

#[test]
fn a_wrong_password_is_exit_11() {
    let world = World::new();
    let a = world.first("a");
    a.run(&["sync", "--once", "--password-file", "wrong-password"])
        .exits(11)
        .says("E_KEYSLOT");
    fs::write(a.home().join("key.saks"), "damaged").unwrap();
    a.run(&["sync", "--once", "--password-file", "password"])
        .exits(11)
        .says("E_KEYSLOT");
    let b = world.machine("b");
    fs::write(world.path("short"), "elevenchars\n").unwrap();
    b.run(&["init", "--password-file", "short"])
        .exits(11)
        .says("E_KEYSLOT");
    assert!(!b.home().join("key.saks").exists());
}

#[test]
fn a_server_that_is_away_is_exit_5_and_comes_back() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    let address = world.address();
    assert_eq!(world.stop_server(), 0);
    a.sync_once().exits(5).says("E_OFFLINE");
    world.start_server(&address);
    a.sync_once().exits(0);
    // Two on one directory.
    let second =
        run(command(world.dir()).args(["server", "--data", "server", "--listen", "127.0.0.1:0"]));
    assert_eq!(second.exits(5).says("E_BUSY").stdout, "");
}

#[test]
fn tokens_and_invitations_are_exit_12() {
    let world = World::new();
    let a = world.first("a");
    a.sync_once().exits(0);
    let b = world.machine("b");
    let used = world.invite();
    let register = |machine: &crate::world::Machine, name: &str, token: &str| {
        machine.run(&[
            "register", "--server", &world.url, "--token", token, "--name", name, "--folder", name,
        ])
    };
    register(&b, "bee", &used).exits(0);
    // The same machine may come again: the answer may have been lost.
    register(&b, "bee", &used).exits(0);
    register(&world.machine("c"), "sea", &used)
        .exits(12)
        .says("E_AUTH");
    register(&world.machine("c"), "sea", "sa1-nonsense")
        .exits(12)
        .says("E_AUTH");
    register(&world.machine("c"), "c", &world.invite())
        .exits(2)
        .says("E_USAGE");
    register(&world.machine("c"), "bee", &world.invite())
        .exits(5)
        .says("E_CONFLICT");
    // Removed.
    let b = world.next("b2", &a);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    a.run(&["machines", "remove", "nobody-here", "--yes"])
        .exits(3)
        .says("E_NOT_FOUND");
    a.run(&["machines", "remove", "b2-machine"])
        .exits(2)
        .says("E_USAGE");
    a.run(&[
        "machines",
        "remove",
        "b2-machine",
        "--yes",
        "--password-file",
        "password",
    ])
    .exits(0);
    b.sync_once().exits(12).says("E_REVOKED");
}

#[test]
fn a_folder_that_is_gone_holds_everything() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    fs::rename(&a.folder, world.path("elsewhere")).unwrap();
    a.sync_once().exits(13).says("E_ROOT");
    fs::create_dir(&a.folder).unwrap();
    a.sync_once().exits(13).says("E_ROOT");
    let status = a.run(&["status", "--json"]).exits(13).json();
    assert_eq!(
        (&status["state"], &status["held"]["code"]),
        (&"held".into(), &"E_ROOT".into())
    );
    fs::remove_dir(&a.folder).unwrap();
    fs::rename(world.path("elsewhere"), &a.folder).unwrap();
    a.sync_once().exits(0);
    assert_eq!(a.read("x").as_deref(), Some("x"));
    assert_eq!(
        a.run(&["status", "--json"]).exits(0).json()["state"],
        "idle"
    );
}

#[test]
fn a_key_for_another_vault_is_exit_14() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let b = world.machine("b");
    b.run(&["init", "--password-file", "password"]).exits(0);
    let token = world.invite();
    b.run(&[
        "register", "--server", &world.url, "--token", &token, "--name", "bee", "--folder", "b",
    ])
    .exits(14)
    .says("E_VAULT");
}

#[test]
fn an_index_that_is_lost_costs_nothing() {
    let world = World::new();
    let a = world.first("a");
    a.write("docs/x", "x");
    a.write("y", "y");
    a.sync_once().exits(0);
    let before = a.status();
    a.run(&["reset", "--yes"]).exits(0);
    assert!(!a.home().join("state.db").exists());
    let again = a
        .run(&["sync", "--once", "--password-file", "password", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (&again["bytes_sent"], &again["removed"], &again["conflicts"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(
        (a.names(), &a.status()["files"]),
        (vec!["docs".to_owned(), "y".to_owned()], &before["files"])
    );
}

#[test]
fn a_pass_with_nothing_to_do_waits_for_no_disk() {
    let world = World::new();
    let a = world.first("a");
    a.write("docs/x", "x");
    a.sync_once().exits(0);
    let index = || {
        let written =
            |name: &str| Some(fs::metadata(a.home().join(name)).ok()?.modified().unwrap());
        ["state.db", "state.db-wal"].map(written)
    };
    let before = index();
    a.sync_once().exits(0);
    // An index that is written is flushed, several times.
    assert_eq!(index(), before);
    // What is not flushed may be damaged after a power cut: then it is not known.
    let last = |status: &serde_json::Value| status["last_sync"].clone();
    assert!(!last(&a.status()).is_null());
    fs::write(a.home().join("last-status.json"), "{\"state\": \"id").unwrap();
    assert!(last(&a.status()).is_null());
    a.sync_once().exits(0);
    assert!(!last(&a.status()).is_null());
}

#[test]
fn a_folder_with_the_key_in_it_is_refused() {
    let world = World::new();
    let a = world.machine("a");
    let inside = a.home().parent().unwrap().to_str().unwrap().to_owned();
    let token = world.invite();
    a.run(&[
        "register", "--server", &world.url, "--token", &token, "--name", "anna", "--folder",
        &inside,
    ])
    .exits(2)
    .says("E_USAGE");
    let far = a.run(&[
        "register",
        "--server",
        "http://192.0.2.1",
        "--token",
        &token,
        "--name",
        "anna",
        "--folder",
        "a",
    ]);
    assert!(far.exits(2).says("E_USAGE").stderr.contains("--insecure"));
}

#[test]
fn a_folder_that_goes_while_a_daemon_runs_is_named() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    let daemon = a.start_daemon();
    fs::rename(&a.folder, world.path("elsewhere")).unwrap();
    a.run(&["now"]).exits(0);
    let held = until("the daemon to miss its folder", || {
        let status = a.status();
        (status["state"] == "held").then(|| status["held"].clone())
    });
    assert_eq!(held["code"], "E_ROOT");
    let named = |text: &str| text.contains(&a.folder.display().to_string());
    assert!(named(held["message"].as_str().unwrap()), "{held}");
    let said = a.run(&["status"]).exits(13);
    assert!(named(&said.stdout), "{}", said.stdout);
    let why = a.run(&["explain", a.folder.join("x").to_str().unwrap()]);
    assert!(named(&why.exits(0).stdout));
    assert_eq!(daemon.terminate(), 0);
    let last = a.run(&["status"]).exits(13);
    assert!(named(&last.stdout), "{}", last.stdout);
}

#[test]
fn the_page_of_failures_has_codes_with_their_exits() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/failures.md");
    let text = fs::read_to_string(page).unwrap();
    let mut seen = 0;
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, situation, said, code, exit, tests, _] = cells[..] else {
            panic!("not five cells: {line}");
        };
        if matches!(situation, "situation" | "---") {
            continue;
        }
        seen += 1;
        assert!(!said.is_empty() && tests.contains("::"), "{line}");
        let code = code.trim_matches('`');
        let known = syncagent_protocol::Code::ALL
            .into_iter()
            .find(|known| known.to_string() == code);
        match code.is_empty() {
            true => assert_eq!(exit, "0", "{line}"),
            false => assert_eq!(known.unwrap().exit().to_string(), exit, "{line}"),
        }
    }
    assert!(seen > 40, "only {seen} rows were read");
}
