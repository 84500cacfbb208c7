//! Rows of the scan.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncagent_protocol::{Code, TreePath};
use syncagent_sync::scan::{Observed, Scan};

use super::hooked::{Hooked, error};
use super::{Dir, p};
use crate::folder::disk::{At, Disk, ErrorKind, Stat};
use crate::folder::read::{ReadError, open_stable};
use crate::folder::scan::{IgnoreRules, KeepAll, Look, is_racy};

/// Long after every file of these tests was made.
const LATER: i64 = i64::MAX / 2;

/// Leaves out `*.tmp` and the directory `target`.
struct Rules;

impl IgnoreRules for Rules {
    fn ignores(&self, path: &TreePath, is_dir: bool) -> Option<String> {
        let name = path.name()?;
        let tmp = name.as_str().ends_with(".tmp");
        (tmp || is_dir && name.as_str() == "target").then(|| "a rule of the test".to_owned())
    }
}

fn look<'a>(disk: &'a dyn Disk, known: &'a (dyn Fn(&TreePath) -> bool + Sync)) -> Look<'a> {
    Look {
        disk,
        rules: &Rules,
        known,
        now_ns: LATER,
    }
}

fn scan(disk: &dyn Disk) -> Scan {
    look(disk, &|_| false).scan()
}

fn rescan(disk: &dyn Disk, scan: &mut Scan, paths: &[&str]) {
    look(disk, &|_| false).rescan(scan, &paths.iter().map(|path| p(path)).collect());
}

/// What was found, in short: `f` file, `x` executable, `d` directory, `s` holds skipped, `!` incomplete, `?` unknown.
fn shown(scan: &Scan) -> Vec<String> {
    let short = |(path, observed): (&TreePath, &Observed)| {
        let kind = match observed {
            Observed::File { exec, .. } => if *exec { "x" } else { "f" }.to_owned(),
            Observed::Directory {
                complete,
                holds_skipped,
                ..
            } => {
                format!(
                    "d{}{}",
                    if *holds_skipped { "s" } else { "" },
                    if *complete { "" } else { "!" }
                )
            }
            Observed::Symlink { target, .. } => format!("-> {target}"),
            Observed::Unknown => "?".to_owned(),
        };
        format!("{path} {kind}")
    };
    scan.entries.iter().map(short).collect()
}

fn skipped(scan: &Scan) -> Vec<String> {
    scan.skipped
        .iter()
        .map(|skipped| format!("{} {}", skipped.path, skipped.reason))
        .collect()
}

/// A rescan must leave what a scan would find.
fn assert_as_scanned(dir: &Dir, found: &Scan) {
    let fresh = scan(&*dir.disk);
    assert_eq!(found.entries, fresh.entries);
    assert_eq!(skipped(found), skipped(&fresh));
    assert_eq!(found.root_complete, fresh.root_complete);
}

#[test]
fn everything_is_found_and_what_is_left_out_has_a_reason() {
    let dir = Dir::new();
    dir.write("a/b/c.txt", "1");
    dir.write("a.txt", "1");
    dir.write("run.sh", "1");
    dir.write("x.tmp", "1");
    dir.write("a/target/much", "1");
    dir.write(
        "a/.syncagent",
        "a file of this name below the root is anybody's",
    );
    std::fs::create_dir(dir.path("empty")).unwrap();
    symlink("nowhere/at all", dir.path("link")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"\xff"), dir.path("odd-link")).unwrap();
    std::fs::write(
        dir.path("a").join(std::ffi::OsStr::from_bytes(b"bad\xff")),
        "",
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("socket")).unwrap();
    std::fs::set_permissions(
        dir.path("run.sh"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let found = scan(&*dir.disk);
    assert!(found.root_complete);
    assert_eq!(
        shown(&found),
        [
            "a ds",
            "a/.syncagent f",
            "a/b d",
            "a/b/c.txt f",
            "a.txt f",
            "empty d",
            "link -> nowhere/at all",
            "run.sh x"
        ]
    );
    assert_eq!(
        skipped(&found),
        [
            "a/bad\\xff not-utf8",
            "a/target ignored",
            "odd-link not-utf8",
            "socket special",
            "x.tmp ignored"
        ]
    );
    let Some(Observed::File {
        fingerprint, racy, ..
    }) = found.entries.get(&p("a.txt"))
    else {
        panic!()
    };
    assert_eq!((*fingerprint, *racy), (dir.fingerprint("a.txt"), false));
}

#[test]
fn what_is_left_out_but_known_is_unknown() {
    let dir = Dir::new();
    dir.write("x.tmp", "1");
    dir.write("y.tmp", "1");
    dir.write("target/z", "1");
    let known = |path: &TreePath| *path == p("x.tmp") || *path == p("target");
    let found = look(&*dir.disk, &known).scan();
    assert_eq!(shown(&found), ["target ?", "x.tmp ?"]);
}

#[test]
fn a_file_touched_within_the_clocks_grain_is_racy() {
    let dir = Dir::new();
    dir.write("f", "1");
    let fingerprint = dir.fingerprint("f");
    for (now_ns, racy) in [
        (fingerprint.ctime_ns, true),
        (fingerprint.ctime_ns + 19_000_000, true),
        (fingerprint.ctime_ns + 21_000_000, false),
        // The scan itself takes time: touched after it began.
        (fingerprint.ctime_ns - 1_000_000_000, true),
        // The clock was put back by years.
        (fingerprint.ctime_ns - (1 << 60), false),
    ] {
        let found = Look {
            disk: &*dir.disk,
            rules: &KeepAll,
            known: &|_| false,
            now_ns,
        }
        .scan();
        let Some(Observed::File { racy: found, .. }) = found.entries.get(&p("f")) else {
            panic!()
        };
        assert_eq!(*found, racy, "{now_ns}");
    }
}

/// A file system that keeps whole seconds shows nothing finer; two writes in two of them may leave one stamp.
#[test]
fn a_stamp_of_whole_seconds_vouches_for_nothing_for_two_of_them() {
    let dir = Dir::new();
    dir.write("f", "1");
    let stat = dir.disk.stat(At::Tree(&p("f"))).unwrap();
    let at = |seconds: i64, ns: i64| seconds * 1_000_000_000 + ns;
    for (mtime_ns, ctime_ns, now_ns, racy) in [
        (at(100, 0), at(100, 0), at(101, 999_999_999), true),
        (at(100, 0), at(100, 0), at(102, 20_000_000), false),
        // As FAT has it.
        (at(100, 0), 0, at(101, 999_999_999), true),
        // A time that was set by hand.
        (at(50, 0), at(100, 1), at(101, 0), false),
        (at(100, 1), at(100, 1), at(100, 30_000_000), false),
    ] {
        let stat = Stat {
            mtime_ns,
            ctime_ns,
            ..stat
        };
        assert_eq!(is_racy(&stat, now_ns), racy, "{mtime_ns} at {now_ns}");
    }
}

#[test]
fn rescans_find_what_a_scan_would() {
    let dir = Dir::new();
    for path in ["a/b/c", "a/b/d", "a/e", "a/keep.tmp", "f", "g/h/i"] {
        dir.write(path, "1");
    }
    let mut found = scan(&*dir.disk);

    type Change = (&'static str, fn(&Dir), &'static [&'static str]);
    let changes: &[Change] = &[
        ("edit", |dir| dir.write("a/b/c", "22"), &["a/b/c"]),
        ("new", |dir| dir.write("a/b/new", "1"), &["a/b/new"]),
        (
            "remove",
            |dir| std::fs::remove_file(dir.path("f")).unwrap(),
            &["f"],
        ),
        ("new tree", |dir| dir.write("n/o/p", "1"), &["n"]),
        (
            "hint below a new tree",
            |dir| dir.write("q/r/s", "1"),
            &["q/r/s"],
        ),
        (
            "move tree",
            |dir| std::fs::rename(dir.path("g"), dir.path("a/g")).unwrap(),
            &["g", "a/g"],
        ),
        (
            "remove tree",
            |dir| std::fs::remove_dir_all(dir.path("n")).unwrap(),
            &["n/o/p"],
        ),
        (
            "to a link",
            |dir| {
                std::fs::remove_dir_all(dir.path("q")).unwrap();
                symlink("/etc", dir.path("q")).unwrap();
            },
            &["q/r"],
        ),
        (
            "to a file",
            |dir| {
                std::fs::remove_dir_all(dir.path("a/g")).unwrap();
                dir.write("a/g", "1");
            },
            &["a/g/h/i"],
        ),
        (
            "left out",
            |dir| dir.write("a/b/x.tmp", "1"),
            &["a/b/x.tmp"],
        ),
        (
            "below what is left out",
            |dir| dir.write("a/target/deep/x", "1"),
            &["a/target/deep/x"],
        ),
        (
            "no longer left out",
            |dir| std::fs::remove_file(dir.path("a/b/x.tmp")).unwrap(),
            &["a/b/x.tmp"],
        ),
        (
            "chmod",
            |dir| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(dir.path("a/e"), mode).unwrap();
            },
            &["a/e"],
        ),
        ("nothing", |_| {}, &["none/at/all", "a/none"]),
        ("everything", |dir| dir.write("z", "1"), &[""]),
    ];
    for (what, change, paths) in changes {
        println!("{what}");
        change(&dir);
        rescan(&*dir.disk, &mut found, paths);
        assert_as_scanned(&dir, &found);
    }
}

#[test]
fn what_cannot_be_read_is_unknown_or_incomplete_never_absent() {
    let dir = Dir::new();
    dir.write("a/f", "1");
    dir.write("b/g", "1");
    let denied = Hooked::new(&dir.disk, |_, verb, path| match (verb, path) {
        ("list", "a") => Err(error(ErrorKind::Denied)),
        ("stat", "b/g") => Err(error(ErrorKind::Io)),
        _ => Ok(()),
    });
    let mut found = scan(&*denied);
    assert_eq!(shown(&found), ["a d!", "b d", "b/g f"]);
    assert_eq!(skipped(&found), ["a unreadable"]);
    assert_eq!(found.skipped[0].code, Some(Code::Read));
    rescan(&*denied, &mut found, &["b/g"]);
    assert_eq!(shown(&found), ["a d!", "b ds", "b/g ?"]);
    let no_root = Hooked::new(&dir.disk, |_, verb, _| {
        if verb == "list" {
            Err(error(ErrorKind::Io))
        } else {
            Ok(())
        }
    });
    let found = scan(&*no_root);
    assert!(!found.root_complete && found.entries.is_empty());
    assert_eq!(skipped(&found), [". unreadable"]);
}

#[test]
fn an_absence_below_an_unreadable_directory_is_not_believed() {
    let dir = Dir::new();
    dir.write("a/b/f", "1");
    let mut found = scan(&*dir.disk);
    // As a dying drive does it: everything below "a" is not found, and "a" cannot be looked at.
    let dying = Hooked::new(&dir.disk, |_, verb, path| match (verb, path) {
        ("stat", "a/b/f" | "a/b") => Err(error(ErrorKind::NotFound)),
        ("stat", "a") => Err(error(ErrorKind::Io)),
        _ => Ok(()),
    });
    rescan(&*dying, &mut found, &["a/b/f"]);
    assert_eq!(shown(&found), ["a ?"]);
}

/// At each call of the scan in turn: what is there all the time is never missing under both names.
#[test]
fn a_rename_behind_the_scans_back_is_found_under_one_of_its_names() {
    for (from, to) in [("z/f", "a/f"), ("a/f", "z/f"), ("z", "a/z"), ("a", "z/a")] {
        for call in 0.. {
            let dir = Dir::new();
            dir.write("a/f", "a");
            dir.write("z/f", "z");
            if to == "a/f" || to == "z/f" {
                std::fs::remove_file(dir.path(to)).unwrap();
            }
            dir.wait_a_tick();
            let (source, target) = (dir.path(from), dir.path(to));
            let happened = Arc::new(AtomicBool::new(false));
            let noted = Arc::clone(&happened);
            let disk = Hooked::new(&dir.disk, move |n, _, _| {
                if n == call {
                    std::fs::rename(&source, &target).unwrap();
                    noted.store(true, Ordering::SeqCst);
                }
                Ok(())
            });
            let found = scan(&*disk);
            if !happened.load(Ordering::SeqCst) {
                assert!(call > 5, "a scan of {call} calls");
                break;
            }
            let is_there = |path: String| found.entries.contains_key(&p(&path));
            let below = if from.contains('/') { "" } else { "/f" };
            for what in ["", below] {
                let found = is_there(from.to_owned() + what) || is_there(to.to_owned() + what);
                assert!(found, "{from}{what}, at call {call}");
            }
        }
    }
}

#[test]
fn a_directory_that_never_holds_still_is_incomplete() {
    let dir = Dir::new();
    dir.write("busy/f", "1");
    dir.write("quiet/f", "1");
    let busy = dir.path("busy");
    let disk = Hooked::new(&dir.disk, move |n, verb, path| {
        if verb == "listed" && path == "busy" {
            std::fs::write(busy.join(format!("{n}")), "1").unwrap();
        }
        Ok(())
    });
    let found = scan(&*disk);
    assert!(
        shown(&found).contains(&"busy d!".to_owned())
            && shown(&found).contains(&"quiet d".to_owned())
    );
    assert_eq!(skipped(&found), ["busy changing"]);
    assert!(found.root_complete);
}

#[test]
fn parallel_and_serial_scans_find_the_same() {
    let dir = Dir::new();
    for n in 0..300 {
        dir.write(&format!("d{}/e{}/f{n}", n % 7, n % 11), "1");
    }
    let serial = scan(&*Hooked::new(&dir.disk, |_, _, _| Ok(())));
    let parallel = scan(&*dir.disk);
    assert_eq!(serial.entries, parallel.entries);
    let sorted: BTreeMap<_, _> = parallel
        .entries
        .iter()
        .map(|(path, seen)| (path.clone(), seen.clone()))
        .collect();
    assert_eq!(sorted, *parallel.entries);
}

#[test]
fn a_reading_is_of_one_state() {
    let dir = Dir::new();
    dir.write("f", "12345");
    let now_ns = LATER;
    let mut buf = [0; 3];

    let mut read = open_stable(&*dir.disk, &p("f"), Some(dir.fingerprint("f"))).unwrap();
    assert_eq!(
        (
            read.size(),
            read.read(&mut buf).unwrap(),
            read.read(&mut buf).unwrap()
        ),
        (5, 3, 2)
    );
    assert_eq!(read.read(&mut buf).unwrap(), 0);
    let reading = read.finish(now_ns).unwrap();
    assert_eq!(
        (reading.fingerprint, reading.exec, reading.racy),
        (dir.fingerprint("f"), false, false)
    );

    let touched = |change: &dyn Fn()| {
        let mut read = open_stable(&*dir.disk, &p("f"), None).unwrap();
        read.read(&mut buf.clone()).unwrap();
        change();
        matches!(read.finish(now_ns), Err(ReadError::Changed { .. }))
    };
    assert!(touched(&|| dir.write("f", "123456")));
    assert!(touched(&|| {
        dir.write("new", "other");
        std::fs::rename(dir.path("new"), dir.path("f")).unwrap();
    }));
    assert!(!touched(&|| {}));

    let old = dir.fingerprint("f");
    dir.write("f", "1");
    assert!(matches!(
        open_stable(&*dir.disk, &p("f"), Some(old)),
        Err(ReadError::Changed { .. })
    ));

    // Grown while it is read: what is behind the old end is not part of it. Cut: there is nothing to read.
    let mut read = open_stable(&*dir.disk, &p("f"), None).unwrap();
    dir.write("f", "1 and more");
    assert_eq!(read.read(&mut buf).unwrap(), 1);
    assert_eq!(read.read(&mut buf).unwrap(), 0);
    let mut read = open_stable(&*dir.disk, &p("f"), None).unwrap();
    dir.write("f", "");
    assert!(matches!(
        read.read(&mut buf),
        Err(ReadError::Changed { .. })
    ));
    assert!(matches!(
        open_stable(&*dir.disk, &p("none"), None),
        Err(ReadError::Disk(_))
    ));
}

#[test]
fn hints_are_grouped() {
    // A hint below another is covered by it: each is looked at once.
    let dir = Dir::new();
    dir.write("a/b/c", "1");
    let counted: Arc<Hooked> = Hooked::new(&dir.disk, |_, _, _| Ok(()));
    let mut found = scan(&*counted);
    let before = counted.calls();
    let paths: BTreeSet<_> = ["a", "a/b", "a/b/c"].map(p).into();
    look(&*counted, &|_| false).rescan(&mut found, &paths);
    // Looked at, listed twice (two calls each), stamps of two directories.
    assert_eq!(counted.calls() - before, 1 + 4 + 2);
}
