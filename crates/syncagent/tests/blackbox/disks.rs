//! Disks that are full, taken away, or not to be written: what is said, and that it goes on once they are as they were.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{Machine, Run, World, healthy, until};

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[track_caller]
fn failed(run: &Run, code: &str, path: &str) {
    let line = format!("{code}: {path}: ");
    let said = run.stderr.lines().filter(|said| said.starts_with(&line));
    assert_eq!(said.count(), 1, "not one line {line:?} in: {}", run.stderr);
}

/// The errors of a status: path and code.
fn errors(machine: &Machine) -> Vec<(String, String)> {
    let status = machine.status();
    let rows = status["errors"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (text(&row["path"]), text(&row["code"])))
        .collect()
}

#[test]
fn what_does_not_fit_waits_and_all_else_goes_on() {
    let mut world = World::with_mounts();
    let disk = world.path("small");
    let reserve = world.mounts().disk_with_reserve(&disk, 4, 48);
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    a.write("dir/edited", "before");
    a.write("dir/gone", "x");
    a.write("dir/old-name", "y");
    a.sync_once().exits(0);
    let b = world.machine("b").with_folder(disk.join("b"));
    let b = world.joined(b, &a);
    b.sync_once().exits(0);

    // Too long for the disk, as one and as a part of a batch.
    fs::write(a.folder.join("long"), noise(6 << 20)).unwrap();
    fs::write(a.folder.join("very long"), noise(20 << 20)).unwrap();
    a.write("dir/edited", "after");
    a.write("other/new", "new");
    a.sync_once().exits(0);
    let done = b.sync_once().exits(5);
    failed(&done, "E_DISK_FULL", "long");
    failed(&done, "E_DISK_FULL", "very long");
    assert_eq!(b.names(), ["dir", "other"]);
    assert_eq!(b.read("dir/edited").as_deref(), Some("after"));
    assert_eq!(b.read("other/new").as_deref(), Some("new"));
    let status = b.run(&["status", "--json"]).exits(5).json();
    assert_eq!(status["state"], "error");
    let full = |path: &str| (path.to_owned(), "E_DISK_FULL".to_owned());
    assert_eq!(errors(&b), [full("long"), full("very long")]);

    // Not a byte is left: what needs none goes on, in both directions.
    let filler = world.mounts().fill(&disk);
    a.write("dir/edited", &"after that ".repeat(1000));
    fs::remove_file(a.folder.join("dir/gone")).unwrap();
    fs::rename(a.folder.join("dir/old-name"), a.folder.join("dir/name")).unwrap();
    a.sync_once().exits(0);
    let done = b.sync_once().exits(5);
    failed(&done, "E_DISK_FULL", "dir/edited");
    assert_eq!(b.read("dir/edited").as_deref(), Some("after"));
    assert_eq!(
        (b.read("dir/gone"), b.read("dir/name").as_deref()),
        (None, Some("y"))
    );
    fs::rename(b.folder.join("other/new"), b.folder.join("other/from b")).unwrap();
    b.sync_once().exits(5);
    a.sync_once().exits(0);
    assert_eq!(a.read("other/from b").as_deref(), Some("new"));
    assert_eq!(a.read("dir/edited").unwrap().len(), 11_000);

    fs::remove_file(filler).unwrap();
    fs::remove_file(reserve).unwrap();
    b.sync_once().exits(0);
    for name in ["long", "very long", "dir/edited"] {
        assert!(fs::read(a.folder.join(name)).unwrap() == fs::read(b.folder.join(name)).unwrap());
    }
    assert_eq!(errors(&b), []);
}

#[test]
fn a_full_disk_under_the_home_is_exit_5_and_nothing_is_forgotten() {
    let mut world = World::with_mounts();
    let disk = world.path("small");
    world.mounts().disk(&disk, 8);
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let b = world.machine("b").with_home(disk.join("b-home"));
    let b = world.joined(b, &a);

    // Before there is an index, and with one.
    for files in [1, 400] {
        for i in 0..files {
            a.write(&format!("many/{files} {i}"), &i.to_string());
        }
        a.sync_once().exits(0);
        let filler = world.mounts().fill(&disk);
        let before = b.folder.exists().then(|| b.names());
        let done = b.sync_once().exits(5).says("E_DISK_FULL");
        assert!(done.stderr.contains("state.db"), "{}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        assert_eq!(b.folder.exists().then(|| b.names()), before);
        fs::remove_file(filler).unwrap();
        b.sync_once().exits(0);
        assert_eq!(b.read(&format!("many/{files} 0")).as_deref(), Some("0"));
    }
    // While it runs.
    let daemon = b.start_daemon();
    let filler = world.mounts().fill(&disk);
    a.write("later", "x");
    a.sync_once().exits(0);
    until("the daemon to notice", || {
        b.run(&["now"]).exits(0);
        let errors = errors(&b);
        errors
            .iter()
            .any(|(_, code)| code == "E_DISK_FULL")
            .then_some(())
    });
    fs::remove_file(filler).unwrap();
    until("the daemon to go on", || {
        b.run(&["now"]).exits(0);
        (b.status()["state"] == "idle" && b.read("later").is_some()).then_some(())
    });
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_full_server_says_so_and_goes_on_serving() {
    let mut world = World::with_mounts();
    let disk = world.path("server");
    let reserve = world.mounts().disk_with_reserve(&disk, 16, 80);
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    a.write("here", "here");
    a.sync_once().exits(0);
    let b = world.next("b", &a);

    // What does not fit. Of its packs the server keeps those that fitted.
    fs::write(a.folder.join("long"), noise(24 << 20)).unwrap();
    let done = a.sync_once().exits(5).says("E_DISK_FULL");
    assert!(done.stderr.contains("on the server"), "{}", done.stderr);
    assert!(healthy(&world.url));
    // An eighth of this disk, the part of it that is taken included, is kept free of packs, but for what they cost the catalog.
    let volume = rustix::fs::statvfs(world.mounts().seen(&disk)).unwrap();
    assert!(volume.f_bavail * volume.f_frsize > 9 << 20);
    // However full it is of packs: what takes little room goes on, deletions above all.
    b.sync_once().exits(0);
    fs::remove_file(b.folder.join("here")).unwrap();
    b.sync_once().exits(0);
    for i in 0..4 {
        b.write(&format!("note {i}"), "soon gone");
        b.sync_once().exits(0);
    }
    b.write("here", "here");
    for i in 0..4 {
        fs::remove_file(b.folder.join(format!("note {i}"))).unwrap();
    }
    b.sync_once().exits(0);
    a.sync_once().exits(5).says("E_DISK_FULL");
    assert_eq!(a.names(), ["here", "long"]);
    // Not a byte is left, for the log neither. Whoever only asks gets an answer.
    let filler = world.mounts().fill(&disk);
    fs::remove_file(a.folder.join("long")).unwrap();
    a.write("short", "short");
    let done = a.sync_once().exits(5).says("E_DISK_FULL");
    assert!(done.stderr.contains("on the server"), "{}", done.stderr);
    let status = a.status();
    assert_eq!(
        (&status["state"], &status["files"]),
        (&"error".into(), &1.into())
    );
    assert_eq!(a.read("short").as_deref(), Some("short"));
    a.run(&["machines"]).exits(0);
    a.run(&["verify", "--password-file", "password"]).exits(0);
    // The refused commit may have lengthened the database's journal before it ran out of room, by enough for a row or
    // two of an invitation; and what it received of the long file may go only now.
    let refused = (0..64)
        .map(|_| {
            world.mounts().fill(&disk);
            world.try_invite()
        })
        .find(|run| run.exit != 0)
        .expect("a full disk to refuse invitations");
    refused.exits(5).says("E_DISK_FULL");
    assert!(healthy(&world.url));

    fs::remove_file(filler).unwrap();
    until("the server to take changes again", || {
        (a.sync_once().exit == 0).then_some(())
    });
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["here", "short"]);
    fs::remove_file(reserve).unwrap();
    fs::write(a.folder.join("long"), noise(24 << 20)).unwrap();
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    assert!(fs::read(b.folder.join("long")).unwrap() == noise(24 << 20));
    assert_eq!(world.stop_server(), 0);
}

#[test]
fn a_server_that_starts_on_a_full_disk_says_so() {
    let mut world = World::with_mounts();
    let disk = world.path("server");
    world.mounts().disk(&disk, 4);
    let filler = world.mounts().fill(&disk);
    world.try_server().exits(5).says("E_DISK_FULL");
    fs::remove_file(filler).unwrap();
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    world.stop_server();
    let filler = world.mounts().fill(&disk);
    // It may start, to be read from; if it does not, it says why.
    let run = world.try_server();
    assert!(
        run.exit == -1 || run.stderr.contains("E_DISK_FULL"),
        "{}",
        run.stderr
    );
    fs::remove_file(filler).unwrap();
}

/// A folder on a drive that can be taken away.
fn on_a_drive(world: &World, name: &str, from: Option<&Machine>) -> (Machine, PathBuf) {
    let drive = world.path("drive");
    fs::create_dir(&drive).unwrap();
    fs::create_dir(world.path(name)).unwrap();
    world.mounts().attach(&drive, &world.path(name));
    let machine = match from {
        Some(from) => world.next(name, from),
        None => world.first(name),
    };
    (machine, drive)
}

#[test]
fn a_folder_that_is_not_mounted_holds_everything() {
    let mut world = World::with_mounts();
    world.start_server("127.0.0.1:0");
    let (a, drive) = on_a_drive(&world, "a", None);
    a.write("dir/x", "x");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);

    world.mounts().detach(&a.own_folder);
    b.write("from b", "b");
    b.sync_once().exits(0);
    for _ in 0..2 {
        let held = a.sync_once().exits(13).says("E_ROOT");
        assert!(held.stderr.contains("not mounted"), "{}", held.stderr);
        assert!(
            held.stderr.contains(&*a.own_folder.to_string_lossy()),
            "{}",
            held.stderr
        );
    }
    assert!(a.names().is_empty());
    let status = a.run(&["status", "--json"]).exits(13).json();
    assert_eq!(
        (&status["state"], &status["held"]["code"]),
        (&"held".into(), &"E_ROOT".into())
    );
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["dir", "from b"]);
    world.mounts().attach(&drive, &a.own_folder);
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["dir", "from b"]);

    // The same while `sync` runs.
    let daemon = a.start_daemon();
    world.mounts().detach(&a.own_folder);
    b.write("more", "more");
    b.sync_once().exits(0);
    until("the daemon to notice", || {
        a.run(&["now"]).exits(0);
        (a.status()["held"]["code"] == "E_ROOT").then_some(())
    });
    let held = a.status()["held"]["message"].to_string();
    assert!(held.contains("mount"), "{held}");
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["dir", "from b", "more"]);
    assert!(a.names().is_empty());
    world.mounts().attach(&drive, &a.own_folder);
    until("the daemon to go on", || {
        a.run(&["now"]).exits(0);
        (a.status()["state"] == "idle" && a.read("more").is_some()).then_some(())
    });
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_file_that_is_in_use_is_named_and_the_rest_goes_on() {
    let mut world = World::with_mounts();
    world.start_server("127.0.0.1:0");
    let a = world.first("a");
    for name in ["dir/in use", "dir/gone", "other"] {
        a.write(name, "before");
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    // What is mounted on can neither be replaced nor removed.
    for name in ["dir/in use", "dir/gone"] {
        world
            .mounts()
            .attach(&b.own_folder.join(name), &b.own_folder.join(name));
    }
    a.write("dir/in use", "after");
    a.write("other", "after");
    fs::remove_file(a.folder.join("dir/gone")).unwrap();
    a.sync_once().exits(0);
    let done = b.sync_once().exits(1);
    failed(&done, "E_WRITE", "dir/in use");
    failed(&done, "E_WRITE", "dir/gone");
    assert_eq!(b.read("dir/in use").as_deref(), Some("before"));
    assert_eq!(b.read("dir/gone").as_deref(), Some("before"));
    assert_eq!(b.read("other").as_deref(), Some("after"));
    a.sync_once().exits(0);
    assert_eq!(a.read("dir/gone"), None);
    for name in ["dir/in use", "dir/gone"] {
        world.mounts().detach(&b.own_folder.join(name));
    }
    b.sync_once().exits(0);
    assert_eq!(
        (b.read("dir/in use").as_deref(), b.read("dir/gone")),
        (Some("after"), None)
    );
}

#[test]
fn a_folder_that_is_write_protected_says_so_and_loses_nothing() {
    let mut world = World::with_mounts();
    world.start_server("127.0.0.1:0");
    let (a, _) = on_a_drive(&world, "a", None);
    a.write("x", "x");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    b.write("y", "y");
    fs::remove_file(b.folder.join("x")).unwrap();
    b.sync_once().exits(0);
    world.mounts().write_protect(&a.own_folder);
    let done = a.sync_once().exits(1);
    assert!(done.stderr.contains("E_WRITE"), "{}", done.stderr);
    assert!(
        done.stderr.to_lowercase().contains("read-only"),
        "{}",
        done.stderr
    );
    assert_eq!(a.names(), ["x"]);
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["y"]);
    world.mounts().allow_writing(&a.own_folder);
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["y"]);
}

/// As `cp -a` and backups do it.
fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn a_folder_put_back_where_nobody_says_when_files_were_made_deletes_nothing() {
    let mut world = World::with_mounts();
    let disk = world.path("old disk");
    world.mounts().disk_without_births(&disk);
    world.start_server("127.0.0.1:0");
    let a = world.machine("a").with_folder(disk.join("a"));
    let init = [
        "init",
        "--password-file",
        "password",
        "--recovery-file",
        "recovery-code",
        "--cloud-slot",
    ];
    a.run(&init).exits(0);
    world.register(&a);
    a.write("edited", "before");
    a.write("dir/same", "same");
    a.write("gone", "gone");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let backup = world.path("backup");
    copy_all(&a.folder, &backup);
    a.write("edited", "after");
    a.write("new", "new");
    a.sync_once().exits(0);
    b.sync_once().exits(0);

    // `chmod` and a look at everything make no other folder of it: what is deleted is deleted.
    for path in [".syncagent/root", ".syncagent", "dir/same"] {
        let path = a.folder.join(path);
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, mode).unwrap();
    }
    fs::remove_file(a.folder.join("gone")).unwrap();
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["dir", "edited", "new"]);
    assert_eq!(a.status()["notices"], serde_json::json!([]));

    fs::remove_dir_all(&a.folder).unwrap();
    copy_all(&backup, &a.folder);
    let foreseen = a.foresee();
    assert!(!foreseen.stdout.contains("remove"), "{}", foreseen.stdout);
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    for machine in [&a, &b] {
        assert_eq!(machine.read("edited").as_deref(), Some("after"));
        assert_eq!(machine.read("new").as_deref(), Some("new"));
        assert_eq!(machine.read("dir/same").as_deref(), Some("same"));
    }
    let notices = a.status()["notices"].to_string();
    assert!(notices.contains("put back from a backup"), "{notices}");
}
