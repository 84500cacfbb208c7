//! A machine on a simulated drive and one on a real disk, and what is done on both.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncagent_testkit::sim::clock::SimClock;
use syncagent_testkit::sim::disk::{Drive, Fault};
use syncagent_testkit::sim::fs::{Body, Content, Item};
use syncagent_testkit::sim::trace::Trace;
use syncagent_testkit::world::{Machine, World};
use syncagent_vault::op::Genesis;

/// Calls of a pass over a few files; more would mean that a test does not end.
pub(crate) const MANY: u64 = 1000;

/// Tries a round for each call of a pass in turn. A round answers whether its pass came to that call; once it did not,
/// there were at least `least` of them.
pub(crate) async fn at_each_call(least: u64, mut round: impl AsyncFnMut(u64) -> bool) {
    for call in 0..MANY {
        if !round(call).await {
            assert!(call > least, "a pass made only {call} calls");
            return;
        }
    }
    panic!("a pass does not end");
}

pub(crate) struct Two {
    _dir: tempfile::TempDir,
    pub(crate) clock: SimClock,
    pub(crate) trace: Trace,
    pub(crate) world: World,
    pub(crate) drive: Drive,
    /// On the drive.
    pub(crate) laptop: Machine,
    /// On a real disk.
    pub(crate) desktop: Machine,
}

impl Two {
    pub(crate) async fn new() -> Self {
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

    /// A pair that has what somebody made at the desktop.
    pub(crate) async fn with(made: impl FnOnce(&Path)) -> Self {
        let mut two = Self::new().await;
        two.at_desktop(made).await;
        two.settle().await;
        two
    }

    /// Starts the laptop, again if it was killed.
    pub(crate) fn start(&mut self) {
        self.laptop.engine = None;
        let disk = Arc::new(self.drive.start());
        self.world.start_on(&mut self.laptop, disk).unwrap();
    }

    pub(crate) async fn settle(&mut self) {
        for _ in 0..2 {
            self.clock.advance_ns(1_000_000_000);
            self.world.sync(&mut self.laptop).await.unwrap();
            self.world.sync(&mut self.desktop).await.unwrap();
        }
    }

    /// Something is done in the folder of the desktop, which sends it.
    pub(crate) async fn at_desktop(&mut self, act: impl FnOnce(&Path)) {
        act(&self.desktop.folder);
        self.world.sync(&mut self.desktop).await.unwrap();
    }

    /// A pass of the laptop that is killed at one of its calls. Whether it came to that call.
    pub(crate) async fn killed_at(&mut self, call: u64) -> bool {
        self.drive.arm(call, Fault::Crash);
        let _ = self.world.sync(&mut self.laptop).await;
        let is_killed = self.drive.crashed_in().is_some();
        self.drive.disarm();
        self.drive.kill();
        is_killed
    }

    /// Kills passes of the laptop, each one call later, until its folder looks as it should.
    pub(crate) async fn killed_once(&mut self, is_so: impl Fn(&Self) -> bool) {
        for call in 0..MANY {
            assert!(self.killed_at(call).await, "it is never so");
            if is_so(self) {
                return;
            }
            self.start();
        }
        panic!("a pass does not end");
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
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

    pub(crate) fn path_at_desktop(&self, name: &str) -> PathBuf {
        self.desktop.folder.join(name)
    }

    pub(crate) fn names_at_desktop(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.desktop.folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".syncagent").collect();
        names.sort();
        names
    }

    pub(crate) fn on_drive(&self) -> BTreeMap<String, Item> {
        self.drive.with(|fs| fs.tree())
    }
}

pub(crate) fn make_dir(at: &Path, name: &str) {
    fs::create_dir(at.join(name)).unwrap();
}

pub(crate) fn write(at: &Path, name: &str, text: &str) {
    fs::write(at.join(name), text).unwrap();
}

pub(crate) fn rename(at: &Path, from: &str, to: &str) {
    fs::rename(at.join(from), at.join(to)).unwrap();
}

/// Lets two things change their places.
pub(crate) fn exchange(at: &Path, a: &str, b: &str) {
    rename(at, a, "between");
    rename(at, b, a);
    rename(at, "between", b);
}

pub(crate) fn set_mode(at: &Path, name: &str, mode: u32) {
    fs::set_permissions(at.join(name), Permissions::from_mode(mode)).unwrap();
}

/// What is in a folder: content, bit and time of files.
pub(crate) fn shown(at: &Path) -> BTreeMap<String, String> {
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

/// The same of the folder on the drive.
pub(crate) fn shown_on_drive(two: &Two) -> BTreeMap<String, String> {
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
