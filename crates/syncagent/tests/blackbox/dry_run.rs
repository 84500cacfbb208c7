//! `--dry-run`: says what would be done, does none of it, and is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use crate::world::{Machine, World};

/// Everything below a directory but what comes and goes with any look: locks, logs, SQLite's side files.
fn everything(root: &Path) -> BTreeMap<String, (Option<SystemTime>, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let passing = ["lock", "logs", "-wal", "-shm"];
            if passing.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                found.insert(name, (None, Vec::new()));
                dirs.push(path);
            } else {
                let content = fs::read(&path).unwrap_or_default();
                found.insert(name, (meta.modified().ok(), content));
            }
        }
    }
    found
}

/// What the server holds of the vault: the log's length, and its packs.
fn on_server(world: &World) -> (i64, usize) {
    let db = rusqlite::Connection::open(world.path("server/syncagent.db")).unwrap();
    let n = db
        .query_row("SELECT max(n) FROM commits", [], |row| row.get(0))
        .unwrap();
    (n, everything(&world.path("server/packs")).len())
}

/// Runs it and sees that folder, home and server stay as they are.
#[track_caller]
fn changes_nothing(world: &World, machine: &Machine, arguments: &[&str], exit: i32) -> Value {
    let before = (everything(&machine.folder), everything(machine.home()));
    let server = on_server(world);
    let mut all = arguments.to_vec();
    all.extend(["--dry-run", "--json"]);
    let run = machine.run(&all).exits(exit);
    assert!(run.stderr.contains("Nothing was changed"), "{}", run.stderr);
    assert_eq!(run.json()["dry_run"], true);
    assert_eq!(everything(&machine.folder), before.0, "the folder");
    assert!(everything(machine.home()) == before.1, "the home");
    assert_eq!(on_server(world), server, "the server");
    run.json()
}

fn steps(answer: &Value, side: &str) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let step = |step: &Value| match step["from"].as_str() {
        Some(from) => format!("{} {from} {}", text(&step["action"]), text(&step["path"])),
        None => format!("{} {}", text(&step["action"]), text(&step["path"])),
    };
    answer[side].as_array().unwrap().iter().map(step).collect()
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&text| text.to_owned()).collect()
}

const ONCE: [&str; 4] = ["sync", "--once", "--password-file", "password"];

#[test]
fn a_dry_pass_says_what_a_pass_then_does() {
    let world = World::new();
    let a = world.first("a");
    for name in ["edited", "deleted", "old-name", "gone-there", "both"] {
        a.write(&format!("dir/{name}"), name);
    }
    // Before the first pass there is no index, and the folder is nobody's yet.
    let first = a.run(&["sync", "--once", "--dry-run", "--password-file", "password"]);
    let first = first.exits(0);
    assert!(
        first.stdout.contains("add") && first.stdout.contains("dir/edited"),
        "{}",
        first.stdout
    );
    assert!(!a.home().join("state.db").exists() && !a.folder.join(".syncagent").exists());
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    b.write("dir/theirs", "theirs");
    b.write("dir/both", "from b");
    fs::remove_file(b.folder.join("dir/gone-there")).unwrap();
    b.sync_once().exits(0);

    a.write("new/file", "new");
    a.write("dir/edited", "edited again");
    a.write("dir/both", "from a");
    fs::remove_file(a.folder.join("dir/deleted")).unwrap();
    fs::rename(a.folder.join("dir/old-name"), a.folder.join("dir/new-name")).unwrap();
    let foreseen = changes_nothing(&world, &a, &ONCE, 10);
    let conflict = &foreseen["conflicts"][0];
    assert_eq!(conflict["path"], "dir/both");
    let copy = format!("add {}", conflict["copy"].as_str().unwrap());
    let of_copy = foreseen["vault"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["path"] == conflict["copy"]);
    assert_eq!(of_copy.unwrap()["size"], "from a".len());
    assert_eq!(
        steps(&foreseen, "vault"),
        set(&[
            "add new",
            "add new/file",
            "change dir/edited",
            "remove dir/deleted",
            "move dir/old-name dir/new-name",
            &copy,
        ])
    );
    assert_eq!(
        steps(&foreseen, "here"),
        set(&["add dir/theirs", "change dir/both", "remove dir/gone-there"])
    );
    assert_eq!(
        (&foreseen["held"], &foreseen["exit"]),
        (&Value::Null, &10.into())
    );

    let done = a
        .run(&["sync", "--once", "--password-file", "password", "--json"])
        .exits(10)
        .json();
    assert_eq!(
        (
            &done["sent"],
            &done["fetched"],
            &done["removed"],
            &done["conflicts"]
        ),
        (&3.into(), &2.into(), &1.into(), &1.into())
    );
    let after = changes_nothing(&world, &a, &ONCE, 0);
    assert_eq!(
        (steps(&after, "here"), steps(&after, "vault")),
        (set(&[]), set(&[]))
    );
}

#[test]
fn a_dry_pass_looks_beside_a_daemon_and_shows_what_waits() {
    let world = World::new();
    let a = world.first("a");
    for i in 0..120 {
        a.write(&format!("many/{i}"), &i.to_string());
    }
    let daemon = a.start_daemon();
    a.run(&["pause"]).exits(0);
    fs::remove_dir_all(a.folder.join("many")).unwrap();
    let foreseen = a.foresee().exits(13).json();
    assert_eq!(foreseen["held"]["code"], "E_BRAKE");
    assert!(steps(&foreseen, "vault").contains("remove many/7"));
    assert_eq!(daemon.terminate(), 0);
    // A folder that is away is an error here, too.
    fs::rename(&a.folder, world.path("elsewhere")).unwrap();
    a.run(&["sync", "--once", "--dry-run", "--password-file", "password"])
        .exits(13)
        .says("E_ROOT");
    a.run(&["sync", "--dry-run"]).exits(2);
}

#[test]
fn restores_removals_and_resets_can_be_looked_at_first() {
    let world = World::new();
    let a = world.first("a");
    let b = world.next("b", &a);
    a.write("docs/plan", "one");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    a.write("docs/plan", "two!");
    a.sync_once().exits(0);
    let versions = a.run(&["versions", "docs/plan", "--json"]).json();
    let first = versions["versions"][1]["version"].to_string();
    let restore = [
        "restore",
        "docs/plan",
        "--version",
        &first,
        "--password-file",
        "password",
    ];
    let foreseen = changes_nothing(&world, &a, &restore, 0);
    assert_eq!(
        foreseen["restores"],
        serde_json::json!({"path": "docs/plan", "version": versions["versions"][1]["version"], "directories": [], "replaces": []})
    );

    fs::remove_dir_all(a.folder.join("docs")).unwrap();
    a.sync_once().exits(0);
    let trash = [
        "trash",
        "restore",
        "docs/plan",
        "--password-file",
        "password",
    ];
    let foreseen = changes_nothing(&world, &a, &trash, 0);
    assert_eq!(
        foreseen["restores"]["directories"],
        serde_json::json!(["docs"])
    );
    a.write("docs/plan", "another");
    a.sync_once().exits(0);
    a.run(&[&trash[..], &["--dry-run"]].concat())
        .exits(5)
        .says("E_CONFLICT");
    let foreseen = changes_nothing(&world, &a, &[&trash[..], &["--replace"]].concat(), 0);
    assert_eq!(
        foreseen["restores"]["replaces"],
        serde_json::json!(["docs/plan"])
    );

    let removal = changes_nothing(&world, &a, &["machines", "remove", "b-machine"], 0);
    assert_eq!(removal["removes"]["name"], "b-machine");
    b.sync_once().exits(0);
    let reset = changes_nothing(&world, &a, &["reset", "--new-machine"], 0);
    assert!(reset["forgets"].as_str().unwrap().ends_with("state.db"));
    a.sync_once().exits(0);
}

#[test]
fn a_dry_pass_with_a_yes_is_that_of_a_pass_with_a_yes() {
    let world = World::new();
    let a = world.first("a");
    for i in 0..20 {
        a.write(&format!("many/{i}"), "x");
    }
    a.sync_once().exits(0);
    fs::remove_dir_all(a.folder.join("many")).unwrap();
    let held = changes_nothing(&world, &a, &ONCE, 13);
    assert_eq!(held["held"]["code"], "E_BRAKE");
    let yes = [&ONCE[..], &["--yes"]].concat();
    let foreseen = changes_nothing(&world, &a, &yes, 0);
    assert_eq!(
        (&foreseen["held"], &foreseen["exit"]),
        (&Value::Null, &0.into())
    );
    assert_eq!(steps(&foreseen, "vault").len(), 21);
    a.run(&yes).exits(0);
    // The yes was to that pass alone.
    assert_eq!(
        steps(&changes_nothing(&world, &a, &ONCE, 0), "vault"),
        set(&[])
    );
}

#[test]
fn a_path_goes_before_what_has_such_an_id() {
    let world = World::new();
    let a = world.first("a");
    // A checksum makes a fine name, and looks like an id.
    let name = "d41d8cd98f00b204e9800998ecf8427e";
    for content in ["one", "two and more"] {
        a.write(name, content);
        a.write("other", content);
        a.sync_once().exits(0);
    }
    let restore = |what: &str, version: &[&str]| {
        // The one takes a version, the other none.
        let verb: &[&str] = match version {
            [] => &["trash", "restore"],
            _ => &["restore"],
        };
        let key = ["--password-file", "password"];
        a.run(&[verb, &[what], version, &key].concat())
    };
    let remove = || {
        fs::remove_file(a.folder.join(name)).unwrap();
        a.sync_once().exits(0);
    };
    let versions = a.run(&["versions", name, "--json"]).json();
    let first = versions["versions"][1]["version"].to_string();
    restore(name, &["--version", &first]).exits(0);
    assert_eq!(a.read(name).as_deref(), Some("one"));
    // And where it is no more, by its last place, with and without a version.
    for version in [&["--version", &first][..], &[]] {
        remove();
        restore(name, version).exits(0);
        assert_eq!(a.read(name).as_deref(), Some("one"), "{version:?}");
        // What has an id is found by it all the same.
        remove();
        let trash = a.run(&["trash", "list", "--json"]).json();
        let id = trash["trash"][0]["id"].as_str().unwrap().to_owned();
        restore(&id, version).exits(0);
        assert_eq!(a.read(name).as_deref(), Some("one"), "{version:?}");
    }
    let nothing = "00000000000000000000000000000000";
    restore(nothing, &["--version", "1"])
        .exits(3)
        .says("E_NOT_FOUND");
    restore(nothing, &[]).exits(3).says("E_NOT_FOUND");
}
