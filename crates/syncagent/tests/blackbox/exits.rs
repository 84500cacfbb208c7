//! Exit statuses of the table that need something broken: files, state, token, permissions.

use std::fs;

use crate::world::{Machine, World};

#[cfg(unix)]
mod permissions {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use crate::world::{Machine, Run, World, run, without_privileges};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn once(machine: &Machine) -> Run {
        let command = machine.command(&["sync", "--once", "--password-file", "password"]);
        run(&mut without_privileges(&command))
    }

    #[test]
    fn what_cannot_be_read_is_exit_1_and_the_rest_goes_on() {
        let world = World::new();
        let a = world.first("a");
        for name in ["open", "closed", "dir/below"] {
            a.write(name, name);
        }
        chmod(&a.folder.join("closed"), 0o000);
        chmod(&a.folder.join("dir"), 0o000);
        let said = once(&a).exits(1).stderr;
        assert!(
            said.contains("E_READ: closed: ") && said.contains("E_READ: dir: "),
            "{said}"
        );
        let status = a.run(&["status", "--json"]).exits(1).json();
        assert_eq!(
            (&status["state"], &status["files"]),
            (&"error".into(), &1.into())
        );
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        assert_eq!(b.read("open").as_deref(), Some("open"));
        assert_eq!(b.read("closed"), None);

        chmod(&a.folder.join("closed"), 0o600);
        chmod(&a.folder.join("dir"), 0o700);
        once(&a).exits(0);
        b.sync_once().exits(0);
        assert_eq!(b.read("closed").as_deref(), Some("closed"));
        assert_eq!(b.read("dir/below").as_deref(), Some("dir/below"));

        // Not to be read any more is not to be gone; and it weighs more than a conflict.
        a.write("open", "from a");
        b.write("open", "from b");
        a.sync_once().exits(0);
        chmod(&b.folder.join("dir"), 0o000);
        once(&b).exits(1);
        assert_eq!(
            b.run(&["conflicts", "list", "--json"]).json()["conflicts"][0]["path"],
            "open"
        );
        a.sync_once().exits(0);
        assert_eq!(a.read("dir/below").as_deref(), Some("dir/below"));
        chmod(&b.folder.join("dir"), 0o700);
    }

    #[test]
    fn what_cannot_be_written_is_exit_1_and_the_rest_goes_on() {
        let world = World::new();
        let a = world.first("a");
        let b = world.next("b", &a);
        a.write("dir/first", "1");
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        a.write("dir/second", "2");
        a.write("other/third", "3");
        a.sync_once().exits(0);
        chmod(&b.folder.join("dir"), 0o500);
        let said = once(&b).exits(1).stderr;
        assert!(said.contains("E_WRITE: dir/second: "), "{said}");
        assert_eq!(
            (b.read("dir/second"), b.read("other/third").as_deref()),
            (None, Some("3"))
        );
        chmod(&b.folder.join("dir"), 0o700);
        once(&b).exits(0);
        assert_eq!(b.read("dir/second").as_deref(), Some("2"));
    }
}

#[test]
fn a_state_beyond_use_is_exit_7_until_it_is_reset() {
    let world = World::new();
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    for side in ["-wal", "-shm"] {
        let _ = fs::remove_file(a.home().join(format!("state.db{side}")));
    }
    fs::write(a.home().join("state.db"), "no database ".repeat(1000)).unwrap();
    let broken = a.sync_once().exits(7).says("E_STATE");
    assert!(
        broken.stderr.contains("syncagent reset"),
        "{}",
        broken.stderr
    );
    a.run(&["status"]).exits(7).says("E_STATE");
    a.run(&["reset", "--yes"]).exits(0);
    a.sync_once().exits(0);
    assert_eq!(a.read("x").as_deref(), Some("x"));
    assert_eq!(a.status()["files"], 1);
}

#[test]
fn a_token_that_the_server_does_not_know_is_exit_12() {
    let world = World::new();
    let a = world.first("a");
    a.sync_once().exits(0);
    let file = a.home().join("machine.json");
    let mut here: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    here["token"] = "0".repeat(64).into();
    fs::write(&file, here.to_string()).unwrap();
    let refused = a.sync_once().exits(12).says("E_AUTH");
    assert!(
        refused.stderr.contains("syncagent register"),
        "{}",
        refused.stderr
    );
    a.run(&["status"]).exits(12);
    // What the advice says helps.
    world.register(&a);
    a.sync_once().exits(0);
    a.run(&["status"]).exits(0);
}

#[test]
fn a_key_file_that_asks_for_too_much_is_exit_11_before_anything_is_derived() {
    let world = World::new();
    let a = world.first("a");
    let file = a.home().join("key.saks");
    let mut slot = fs::read(&file).unwrap();
    // Memory for the derivation, in KiB: 4 TiB.
    slot[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    fs::write(&file, slot).unwrap();
    a.sync_once().exits(11).says("E_KDF_POLICY");
}

fn many(machine: &Machine) -> usize {
    fs::read_dir(machine.folder.join("many")).map_or(0, Iterator::count)
}

#[test]
fn a_mass_change_is_exit_13_until_somebody_says_yes() {
    let world = World::new();
    let a = world.first("a");
    for i in 0..120 {
        a.write(&format!("many/{i}"), &i.to_string());
    }
    a.sync_once().exits(0);
    let b = world.next("b", &a);
    b.sync_once().exits(0);
    fs::remove_dir_all(a.folder.join("many")).unwrap();
    let held = a.sync_once().exits(13).says("E_BRAKE");
    assert!(
        held.stderr.contains("120 of 120") && held.stderr.contains("--yes"),
        "{}",
        held.stderr
    );
    let status = a.run(&["status", "--json"]).exits(13).json();
    assert_eq!(
        (&status["state"], &status["held"]["code"]),
        (&"held".into(), &"E_BRAKE".into())
    );
    b.sync_once().exits(0);
    assert_eq!(many(&b), 120);
    a.run(&["sync", "--once", "--yes", "--password-file", "password"])
        .exits(0);
    // The other one is asked for itself: a mistake on one machine is not to empty all.
    b.sync_once().exits(13).says("E_BRAKE");
    assert_eq!(many(&b), 120);
    b.run(&["sync", "--once", "--yes", "--password-file", "password"])
        .exits(0);
    assert_eq!(many(&b), 0);
}
