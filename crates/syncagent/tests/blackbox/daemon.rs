//! `sync` as it runs all day, and what it is told meanwhile.

use std::io::BufRead as _;
use std::process::Stdio;

use serde_json::Value;

use crate::world::{Running, World, until};

#[test]
fn two_machines_follow_each_other_live() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let (da, db) = (a.start_daemon(), b.start_daemon());
    a.write("docs/one", "1");
    until("a file on b", || {
        (b.read("docs/one").as_deref() == Some("1")).then_some(())
    });
    b.write("docs/one", "2");
    until("an edit on a", || {
        (a.read("docs/one").as_deref() == Some("2")).then_some(())
    });
    std::fs::remove_file(a.folder.join("docs/one")).unwrap();
    until("a deletion on b", || {
        b.read("docs/one").is_none().then_some(())
    });
    // Back through the daemon, which has the key: no password is needed.
    until("the trash on a", || {
        let trash = a.run(&["trash", "list", "--json"]).exits(0).json();
        (trash["trash"][0]["path"] == "docs/one").then_some(())
    });
    a.run(&["trash", "restore", "docs/one"]).exits(0);
    until("it back on b", || {
        (b.read("docs/one").as_deref() == Some("2")).then_some(())
    });
    // One process on one home.
    a.sync_once().exits(5).says("E_BUSY");
    assert_eq!((da.terminate(), db.terminate()), (0, 0));
    assert_eq!(a.status()["running"], false);
}

#[test]
fn a_pause_is_a_pause() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let _daemons = (a.start_daemon(), b.start_daemon());
    a.run(&["pause"]).exits(0);
    assert_eq!(a.status()["state"], "paused");
    b.write("x", "x");
    until("b's file in the vault", || {
        (b.status()["files"] == 1).then_some(())
    });
    assert_eq!(
        (a.read("x"), &a.status()["state"]),
        (None, &"paused".into())
    );
    a.run(&["resume"]).exits(0);
    until("the file after the pause", || a.read("x"));
    a.run(&["now"]).exits(0);
}

#[test]
fn status_can_be_watched_as_json_lines() {
    let world = World::new();
    let a = world.first("a");
    a.run(&["status", "--watch"]).exits(3).says("E_NOT_FOUND");
    let daemon = a.start_daemon();
    let mut watcher = Running::start(
        a.command(&["status", "--watch", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut lines = watcher
        .take_stdout()
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["running"], true);
    a.write("x", "x");
    assert!(
        lines
            .by_ref()
            .any(|status| status["state"] == "idle" && status["files"] == 1)
    );
    daemon.terminate();
    assert!(
        lines
            .last()
            .is_some_and(|status| status["running"] == false)
    );
    assert_eq!(until("the watcher to end", || watcher.has_ended()), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn in_sync_is_said_only_while_nothing_is_left_to_do_or_to_decide() {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::world::{Machine, run, without_privileges};

    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    let once = |machine: &Machine, exit: i32, flags: &[&str]| {
        let password = ["sync", "--once", "--password-file", "password"];
        let command = machine.command(&[&password[..], flags].concat());
        run(&mut without_privileges(&command)).exits(exit)
    };
    let in_sync = |exit: i32| once(&a, exit, &["--json"]).json()["status"]["in_sync"].clone();
    assert_eq!(a.status()["in_sync"], false, "never synchronised");
    a.write("plan", "one");
    assert_eq!(in_sync(0), true);
    assert_eq!(once(&a, 0, &[]).stdout, "in sync\n");
    assert_eq!(a.status()["in_sync"], false, "nothing runs");

    // What fails.
    a.write("closed", "no");
    let closed = a.folder.join("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(in_sync(1), false);
    assert_eq!(once(&a, 1, &[]).stdout, "1 file failed\n");
    // What is left alone.
    std::fs::remove_file(&closed).unwrap();
    let pipe = a.folder.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    assert_eq!(in_sync(0), false);
    assert_eq!(once(&a, 0, &[]).stdout, "1 thing left alone\n");
    std::fs::remove_file(&pipe).unwrap();
    assert_eq!(in_sync(0), true);

    // What is on its way, or told to wait.
    let daemon = a.start_daemon();
    assert_eq!(a.status()["in_sync"], true);
    world.hold_server();
    a.write("plan", "two");
    until("the edit to be heard of", || {
        (a.status()["state"] == "syncing").then_some(())
    });
    assert_eq!(a.status()["in_sync"], false);
    world.release_server();
    until("the edit to be sent", || {
        (a.status()["in_sync"] == true).then_some(())
    });
    a.run(&["pause"]).exits(0);
    assert_eq!(a.status()["in_sync"], false);
    a.run(&["resume"]).exits(0);
    until("the pause to end", || {
        (a.status()["in_sync"] == true).then_some(())
    });

    // What nobody has decided.
    b.write("plan", "of b");
    b.sync_once().exits(10);
    until("the conflict to be heard of", || {
        (a.status()["state"] == "conflict").then_some(())
    });
    assert_eq!(a.status()["in_sync"], false);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(once(&a, 0, &[]).stdout, "1 earlier conflict to resolve\n");
}

#[test]
fn a_daemon_outlives_its_server() {
    let mut world = World::new();
    let a = world.first("a");
    let _daemon = a.start_daemon();
    let address = world.address();
    world.stop_server();
    a.write("x", "x");
    a.run(&["now"]).exits(0);
    until("offline", || {
        (a.status()["state"] == "offline").then_some(())
    });
    world.start_server(&address);
    until("the file to be sent", || {
        (a.status()["state"] == "idle" && a.status()["files"] == 1).then_some(())
    });
}
