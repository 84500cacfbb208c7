//! Accidents with servers and machines: restored from backups, cut, cloned, put back.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::Course;
use syncagent_client::home::Home;
use syncagent_protocol::Code;

use crate::world::{Machine, Run, World, command, run, until};

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

fn recover(machine: &Machine, flags: &[&str]) -> Run {
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
    assert_eq!(done["recovered"]["versions_lost"], json!([]));
    assert_eq!(b.status()["head"], head);
    assert!(tree(&b) == before);

    // A goes on where it was, and nothing came to it.
    let passed = a.run(&["sync", "--once", "--json", "--password-file", "password"]);
    let passed = passed.exits(0).json();
    assert_eq!(
        (&passed["fetched"], &passed["removed"]),
        (&0.into(), &0.into())
    );
    assert_eq!(a.status()["notices"], json!([]));
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

/// `server admin` on this world's server.
fn admin(world: &World, arguments: &[&str]) -> Run {
    let all = [&["server", "admin"], arguments, &["--data", "server"]].concat();
    run(command(world.dir()).args(all))
}

fn notices(machine: &Machine) -> String {
    machine.status()["notices"].to_string()
}

#[test]
fn daemons_that_are_halted_go_on_once_one_of_them_has_recovered() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    back_up(&mut world, "backup");
    let _daemons = [a.start_daemon(), b.start_daemon()];
    a.write("new", "after the backup");
    until("b has it", || b.read("new"));
    let is = |machine: &Machine, state: &str| (machine.status()["state"] == state).then_some(());
    restore(&mut world, "backup");
    for machine in [&a, &b] {
        machine.run(&["now"]).exits(0);
        until("a halt", || is(machine, "halted"));
    }
    a.write("meanwhile", "waits");
    let done = recover(&b, &["--yes", "--json"]).exits(0).json();
    assert_eq!(done["way"], "give_back");
    a.run(&["now"]).exits(0);
    until("b has what waited", || b.read("meanwhile"));
    for machine in [&a, &b] {
        until("all is well again", || is(machine, "idle"));
    }
    assert_same(&a, &b);
}

#[test]
fn what_was_lost_comes_back_to_a_marked_vault_without_what_nobody_has() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    back_up(&mut world, "backup");

    // B registers after the backup was made, and overwrites what it sent.
    let b = world.next("b", &a);
    for seed in [1, 2] {
        fs::create_dir_all(&b.folder).unwrap();
        fs::write(b.folder.join("doc"), noise(seed, 50_000)).unwrap();
        b.sync_once().exits(0);
        a.sync_once().exits(0);
    }
    let head = a.status()["head"].clone();
    restore(&mut world, "backup");
    a.sync_once().exits(14).says("E_ROLLBACK");

    // The server does not know B, and nobody has the first version any more: somebody has to say why that is so.
    let refused = recover(&a, &["--yes"]).exits(1).says("E_MISSING");
    assert!(refused.stderr.contains("server admin restored"));
    a.sync_once().exits(14).says("E_ROLLBACK");
    let marked = admin(&world, &["restored", "--json"]).exits(0).json();
    assert!(marked["restored_until_ms"].as_u64().is_some());

    let done = recover(&a, &["--yes", "--json"]).exits(0).json();
    let lost = done["recovered"]["versions_lost"].as_array().unwrap();
    let seen: Vec<(&Value, &Value)> = lost
        .iter()
        .map(|version| (&version["path"], &version["current"]))
        .collect();
    assert_eq!(seen, [(&json!("doc"), &json!(false))]);
    assert_eq!(a.status()["head"], head);
    let ended = admin(&world, &["restored", "--end", "--json"])
        .exits(0)
        .json();
    assert_eq!(ended["restored_until_ms"], Value::Null);

    // B has its key and needs a token; the log has not changed for it.
    b.sync_once().exits(12).says("E_AUTH");
    world.register(&b);
    b.sync_once().exits(0);
    assert_eq!(b.status()["head"], head);
    b.write("after", "and it goes on");
    b.sync_once().exits(0);
    let c = world.next("c", &a);
    c.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_same(&a, &b);
    assert_same(&a, &c);
    assert!(fs::read(c.folder.join("doc")).unwrap() == noise(2, 50_000));
    let verify = ["verify", "--json", "--password-file", "password"];
    let bad = a.run(&verify).exits(1).json()["bad"].clone();
    assert!(!bad.as_array().unwrap().is_empty());
    for chunk in bad.as_array().unwrap() {
        assert_eq!(chunk["files"][0]["path"], "doc");
        assert_eq!(chunk["files"][0]["current"], false);
    }
}

#[test]
fn content_that_the_server_lost_is_given_by_any_machine_that_has_the_file() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("small", "stands in the log");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    // The server forgets every chunk.
    let address = world.address();
    world.stop_server();
    let catalog = rusqlite::Connection::open(world.path("server/syncagent.db")).unwrap();
    assert!(catalog.execute("DELETE FROM chunks", []).unwrap() > 0);
    drop(catalog);
    world.start_server(&address);

    let c = world.next("c", &a);
    let failed = c.sync_once().exits(1);
    assert!(failed.stderr.contains("E_CHUNK: doc"), "{}", failed.stderr);
    assert_eq!(c.names(), ["small"]);
    let done = recover(&b, &["--json"]).exits(0).json();
    assert_eq!(done["way"], "nothing");
    assert!(done["recovered"]["chunks"].as_u64().unwrap() > 0);
    assert_eq!(done["recovered"]["versions_lost"], json!([]));
    c.sync_once().exits(0);
    assert_same(&a, &c);
}

/// Another moment of the server's catalog, made while it does not run.
fn in_catalog(world: &mut World, change: &str) {
    let address = world.address();
    world.stop_server();
    let catalog = rusqlite::Connection::open(world.path("server/syncagent.db")).unwrap();
    catalog.execute_batch(change).unwrap();
    drop(catalog);
    world.start_server(&address);
}

const LOSE_CHUNKS: &str = "CREATE TABLE lost AS SELECT * FROM chunks; DELETE FROM chunks";
const FIND_CHUNKS: &str = "INSERT OR IGNORE INTO chunks SELECT * FROM lost; DROP TABLE lost";

#[test]
fn a_file_that_is_renamed_while_the_server_lacks_its_content_goes_and_holds_up_nothing() {
    let mut world = World::new();
    let a = world.first("a");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    fs::write(a.folder.join("with lists"), noise(2, 20 << 20)).unwrap();
    a.sync_once().exits(0);
    in_catalog(&mut world, LOSE_CHUNKS);
    for name in ["doc", "with lists"] {
        let to = format!("renamed {name}");
        fs::rename(a.folder.join(name), a.folder.join(to)).unwrap();
    }
    a.write("other", "waits for nothing");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_same(&a, &b);
    let verify = ["verify", "--json", "--password-file", "password"];
    a.run(&verify).exits(0);
}

#[test]
fn content_that_the_server_lost_is_found_under_the_name_that_it_has_now() {
    let mut world = World::new();
    let a = world.first("a");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    in_catalog(&mut world, LOSE_CHUNKS);
    fs::rename(a.folder.join("doc"), a.folder.join("renamed")).unwrap();
    // Of the same length, and something else.
    fs::write(a.folder.join("another"), noise(2, 50_000)).unwrap();
    fs::write(a.folder.join("doc"), noise(3, 50_000)).unwrap();
    let done = recover(&a, &["--json"]).exits(0).json();
    assert!(done["recovered"]["chunks"].as_u64().unwrap() > 0);
    assert_eq!(done["recovered"]["versions_lost"], json!([]));
}

#[test]
fn an_order_that_was_refused_is_not_carried_out_later() {
    let mut world = World::new();
    let a = world.first("a");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    let first = a.status()["head"]["n"].to_string();
    fs::write(a.folder.join("doc"), noise(2, 50_000)).unwrap();
    a.sync_once().exits(0);
    let head = a.status()["head"].clone();
    in_catalog(&mut world, LOSE_CHUNKS);
    let restore = ["restore", "doc", "--version", &first];
    a.run(&[&restore[..], &["--password-file", "password"]].concat())
        .exits(3)
        .says("E_NOT_FOUND");
    in_catalog(&mut world, FIND_CHUNKS);
    a.sync_once().exits(0);
    assert_eq!(a.status()["head"], head);
    assert!(fs::read(a.folder.join("doc")).unwrap() == noise(2, 50_000));
}

#[test]
fn a_server_that_lost_everything_gets_it_back() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("small", "stands in the log");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    let head = a.status()["head"].clone();
    let address = world.address();
    world.stop_server();
    fs::remove_dir_all(world.path("server")).unwrap();
    world.start_server(&address);
    world.register(&a);
    let done = recover(&a, &["--yes", "--json"]).exits(0).json();
    assert_eq!(done["way"], "give_back");
    assert_eq!(done["recovered"]["commits"], head["n"]);
    assert_eq!(a.status()["head"], head);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_same(&a, &b);
}

/// The files of the packs, in order.
fn packs(world: &World) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in fs::read_dir(world.path("server/packs"))
        .unwrap()
        .map(Result::unwrap)
    {
        let files = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        found.extend(files.map(|file| file.path()));
    }
    found.sort();
    found
}

#[test]
fn packs_older_than_their_catalog_are_noticed_and_filled_up_again() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    // `cp` of a server that runs: first the packs, some time later the catalog.
    copy(&world.path("server/packs"), &world.path("backup/packs"));
    fs::write(a.folder.join("doc"), noise(2, 50_000)).unwrap();
    fs::write(a.folder.join("new"), noise(3, 20 << 20)).unwrap();
    a.sync_once().exits(0);
    let address = world.address();
    world.stop_server();
    let catalog = "syncagent.db";
    fs::copy(
        world.path("server").join(catalog),
        world.path("backup").join(catalog),
    )
    .unwrap();
    put_back(&world.path("backup"), &world.path("server"));
    world.start_server(&address);

    let failed = b.sync_once().exits(1);
    assert!(failed.stderr.contains("E_CHUNK: new"), "{}", failed.stderr);
    assert!(failed.stderr.contains("E_CHUNK: doc"), "{}", failed.stderr);
    let done = recover(&a, &["--json"]).exits(0).json();
    assert!(done["recovered"]["chunks"].as_u64().unwrap() > 0, "{done}");
    b.sync_once().exits(0);
    assert_same(&a, &b);
    let c = world.next("c", &a);
    c.sync_once().exits(0);
    assert_same(&a, &c);
}

#[test]
fn content_whose_pack_is_gone_is_stored_anew_with_the_next_file_that_has_it() {
    let mut world = World::new();
    let a = world.first("a");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    for (name, cut) in [("b", false), ("c", true)] {
        fs::write(a.folder.join("doc"), noise(2, 50_000)).unwrap();
        a.sync_once().exits(0);
        let address = world.address();
        world.stop_server();
        for pack in packs(&world) {
            match cut {
                false => fs::remove_file(pack).unwrap(),
                true => fs::write(pack, "SAPK, and then no more").unwrap(),
            }
        }
        world.start_server(&address);
        // Back to what the server was sent before, and acknowledged.
        fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
        a.sync_once().exits(0);
        let other = world.next(name, &a);
        other.sync_once().exits(0);
        assert_same(&a, &other);
    }
}

#[test]
fn a_pack_that_goes_while_the_server_runs_is_missed_with_the_first_look_at_it() {
    let world = World::new();
    let a = world.first("a");
    fs::write(a.folder.join("doc"), noise(1, 50_000)).unwrap();
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    for pack in packs(&world) {
        fs::remove_file(pack).unwrap();
    }
    let failed = b.sync_once().exits(1);
    assert!(failed.stderr.contains("E_CHUNK: doc"), "{}", failed.stderr);
    let done = recover(&a, &["--json"]).exits(0).json();
    assert!(done["recovered"]["chunks"].as_u64().unwrap() > 0, "{done}");
    b.sync_once().exits(0);
    assert_same(&a, &b);
}

/// Changes the password of the machine and of the server's slot. Passwords are in files of these names.
fn change_password(machine: &Machine, from: &str, to: &str) {
    let change = ["change-password", "--password-file", from];
    machine
        .run(&[&change[..], &["--new-password-file", to]].concat())
        .exits(0);
}

fn sync_with(machine: &Machine, password: &str) -> Run {
    machine.run(&["sync", "--once", "--password-file", password])
}

/// A password that was changed after the backup: A changes it, B sees it, and the server is restored.
fn password_changed_and_lost(world: &mut World, changed_again: bool) -> (Machine, Machine) {
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    back_up(world, "backup");
    for (name, words) in [
        ("new", "melody"),
        ("newer", "harvest"),
        ("newest", "lagoon"),
    ] {
        let text = format!("abandon zoo ladder cruise {words}\n");
        fs::write(world.path(name), text).unwrap();
    }
    change_password(&a, "password", "new");
    sync_with(&a, "new").exits(0);
    b.sync_once().exits(0);
    if changed_again {
        // This one only A knows of.
        change_password(&a, "new", "newer");
        sync_with(&a, "newer").exits(0);
    }
    restore(world, "backup");
    (a, b)
}

/// Joins with the password that the server keeps a slot for.
fn join(world: &World, name: &str, password: &str) -> Run {
    let link = format!("{}#{}", world.url, world.invite());
    let named = format!("{name}-machine");
    let join = ["join", &link, name, "--name", &named, "--password-file"];
    world.machine(name).run(&[&join[..], &[password]].concat())
}

#[test]
fn a_restored_server_gets_the_key_slot_of_a_changed_password_back() {
    let mut world = World::new();
    let (_a, b) = password_changed_and_lost(&mut world, false);
    join(&world, "early", "new").exits(11).says("E_KEYSLOT");
    // Not the one who changed it.
    let done = recover(&b, &["--yes", "--json"]).exits(0).json();
    assert_eq!(
        (&done["way"], &done["recovered"]["slots"]),
        (&json!("give_back"), &json!(1))
    );
    join(&world, "late", "password").exits(11).says("E_KEYSLOT");
    join(&world, "c", "new").exits(0);
    let again = recover(&b, &["--yes", "--json"]).exits(0).json();
    assert_eq!(again["recovered"]["slots"], 0);
}

#[test]
fn a_changed_password_stays_changed_where_both_sides_are_united() {
    for first in ["a", "b"] {
        let mut world = World::new();
        let (a, b) = password_changed_and_lost(&mut world, true);
        // Somebody who has not seen the change goes on with the server.
        join(&world, "c", "password").exits(0);
        let unite = |machine: &Machine, password: &str| {
            let recover = ["recover", "--yes", "--json", "--password-file", password];
            let done = machine.run(&recover).exits(0).json();
            assert_eq!(done["way"], "unite");
            sync_with(machine, password).exits(0);
        };
        let both = [(&a, "newer"), (&b, "password")];
        let (one, other) = match first {
            "a" => (both[0], both[1]),
            _ => (both[1], both[0]),
        };
        unite(one.0, one.1);
        join(&world, "late", "password").exits(11).says("E_KEYSLOT");
        // Whoever comes last does not bring back what A had left behind.
        unite(other.0, other.1);
        join(&world, "later", "new").exits(11).says("E_KEYSLOT");
        join(&world, "d", "newer").exits(0);
        // Nobody pins it for ever.
        b.sync_once().exits(0);
        let head = b.status()["head"].clone();
        sync_with(&a, "newer").exits(0);
        b.sync_once().exits(0);
        assert_eq!(b.status()["head"], head);
    }
}

#[test]
fn a_password_changed_while_halted_is_not_forgotten_by_a_union() {
    let mut world = World::new();
    let (a, _b) = password_changed_and_lost(&mut world, false);
    sync_with(&a, "new").exits(14).says("E_ROLLBACK");
    change_password(&a, "new", "newest");
    let recover = ["recover", "--unite", "--yes", "--password-file", "newest"];
    a.run(&recover).exits(0);
    sync_with(&a, "newest").exits(0);
    join(&world, "c", "newest").exits(0);
    join(&world, "late", "new").exits(11).says("E_KEYSLOT");
}

#[test]
fn a_machine_that_was_removed_stays_removed_where_both_sides_are_united() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    let [b, c, d] = ["b", "c", "d"].map(|name| world.next(name, &a));
    for machine in [&b, &c, &d, &a, &b, &c, &d] {
        machine.sync_once().exits(0);
    }
    back_up(&mut world, "backup");
    let remove = |name: &str| {
        let remove = [
            "machines",
            "remove",
            name,
            "--yes",
            "--password-file",
            "password",
        ];
        a.run(&remove).exits(0);
    };
    remove("c-machine");
    // B sees it, D does not.
    b.sync_once().exits(0);
    c.sync_once().exits(12).says("E_REVOKED");
    restore(&mut world, "backup");
    // The server knows nothing of it, and goes on: with D, and with C.
    d.write("by d", "d");
    d.sync_once().exits(0);
    c.write("by c", "c");
    c.sync_once().exits(0);

    a.sync_once().exits(14).says("E_FORK");
    let foreseen = recover(&a, &["--dry-run"]).exits(0);
    assert!(foreseen.stdout.contains("it stays so: c-machine"));
    recover(&a, &["--yes"]).exits(0);
    c.write("by c", "more");
    c.sync_once().exits(12).says("E_REVOKED");
    d.sync_once().exits(0);
    // What it wrote is told, and lost it is not.
    assert!(
        notices(&a)
            .contains("machine 'c-machine', whose removal the server had lost, is removed again")
    );
    assert!(notices(&a).contains("It has written 1 times meanwhile"));
    assert_eq!(a.read("by c").as_deref(), Some("c"));
    let head = || d.status()["head"].clone();
    let before = head();
    // Whoever comes later finds it removed, and does not do it once more.
    recover(&b, &["--yes"]).exits(0);
    for machine in [&b, &a, &d] {
        machine.sync_once().exits(0);
    }
    assert_eq!(head(), before);
    assert_same(&a, &b);
    assert_same(&a, &d);
}

#[test]
fn a_machine_that_knows_of_its_removal_does_not_unite() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    let c = world.next("c", &a);
    c.sync_once().exits(0);
    a.sync_once().exits(0);
    back_up(&mut world, "backup");
    let remove = [
        "machines",
        "remove",
        "c-machine",
        "--yes",
        "--password-file",
        "password",
    ];
    c.run(&remove).exits(0);
    c.sync_once().exits(12).says("E_REVOKED");
    restore(&mut world, "backup");
    a.write("by a", "a");
    a.sync_once().exits(0);
    c.write("by c", "c");
    recover(&c, &["--yes"]).exits(12).says("E_REVOKED");
    c.sync_once();
    a.sync_once().exits(0);
    assert_eq!(a.read("by c"), None);
    assert_eq!(c.read("by c").as_deref(), Some("c"));
}

#[test]
fn a_server_that_has_gone_on_is_united_with_and_nothing_is_deleted() {
    let mut world = World::new();
    let a = world.first("a");
    let large = noise(1, 40_000);
    for name in ["both", "ours", "theirs", "renamed", "gone", "untold"] {
        a.write(name, &format!("{name} before"));
    }
    a.write("dir/x", "x");
    fs::write(a.folder.join("dropped"), &large).unwrap();
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    let c = world.next("c", &a);
    b.sync_once().exits(0);
    c.sync_once().exits(0);
    a.sync_once().exits(0);
    back_up(&mut world, "backup");

    // This is lost: A and B have it, C never saw it.
    a.write("both", "by a");
    a.write("ours", "by a");
    a.write("only a", "new");
    fs::write(a.folder.join("large of a"), noise(2, 60_000)).unwrap();
    fs::rename(a.folder.join("renamed"), a.folder.join("dir/renamed")).unwrap();
    fs::remove_file(a.folder.join("gone")).unwrap();
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    restore(&mut world, "backup");
    // C goes on from the backup, farther than the others were.
    for (name, text) in [("both", "by c"), ("theirs", "by c"), ("only c", "new")] {
        c.write(name, text);
        c.sync_once().exits(0);
    }
    fs::remove_file(c.folder.join("dropped")).unwrap();
    c.sync_once().exits(0);

    // What A did meanwhile does not reach anybody, either.
    fs::remove_file(a.folder.join("untold")).unwrap();
    a.write("meanwhile", "waits");
    a.sync_once().exits(14).says("E_FORK");
    let foreseen = recover(&a, &["--dry-run", "--json"]).exits(0).json();
    assert_eq!(foreseen["way"], "unite");
    recover(&a, &[]).exits(2);
    let done = recover(&a, &["--yes", "--json"]).json();
    let mut kept: Vec<String> = done["recovered"]["not_deleted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap().to_owned())
        .collect();
    kept.sort();
    assert_eq!(kept, ["dropped", "gone", "untold"]);
    for kept in ["dropped", "gone", "untold"] {
        assert!(notices(&a).contains(kept));
    }
    for (name, text) in [
        ("both", "by c"),
        ("ours", "by a"),
        ("theirs", "by c"),
        ("dir/renamed", "renamed before"),
        ("gone", "gone before"),
        ("untold", "untold before"),
        ("only a", "new"),
        ("only c", "new"),
        ("meanwhile", "waits"),
    ] {
        assert_eq!(a.read(name).as_deref(), Some(text), "{name}");
    }
    assert!(fs::read(a.folder.join("dropped")).unwrap() == large);
    assert!(!a.folder.join("renamed").exists());
    let copies = |machine: &Machine| {
        let names = machine.names().into_iter();
        let copies = names.filter(|name| name.starts_with("both.conflict-"));
        copies.collect::<Vec<_>>()
    };
    assert_eq!(copies(&a).len(), 1);
    assert_eq!(a.read(&copies(&a)[0]).unwrap(), "by a");
    assert_eq!(done["exit"], 10);

    // B knows the same lost history, and comes the same way.
    b.sync_once().exits(14).says("E_FORK");
    recover(&b, &["--yes"]);
    for machine in [&a, &b, &c, &a, &b, &c] {
        machine.sync_once();
    }
    assert_same(&a, &b);
    assert_same(&a, &c);
    for copy in copies(&c) {
        assert_eq!(c.read(&copy).unwrap(), "by a");
    }
}

#[test]
fn a_machine_that_forgot_what_was_lost_unites_with_what_there_is() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "before");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    back_up(&mut world, "backup");
    a.write("old", "after");
    a.write("new", "after");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    restore(&mut world, "backup");
    // It still knows how far it was, and nothing else.
    a.run(&["reset", "--yes"]).exits(0);
    a.sync_once().exits(14).says("E_ROLLBACK");
    let done = recover(&a, &["--yes", "--json"]).json();
    assert_eq!((&done["way"], &done["lost"]), (&json!("unite"), &json!([])));
    assert_eq!(done["recovered"]["not_deleted"], json!([]));
    // Without a common tree nobody can tell who changed what: both are kept.
    assert_eq!(a.read("new").unwrap(), "after");
    let olds = |machine: &Machine| {
        let names = machine.names().into_iter();
        let mut found: Vec<String> = names
            .filter(|name| name.starts_with("old"))
            .map(|name| machine.read(&name).unwrap())
            .collect();
        found.sort();
        found
    };
    assert_eq!(olds(&a), ["after", "before"]);
    // The other one has what was lost, and the server has gone on.
    assert_eq!(b.sync_once().exit, 14);
    recover(&b, &["--yes"]);
    for machine in [&a, &b, &a, &b] {
        machine.sync_once();
    }
    assert_same(&a, &b);
    // B knew what it had changed.
    assert_eq!(a.read("old").unwrap(), "after");
    assert_eq!(a.read("new").unwrap(), "after");
}

#[test]
fn a_machine_that_forgot_what_was_lost_unites_with_a_server_that_has_gone_past_it() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "before");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    back_up(&mut world, "backup");
    a.write("new", "after");
    a.sync_once().exits(0);
    restore(&mut world, "backup");
    a.run(&["reset", "--yes"]).exits(0);
    for name in ["1", "2", "3"] {
        b.write(name, name);
        b.sync_once().exits(0);
    }
    a.sync_once().exits(14).says("E_FORK");
    let foreseen = recover(&a, &["--dry-run"]).exits(0);
    let told = "another history than this machine has seen";
    assert!(foreseen.stdout.contains(told), "{}", foreseen.stdout);
    // Nothing of it without a yes.
    recover(&a, &[]).exits(2);
    a.sync_once().exits(14).says("E_FORK");
    let done = recover(&a, &["--yes", "--json"]).exits(0).json();
    assert_eq!((&done["way"], &done["lost"]), (&json!("unite"), &json!([])));
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    assert_same(&a, &b);
    assert_eq!(a.names(), ["1", "2", "3", "new", "old"]);
    let again = recover(&a, &["--json"]).exits(0).json();
    assert_eq!(again["way"], "nothing");
}

#[test]
fn a_tail_that_is_cut_is_noticed_by_those_who_saw_it_alone() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("x", "1");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let to = b.status()["head"]["n"].as_u64().unwrap().to_string();
    let cut = ["cut", "--to", &to];
    a.sync_once().exits(0);
    a.write("x", "2");
    a.write("y", "new");
    a.sync_once().exits(0);

    admin(&world, &[&cut[..], &["--yes"]].concat())
        .exits(5)
        .says("E_BUSY");
    let foreseen = admin(&world, &[&cut[..], &["--dry-run", "--json"]].concat());
    let foreseen = foreseen.exits(0).json();
    assert_eq!(foreseen["cut"].as_array().unwrap().len(), 1);
    assert_eq!(foreseen["cut"][0]["machine"], "a-machine");
    let address = world.address();
    world.stop_server();
    let asked = admin(&world, &cut).exits(2).stderr;
    assert!(
        asked.contains("a-machine") && asked.contains("--yes"),
        "{asked}"
    );
    let done = admin(&world, &[&cut[..], &["--yes", "--json"]].concat());
    assert_eq!(done.exits(0).json()["n"].to_string(), to);
    let other = ["--vault", "00000000000000000000000000000000"];
    admin(&world, &[&cut[..], &other[..]].concat())
        .exits(3)
        .says("E_NOT_FOUND");
    world.start_server(&address);

    // B never went past that position.
    b.sync_once().exits(0);
    assert_eq!(b.status()["notices"], json!([]));
    b.write("of b", "goes on");
    a.sync_once().exits(14).says("E_ROLLBACK");
    // Whoever saw it may give it back, or do without it; what stands in the folder stays.
    let foreseen = recover(&a, &["--dry-run", "--json"]).exits(0).json();
    assert_eq!(foreseen["way"], "give_back");
    recover(&a, &["--yes", "--unite"]).exits(0);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_same(&a, &b);
    assert_eq!(b.read("x").unwrap(), "2");
    assert_eq!(a.names(), ["of b", "x", "y"]);
}

#[test]
fn what_is_not_given_back_does_not_come_again_by_itself() {
    let mut world = World::new();
    let a = world.first("a");
    for name in ["kept", "x"] {
        a.write(name, "1");
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    let to = a.status()["head"]["n"].as_u64().unwrap().to_string();
    // All in one commit, and right after the position to which the log is cut because of it.
    fs::remove_file(a.folder.join("kept")).unwrap();
    a.write("x", "2");
    a.sync_once().exits(0);
    let address = world.address();
    world.stop_server();
    admin(&world, &["cut", "--to", &to, "--yes"]).exits(0);
    world.start_server(&address);
    a.sync_once().exits(14).says("E_ROLLBACK");
    let done = recover(&a, &["--yes", "--unite", "--json"]).exits(0).json();
    assert_eq!(done["recovered"]["not_deleted"], json!(["kept"]));
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    assert_same(&a, &b);
    assert_eq!(b.names(), ["kept", "x"]);
    assert_eq!(b.read("x").unwrap(), "2");
}

/// Three machines with the same files; what A and B did since the backup is lost, and C has gone on from there. Nobody has
/// recovered yet.
struct Parted {
    _world: World,
    a: Machine,
    c: Machine,
}

/// More than a quarter of these is very many.
const MANY: usize = 120;

impl Parted {
    fn new(by_a: impl FnOnce(&Machine), by_c: impl FnOnce(&Machine)) -> Self {
        let mut world = World::new();
        let a = world.first("a");
        for n in 0..MANY {
            a.write(&format!("f{n}"), "before");
        }
        a.sync_once().exits(0);
        let c = world.next("c", &a);
        c.sync_once().exits(0);
        a.sync_once().exits(0);
        back_up(&mut world, "backup");
        a.write("lost", "by a");
        a.sync_once().exits(0);
        restore(&mut world, "backup");
        by_c(&c);
        c.write("new", "by c");
        c.run(&["sync", "--once", "--yes", "--password-file", "password"])
            .exits(0);
        by_a(&a);
        a.sync_once().exits(14).says("E_FORK");
        Self {
            _world: world,
            a,
            c,
        }
    }
}

#[test]
fn very_many_deletions_are_kept_by_a_union_and_nobody_has_to_say_yes() {
    let remove = |machine: &Machine, from: usize| {
        for n in from..from + 50 {
            fs::remove_file(machine.folder.join(format!("f{n}"))).unwrap();
        }
    };
    let parted = Parted::new(|a| remove(a, 0), |c| remove(c, 60));
    let (a, c) = (&parted.a, &parted.c);
    let done = recover(a, &["--yes", "--json"]).exits(0).json();
    let kept = done["recovered"]["not_deleted"].as_array().unwrap();
    assert_eq!(kept.len(), 100);
    c.sync_once().exits(0);
    assert_same(a, c);
    assert_eq!(a.names().len(), MANY + 2);
}

#[test]
fn very_much_that_a_union_would_replace_waits_for_a_yes_and_it_deletes_nothing() {
    let parted = Parted::new(
        |a| fs::remove_file(a.folder.join("f0")).unwrap(),
        |c| (10..60).for_each(|n| c.write(&format!("f{n}"), "by c, and longer")),
    );
    let (a, c) = (&parted.a, &parted.c);
    // What was kept is said, although the pass waits; again it is no news.
    let held = recover(a, &["--yes"]).exits(13).says("E_BRAKE");
    assert!(held.stderr.contains("not deleted: f0"), "{}", held.stderr);
    assert_eq!(a.status()["held"]["code"], "E_BRAKE");
    assert_eq!(a.read("f10").unwrap(), "before");
    assert!(notices(a).contains("f0 was deleted on one side"));
    let held = recover(a, &["--yes"]).exits(13).says("E_BRAKE");
    assert!(!held.stderr.contains("not deleted"), "{}", held.stderr);
    c.sync_once().exits(0);
    assert_eq!(c.read("f0").unwrap(), "before");

    a.run(&["sync", "--once", "--yes", "--password-file", "password"])
        .exits(0);
    c.sync_once().exits(0);
    assert_same(a, c);
    assert_eq!(a.names().len(), MANY + 2);
    assert_eq!(a.read("f0").unwrap(), "before");
    assert_eq!(a.read("f10").unwrap(), "by c, and longer");
}

#[test]
fn recover_does_not_end_a_pause() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    a.sync_once().exits(0);
    back_up(&mut world, "backup");
    a.write("new", "after the backup");
    a.sync_once().exits(0);
    let _daemon = a.start_daemon();
    a.run(&["pause"]).exits(0);
    restore(&mut world, "backup");
    a.write("meanwhile", "waits");
    let done = recover(&a, &["--yes", "--json"]).exits(0);
    assert_eq!(done.json()["recovered"]["commits"], 1);
    // Another command is obeyed after whatever that one led to.
    a.run(&["now"]).exits(0);
    assert_eq!(a.status()["state"], "paused");
    done.names("`syncagent resume`");
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["new", "old"]);
    a.run(&["resume"]).exits(0);
    until("b has what waited", || {
        b.sync_once().exits(0);
        b.read("meanwhile")
    });
    assert_same(&a, &b);
}

/// Which is gone after the command has looked: then the daemon says so, which has it open and does not know its path.
#[test]
#[cfg(unix)]
fn a_daemon_that_cannot_unite_a_folder_that_is_gone_names_it() {
    let mut world = World::new();
    let a = world.first("a");
    a.write("old", "from before the backup");
    a.sync_once().exits(0);
    back_up(&mut world, "backup");
    a.write("new", "after the backup");
    a.sync_once().exits(0);
    let daemon = a.start_daemon();
    restore(&mut world, "backup");
    let foreseen = recover(&a, &["--unite", "--dry-run", "--json"]).exits(0);
    let course: Course = serde_json::from_value(foreseen.json()).unwrap();
    let elsewhere = world.path("elsewhere");
    fs::rename(&a.folder, &elsewhere).unwrap();
    let folder = a.folder.display().to_string();
    recover(&a, &["--yes"]).exits(13).names(&folder);

    let home = Home::at(a.home().to_owned());
    let told = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let daemon = Client::connect(&home).await.expect("a daemon runs");
        daemon.tell(Command::Recover(course)).await
    });
    let error = told.unwrap_err();
    assert_eq!(error.code(), Code::Root, "{error}");
    assert!(error.to_string().contains(&folder), "{error}");

    // The union was begun, and whatever comes next goes on with it: nothing is deleted, or said to be.
    daemon.kill();
    fs::rename(elsewhere, &a.folder).unwrap();
    fs::remove_file(a.folder.join("old")).unwrap();
    let foreseen = a.foresee();
    let foreseen = foreseen.exits(0).json();
    assert_eq!(foreseen["here"][0]["action"], "add", "{foreseen}");
    assert_eq!(foreseen["here"][0]["path"], "old", "{foreseen}");
    let vault = foreseen["vault"].as_array().unwrap();
    assert!(
        vault.iter().all(|step| step["action"] == "add"),
        "{foreseen}"
    );
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["new", "old"]);
    assert!(notices(&a).contains("old was deleted on one side"));
}

#[test]
fn an_index_that_is_lost_or_put_back_does_not_hide_that_the_server_went_back() {
    let remove: fn(&Machine) = |a| {
        fs::remove_file(a.home().join("state.db")).unwrap();
    };
    let damage_and_reset: fn(&Machine) = |a| {
        fs::write(a.home().join("state.db"), noise(1, 20_000)).unwrap();
        a.sync_once().exits(7).says("E_STATE");
        a.run(&["reset", "--yes"]).exits(0);
    };
    let put_back: fn(&Machine) = |a| {
        fs::rename(a.home().join("state.db.old"), a.home().join("state.db")).unwrap();
    };
    for lose in [remove, damage_and_reset, put_back] {
        let mut world = World::new();
        let a = world.first("a");
        a.write("old", "from before the backup");
        a.sync_once().exits(0);
        back_up(&mut world, "backup");
        fs::copy(a.home().join("state.db"), a.home().join("state.db.old")).unwrap();
        a.write("new", "from after the backup");
        a.sync_once().exits(0);
        restore(&mut world, "backup");
        lose(&a);
        for _ in 0..2 {
            a.sync_once().exits(14).says("E_ROLLBACK");
        }
        // What the machine no longer holds it cannot give back; what stands in its folder it can.
        recover(&a, &["--yes"]).exits(0);
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        assert_same(&a, &b);
        assert_eq!(b.read("new").as_deref(), Some("from after the backup"));
    }
}

#[cfg(unix)]
mod images {
    use std::process::Command;

    use super::*;

    /// A copy with times, as images of disks are.
    fn image(from: &Path, to: &Path) {
        let _ = fs::remove_dir_all(to);
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.expect("cp runs").success());
    }

    /// Home and folder of a machine, under another name.
    fn clone_of(world: &World, machine: &Machine, name: &str) -> Machine {
        let clone = world.machine(name);
        image(machine.home(), clone.home());
        image(&machine.folder, &clone.folder);
        let config = clone.home().join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        let (from, to) = (&machine.own_folder, &clone.own_folder);
        let moved = text.replace(&*from.to_string_lossy(), &to.to_string_lossy());
        assert_ne!(text, moved);
        fs::write(config, moved).unwrap();
        clone
    }

    #[test]
    fn a_machine_that_runs_twice_says_so_and_loses_nothing() {
        let world = World::new();
        let a = world.first("a");
        a.write("shared", "before");
        a.sync_once().exits(0);
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        let twin = clone_of(&world, &a, "twin");

        // Each goes on with the same key.
        a.write("of a", "1");
        a.write("shared", "by a");
        a.sync_once().exits(0);
        twin.write("of twin", "2");
        twin.write("shared", "by twin");
        twin.sync_once().exits(10);
        assert!(notices(&twin).contains("runs twice"));
        a.sync_once().exits(0);
        assert!(notices(&a).contains("runs twice"));
        b.sync_once().exits(0);
        assert_eq!(b.status()["notices"], json!([]));
        for machine in [&a, &twin, &b] {
            assert_eq!(machine.read("of a").unwrap(), "1");
            assert_eq!(machine.read("of twin").unwrap(), "2");
            assert_eq!(machine.read("shared").unwrap(), "by a");
            let names = machine.names();
            let copy = names
                .iter()
                .find(|name| name.starts_with("shared.conflict-"));
            assert_eq!(machine.read(copy.unwrap()).unwrap(), "by twin");
        }
        assert_same(&a, &twin);
        assert_same(&a, &b);

        // As it is told to, one of them becomes a machine of its own.
        twin.run(&["reset", "--new-machine", "--yes"]).exits(0);
        world.register(&twin);
        twin.write("as itself", "3");
        twin.sync_once().exits(0);
        a.sync_once().exits(0);
        twin.sync_once().exits(0);
        assert_same(&a, &twin);
        let machines = a.run(&["machines", "--json"]).exits(0).json();
        assert_eq!(machines["machines"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_machine_restored_from_an_image_takes_nothing_back() {
        let world = World::new();
        let a = world.first("a");
        for name in ["edited", "deleted", "moved", "untouched", "by b"] {
            a.write(name, "in the image");
        }
        a.sync_once().exits(0);
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        image(a.home(), &world.path("home.image"));
        image(&a.folder, &world.path("folder.image"));

        a.write("edited", "after the image");
        a.write("new", "after the image");
        fs::remove_file(a.folder.join("deleted")).unwrap();
        fs::rename(a.folder.join("moved"), a.folder.join("elsewhere")).unwrap();
        a.sync_once().exits(0);
        b.write("by b", "after the image");
        b.sync_once().exits(0);
        let (after, head) = (tree(&b), b.status()["head"].clone());

        image(&world.path("home.image"), a.home());
        image(&world.path("folder.image"), &a.folder);
        a.sync_once().exits(0);
        assert!(notices(&a).contains("was restored"));
        assert!(tree(&a) == after);
        b.sync_once().exits(0);
        assert!(tree(&b) == after);
        assert_eq!((&a.status()["head"], &b.status()["head"]), (&head, &head));
    }

    /// As any backup of a running machine may be that copies files one after the other.
    #[test]
    fn a_home_and_a_folder_of_two_moments_delete_nothing_and_take_nothing_back() {
        let world = World::new();
        let a = world.first("a");
        for name in ["edited", "moved", "untouched", "to be deleted"] {
            a.write(name, "before");
        }
        a.write("dir/inner", "before");
        a.write("renamed/inner", "before");
        fs::write(a.folder.join("sized"), noise(1, 30_000)).unwrap();
        a.sync_once().exits(0);
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        image(a.home(), &world.path("home.early"));
        image(&a.folder, &world.path("folder.early"));

        b.write("report", "by b");
        b.write("new/report", "by b");
        b.write("edited", "behind");
        fs::write(b.folder.join("sized"), noise(2, 40_000)).unwrap();
        fs::rename(b.folder.join("moved"), b.folder.join("elsewhere")).unwrap();
        fs::rename(b.folder.join("renamed"), b.folder.join("anew")).unwrap();
        fs::remove_file(b.folder.join("dir/inner")).unwrap();
        b.write("dir/another", "by b");
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        image(a.home(), &world.path("home.late"));
        image(&a.folder, &world.path("folder.late"));
        // After both.
        fs::remove_file(b.folder.join("to be deleted")).unwrap();
        b.write("report", "once more");
        b.sync_once().exits(0);
        a.sync_once().exits(0);

        for (home, folder) in [("late", "early"), ("early", "late"), ("late", "late")] {
            let before = tree(&b);
            image(&world.path(&format!("home.{home}")), a.home());
            image(&world.path(&format!("folder.{folder}")), &a.folder);
            a.write("not sent yet", &format!("{home} {folder}"));
            let case = format!("home {home}, folder {folder}");
            let foreseen = a.foresee().exits(0).json();
            let vault = foreseen["vault"].as_array().unwrap();
            let removes = vault.iter().any(|step| step["action"] == "remove");
            assert!(!removes, "{case}: {foreseen}");
            a.sync_once().exits(0);
            b.sync_once().exits(0);
            assert_same(&a, &b);
            for (path, content) in &before {
                let is_there = tree(&b)
                    .iter()
                    .any(|now| now == &(path.clone(), content.clone()));
                assert!(is_there || path == "not sent yet", "{case}: {path}");
            }
            assert_eq!(b.read("report").as_deref(), Some("once more"), "{case}");
            assert_eq!(b.read("to be deleted"), None, "{case}");
            let copies = |name: &String| name.contains(".conflict-") && !name.contains("not sent");
            assert!(!b.names().iter().any(copies), "{case}: {:?}", b.names());
            assert_eq!(
                notices(&a).contains("not of one moment"),
                home != folder,
                "{case}"
            );
            // From then on what is deleted there is deleted.
            for name in b.names() {
                if name.contains("not sent") {
                    fs::remove_file(a.folder.join(name)).unwrap();
                }
            }
            a.sync_once().exits(0);
            b.sync_once().exits(0);
            assert_same(&a, &b);
            assert_eq!(b.read("not sent yet"), None);
        }
    }

    #[test]
    fn an_older_index_beside_a_newer_folder_sends_nothing_twice() {
        let world = World::new();
        let a = world.first("a");
        for name in ["edited", "deleted", "moved", "deleted by b"] {
            a.write(name, "before");
        }
        a.sync_once().exits(0);
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        image(a.home(), &world.path("home.image"));

        a.write("edited", "after");
        a.write("new", "after");
        fs::remove_file(a.folder.join("deleted")).unwrap();
        fs::rename(a.folder.join("moved"), a.folder.join("elsewhere")).unwrap();
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        fs::remove_file(b.folder.join("deleted by b")).unwrap();
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        let (after, head) = (tree(&a), b.status()["head"].clone());

        image(&world.path("home.image"), a.home());
        a.sync_once().exits(0);
        assert!(notices(&a).contains("was restored"));
        assert!(tree(&a) == after);
        assert_eq!(a.status()["head"], head);
        // What it did not send yet is sent as ever.
        a.write("edited", "once more");
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        assert_same(&a, &b);
    }
}
