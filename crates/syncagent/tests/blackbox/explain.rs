//! `explain`: every state is shown by the real binary.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::world::{Machine, Run, World, run, until, without_privileges};

/// What was shown of a path, as a user without special rights sees it.
fn asked(machine: &Machine, path: &str) -> Run {
    let command = machine.command(&["explain", path, "--json"]);
    run(&mut without_privileges(&command))
}

/// Sees that it is said in the same words without JSON, and notes the state.
#[track_caller]
fn explain(machine: &Machine, path: &str, seen: &mut BTreeSet<String>) -> Value {
    let answer = asked(machine, path).exits(0).json();
    for name in ["path", "state", "why", "todo"] {
        assert!(answer.get(name).is_some(), "{answer}");
    }
    assert!(
        answer["why"].as_str().is_some_and(|why| !why.is_empty()),
        "{answer}"
    );
    let state = answer["state"].as_str().unwrap();
    // There is something to do, or to wait for, in every state but two.
    let nothing = ["in-sync", "being-written"].contains(&state);
    let todo = answer["todo"].as_str().unwrap_or_default();
    assert_eq!(todo.is_empty(), nothing, "{answer}");
    seen.insert(state.to_owned());
    answer
}

/// Writes a file that nobody is writing any more.
fn settled(machine: &Machine, path: &str, text: &str) {
    machine.write(path, text);
    let file = fs::File::options()
        .write(true)
        .open(machine.folder.join(path))
        .unwrap();
    let then = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(then).unwrap();
}

fn once(machine: &Machine) -> Run {
    let command = machine.command(&["sync", "--once", "--password-file", "password"]);
    run(&mut without_privileges(&command))
}

/// The states of the table in docs/cli.md.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../../docs/cli.md");
    let table = page.split("## What `explain` says").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_state_is_shown_with_what_to_do() {
    let mut seen = BTreeSet::new();
    on_this_disk(&mut seen);
    between_two_machines(&mut seen);
    beside_a_daemon(&mut seen);
    held_and_halted(&mut seen);
    told_by_the_last_pass(&mut seen);
    another_file_system(&mut seen);
    a_directory_that_cannot_be_listed(&mut seen);
    assert_eq!(seen, documented());
}

fn on_this_disk(seen: &mut BTreeSet<String>) {
    let world = World::new();
    let a = world.first("a");
    a.run(&["explain", "x"]).exits(3).says("E_SETUP");
    for path in [
        "synced",
        "dir/one",
        "dir/two",
        "closed",
        "gone",
        "-it's gone",
    ] {
        settled(&a, path, path);
    }
    a.write(".syncignore", "# rubbish\n*.tmp\n");
    a.write("dir/junk.tmp", "junk");
    let fifo = Command::new("mkfifo").arg(a.folder.join("pipe")).status();
    assert!(fifo.unwrap().success());
    a.sync_once().exits(0);
    fs::remove_file(a.folder.join("gone")).unwrap();
    fs::remove_file(a.folder.join("-it's gone")).unwrap();
    a.sync_once().exits(0);

    let mut state = |path: &str, wanted: &str| {
        let answer = explain(&a, path, seen);
        assert_eq!(answer["state"], wanted, "{answer}");
        answer
    };
    assert_eq!(state("synced", "in-sync")["todo"], Value::Null);
    assert_eq!(state("dir", "in-sync")["waiting"], 0);
    state(".", "in-sync");
    state(".syncagent/root", "own");
    state("pipe", "special");
    let ignored = state("dir/junk.tmp", "ignored");
    assert_eq!(
        (&ignored["rule"], &ignored["source"], &ignored["line"]),
        (&"*.tmp".into(), &".syncignore".into(), &2.into())
    );
    // A rule holds for what is not there, too.
    state("later.tmp", "ignored");
    let trash = state("gone", "trash");
    assert!(
        trash["todo"]
            .as_str()
            .unwrap()
            .contains("syncagent trash restore gone")
    );
    // As a shell takes it.
    let odd = a.folder.join("-it's gone").to_string_lossy().into_owned();
    let todo = state(&odd, "trash")["todo"].as_str().unwrap().to_owned();
    assert!(
        todo.contains(r"`syncagent trash restore -- '-it'\''s gone'`"),
        "{todo}"
    );
    settled(&a, "synced", "changed");
    settled(&a, "new", "new");
    for path in ["synced", "new"] {
        let answer = state(path, "to-send");
        assert!(
            answer["todo"].as_str().unwrap().contains("syncagent sync"),
            "{answer}"
        );
    }
    fs::remove_file(a.folder.join("dir/one")).unwrap();
    state("dir/one", "to-delete");
    settled(&a, "dir/three", "3");
    assert_eq!(state("dir", "waiting")["waiting"], 2);
    // Nobody waits for a file to hold still where nothing runs.
    a.write("busy", "more and more");
    let busy = state("busy", "to-send");
    assert!(
        busy["todo"].as_str().unwrap().contains("syncagent sync"),
        "{busy}"
    );
    fs::set_permissions(a.folder.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    state("closed", "unreadable");
    // Whole paths are understood, and what nobody knows is not found.
    let whole = a.folder.join("synced").to_string_lossy().into_owned();
    state(&whole, "to-send");
    let unknown = asked(&a, "nobody").exits(3).says("E_NOT_FOUND");
    assert_eq!(unknown.json()["error"]["exit"], 3);
    asked(&a, "/etc/passwd").exits(2).says("E_USAGE");
    // For people: the path and its state, why, what to do.
    let said = a.run(&["explain", "new"]).exits(0).stdout;
    assert_eq!(
        said,
        "new: waits to be sent\n  It is new here, and the vault does not have it yet.\n  Nothing is running: `syncagent sync` goes on.\n"
    );
}

#[test]
fn a_bit_a_time_and_a_new_name_are_no_longer_in_sync_and_are_called_what_they_are() {
    let world = World::new();
    let a = world.first("a");
    let (old, far) = ("old name", "dir/far");
    for path in ["bit", "time", "same", old, far, "full/inside", "gone"] {
        settled(&a, path, path);
    }
    a.sync_once().exits(0);
    let mut seen = BTreeSet::new();
    let mut says = |path: &str, state: &str, part: &str| {
        let answer = explain(&a, path, &mut seen);
        let why = answer["why"].as_str().unwrap();
        assert!(answer["state"] == state && why.contains(part), "{answer}");
        answer["todo"].as_str().unwrap_or_default().to_owned()
    };
    let bit = fs::Permissions::from_mode(0o755);
    fs::set_permissions(a.folder.join("bit"), bit).unwrap();
    settled(&a, "time", "time");
    let time = fs::File::options().write(true).open(a.folder.join("time"));
    let other = SystemTime::now() - Duration::from_secs(7200);
    time.unwrap().set_modified(other).unwrap();
    // What a pass would send is in sync for nobody.
    let would = a.foresee().exits(0).json();
    let steps = would["vault"].as_array().unwrap().iter();
    let sent: BTreeSet<&str> = steps.map(|step| step["path"].as_str().unwrap()).collect();
    assert_eq!(sent, ["bit", "time"].into());
    says("bit", "to-send", "executed");
    says("time", "to-send", "time");
    says("same", "in-sync", "the same");
    assert_eq!(explain(&a, ".", &mut BTreeSet::new())["waiting"], 2);

    // A new name is neither a deletion nor a new file.
    fs::rename(a.folder.join(old), a.folder.join("new name")).unwrap();
    fs::rename(a.folder.join(far), a.folder.join("near")).unwrap();
    fs::rename(a.folder.join("full"), a.folder.join("renamed")).unwrap();
    fs::remove_file(a.folder.join("gone")).unwrap();
    for (from, to) in [
        (old, "renamed to new name here"),
        (far, "moved to near here"),
        ("full", "renamed to renamed here"),
        ("full/inside", "moved to renamed/inside here"),
    ] {
        let todo = says(from, "to-delete", to);
        assert!(!todo.contains("trash"), "{todo}");
    }
    for (to, from) in [
        ("new name", "It was old name, "),
        ("near", "It was dir/far, "),
        ("renamed", "It was full, "),
        ("renamed/inside", "It was full/inside, "),
    ] {
        says(to, "to-send", from);
    }
    let todo = says("gone", "to-delete", "It was deleted here");
    assert!(todo.contains("It will be in the trash."), "{todo}");
    a.sync_once().exits(0);
    assert_eq!(explain(&a, ".", &mut BTreeSet::new())["state"], "in-sync");
}

#[test]
fn what_is_below_a_link_is_not_found_and_links_are_not_followed() {
    let world = World::new();
    let a = world.first("a");
    settled(&a, "dir/x", "x");
    std::os::unix::fs::symlink("dir", a.folder.join("lnk")).unwrap();
    a.sync_once().exits(0);
    let run = asked(&a, "lnk/x").exits(3).says("E_NOT_FOUND");
    run.names("lnk is a link");
    asked(&a, "dir/x/y").exits(3).says("E_NOT_FOUND");
    // What was a directory, and is a link now, is deleted with what was in it.
    fs::remove_dir_all(a.folder.join("dir")).unwrap();
    std::os::unix::fs::symlink("elsewhere", a.folder.join("dir")).unwrap();
    let answer = explain(&a, "dir/x", &mut BTreeSet::new());
    assert_eq!(answer["state"], "to-delete");
}

#[test]
fn a_name_that_is_no_text_is_known_by_its_bytes_and_as_it_is_shown() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let world = World::new();
    let a = world.first("a");
    let name = OsStr::from_bytes(b"odd\xff");
    settled(&a, "dir/file", "1");
    fs::write(a.folder.join("dir").join(name), "odd").unwrap();
    a.sync_once();
    let shown = explain(&a, r"dir/odd\xff", &mut BTreeSet::new());
    let mut command = a.command(&["explain", "--json"]);
    command.arg(a.folder.join("dir").join(name));
    let answer = run(&mut command).exits(0).json();
    let two = |answer: &Value| [answer["path"].clone(), answer["state"].clone()];
    assert_eq!(two(&answer), two(&shown));
    assert_eq!(answer["state"], "special");
    // What is not there is none.
    let mut command = a.command(&["explain", "--json"]);
    command.arg(a.folder.join(OsStr::from_bytes(b"nobody\xff")));
    run(&mut command).exits(2).says("E_USAGE");
}

#[test]
fn what_a_built_in_rule_leaves_out_is_said_without_a_file_that_nobody_finds() {
    let world = World::new();
    let a = world.first("a");
    a.write(".DS_Store", "rubbish");
    a.write("plan", "1");
    let fifo = Command::new("mkfifo").arg(a.folder.join("pipe")).status();
    assert!(fifo.unwrap().success());
    a.write(".syncignore", "pipe\n");
    a.sync_once().exits(0);
    let mut seen = BTreeSet::new();
    let built_in = explain(&a, ".DS_Store", &mut seen);
    let todo = built_in["todo"].as_str().unwrap();
    assert!(
        todo.contains("add the line !.DS_Store to .syncignore") && !todo.contains("built in"),
        "{built_in}"
    );
    // What it advises helps.
    a.write(".syncignore", "pipe\n!.DS_Store\n");
    assert_eq!(explain(&a, ".DS_Store", &mut seen)["state"], "to-send");
    let pipe = explain(&a, "pipe", &mut seen);
    assert!(
        !pipe["todo"].as_str().unwrap().contains("add a line"),
        "{pipe}"
    );
    a.write(".syncignore", "");
    let pipe = explain(&a, "pipe", &mut seen);
    assert!(
        !pipe["todo"].as_str().unwrap().contains(".syncignore"),
        "{pipe}"
    );
    a.sync_once().exits(0);
    let said = a.run(&["status"]).stdout;
    assert!(
        said.contains(".DS_Store: .DS_Store, a built-in rule"),
        "{said}"
    );
}

#[test]
fn every_copy_of_a_file_is_named_with_commands_that_work() {
    let world = World::new();
    let a = world.first("a");
    let [b, c] = ["b", "c"].map(|name| world.next(name, &a));
    for (machine, exit) in [(&a, 0), (&b, 10), (&c, 10)] {
        settled(machine, "my plan", &machine.folder.to_string_lossy());
        assert_eq!(machine.sync_once().exit, exit);
    }
    let listed = c.run(&["conflicts", "list", "--json"]).exits(0).json();
    let rows = listed["conflicts"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let answer = explain(&c, "my plan", &mut BTreeSet::new());
    assert_eq!(answer["state"], "conflict");
    for row in rows {
        let copy = row["copy_path"].as_str().unwrap();
        assert!(answer["why"].as_str().unwrap().contains(copy), "{answer}");
        let of_copy = explain(&c, copy, &mut BTreeSet::new());
        let todo = of_copy["todo"].as_str().unwrap();
        assert!(
            todo.contains(&format!("`syncagent conflicts diff '{copy}'`")),
            "{todo}"
        );
    }
    let todo = answer["todo"].as_str().unwrap();
    assert!(
        todo.contains("`syncagent conflicts diff 'my plan'`")
            && todo.contains("`syncagent conflicts resolve 'my plan'`"),
        "{todo}"
    );
}

fn a_directory_that_cannot_be_listed(seen: &mut BTreeSet<String>) {
    let world = World::new();
    let a = world.first("a");
    settled(&a, "above/shut/in it", "1");
    a.sync_once().exits(0);
    let shut = a.folder.join("above/shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    // Before a pass has come by, and after it.
    for code in [0, 1] {
        let answer = explain(&a, "above/shut", seen);
        assert_eq!(answer["state"], "unreadable", "{code}: {answer}");
        assert!(answer["todo"].is_string(), "{code}: {answer}");
        for above in ["above", "."] {
            let answer = explain(&a, above, seen);
            assert_eq!(answer["state"], "waiting", "{code}: {answer}");
            assert_eq!(answer["waiting"], 1, "{code}: {answer}");
        }
        once(&a).exits(1);
    }
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    a.sync_once().exits(0);
    assert_eq!(explain(&a, "above", seen)["state"], "in-sync");
}

fn between_two_machines(seen: &mut BTreeSet<String>) {
    let mut world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.write("dir/plan", "one");
    a.sync_once().exits(0);
    once(&b).exits(0);
    a.write("dir/plan", "from a");
    b.write("dir/plan", "from b");
    a.sync_once().exits(0);
    once(&b).exits(10);
    let conflicts = b.run(&["conflicts", "list", "--json"]).json();
    let copy = conflicts["conflicts"][0]["copy_path"].as_str().unwrap();
    assert_eq!(explain(&b, copy, seen)["state"], "conflict-copy");
    let original = explain(&b, "dir/plan", seen);
    assert_eq!(original["state"], "conflict");
    assert!(
        original["why"].as_str().unwrap().contains(copy),
        "{original}"
    );

    // Resolved in the vault, while the folder rests.
    let daemon = b.start_daemon_that_rests("conflict");
    b.run(&["pause"]).exits(0);
    b.run(&["conflicts", "resolve", copy, "--keep", "theirs"])
        .exits(0);
    assert_eq!(explain(&b, copy, seen)["state"], "to-remove");
    b.run(&["resume"]).exits(0);
    until("the copy to go", || b.read(copy).is_none().then_some(()));
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(explain(&b, copy, seen)["state"], "trash");

    // What came from elsewhere cannot be written, or not be put together.
    a.write("dir/fresh", "fresh");
    a.sync_once().exits(0);
    fs::set_permissions(b.folder.join("dir"), fs::Permissions::from_mode(0o500)).unwrap();
    once(&b).exits(1);
    let unwritable = explain(&b, "dir/fresh", seen);
    assert_eq!(
        (&unwritable["state"], &unwritable["code"]),
        (&"unwritable".into(), &"E_WRITE".into())
    );
    fs::set_permissions(b.folder.join("dir"), fs::Permissions::from_mode(0o700)).unwrap();
    once(&b).exits(0);
    let packs = || -> BTreeSet<std::path::PathBuf> {
        let mut found = BTreeSet::new();
        let mut dirs = vec![world.path("server/packs")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => {
                        found.insert(path);
                    }
                }
            }
        }
        found
    };
    let before = packs();
    a.write("long", &"no longer in the log itself\n".repeat(500));
    a.sync_once().exits(0);
    let hit: Vec<_> = packs().difference(&before).cloned().collect();
    let address = world.address();
    world.stop_server();
    for pack in hit {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    world.start_server(&address);
    once(&b).exits(1);
    let damaged = explain(&b, "long", seen);
    assert_eq!(
        (&damaged["state"], &damaged["code"]),
        (&"damaged".into(), &"E_CHUNK".into())
    );
}

#[test]
fn a_daemon_that_leaves_something_alone_says_so_before_anything_else() {
    let world = World::new();
    let a = world.first("a");
    a.write("plain", "1");
    let fifo = Command::new("mkfifo").arg(a.folder.join("pipe")).status();
    assert!(fifo.unwrap().success());
    let daemon = a.start_daemon();
    let said = a.run(&["status"]).exits(0).stdout;
    assert_eq!(said.lines().next(), Some("idle, but 1 thing is left alone"));
    let status = a.status();
    assert_eq!(
        (&status["state"], &status["in_sync"]),
        (&"idle".into(), &false.into())
    );
    assert!(said.contains("  left alone pipe: "), "{said}");
    fs::remove_file(a.folder.join("pipe")).unwrap();
    until("nothing to be left alone", || {
        let said = a.run(&["status"]).exits(0).stdout;
        (said.lines().next() == Some("idle")).then_some(())
    });
    assert_eq!(a.status()["in_sync"], true);
    assert_eq!(daemon.terminate(), 0);
}

fn beside_a_daemon(seen: &mut BTreeSet<String>) {
    let world = World::new();
    let a = world.first("a");
    settled(&a, "plan", "one");
    a.sync_once().exits(0);
    settled(&a, "plan", "two!");
    settled(&a, "other", "other");
    let daemon = a.start_daemon();
    assert_eq!(explain(&a, "plan", seen)["state"], "in-sync");
    let mut text = String::new();
    until("a file that is being written", || {
        text.push_str("more and more ");
        a.write("busy", &text);
        (explain(&a, "busy", seen)["state"] == "being-written").then_some(())
    });
    until("the daemon to rest", || {
        let rests = a.status()["state"] == "idle";
        (rests && explain(&a, "busy", seen)["state"] == "in-sync").then_some(())
    });
    a.run(&["pause"]).exits(0);
    a.write("busy", "while it rests");
    let waits = explain(&a, "busy", seen);
    assert_eq!(waits["state"], "to-send");
    assert!(
        waits["todo"].as_str().unwrap().contains("syncagent resume"),
        "{waits}"
    );
    // The vault goes on while the folder rests.
    let versions = a.run(&["versions", "plan", "--json"]).json();
    let first = versions["versions"][1]["version"].to_string();
    a.run(&["restore", "plan", "--version", &first]).exits(0);
    let waits = explain(&a, "plan", seen);
    assert_eq!(waits["state"], "to-receive");
    assert!(
        waits["todo"].as_str().unwrap().contains("syncagent resume"),
        "{waits}"
    );
    a.run(&["resume"]).exits(0);
    until("the restored version", || {
        (a.read("plan").as_deref() == Some("one")).then_some(())
    });
    until("the daemon to rest", || {
        (a.status()["state"] == "idle").then_some(())
    });
    assert_eq!(explain(&a, "plan", seen)["state"], "in-sync");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn what_waits_for_the_server_or_the_key_says_so_and_goes_on() {
    let mut world = World::new();
    let a = world.first("a");
    settled(&a, "plan", "one");
    settled(&a, "same", "same");
    let daemon = a.start_daemon();
    let address = world.address();
    let mut seen = BTreeSet::new();
    let reaches = |state: &str| {
        until(state, || (a.status()["state"] == state).then_some(()));
    };
    let mut waits = |todo: &str| {
        let waits = explain(&a, "plan", &mut seen);
        assert_eq!(
            (&waits["state"], &waits["todo"]),
            (&"to-send".into(), &todo.into())
        );
        // So does all that it is in, and nothing else does.
        let folder = explain(&a, ".", &mut seen);
        assert_eq!(
            (&folder["state"], &folder["todo"]),
            (&"waiting".into(), &todo.into())
        );
        assert_eq!(explain(&a, "same", &mut seen)["state"], "in-sync");
        let said = a.run(&["explain", "plan"]).exits(0).stdout;
        assert_eq!(
            said,
            format!(
                "plan: waits to be sent\n  It was changed here, and the vault does not have that yet.\n  {todo}\n"
            )
        );
    };

    world.stop_server();
    settled(&a, "plan", "while the server is away");
    reaches("offline");
    waits("The server cannot be reached; it goes on by itself once it can.");
    world.start_server(&address);
    reaches("idle");
    assert_eq!(
        explain(&a, "plan", &mut BTreeSet::new())["state"],
        "in-sync"
    );

    a.run(&["lock"]).exits(0);
    reaches("locked");
    settled(&a, "plan", "while the key is locked");
    waits("The key is locked: `syncagent unlock` goes on.");
    a.run(&["unlock", "--password-file", "password"]).exits(0);
    reaches("idle");
    until("what waited for the key", || {
        let state = &explain(&a, "plan", &mut BTreeSet::new())["state"];
        (state == "in-sync").then_some(())
    });
    assert_eq!(daemon.terminate(), 0);
}

fn held_and_halted(seen: &mut BTreeSet<String>) {
    let mut world = World::new();
    let a = world.first("a");
    for i in 0..120 {
        settled(&a, &format!("many/{i}"), &i.to_string());
    }
    a.sync_once().exits(0);
    let address = world.address();
    let dir = world.dir().to_owned();
    let copied = |from: &str, to: &str| {
        let copied = Command::new("cp")
            .arg("-r")
            .args([dir.join(from), dir.join(to)])
            .status();
        assert!(copied.unwrap().success());
    };
    // Very many files go: that waits, on both machines.
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    world.stop_server();
    copied("server", "earlier");
    world.start_server(&address);
    fs::remove_dir_all(a.folder.join("many")).unwrap();
    a.sync_once().exits(13);
    let held = explain(&a, "many/7", seen);
    assert_eq!(
        (&held["state"], &held["code"]),
        (&"brake".into(), &"E_BRAKE".into())
    );
    assert!(held["todo"].as_str().unwrap().contains("--yes"), "{held}");
    a.run(&["sync", "--once", "--yes", "--password-file", "password"])
        .exits(0);
    b.sync_once().exits(13);
    assert_eq!(explain(&b, "many/7", seen)["state"], "brake");

    // A server that was put back.
    world.stop_server();
    fs::remove_dir_all(world.path("server")).unwrap();
    copied("earlier", "server");
    world.start_server(&address);
    a.write("x", "x");
    a.sync_once().exits(14);
    let halted = explain(&a, "x", seen);
    assert_eq!(
        (&halted["state"], &halted["code"]),
        (&"halted".into(), &"E_ROLLBACK".into())
    );
    fs::rename(&b.folder, world.path("elsewhere")).unwrap();
    assert_eq!(explain(&b, "many/7", seen)["state"], "folder");
}

/// What only other systems or a hostile member bring about is told as the last pass told it.
fn told_by_the_last_pass(seen: &mut BTreeSet<String>) {
    let world = World::new();
    let a = world.first("a");
    a.sync_once().exits(0);
    let told = |skipped: Value, errors: Value| {
        let kept = a.home().join("last-status.json");
        let mut status: Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
        status["skipped"] = skipped;
        status["errors"] = errors;
        fs::write(&kept, serde_json::to_vec(&status).unwrap()).unwrap();
    };
    told(
        serde_json::json!([{"path": "aux", "reason": "unplaceable", "detail": "Windows takes the name for a device"}]),
        serde_json::json!([{"path": "evil", "code": "E_PATH", "message": "it cannot be placed safely"}]),
    );
    assert_eq!(explain(&a, "aux", seen)["state"], "unplaceable");
    assert_eq!(explain(&a, "evil", seen)["state"], "unplaced");
}

fn another_file_system(seen: &mut BTreeSet<String>) {
    let mut world = World::with_mounts();
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    fs::create_dir_all(a.folder.join("usb")).unwrap();
    a.sync_once().exits(0);
    world.mounts().disk(&a.own_folder.join("usb"), 1);
    let answer = a.run(&["explain", "usb", "--json"]).exits(0).json();
    assert_eq!(answer["state"], "mount", "{answer}");
    assert!(answer["todo"].as_str().is_some(), "{answer}");
    seen.insert("mount".to_owned());
}
