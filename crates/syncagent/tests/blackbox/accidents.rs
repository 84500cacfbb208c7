//! Accidents with servers and machines: restored from backups, cut, cloned, put back.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{Machine, World};

/// A copy of a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Puts `from` in the place of the directory `to`, as it is.
fn put_back(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

/// Backs the server up as a careful person does: while it does not run.
fn back_up(world: &mut World, name: &str) {
    let address = world.address();
    world.stop_server();
    copy(&world.path("server"), &world.path(name));
    world.start_server(&address);
}

/// Restores such a backup.
fn restore(world: &mut World, name: &str) {
    let address = world.address();
    world.stop_server();
    put_back(&world.path(name), &world.path("server"));
    world.start_server(&address);
}

/// Bytes that do not compress and are the same every time.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn recover(machine: &Machine, flags: &[&str]) -> crate::world::Run {
    let recover = ["recover", "--password-file", "password"];
    machine.run(&[&recover, flags].concat())
}

/// Every file in a folder with its content, but for SyncAgent's own.
fn tree(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    fn walk(dir: &Path, below: &str, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{below}{name}");
            if path == ".syncagent" {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => {
                    found.push((format!("{path}/"), Vec::new()));
                    walk(&entry.path(), &format!("{path}/"), found);
                }
                false => found.push((path, fs::read(entry.path()).unwrap())),
            }
        }
    }
    let mut found = Vec::new();
    walk(&machine.folder, "", &mut found);
    found.sort();
    found
}

#[track_caller]
fn assert_same(one: &Machine, other: &Machine) {
    let names = |machine| {
        let tree = tree(machine).into_iter();
        tree.map(|(path, content)| (path, content.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(one), names(other));
    assert!(tree(one) == tree(other), "equal names, other content");
}

#[test]
fn a_machine_gives_a_restored_server_back_what_it_lost() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.write("gone", "deleted after the backup");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    back_up(&mut world, "backup");

    // Both go on: small files, a file of many chunks with lists above them, a deletion, a directory.
    fs::write(a.folder.join("large"), noise(1, 20 << 20)).unwrap();
    a.write("dir/of a", "1");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    fs::write(b.folder.join("medium"), noise(2, 300_000)).unwrap();
    fs::remove_file(b.folder.join("gone")).unwrap();
    b.write("old", "edited on b");
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    let before = tree(&a);
    let head = a.status()["head"].clone();

    restore(&mut world, "backup");
    a.write("while halted", "waits");
    a.sync_once().exits(14).says("E_ROLLBACK");
    assert_eq!(a.status()["state"], "halted");

    // It says first what it will do, and whose commits those are.
    let asked = recover(&b, &[]).exits(2).stderr;
    for said in ["b-machine", "a-machine", "--yes"] {
        assert!(asked.contains(said), "no {said} in {asked}");
    }
    let foreseen = recover(&b, &["--dry-run", "--json"]).exits(0).json();
    assert_eq!(foreseen["way"], "give_back");
    assert_eq!(foreseen["own_n"], head["n"]);
    let lost = foreseen["lost"].as_array().unwrap().clone();
    let n = |value: &Value| value.as_u64().unwrap();
    assert_eq!(
        lost.len() as u64,
        n(&foreseen["own_n"]) - n(&foreseen["server_n"])
    );
    assert!(lost.iter().all(|commit| commit["held"] == true));
    b.sync_once().exits(14).says("E_ROLLBACK");

    // B gives back A's commits, too.
    let done = recover(&b, &["--yes", "--json"]).exits(0).json();
    assert_eq!(done["recovered"]["commits"], lost.len());
    assert_eq!(done["recovered"]["versions_lost"], serde_json::json!([]));
    assert_eq!(b.status()["head"], head);
    assert!(tree(&b) == before);

    // A goes on where it was, and nothing came to it.
    let passed = a.run(&["sync", "--once", "--json", "--password-file", "password"]);
    let passed = passed.exits(0).json();
    assert_eq!(
        (&passed["fetched"], &passed["removed"]),
        (&0.into(), &0.into())
    );
    assert_eq!(a.status()["notices"], serde_json::json!([]));
    b.sync_once().exits(0);
    let c = world.next("c", &a);
    c.sync_once().exits(0);
    assert_same(&a, &b);
    assert_same(&a, &c);
    assert_eq!(c.read("old").unwrap(), "edited on b");
    // Again there is nothing to do.
    let again = recover(&a, &["--json"]).exits(0).json();
    assert_eq!(
        (&again["way"], &again["recovered"]["chunks"]),
        (&"nothing".into(), &0.into())
    );
}
