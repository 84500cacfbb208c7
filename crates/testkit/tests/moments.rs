//! One thing that happens, tried at every call of a pass in turn: a machine on a simulated drive, another on a real disk.
//!
//! Simulated worlds come across the same moments by chance; here none is left out.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncagent_client::engine::{Occupied, Restore};
use syncagent_client::folder::disk::ErrorKind;
use syncagent_protocol::{Code, TreePath};
use syncagent_testkit::sim::clock::{SimClock, TICK_NS};
use syncagent_testkit::sim::dice::Dice;
use syncagent_testkit::sim::disk::{Drive, Fault};
use syncagent_testkit::sim::fs::{Body, Content, Fs, Item};
use syncagent_testkit::sim::trace::Trace;
use syncagent_testkit::world::{Machine, World};
use syncagent_vault::op::Genesis;

/// Calls of a pass over a few files; more would mean that a test does not end.
const MANY: u64 = 1000;

struct Two {
    _dir: tempfile::TempDir,
    clock: SimClock,
    trace: Trace,
    world: World,
    drive: Drive,
    /// On the drive.
    laptop: Machine,
    /// On a real disk.
    desktop: Machine,
}

impl Two {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = SimClock::default();
        let trace = Trace::new(clock.clone());
        let world = World::with_clock(Genesis::default(), Arc::new(clock.clone()));
        let drive = Drive::new(clock.clone(), trace.clone(), "laptop", Arc::default());
        let laptop = world.machine(dir.path(), "laptop").await.unwrap();
        let desktop = world.machine(dir.path(), "desktop").await.unwrap();
        let mut two = Self {
            _dir: dir,
            clock,
            trace,
            world,
            drive,
            laptop,
            desktop,
        };
        two.start();
        two.settle().await;
        two
    }

    /// Starts the laptop, again if it was killed.
    fn start(&mut self) {
        self.laptop.engine = None;
        let disk = Arc::new(self.drive.start());
        self.world.start_on(&mut self.laptop, disk).unwrap();
    }

    async fn settle(&mut self) {
        for _ in 0..2 {
            self.clock.advance_ns(1_000_000_000);
            self.world.sync(&mut self.laptop).await.unwrap();
            self.world.sync(&mut self.desktop).await.unwrap();
        }
    }

    fn write(&self, name: &str, text: &str) {
        self.drive.with(|fs| {
            let (root, text) = (fs.root(), text.as_bytes().to_vec());
            match fs.child(root, name) {
                Ok(ino) => fs.write(ino, |content| *content = text).unwrap(),
                Err(_) => drop(
                    fs.create(root, name, Body::File(Content::new(text)))
                        .unwrap(),
                ),
            }
        });
    }

    fn at_desktop(&self, name: &str) -> PathBuf {
        self.desktop.folder.join(name)
    }

    fn names_at_desktop(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.desktop.folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".syncagent").collect();
        names.sort();
        names
    }

    fn on_drive(&self) -> BTreeMap<String, Item> {
        self.drive.with(|fs| fs.tree())
    }
}

/// Takes away whatever lies below a directory.
fn empty(fs: &mut Fs, dir: u64) {
    let entries = fs.entries(dir).unwrap().clone();
    for (name, ino) in entries {
        let is_dir = fs.entries(ino).is_ok();
        if is_dir {
            empty(fs, ino);
        }
        fs.remove(dir, &name, is_dir).unwrap();
    }
}

#[tokio::test]
async fn a_drive_that_goes_away_at_any_call_deletes_nothing() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        for name in ["one", "two", "three"] {
            two.write(name, name);
        }
        two.settle().await;
        let before = two.names_at_desktop();
        assert_eq!(before.len(), 3);
        let happened = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&happened);
        let go_away = move |fs: &mut Fs| {
            // As an unmounted drive looks: the directory is there, what was in it is not.
            empty(fs, fs.root());
            noted.store(true, Ordering::SeqCst);
        };
        two.drive.arm(call, Fault::Meanwhile(Box::new(go_away)));
        let pass = two.world.sync(&mut two.laptop).await;
        if !happened.load(Ordering::SeqCst) {
            assert!(call > 5, "a pass made only {call} calls");
            return;
        }
        if let Err(error) = pass {
            assert_eq!(error.code(), Code::Root, "{error}");
        }
        two.world.sync(&mut two.desktop).await.unwrap();
        assert_eq!(two.names_at_desktop(), before, "gone at call {call}");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn a_move_that_a_kill_cut_off_is_no_touch() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        fs::write(two.at_desktop("a"), "text").unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        fs::rename(two.at_desktop("a"), two.at_desktop("b")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        if two.drive.crashed_in().is_none() {
            assert!(call > 5, "a pass made only {call} calls");
            return;
        }
        two.drive.kill();
        // Nobody has touched it since it was moved, so this is the last word.
        fs::remove_file(two.at_desktop("b")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.start();
        two.settle().await;
        let found = (two.on_drive(), two.names_at_desktop());
        assert_eq!(found, Default::default(), "killed at call {call}");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_was_fetched_and_not_yet_recorded_is_no_new_thing() {
    // The index learns of it last; until then it looks like something that a person made.
    for (fault, call) in (0..MANY).flat_map(|call| [("crash", call), ("error", call)]) {
        let mut two = Two::new().await;
        fs::write(two.at_desktop("file"), "text").unwrap();
        fs::create_dir(two.at_desktop("dir")).unwrap();
        fs::write(two.at_desktop("dir/inside"), "more text").unwrap();
        std::os::unix::fs::symlink("file", two.at_desktop("link")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        let armed = match fault {
            "crash" => Fault::Crash,
            _ => Fault::Error(ErrorKind::Io),
        };
        two.drive.arm(call, armed);
        let _ = two.world.sync(&mut two.laptop).await;
        let happened = match fault {
            "crash" => two.drive.crashed_in().is_some(),
            _ => two.trace.counts().contains_key("disk error"),
        };
        if !happened {
            assert!(call > 20, "a pass made only {call} calls");
            return;
        }
        two.drive.disarm();
        two.drive.kill();
        for name in ["file", "link"] {
            fs::remove_file(two.at_desktop(name)).unwrap();
        }
        fs::remove_dir_all(two.at_desktop("dir")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.start();
        two.settle().await;
        let found = (two.on_drive(), two.names_at_desktop());
        assert_eq!(found, Default::default(), "{fault} at call {call}");
    }
    panic!("a pass does not end");
}

/// What is done in a directory: before, then, and when a pass that brought that was interrupted elsewhere.
type Act = fn(&Path);

const LEFT_BEHIND: [(&str, Act, Act, Act); 16] = [
    (
        "edited twice in a directory that moved",
        |at| {
            make_dir(at, "d");
            write(at, "d/a", "first");
            write(at, "d/kept", "kept");
        },
        |at| {
            rename(at, "d", "e");
            write(at, "e/a", "second");
        },
        |at| write(at, "e/a", "third"),
    ),
    (
        "edited and removed in a directory that moved",
        |at| {
            make_dir(at, "d");
            write(at, "d/a", "first");
            write(at, "d/kept", "kept");
        },
        |at| {
            rename(at, "d", "e");
            write(at, "e/a", "second");
        },
        |at| fs::remove_file(at.join("e/a")).unwrap(),
    ),
    (
        "set and taken away in a directory that moved",
        |at| {
            make_dir(at, "d");
            write(at, "d/a", "first");
            write(at, "d/kept", "kept");
        },
        |at| {
            rename(at, "d", "e");
            set_mode(at, "e/a", 0o755);
        },
        |at| set_mode(at, "e/a", 0o644),
    ),
    (
        "edited twice",
        |at| write(at, "a", "first"),
        |at| write(at, "a", "second"),
        |at| write(at, "a", "third"),
    ),
    (
        "edited and taken back",
        |at| write(at, "a", "first"),
        |at| write(at, "a", "second"),
        |at| write(at, "a", "first"),
    ),
    (
        "made and edited",
        |_| (),
        |at| write(at, "a", "first"),
        |at| write(at, "a", "second"),
    ),
    (
        "made and moved",
        |at| make_dir(at, "d"),
        |at| write(at, "a", "first"),
        |at| rename(at, "a", "d/b"),
    ),
    (
        "set and taken away",
        |at| write(at, "a", "first"),
        |at| set_mode(at, "a", 0o755),
        |at| set_mode(at, "a", 0o644),
    ),
    (
        "moved and back",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
        },
        |at| rename(at, "a", "d/b"),
        |at| rename(at, "d/b", "a"),
    ),
    (
        "moved and on",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
        },
        |at| rename(at, "a", "d/b"),
        |at| rename(at, "d/b", "c"),
    ),
    (
        "a directory made and moved",
        |_| (),
        |at| {
            make_dir(at, "d");
            write(at, "d/a", "first");
        },
        |at| rename(at, "d", "e"),
    ),
    (
        "a directory in the place of a file, and moved",
        |at| write(at, "a", "first"),
        |at| {
            fs::remove_file(at.join("a")).unwrap();
            make_dir(at, "a");
            write(at, "a/b", "second");
        },
        |at| {
            rename(at, "a", "c");
            write(at, "a", "third");
        },
    ),
    (
        "exchanged, and one removed",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
            write(at, "d/a", "second");
        },
        |at| exchange(at, "a", "d/a"),
        |at| fs::remove_file(at.join("a")).unwrap(),
    ),
    (
        "exchanged, one removed at once, the other edited",
        |at| {
            make_dir(at, "d");
            write(at, "a", "first");
            write(at, "d/a", "second");
        },
        |at| {
            exchange(at, "a", "d/a");
            fs::remove_file(at.join("a")).unwrap();
        },
        |at| write(at, "d/a", "third"),
    ),
    (
        "another in its place, and both edited",
        |at| write(at, "a", "first"),
        |at| {
            rename(at, "a", "b");
            write(at, "a", "second");
        },
        |at| {
            write(at, "a", "third");
            write(at, "b", "fourth");
        },
    ),
    (
        "a link made and moved",
        |_| (),
        |at| std::os::unix::fs::symlink("somewhere", at.join("l")).unwrap(),
        |at| rename(at, "l", "m"),
    ),
];

fn make_dir(at: &Path, name: &str) {
    fs::create_dir(at.join(name)).unwrap();
}

fn write(at: &Path, name: &str, text: &str) {
    fs::write(at.join(name), text).unwrap();
}

fn rename(at: &Path, from: &str, to: &str) {
    fs::rename(at.join(from), at.join(to)).unwrap();
}

fn exchange(at: &Path, a: &str, b: &str) {
    rename(at, a, "between");
    rename(at, b, a);
    rename(at, "between", b);
}

fn set_mode(at: &Path, name: &str, mode: u32) {
    fs::set_permissions(at.join(name), Permissions::from_mode(mode)).unwrap();
}

/// What is in a folder: content, bit and time of files.
fn shown(at: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            if name == ".syncagent" {
                continue;
            }
            let what = if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                walk(root, &path, out);
                "directory".to_owned()
            } else {
                let hash = Content::new(fs::read(&path).unwrap()).hash();
                let exec = meta.permissions().mode() & 0o100 != 0;
                let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
                format!("{hash:?}, exec {exec}, mtime {mtime}")
            };
            out.insert(name.to_owned(), what);
        }
    }
    let mut out = BTreeMap::new();
    walk(at, at, &mut out);
    out
}

fn shown_on_drive(two: &Two) -> BTreeMap<String, String> {
    let tree = two.on_drive().into_iter();
    tree.map(|(path, item)| {
        let what = match item {
            Item::File {
                hash,
                exec,
                mtime_ns,
                ..
            } => format!("{hash:?}, exec {exec}, mtime {mtime_ns}"),
            Item::Dir { .. } => "directory".to_owned(),
            Item::Link { target, .. } => format!("link to {target}"),
        };
        (path, what)
    })
    .collect()
}

/// Every call that changes something, first with a kill, then with an error.
#[tokio::test]
async fn what_an_interrupted_pass_had_done_is_no_edit_once_the_vault_has_gone_on() {
    let all = |two: &Two, act: fn(&(&str, Act, Act, Act)) -> Act| {
        for case in &LEFT_BEHIND {
            act(case)(&two.desktop.folder.join(case.0));
        }
    };
    let (mut kills, mut next, mut killed_at) = (0, 0, None);
    while next < MANY {
        // The call that a kill was at fails as well.
        let call = killed_at.unwrap_or(next);
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        for (what, ..) in LEFT_BEHIND {
            make_dir(&desktop, what);
        }
        all(&two, |case| case.1);
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        all(&two, |case| case.2);
        two.world.sync(&mut two.desktop).await.unwrap();
        let before = two.drive.calls();
        let fault = match killed_at {
            Some(_) => Fault::Error(ErrorKind::Io),
            None => Fault::CrashInChange,
        };
        two.drive.arm(call, fault);
        let _ = two.world.sync(&mut two.laptop).await;
        let killed = two
            .drive
            .crashed_in()
            .map(|_| two.drive.calls() - before - 1);
        two.drive.disarm();
        all(&two, |case| case.3);
        two.world.sync(&mut two.desktop).await.unwrap();
        let left = shown(&desktop);
        if killed.is_some() {
            two.drive.kill();
            two.start();
        }
        two.settle().await;
        let said = format!("killed at {killed:?}, failed at {killed_at:?}");
        assert_eq!(shown_on_drive(&two), left, "{said}");
        assert_eq!(shown(&desktop), left, "{said}");
        match (killed_at, killed) {
            (None, None) => {
                assert!(kills > 40, "a pass made only {kills} changes");
                return;
            }
            (None, Some(at)) => (killed_at, kills) = (Some(at), kills + 1),
            // Files are staged at once, and not always in one order.
            (Some(at), _) => (next, killed_at) = (next.max(at) + 1, None),
        }
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_was_set_of_a_file_outlives_the_power() {
    for seed in 0..8 {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        write(&desktop, "a", "text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        set_mode(&desktop, "a", 0o755);
        two.world.sync(&mut two.desktop).await.unwrap();
        two.world.sync(&mut two.laptop).await.unwrap();
        two.drive.power_cut(&mut Dice::new(seed, "power"));
        let left = shown(&desktop);
        two.start();
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(found, (left.clone(), left), "power cut {seed}");
    }
}

#[tokio::test]
async fn a_time_that_is_set_after_a_pass_was_cut_off_is_sent() {
    const SET_NS: i64 = 7_000_000_001;
    let mut was_set = BTreeSet::new();
    for call in 0..MANY {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        write(&desktop, "a", "text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        rename(&desktop, "a", "moved");
        write(&desktop, "new", "other text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        if two.drive.crashed_in().is_none() {
            assert_eq!(was_set, ["moved", "new"].into());
            return;
        }
        two.drive.kill();
        let set: Vec<&str> = two.drive.with(|fs| {
            let there = ["moved", "new"].into_iter();
            let set = there.filter(|name| match fs.child(fs.root(), name) {
                Ok(ino) => fs.set_attributes(ino, Some(SET_NS), None).is_ok(),
                Err(_) => false,
            });
            set.collect()
        });
        two.start();
        two.settle().await;
        for (at, files) in [
            ("laptop", shown_on_drive(&two)),
            ("desktop", shown(&desktop)),
        ] {
            for name in &set {
                let is_set = files[*name].ends_with(&format!("mtime {SET_NS}"));
                assert!(is_set, "{name} on {at}, killed at {call}: {files:?}");
            }
        }
        was_set.extend(set);
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_moved_and_was_edited_since_is_staged_once() {
    let mut two = Two::new().await;
    fs::write(two.at_desktop("a"), "text").unwrap();
    two.world.sync(&mut two.desktop).await.unwrap();
    two.settle().await;
    fs::rename(two.at_desktop("a"), two.at_desktop("b")).unwrap();
    two.world.sync(&mut two.desktop).await.unwrap();
    fs::write(two.at_desktop("b"), "another text").unwrap();
    two.world.sync(&mut two.desktop).await.unwrap();
    let before = two.trace.lines().len();
    two.world.sync(&mut two.laptop).await.unwrap();
    let lines = two.trace.lines();
    let staged =
        { lines[before..].iter() }.filter(|line| line.contains("create .syncagent/tmp/new"));
    assert_eq!(staged.count(), 1, "{lines:#?}");
    let moved = { lines[before..].iter() }.any(|line| line.contains("rename_noreplace a -> b"));
    assert!(moved, "{lines:#?}");
}

#[tokio::test]
async fn what_was_to_be_placed_makes_no_leftover_of_what_stands_there() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        fs::write(two.at_desktop("a"), "first text").unwrap();
        fs::write(two.at_desktop("b"), "other text").unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        // Both change places; then the one that is called a now holds what the other one held.
        fs::rename(two.at_desktop("a"), two.at_desktop("c")).unwrap();
        fs::rename(two.at_desktop("b"), two.at_desktop("a")).unwrap();
        fs::rename(two.at_desktop("c"), two.at_desktop("b")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        fs::write(two.at_desktop("a"), "first text").unwrap();
        fs::write(two.at_desktop("b"), "third text").unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        let done = two.drive.crashed_in().is_none();
        two.drive.disarm();
        two.drive.kill();
        two.start();
        // What is taken away cannot come back while the disk is full.
        two.drive.spell(ErrorKind::Full, MANY);
        for _ in 0..2 {
            two.world.sync(&mut two.laptop).await.unwrap();
            let found = two.on_drive();
            assert_eq!(found.len(), 2, "killed at call {call}: {found:?}");
        }
        two.drive.disarm();
        two.settle().await;
        let found = two.on_drive();
        for (name, text) in [("a", "first text"), ("b", "third text")] {
            let Some(Item::File { hash, .. }) = found.get(name) else {
                panic!("killed at call {call}: {found:?}");
            };
            let expected = Content::new(text.into()).hash();
            assert_eq!(*hash, expected, "{name}, killed at call {call}");
        }
        if done {
            assert!(call > 5, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_may_have_moved_to_where_nothing_can_be_read_is_not_deleted() {
    // The second error is one of all files, for as long as the pass takes.
    for call in 0..MANY {
        let mut two = Two::new().await;
        two.write("f", "text");
        fs::create_dir(two.at_desktop("e")).unwrap();
        fs::write(two.at_desktop("e/x"), "x").unwrap();
        two.settle().await;
        two.settle().await;
        let node = |two: &Two, path: &str| {
            let tree = &two.laptop.engine.as_ref().unwrap().placed().tree;
            tree.at(&TreePath::parse(path).unwrap())
        };
        let before = node(&two, "f");
        assert!(before.is_some());
        two.drive.with(|fs| {
            let root = fs.root();
            let to = fs.child(root, "e").unwrap();
            fs.rename((root, "f"), (to, "f"), false).unwrap();
        });
        two.clock.advance_ns(1_000_000_000);
        match call {
            0 => two.drive.spell(ErrorKind::Io, MANY),
            _ => two.drive.arm(call - 1, Fault::Error(ErrorKind::Io)),
        }
        let _ = two.world.sync(&mut two.laptop).await;
        if !two.trace.counts().contains_key("disk error") {
            assert!(call > 5, "a pass made only {call} calls");
            return;
        }
        two.drive.disarm();
        two.settle().await;
        assert_eq!(node(&two, "e/f"), before, "an error at call {call}");
        assert_eq!(fs::read(two.at_desktop("e/f")).unwrap(), b"text");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_was_to_make_room_and_could_not_is_no_stranger() {
    for (call, kills) in (0..MANY).flat_map(|call| [(call, true), (call, false)]) {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        make_dir(&desktop, "d");
        write(&desktop, "a", "first");
        write(&desktop, "b", "other");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        rename(&desktop, "a", "d/a");
        write(&desktop, "a", "second");
        rename(&desktop, "b", "d/b");
        make_dir(&desktop, "b");
        two.world.sync(&mut two.desktop).await.unwrap();
        let left = shown(&desktop);
        // Where they shall go cannot be looked into; the names that they have are wanted.
        two.drive.close(Some(&TreePath::parse("d").unwrap()));
        two.drive.arm(
            call,
            match kills {
                true => Fault::CrashInChange,
                false => Fault::Error(ErrorKind::Full),
            },
        );
        let _ = two.world.sync(&mut two.laptop).await;
        let is_killed = two.drive.crashed_in().is_some();
        two.drive.disarm();
        two.drive.close(None);
        if is_killed {
            two.drive.kill();
            two.start();
        }
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(
            found,
            (left.clone(), left),
            "call {call}, killed: {is_killed}"
        );
        if kills && !is_killed {
            assert!(call > 20, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}

/// Deleted where the last batch had brought it, and made anew there: a note of the batch says nothing of it any more.
#[tokio::test]
async fn what_is_made_anew_where_a_batch_brought_something_stays() {
    let mut two = Two::new().await;
    let desktop = two.desktop.folder.clone();
    write(&desktop, "a", "text");
    write(&desktop, "c", "other text");
    two.world.sync(&mut two.desktop).await.unwrap();
    two.settle().await;
    rename(&desktop, "a", "b");
    make_dir(&desktop, "e");
    write(&desktop, "f", "fetched");
    two.world.sync(&mut two.desktop).await.unwrap();
    two.settle().await;
    // One goes to a directory that is not synchronised, and comes back from there.
    let bin = two.drive.with(|fs| {
        let root = fs.root();
        let empty = || Body::Dir(BTreeMap::new());
        let bin = fs.create(root, ".Trashes", empty()).unwrap();
        fs.rename((root, "f"), (bin, "f"), false).unwrap();
        fs.remove(root, "b", false).unwrap();
        fs.remove(root, "e", true).unwrap();
        bin
    });
    two.settle().await;
    assert_eq!(two.names_at_desktop(), ["c"]);
    two.write("b", "text");
    two.drive.with(|fs| {
        let root = fs.root();
        fs.create(root, "e", Body::Dir(BTreeMap::new())).unwrap();
        fs.rename((bin, "f"), (root, "f"), false).unwrap();
    });
    two.start();
    two.settle().await;
    assert_eq!(two.names_at_desktop(), ["b", "c", "e", "f"]);
    let found: Vec<String> = shown_on_drive(&two).into_keys().collect();
    assert_eq!(found, [".Trashes", "b", "c", "e", "f"]);
}

#[tokio::test]
async fn what_was_moved_to_and_fro_and_cannot_be_read_is_not_deleted() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        write(&desktop, "a", "first");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        two.settle().await;
        rename(&desktop, "a", "b");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        if two.drive.crashed_in().is_none() {
            assert!(call > 15, "a pass made only {call} calls");
            return;
        }
        two.drive.kill();
        rename(&desktop, "b", "a");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.start();
        two.drive.spell(ErrorKind::Io, 1_000_000);
        for _ in 0..3 {
            let _ = two.world.sync(&mut two.laptop).await;
            two.world.sync(&mut two.desktop).await.unwrap();
            let found = two.names_at_desktop();
            assert_eq!(found, ["a"], "killed at {call}");
        }
        two.drive.disarm();
        two.settle().await;
        assert_eq!(two.names_at_desktop(), ["a"], "killed at {call}");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_was_edited_here_and_moved_there_is_no_conflict_if_it_is_cut_off() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        write(&desktop, "a", "first");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        two.write("a", "edited here");
        rename(&desktop, "a", "b");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        if two.drive.crashed_in().is_none() {
            assert!(call > 20, "a pass made only {call} calls");
            return;
        }
        two.drive.kill();
        two.start();
        two.settle().await;
        assert_eq!(two.names_at_desktop(), ["b"], "killed at {call}");
        let found = fs::read_to_string(desktop.join("b")).unwrap();
        assert_eq!(found, "edited here", "killed at {call}");
        assert_eq!(shown_on_drive(&two), shown(&desktop), "killed at {call}");
    }
    panic!("a pass does not end");
}

/// What somebody moved, what is set of a file, and what an interrupted pass had moved, each where the file cannot be opened.
#[tokio::test]
async fn a_file_that_cannot_be_flushed_holds_up_nothing_else() {
    for what in ["moved here", "set", "moved there and cut off"] {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        write(&desktop, "f", "text");
        write(&desktop, "g", "text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        two.settle().await;
        let mut closed = "h";
        match what {
            "moved here" => two.drive.with(|fs| {
                let root = fs.root();
                fs.rename((root, "f"), (root, "h"), false).unwrap();
            }),
            "set" => {
                set_mode(&desktop, "f", 0o755);
                closed = "f";
            }
            _ => {
                rename(&desktop, "f", "h");
                two.world.sync(&mut two.desktop).await.unwrap();
                // Killed once it is moved.
                let moved = |two: &Two| two.on_drive().contains_key("h");
                let call = 0..MANY;
                for call in call {
                    two.drive.arm(call, Fault::Crash);
                    let _ = two.world.sync(&mut two.laptop).await;
                    assert!(two.drive.crashed_in().is_some());
                    two.drive.disarm();
                    two.drive.kill();
                    if moved(&two) {
                        break;
                    }
                    two.start();
                }
                two.start();
            }
        }
        write(&desktop, "g", "another text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.close(Some(&TreePath::parse(closed).unwrap()));
        let left = shown(&desktop);
        for _ in 0..2 {
            let outcome = two.world.sync(&mut two.laptop).await.unwrap();
            let failed: Vec<&str> = { outcome.errors.iter() }.map(|e| e.path.as_str()).collect();
            assert_eq!(failed, [closed], "{what}");
            assert_eq!(shown_on_drive(&two)["g"], left["g"], "{what}");
            // Nobody may say of it what a power cut could undo.
            two.world.sync(&mut two.desktop).await.unwrap();
            assert_eq!(shown(&desktop), left, "{what}");
        }
        two.drive.close(None);
        two.settle().await;
        let (here, there) = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(here, there, "{what}");
        let name = if what == "set" { "f" } else { "h" };
        assert_eq!(
            here.keys().collect::<Vec<_>>(),
            [name, "g"]
                .iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>(),
            "{what}"
        );
    }
}

/// Kills the pass of the laptop once its folder looks as it should.
async fn kill_once(two: &mut Two, is_so: impl Fn(&Two) -> bool) {
    for call in 0..MANY {
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        assert!(two.drive.crashed_in().is_some(), "it is never so");
        two.drive.kill();
        if is_so(two) {
            return;
        }
        two.start();
    }
    panic!("a pass does not end");
}

/// The look after an interruption fails at each call in turn, or cannot list the directory.
#[tokio::test]
async fn what_was_noted_is_known_after_a_look_that_failed() {
    for (call, removes) in (0..MANY).flat_map(|call| [(call, false), (call, true)]) {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        make_dir(&desktop, "d");
        write(&desktop, "d/a", "first");
        write(&desktop, "d/b", "other");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        write(&desktop, "d/a", "second");
        two.world.sync(&mut two.desktop).await.unwrap();
        let second = shown(&desktop)["d/a"].clone();
        kill_once(&mut two, |two| shown_on_drive(two)["d/a"] == second).await;
        match removes {
            true => fs::remove_file(desktop.join("d/a")).unwrap(),
            false => write(&desktop, "d/a", "third"),
        }
        two.world.sync(&mut two.desktop).await.unwrap();
        let left = shown(&desktop);
        two.start();
        let errors = two.trace.counts().get("disk error").copied();
        match call {
            0 => two.drive.close(Some(&TreePath::parse("d").unwrap())),
            _ => two.drive.arm(call - 1, Fault::Error(ErrorKind::Io)),
        }
        let _ = two.world.sync(&mut two.laptop).await;
        let is_hit = two.trace.counts().get("disk error").copied() != errors;
        two.drive.close(None);
        two.drive.disarm();
        two.settle().await;
        let found = (shown_on_drive(&two), shown(&desktop));
        assert_eq!(found, (left.clone(), left), "an error at call {call}");
        if !is_hit {
            assert!(call > 10, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn what_was_removed_and_restored_there_stays_though_something_cannot_be_read() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        make_dir(&desktop, "d");
        write(&desktop, "d/x", "x");
        write(&desktop, "a", "text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        two.settle().await;
        let engine = two.desktop.engine.as_ref().unwrap();
        let path = TreePath::parse("a").unwrap();
        let node = engine.placed().tree.at(&path).unwrap();
        fs::remove_file(desktop.join("a")).unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        if two.drive.crashed_in().is_none() {
            assert!(call > 15, "a pass made only {call} calls");
            return;
        }
        two.drive.kill();
        let restore = Restore {
            what: node.to_string(),
            version: None,
            occupied: Occupied::Refuse,
        };
        let engine = two.desktop.engine.as_mut().unwrap();
        engine.restore(&restore).await.unwrap();
        two.world.sync(&mut two.desktop).await.unwrap();
        two.start();
        two.drive.close(Some(&TreePath::parse("d").unwrap()));
        for _ in 0..3 {
            let _ = two.world.sync(&mut two.laptop).await;
        }
        two.drive.close(None);
        two.settle().await;
        assert_eq!(two.names_at_desktop(), ["a", "d"], "killed at {call}");
        assert_eq!(shown_on_drive(&two), shown(&desktop), "killed at {call}");
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn a_move_that_was_taken_in_outlives_the_power() {
    for (call, seed) in (0..60).flat_map(|call| (0..4).map(move |seed| (call, seed))) {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        make_dir(&desktop, "d");
        write(&desktop, "a", "text");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        two.settle().await;
        rename(&desktop, "a", "d/b");
        two.world.sync(&mut two.desktop).await.unwrap();
        kill_once(&mut two, |two| two.on_drive().contains_key("d/b")).await;
        two.start();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        two.drive.power_cut(&mut Dice::new(seed, "power"));
        two.start();
        two.settle().await;
        let found = two.names_at_desktop();
        assert_eq!(found, ["d"], "killed at {call}, power cut {seed}");
    }
}

#[tokio::test]
async fn a_bit_that_was_set_with_an_edit_that_both_made_is_sent_though_it_is_cut_off() {
    for call in 0..MANY {
        let mut two = Two::new().await;
        let desktop = two.desktop.folder.clone();
        write(&desktop, "a", "first");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.settle().await;
        two.settle().await;
        two.write("a", "second");
        two.drive.with(|fs| {
            let ino = fs.child(fs.root(), "a").unwrap();
            let mode = fs.stat(ino).unwrap().mode | 0o100;
            fs.set_attributes(ino, None, Some(mode)).unwrap();
        });
        write(&desktop, "a", "second");
        two.world.sync(&mut two.desktop).await.unwrap();
        two.drive.arm(call, Fault::Crash);
        let _ = two.world.sync(&mut two.laptop).await;
        let is_over = two.drive.crashed_in().is_none();
        two.drive.disarm();
        two.drive.kill();
        two.start();
        two.settle().await;
        let found = shown(&desktop);
        assert!(
            found["a"].contains("exec true"),
            "killed at {call}: {found:?}"
        );
        if is_over {
            assert!(call > 15, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}

#[tokio::test]
async fn a_second_name_that_went_is_deleted_though_the_first_cannot_be_read() {
    let mut two = Two::new().await;
    two.write("b", "text");
    two.drive.with(|fs| {
        let root = fs.root();
        let ino = fs.child(root, "b").unwrap();
        fs.link(ino, root, "a").unwrap();
    });
    two.settle().await;
    two.settle().await;
    two.drive.with(|fs| {
        let root = fs.root();
        fs.remove(root, "a", false).unwrap();
    });
    two.drive.close(Some(&TreePath::parse("b").unwrap()));
    for _ in 0..3 {
        two.clock.advance_ns(1_000_000_000);
        let _ = two.world.sync(&mut two.laptop).await;
    }
    two.world.sync(&mut two.desktop).await.unwrap();
    assert_eq!(two.names_at_desktop(), ["b"]);
}

#[tokio::test]
async fn a_write_within_the_clocks_grain_is_seen() {
    for passes in [1, 2] {
        let mut two = Two::new().await;
        // To the start of a tick: what follows has one stamp.
        let into = two.clock.now_ns().rem_euclid(TICK_NS);
        two.clock.advance_ns(TICK_NS - into);
        two.write("f", "one");
        let stat = |two: &Two| {
            two.drive
                .with(|fs| fs.stat(fs.child(fs.root(), "f").unwrap()).unwrap())
        };
        let before = stat(&two);
        for _ in 0..passes {
            two.world.sync(&mut two.laptop).await.unwrap();
        }
        two.write("f", "two");
        assert_eq!(stat(&two), before, "the passes took longer than a tick");
        two.settle().await;
        let found = fs::read(two.at_desktop("f")).unwrap();
        assert_eq!(found, b"two", "after {passes} pass(es)");
    }
}
