//! The root's identity and lock, and what a name probe finds.

use std::sync::Arc;

use syncagent_protocol::{Code, Name, NodeId, VaultId};

use super::{Dir, p};
use crate::folder::disk::unix::UnixDisk;
use crate::folder::disk::{At, Disk, ErrorKind};
use crate::folder::placement::{fold, probe};
use crate::folder::root::{Identity, RootError, RootState, adopt, check_root, lock, read_identity};
use syncagent_sync::Placement;

fn identity(n: u8) -> Identity {
    Identity {
        vault: VaultId([n; 16]),
        folder: [0xab; 16],
    }
}

#[test]
fn adoption_changes_nothing_but_its_own_directory() {
    let dir = Dir::new();
    dir.write("a/b", "1");
    std::fs::remove_dir_all(dir.path(".syncagent")).unwrap();
    let before = dir.fingerprint("a/b");
    let disk = UnixDisk::open(&dir.path("")).unwrap();
    assert_eq!(read_identity(&disk).unwrap(), None);
    assert_eq!(
        check_root(&disk, &identity(1)).unwrap(),
        RootState::NoIdentity
    );
    assert!(!dir.path(".syncagent").exists(), "looking makes nothing");
    let guard = adopt(&disk, &identity(1)).unwrap();
    assert_eq!(check_root(&disk, &identity(1)).unwrap(), RootState::Fine);
    assert_eq!(check_root(&disk, &identity(2)).unwrap(), RootState::Other);
    assert_eq!(dir.fingerprint("a/b"), before);
    assert_eq!(dir.mode(".syncagent"), 0o700);
    assert_eq!(disk.list_temp().unwrap(), []);
    assert_eq!(
        dir.read(".syncagent/root"),
        format!(
            "syncagent folder 1\nvault {}\nfolder {}\n",
            "01".repeat(16),
            "ab".repeat(16)
        )
    );
    // A second daemon, also one that adopts, is refused.
    let second = UnixDisk::open(&dir.path("")).unwrap();
    for refused in [lock(&second), adopt(&second, &identity(1))] {
        assert_eq!(refused.err().unwrap().code(), Code::Busy);
    }
    drop(guard);
    drop(lock(&second).unwrap());
    drop(adopt(&second, &identity(1)).unwrap());
    assert!(matches!(
        adopt(&second, &identity(2)),
        Err(RootError::Other)
    ));
}

#[test]
fn a_root_that_went_away_is_seen() {
    let dir = Dir::new();
    let root = dir.path("");
    drop(adopt(&*dir.disk, &identity(1)).unwrap());
    let state = || check_root(&*dir.disk, &identity(1)).unwrap();
    assert_eq!(state(), RootState::Fine);
    let away = dir.outside().join("away");
    std::fs::rename(&root, &away).unwrap();
    assert_eq!(state(), RootState::Missing);
    std::fs::create_dir(&root).unwrap();
    assert_eq!(state(), RootState::Swapped);
    let reopened = UnixDisk::open(&root).unwrap();
    assert_eq!(
        check_root(&reopened, &identity(1)).unwrap(),
        RootState::NoIdentity
    );
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(state(), RootState::Fine);
    std::fs::write(dir.path(".syncagent/root"), "scrambled").unwrap();
    assert_eq!(state(), RootState::Other);
    std::fs::remove_file(dir.path(".syncagent/root")).unwrap();
    assert_eq!(state(), RootState::NoIdentity);
    assert_eq!(
        UnixDisk::open(&dir.path("none")).err().unwrap().kind,
        ErrorKind::NotFound
    );
    for state in [
        RootState::Missing,
        RootState::NoIdentity,
        RootState::Other,
        RootState::Swapped,
    ] {
        assert!(state.problem().is_some());
    }
}

#[test]
fn a_link_for_our_own_directory_is_not_followed() {
    let dir = Dir::new();
    std::fs::remove_dir_all(dir.path(".syncagent")).unwrap();
    std::os::unix::fs::symlink(dir.outside(), dir.path(".syncagent")).unwrap();
    let disk = UnixDisk::open(&dir.path("")).unwrap();
    assert!(adopt(&disk, &identity(1)).is_err());
    assert_eq!(std::fs::read_dir(dir.outside()).unwrap().count(), 0);
}

#[test]
fn this_file_system_holds_every_name() {
    let dir = Dir::new();
    let found = probe(&*dir.disk).unwrap();
    let holds = dir.disk.symlink("x", At::Tree(&p("a:b"))).is_ok();
    assert!(holds, "the tests run on a file system of Linux or macOS");
    assert!(!found.windows_names);
    assert_eq!(dir.temps(), 0);
    if cfg!(target_os = "linux") {
        assert!(found.normalise.is_none() && !found.case_insensitive && !found.utf16_lengths);
        assert!(found.symlinks && found.exec_bit);
    }
}

#[test]
fn names_by_file_system() {
    let mac = Placement {
        case_insensitive: true,
        normalise: Some(fold),
        utf16_lengths: true,
        ..Placement::UNIX
    };
    let windows = Placement::WINDOWS;
    let name = |text: &str| Name::parse(text).unwrap();
    let wide = "\u{e9}".repeat(200);
    let rows: &[(&str, bool, bool, bool)] = &[
        ("a", true, true, true),
        (".syncagent", false, false, false),
        (".SyncAgent", true, false, false),
        (".sync\u{200c}agent", true, false, false),
        (".\u{17f}yncagent", true, false, false),
        (".syncagent.", true, true, false),
        (".syncagent::$INDEX_ALLOCATION", true, true, false),
        ("SYNCAG~1", true, true, false),
        ("SY12AB~1", true, true, false),
        ("sync~ed", true, true, true),
        ("CON", true, true, false),
        ("con.txt", true, true, false),
        ("COM\u{b9}.x", true, true, false),
        ("COMX", true, true, true),
        ("console", true, true, true),
        ("a:b", true, true, false),
        ("a\\b", true, true, false),
        ("a\tb", true, true, false),
        ("dot.", true, true, false),
        ("space ", true, true, false),
        (&wide, false, true, true),
    ];
    for (text, exact, on_mac, on_windows) in rows {
        for (placement, want) in [
            (Placement::UNIX, exact),
            (mac, on_mac),
            (windows, on_windows),
        ] {
            assert_eq!(
                placement.refuses(NodeId::ROOT, &name(text)).is_none(),
                *want,
                "{text:?} {placement:?}"
            );
        }
    }
    assert!(
        mac.refuses(NodeId([1; 16]), &name(".SyncAgent")).is_none(),
        "only in the root"
    );
    let twins =
        |placement: Placement, a: &str, b: &str| placement.key(&name(a)) == placement.key(&name(b));
    assert!(!twins(Placement::UNIX, "a", "A") && !twins(Placement::UNIX, "\u{e9}", "e\u{301}"));
    assert!(
        twins(mac, "Stra\u{df}e", "STRASSE")
            && twins(mac, "\u{c9}", "e\u{301}")
            && !twins(mac, "a", "b")
    );
    assert!(twins(windows, "a", "A"));
}

#[test]
fn a_disk_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let disk: Arc<dyn Disk> = Dir::new().disk;
    shared(&disk);
}
