//! A yes is to what was held when it was said, and to nothing else.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::world::{Machine, World, until};

const FILES: usize = 150;

/// A machine with files in the vault, and another one that has them, too.
fn two(world: &World) -> (Machine, Machine) {
    let a = world.first("a");
    for i in 0..FILES {
        a.write(&name(i), &i.to_string());
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    (a, b)
}

fn name(i: usize) -> String {
    format!("many/{i}")
}

fn delete(machine: &Machine, files: impl IntoIterator<Item = usize>) {
    for i in files {
        fs::remove_file(machine.folder.join(name(i))).unwrap();
    }
}

fn is(machine: &Machine, state: &str) -> Option<Value> {
    let status = machine.status();
    (status["state"] == state).then_some(status)
}

fn held(machine: &Machine) -> Value {
    let status = until("what is held", || is(machine, "held"));
    assert_eq!(status["held"]["code"], "E_BRAKE", "{status}");
    status["held"].clone()
}

/// How many changes a yes was to.
fn yes(machine: &Machine) -> Value {
    machine.run(&["now", "--yes", "--json"]).exits(0).json()["agreed"].clone()
}

/// How many files the vault has, as another machine finds it.
fn in_the_vault(other: &Machine) -> usize {
    other.sync_once();
    let listed = other.run(&["ls", "-r", "--json"]).exits(0).json();
    let entries = listed["entries"].as_array().unwrap();
    entries
        .iter()
        .filter(|entry| entry["kind"] == "file")
        .count()
}

fn held_paths(held: &Value) -> BTreeSet<String> {
    let changes = held["changes"].as_array().unwrap();
    let paths = changes.iter().map(|change| {
        assert_eq!(
            (&change["change"], &change["side"]),
            (&"deleted".into(), &"vault".into())
        );
        change["path"].as_str().unwrap().to_owned()
    });
    paths.collect()
}

#[test]
fn a_yes_with_nothing_held_is_none_also_while_paused() {
    let world = World::new();
    let (a, b) = two(&world);
    let _daemon = a.start_daemon();
    assert_eq!(yes(&a), 0);
    let said = a.run(&["now", "--yes"]).exits(0);
    assert!(said.stdout.contains("waits for a yes"), "{}", said.stdout);
    a.run(&["pause"]).exits(0);
    assert_eq!(yes(&a), 0);
    delete(&a, 0..FILES);
    a.run(&["resume"]).exits(0);
    assert_eq!(held(&a)["total"], FILES);
    assert_eq!(in_the_vault(&b), FILES);
}

#[test]
fn a_yes_while_the_server_is_away_is_to_nothing_that_comes_later() {
    let mut world = World::new();
    let (a, b) = two(&world);
    let _daemon = a.start_daemon();
    let address = world.address();
    assert_eq!(world.stop_server(), 0);
    a.run(&["now"]).exits(0);
    until("the server to be missed", || is(&a, "offline"));
    assert_eq!(yes(&a), 0);
    delete(&a, 0..FILES);
    world.start_server(&address);
    a.run(&["now"]).exits(0);
    assert_eq!(held(&a)["total"], FILES);
    assert_eq!(in_the_vault(&b), FILES);
}

#[test]
fn a_list_that_grew_since_it_was_shown_holds_again() {
    let world = World::new();
    let (a, b) = two(&world);
    let _daemon = a.start_daemon();
    a.run(&["pause"]).exits(0);
    delete(&a, 0..120);
    a.run(&["resume"]).exits(0);
    let shown = held(&a);
    assert_eq!(held_paths(&shown), (0..120).map(name).collect());
    let words = a.run(&["status"]).exits(13).stdout;
    assert!(
        words.contains("120 of 150")
            && words.contains("status --held")
            && !words.contains("150 in sync"),
        "{words}"
    );
    let all = a.run(&["status", "--held"]).exits(13).stdout;
    for i in 0..120 {
        assert!(
            all.lines().any(|line| line.ends_with(&name(i))),
            "{i}: {all}"
        );
    }

    // While it is paused, what was held still is, and more goes.
    a.run(&["pause"]).exits(0);
    assert_eq!(a.status()["held"], shown);
    delete(&a, 120..140);
    assert_eq!(yes(&a), 120);
    a.run(&["resume"]).exits(0);
    let again = until("the longer list", || {
        let held = is(&a, "held")?["held"].clone();
        (held["total"] == 140).then_some(held)
    });
    assert_eq!(held_paths(&again), (0..140).map(name).collect());
    assert_eq!(in_the_vault(&b), FILES);

    // What was agreed to may go, also when some of it came back meanwhile.
    a.run(&["pause"]).exits(0);
    assert_eq!(yes(&a), 140);
    for i in 0..10 {
        a.write(&name(i), &i.to_string());
    }
    a.run(&["resume"]).exits(0);
    until("the deletions to be sent", || is(&a, "idle"));
    let left = a.run(&["ls", "-r", "--json"]).exits(0).json();
    let files = left["entries"].as_array().unwrap().iter();
    assert_eq!(files.filter(|entry| entry["kind"] == "file").count(), 20);
    // A yes is used up.
    a.write("more", "more");
    for i in 0..FILES {
        a.write(&name(i), "again");
    }
    until("the new files to be sent", || {
        (is(&a, "idle")?["files"] == FILES + 1).then_some(())
    });
    delete(&a, 0..140);
    until("the whole list", || {
        (is(&a, "held")?["held"]["total"] == 140).then_some(())
    });
}

#[test]
fn a_pass_with_a_yes_takes_it_for_itself_alone() {
    let world = World::new();
    let (a, b) = two(&world);
    let with_yes = ["sync", "--once", "--yes", "--password-file", "password"];
    a.run(&with_yes).exits(0);
    delete(&a, 0..FILES);
    a.sync_once().exits(13).says("E_BRAKE");
    // Nothing runs, and the list is there all the same.
    let status = a.run(&["status", "--json"]).exits(13).json();
    assert_eq!(held_paths(&status["held"]), (0..FILES).map(name).collect());
    assert_eq!(in_the_vault(&b), FILES);
    let foreseen = a.foresee().exits(13).json();
    assert_eq!(foreseen["held"], status["held"]);
    a.run(&with_yes).exits(0);
    assert_eq!(
        a.run(&["status", "--held"]).exits(0).stdout,
        "nothing waits for a yes\n"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn what_waits_for_a_yes_is_said_also_while_a_pass_looks_again() {
    let world = World::new();
    let (a, _b) = two(&world);
    let _daemon = a.start_daemon();
    delete(&a, 0..FILES);
    let all = until("the whole list", || {
        let held = is(&a, "held")?["held"].clone();
        (held["total"] == FILES).then_some(held)
    });
    world.hold_server();
    a.run(&["now"]).exits(0);
    let status = until("another look", || is(&a, "syncing"));
    assert_eq!(status["held"], all);
    let listed = a.run(&["status", "--held"]).exits(13).stdout;
    assert_eq!(listed.lines().count(), FILES);
    world.release_server();
    assert_eq!(held(&a), all);
}
