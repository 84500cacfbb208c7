//! What else goes wrong on a machine: each is one sentence with a code and an exit, and changes nothing else. The whole
//! table stands in docs/failures.md.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{Machine, Run, World, run, until};

/// The one line on stderr, but for how far it was.
#[track_caller]
fn only_line(run: &Run) -> &str {
    let said = |line: &&str| !line.starts_with("synchronising: ");
    let lines: Vec<&str> = run.stderr.lines().filter(said).collect();
    assert_eq!(lines.len(), 1, "{}", run.stderr);
    lines[0]
}

#[test]
fn a_damaged_key_file_is_named_and_the_advice_helps() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let file = a.home().join("key.saks");
    let whole = fs::read(&file).unwrap();
    // What can be seen without a password.
    let mut other_kind = whole.clone();
    other_kind[0] ^= 1;
    for damaged in [&b""[..], b"damaged", &whole[..100], &other_kind] {
        fs::write(&file, damaged).unwrap();
        let done = a.sync_once().exits(11).says("E_KEYSLOT");
        let said = only_line(&done);
        assert!(
            said.contains(&*file.to_string_lossy()) && said.contains("--recovery-code-file"),
            "{said}"
        );
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    // What cannot: it looks like a wrong password.
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let done = a.sync_once().exits(11).says("E_KEYSLOT");
    assert!(
        only_line(&done).contains("damaged key file"),
        "{}",
        done.stderr
    );

    for damaged in [&b"damaged"[..], &flipped] {
        fs::write(&file, damaged).unwrap();
        let link = format!("{}#{}", world.url, world.invite());
        let folder = a.folder.to_string_lossy().into_owned();
        let words = [
            "join",
            &link,
            &folder,
            "--name",
            "a-machine",
            "--recovery-code-file",
            "recovery-code",
            "--password-file",
            "password",
        ];
        a.run(&words).exits(0);
        a.sync_once().exits(0);
        assert_eq!(a.read("x").as_deref(), Some("x"));
    }
    // The other way.
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let export = b.with_passwords("export-key").exits(0).stdout;
    fs::write(&file, "damaged").unwrap();
    let words = [
        "import-key",
        "--password-file",
        "password",
        "--export-password-file",
        "export-password",
    ];
    a.feed(&words, &export).exits(0);
    a.sync_once().exits(0);
}

#[test]
fn a_damaged_machine_file_is_named_and_the_advice_helps() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let file = a.home().join("machine.json");
    let half = fs::read(&file).unwrap()[..50].to_vec();
    fs::write(&file, &half).unwrap();
    let done = a.sync_once().exits(3).says("E_SETUP");
    let said = only_line(&done);
    assert!(
        said.contains(&*file.to_string_lossy()) && said.contains("reset --new-machine"),
        "{said}"
    );
    assert_eq!(fs::read(&file).unwrap(), half);
    a.run(&["reset", "--new-machine", "--yes"]).exits(0);
    let token = world.invite();
    let folder = a.folder.to_string_lossy().into_owned();
    a.run(&[
        "register", "--server", &world.url, "--token", &token, "--name", "again", "--folder",
        &folder,
    ])
    .exits(0);
    a.write("y", "y");
    a.sync_once().exits(0);
    assert_eq!(a.names(), ["x", "y"]);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    assert_eq!(b.names(), ["x", "y"]);
}

#[test]
fn a_second_daemon_on_a_folder_or_home_is_exit_5() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    let daemon = a.start_daemon();
    for words in [
        &["sync", "--once", "--password-file", "password"][..],
        &["sync", "--password-file", "password"],
    ] {
        let done = a.run(words).exits(5).says("E_BUSY");
        assert!(
            done.stderr.contains(&*a.home().to_string_lossy()),
            "{}",
            done.stderr
        );
    }
    // Another home, the same folder.
    let mut other = world.machine("other");
    other.own_folder = a.own_folder.clone();
    let other = world.joined(other, &a);
    let done = other.sync_once().exits(5).says("E_BUSY");
    assert!(
        only_line(&done).contains(&*a.folder.to_string_lossy()),
        "{}",
        done.stderr
    );
    assert_eq!(a.status()["state"], "idle");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(a.names(), ["x"]);
    a.sync_once().exits(0);
}

#[test]
fn a_folder_that_was_emptied_or_replaced_holds_everything() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    let elsewhere = world.path("elsewhere");
    let held = |case: &str, place: &dyn Fn(&Path)| {
        fs::rename(&a.folder, &elsewhere).unwrap();
        place(&a.folder);
        let done = a.sync_once().exits(13).says("E_ROOT");
        assert!(
            only_line(&done).contains(&*a.folder.to_string_lossy()),
            "{case}: {}",
            done.stderr
        );
        let status = a.run(&["status", "--json"]).exits(13).json();
        assert_eq!(status["held"]["code"], "E_ROOT", "{case}");
        b.sync_once().exits(0);
        assert_eq!(b.names(), ["x"], "{case}");
        match a.folder.is_dir() {
            true => fs::remove_dir_all(&a.folder).unwrap(),
            false => drop(fs::remove_file(&a.folder)),
        }
        fs::rename(&elsewhere, &a.folder).unwrap();
        a.sync_once().exits(0);
        assert_eq!(a.names(), ["x"], "{case}");
    };
    held("gone", &|_| {});
    held("emptied", &|folder| fs::create_dir(folder).unwrap());
    held("another with files", &|folder| {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("y"), "y").unwrap();
    });
    held("another machine's", &|folder| {
        let c = world.next("c", &b);
        c.sync_once().exits(0);
        fs::rename(&c.folder, folder).unwrap();
    });
    held("a file", &|folder| fs::write(folder, "no folder").unwrap());
    held("a link to nowhere", &|folder| {
        std::os::unix::fs::symlink("nowhere", folder).unwrap();
    });
}

#[test]
fn a_folder_whose_copy_stands_in_its_place_goes_on_while_sync_runs() {
    let world = World::new();
    let a = world.first("a");
    a.write("dir/x", "x");
    let b = world.next("b", &a);
    let daemon = a.start_daemon();
    let elsewhere = world.path("elsewhere");
    fs::rename(&a.folder, &elsewhere).unwrap();
    fs::create_dir(&a.folder).unwrap();
    until("the daemon to notice", || {
        a.run(&["now"]).exits(0);
        (a.status()["held"]["code"] == "E_ROOT").then_some(())
    });
    fs::remove_dir(&a.folder).unwrap();
    // As a backup brings it back: the same files under new inodes.
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&elsewhere)
        .arg(&a.folder)
        .status();
    assert!(copied.unwrap().success());
    a.write("y", "y");
    until("the daemon to go on", || {
        a.run(&["now"]).exits(0);
        (a.status()["state"] == "idle").then_some(())
    });
    // It hears of what happens there, too.
    a.write("dir/z", "z");
    until("what is written there", || {
        b.sync_once().exits(0);
        b.read("dir/z")
    });
    assert_eq!(b.names(), ["dir", "y"]);
    assert_eq!(a.names(), ["dir", "y"]);
    assert_eq!(daemon.terminate(), 0);
}

