//! What the system will not watch: it costs only what it concerns, is told, and is tried again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::world::{Machine, Running, World, until};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Two machines of a plain user that have this file in each of these directories.
fn two(world: &mut World, directories: &[&str]) -> [Machine; 2] {
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    for directory in directories {
        a.write(&format!("{directory}/first"), "1");
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    [a, b]
}

/// `sync`, with this time from one look at everything to the next.
fn daemon(world: &World, machine: &Machine, full_scan_s: u32) -> Running {
    let log = fs::File::create(world.path("daemon.log")).unwrap();
    let daemon = Running::start(
        machine
            .command(&["sync", "--password-file", "password"])
            .env("SYNCAGENT_FULL_SCAN_S", full_scan_s.to_string())
            .stdout(Stdio::null())
            .stderr(log),
    );
    until("the first pass", || {
        let status = machine.status();
        (status["running"] == true
            && status["state"] != "syncing"
            && !status["last_sync"].is_null())
        .then_some(())
    });
    daemon
}

#[track_caller]
fn arrives(from: &Machine, to: &Machine, path: &str) {
    from.write(path, path);
    until(&format!("{path} to arrive"), || {
        to.sync_once().exits(0);
        (to.read(path).as_deref() == Some(path)).then_some(())
    });
}

fn unwatched(machine: &Machine) -> Vec<String> {
    let status = machine.status();
    let paths = status["unwatched"]["paths"].as_array();
    let paths = paths.into_iter().flatten();
    paths
        .map(|path| path.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_directory_that_cannot_be_watched_costs_only_itself() {
    let mut world = World::with_mounts();
    let directories = ["a", "closed/below", "m/n", "z"];
    let [a, b] = two(&mut world, &directories);
    chmod(&a.folder.join("closed"), 0);
    // Nothing arrives here by the look at everything.
    let running = daemon(&world, &a, 3600);
    for path in ["a/live", "m/n/live", "z/live", "new/live", "live"] {
        arrives(&a, &b, path);
    }
    assert_eq!(unwatched(&a), ["closed"]);
    let said = a.run(&["status"]).exits(1).stdout;
    assert!(said.contains("  unwatched  closed: "), "{said}");

    // What comes while it runs.
    for directory in ["closed", "open"] {
        fs::create_dir_all(world.path("tree").join(directory)).unwrap();
    }
    chmod(&world.path("tree/closed"), 0);
    fs::rename(world.path("tree"), a.own_folder.join("tree")).unwrap();
    until("what came to be told", || {
        (unwatched(&a) == ["closed", "tree/closed"]).then_some(())
    });
    arrives(&a, &b, "tree/open/live");

    // It is watched as soon as it can be.
    for path in ["tree/closed", "closed"] {
        chmod(&a.folder.join(path), 0o700);
    }
    until("everything to be watched", || {
        let status = a.status();
        (status["unwatched"].is_null() && status["state"] == "idle").then_some(())
    });
    for path in ["tree/closed/live", "closed/below/live"] {
        arrives(&a, &b, path);
    }
    // Left alone by a rule, it is nobody's concern.
    a.write(".syncignore", "closed\n");
    arrives(&a, &b, "after the rule");
    chmod(&a.folder.join("closed"), 0);
    arrives(&a, &b, "after that");
    assert_eq!(a.status()["unwatched"], Value::Null);
    chmod(&a.folder.join("closed"), 0o700);
    assert_eq!(running.terminate(), 0);
}

#[test]
fn a_limit_on_watches_is_told_with_the_command_that_lifts_it() {
    let mut world = World::with_mounts();
    let directories = ["d0", "d1", "d2", "d3", "d4", "d5"];
    let [a, b] = two(&mut world, &directories);
    for (limit, few, setting) in [
        ("max_inotify_watches", 3, "max_user_watches"),
        ("max_inotify_instances", 0, "max_user_instances"),
    ] {
        let before = world.mounts().limit(limit, few);
        let running = daemon(&world, &a, 10);
        let status = a.run(&["status", "--json"]).exits(0).json();
        assert!(
            !status["unwatched"].is_null(),
            "idle, without what is not watched: {status}"
        );
        // In sync, as far as it was looked at: and with the rest said beside it.
        assert_eq!(
            (&status["state"], &status["errors"], &status["in_sync"]),
            (&json!("idle"), &json!([]), &json!(false))
        );
        let said = &status["unwatched"]["message"].to_string();
        assert!(
            said.contains(&format!("`sudo sysctl fs.inotify.{setting}=")),
            "{said}"
        );
        assert!(said.contains("regular scan"), "{said}");
        let paths = unwatched(&a);
        match few {
            0 => assert_eq!(paths, [""]),
            _ => assert!(paths.len() >= 4 && paths.iter().all(|path| path.starts_with('d'))),
        }
        assert_eq!(status["unwatched"]["more"], 0);
        let text = a.run(&["status"]).exits(0).stdout;
        assert_eq!(
            text.lines().next(),
            Some("idle, but not everything is watched")
        );
        let files = text.lines().find(|line| line.starts_with("  files "));
        assert!(files.unwrap().contains("were in sync when"), "{text}");
        let row = text
            .lines()
            .find(|line| line.starts_with("  unwatched "))
            .unwrap();
        let shown = paths.last().filter(|path| !path.is_empty());
        assert!(
            row.contains(shown.map_or("the whole folder", String::as_str)),
            "{row}"
        );
        assert!(row.contains("sudo sysctl fs.inotify."), "{row}");
        let log = fs::read_to_string(world.path("daemon.log")).unwrap();
        let line = log.lines().find(|line| line.starts_with("idle")).unwrap();
        assert!(line.contains("not everything is watched"), "{line}");

        let last = paths.last().filter(|path| !path.is_empty());
        let last = last.map_or("d5", String::as_str);
        let explained = a.run(&["explain", last, "--json"]).exits(0).json();
        assert_eq!(explained["state"], "in-sync");
        let todo = explained["todo"].as_str().unwrap_or_default();
        assert!(todo.contains("sudo sysctl fs.inotify."), "{explained}");

        // Changes are found all the same.
        arrives(&a, &b, &format!("{last}/{limit}"));

        // The command helps, without a new start.
        world.mounts().limit(limit, before);
        until("everything to be watched", || {
            a.status()["unwatched"].is_null().then_some(())
        });
        until("nothing but that it is in sync", || {
            let text = a.run(&["status"]).exits(0).stdout;
            (text.lines().next() == Some("idle")).then_some(())
        });
        assert_eq!(a.status()["in_sync"], true);
        assert_eq!(running.terminate(), 0);
    }
    // Where nothing runs, nothing is watched, and that is what is said.
    world.mounts().limit("max_inotify_instances", 0);
    let running = daemon(&world, &a, 10);
    assert_eq!(unwatched(&a), [""]);
    assert_eq!(running.terminate(), 0);
    assert_eq!(a.status()["unwatched"], Value::Null);
    let text = a.run(&["status"]).exits(0).stdout;
    assert!(text.starts_with("idle (nothing is running"), "{text}");
}
