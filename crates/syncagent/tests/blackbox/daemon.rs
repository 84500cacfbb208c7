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
