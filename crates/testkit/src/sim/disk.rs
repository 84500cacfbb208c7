//! The client's [`Disk`] over a simulated file system, with faults on demand.
//!
//! A [`SimDisk`] is what one run of SyncAgent holds; the [`Drive`] below survives it. A machine that crashes or loses
//! power keeps its drive and gets a new `SimDisk` at its next start; the old one answers nothing but errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncagent_client::folder::disk::{
    At, Capabilities, Dir, Disk, DiskError, Entry, ErrorKind, Guard, Listing, Meta, Origin,
    ReadHandle, Stat, TempName, WriteHandle,
};
use syncagent_protocol::{ContentHash, Name, TreePath};

use super::clock::SimClock;
use super::dice::Dice;
use super::fs::{Body, Content, DEVICE, Fs, Ino, Item, OWN, TMP};
use super::ledger::short;
use super::net::Seen;
use super::trace::Trace;

type Result<T> = std::result::Result<T, DiskError>;

/// What happens at a call.
pub enum Fault {
    /// The call fails.
    Error(ErrorKind),
    /// The machine stops: this call and all later ones do nothing.
    Crash,
    /// The same, at the next call that changes something.
    CrashInChange,
    /// Somebody does something just before the call.
    Meanwhile(Box<dyn FnOnce(&mut Fs) + Send>),
}

/// A call that fails, counted from now.
struct Armed {
    at: u64,
    fault: Fault,
}

/// A stretch of time in which calls of a kind fail.
struct Spell {
    kind: ErrorKind,
    /// The call with which it is over.
    until: u64,
    /// Whether it has refused anything.
    felt: bool,
}

/// A name that a call of the program took away.
struct Gap {
    /// Its path then: a directory that is moved takes its names with it.
    path: TreePath,
    round: u64,
    verb: &'static str,
}

/// Whole contents: what people wrote, and what crashes made of it. Nothing else may ever stand under a name.
pub type Known = Arc<Mutex<BTreeSet<ContentHash>>>;

struct State {
    fs: Fs,
    clock: SimClock,
    trace: Trace,
    who: String,
    known: Known,
    /// Number of the run that may use the drive; 0 while the machine is off.
    running: u64,
    runs: u64,
    locked: bool,
    calls: u64,
    armed: Option<Armed>,
    spell: Option<Spell>,
    /// A directory that cannot be listed.
    closed: Option<String>,
    /// Which round of deciding and doing the program is in.
    seen: Option<Arc<Seen>>,
    /// Names that are missing since a call of this round, by directory.
    gaps: BTreeMap<(Ino, String), Gap>,
    /// The last round in which somebody else did something, too.
    disturbed: Option<u64>,
    /// Calls of the program that changed something in the tree.
    changes: u64,
    /// The verb at which the machine stopped.
    crashed_in: Option<&'static str>,
    /// Whether the last call was a change: what it left is looked at next.
    changed: bool,
    violations: Vec<String>,
    /// Starts of hashes whose places are told whenever they change (`SYNCAGENT_FOLLOW`), and where they were.
    follow: Option<String>,
    followed: String,
}

/// A drive with one synchronised folder. Clones are the same drive.
#[derive(Clone)]
pub struct Drive(Arc<Mutex<State>>);

impl Drive {
    /// An empty drive.
    pub fn new(clock: SimClock, trace: Trace, who: &str, known: Known) -> Self {
        Self(Arc::new(Mutex::new(State {
            fs: Fs::new(clock.clone()),
            clock,
            trace,
            who: who.to_owned(),
            known,
            running: 0,
            runs: 0,
            locked: false,
            calls: 0,
            armed: None,
            spell: None,
            closed: None,
            seen: None,
            gaps: BTreeMap::new(),
            disturbed: None,
            changes: 0,
            crashed_in: None,
            changed: false,
            violations: Vec::new(),
            follow: std::env::var("SYNCAGENT_FOLLOW").ok(),
            followed: String::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder as a program that starts now sees it.
    pub fn start(&self) -> SimDisk {
        let mut state = self.state();
        state.runs += 1;
        state.running = state.runs;
        state.locked = false;
        SimDisk {
            drive: self.clone(),
            run: state.runs,
        }
    }

    /// The program is killed: its calls do nothing from now on; the file system goes on.
    pub fn kill(&self) {
        let mut state = self.state();
        state.running = 0;
        state.locked = false;
        state.armed = None;
        state.crashed_in = None;
    }

    /// The power fails: what was not durable may be gone.
    pub fn power_cut(&self, dice: &mut Dice) {
        self.kill();
        self.state().fs.power_cut(dice);
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets `fault` happen at the call after `calls` others.
    pub fn arm(&self, calls: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.calls + calls;
        state.armed = Some(Armed { at, fault });
    }

    /// Takes faults back that have not happened yet.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.armed = None;
        state.spell = None;
    }

    /// For so many calls the disk is full, or files cannot be read.
    pub fn spell(&self, kind: ErrorKind, calls: u64) {
        let mut state = self.state();
        state.spell = Some(Spell {
            kind,
            until: state.calls + calls,
            felt: false,
        });
    }

    /// This directory cannot be listed, or this file be opened, until another one is named, or none.
    pub fn close(&self, path: Option<&TreePath>) {
        self.state().closed = path.map(TreePath::to_string);
    }

    /// Where rounds are counted.
    pub fn follow_rounds(&self, seen: &Arc<Seen>) {
        self.state().seen = Some(Arc::clone(seen));
    }

    /// Somebody else does something in the folder.
    pub fn disturb(&self) {
        self.state().disturb();
    }

    /// Calls that have changed something in the tree.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// The verb in which the machine stopped by itself.
    pub fn crashed_in(&self) -> Option<&'static str> {
        self.state().crashed_in
    }

    /// What should never have been seen, since the last question.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    /// Works on the file system directly, as other programs of the machine do.
    pub fn with<T>(&self, work: impl FnOnce(&mut Fs) -> T) -> T {
        work(&mut self.state().fs)
    }
}

/// One run's view of a drive.
pub struct SimDisk {
    drive: Drive,
    run: u64,
}

/// Verbs that a full disk refuses.
const NEED_SPACE: [&str; 6] = [
    "create",
    "write",
    "symlink",
    "hard link",
    "mkdir",
    "allocate",
];
/// Verbs that change the tree or what lies behind it.
const CHANGES: [&str; 10] = [
    "create",
    "symlink",
    "hard link",
    "mkdir",
    "rename",
    "rename_noreplace",
    "exchange",
    "rmdir",
    "unlink",
    "set_meta",
];

/// What looks into files.
const READS: [&str; 2] = ["open", "read"];

impl State {
    fn round(&self) -> u64 {
        self.seen
            .as_ref()
            .map_or(0, |seen| seen.rounds.load(Ordering::Relaxed))
    }

    fn disturb(&mut self) {
        self.disturbed = Some(self.round());
    }

    /// Whether a stretch of errors hits this call.
    fn is_under_spell(&mut self, verb: &'static str, at: &str) -> Option<ErrorKind> {
        let spell = self.spell.as_mut()?;
        if self.calls >= spell.until {
            self.spell = None;
            return None;
        }
        let hit = match spell.kind {
            ErrorKind::Full => NEED_SPACE.contains(&verb) && !at.contains("probe-"),
            _ => READS.contains(&verb) && !at.starts_with(OWN),
        };
        if !hit {
            return None;
        }
        if !std::mem::replace(&mut spell.felt, true) {
            self.trace.count(match spell.kind {
                ErrorKind::Full => "full disk",
                _ => "unreadable for a while",
            });
        }
        Some(spell.kind)
    }

    /// A call of the program has changed an entry of the tree: is a name gone, or here again that was there when this
    /// round of deciding and doing began?
    fn check_name(&mut self, at: At<'_>, verb: &'static str) {
        let At::Tree(path) = at else { return };
        self.changes += 1;
        let Ok((dir, name)) = self.parent(at, "look at") else {
            return;
        };
        let key = (dir, name.to_owned());
        let round = self.round();
        if self.fs.child(dir, name).is_err() {
            let path = path.clone();
            self.gaps.insert(key, Gap { path, round, verb });
            return;
        }
        let Some(gap) = self.gaps.remove(&key) else {
            return;
        };
        if gap.round == round && gap.path == *path && self.disturbed != Some(round) {
            self.violations.push(format!(
                "{}: {path} was not there between a {} and a {verb}",
                self.who, gap.verb
            ));
        }
    }

    /// The program writes into a file: that may have no name but a temp's.
    fn check_write(&mut self, ino: Ino, path: &str) {
        if self.fs.is_in_tree(ino) {
            self.violations.push(format!(
                "{}: a file that has a name is written to by way of {path}",
                self.who
            ));
        }
    }

    /// Every call passes here first.
    fn enter(&mut self, run: u64, verb: &'static str, at: &dyn std::fmt::Display) -> Result<()> {
        let off = || DiskError::new(ErrorKind::Io, "write", at, "the machine is off");
        if self.running != run {
            return Err(off());
        }
        self.calls += 1;
        let is_change = CHANGES.contains(&verb);
        let after_change = std::mem::replace(&mut self.changed, is_change);
        self.clock.advance_ns(20_000);
        self.tell_followed();
        if self.spell.is_some()
            && let Some(kind) = self.is_under_spell(verb, &at.to_string())
        {
            return Err(self.refuse(verb, at, kind));
        }
        let is_closed = ["list", "open", "sync_file"].contains(&verb)
            && self.closed.as_ref() == Some(&at.to_string());
        if is_closed {
            return Err(self.refuse(verb, at, ErrorKind::Denied));
        }
        let due = self.armed.as_ref().is_some_and(|armed| match &armed.fault {
            Fault::Error(ErrorKind::Full) => self.calls >= armed.at && NEED_SPACE.contains(&verb),
            // What is only tried out at a start tells nothing.
            Fault::CrashInChange => {
                self.calls >= armed.at
                    && CHANGES.contains(&verb)
                    && !at.to_string().contains("probe-")
            }
            _ => self.calls >= armed.at,
        });
        if due && let Some(armed) = self.armed.take() {
            match armed.fault {
                Fault::Error(kind) => return Err(self.refuse(verb, at, kind)),
                Fault::Crash | Fault::CrashInChange => {
                    self.trace
                        .line(&self.who, format_args!("  disk: stops at {verb} {at}"));
                    self.running = 0;
                    self.crashed_in = Some(verb);
                    return Err(off());
                }
                Fault::Meanwhile(edit) => {
                    // Not within the same tick as what the program has just looked at: see the limits in the
                    // head of the client's `folder::apply`.
                    self.clock.advance_ns(9_000_000);
                    self.fs.in_change = is_change || after_change;
                    self.disturb();
                    edit(&mut self.fs);
                    self.fs.in_change = false;
                    self.trace.count("edit between two calls");
                }
            }
        }
        if is_change {
            self.trace
                .line(&self.who, format_args!("  disk: {verb} {at}"));
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        verb: &'static str,
        at: &dyn std::fmt::Display,
        kind: ErrorKind,
    ) -> DiskError {
        self.trace.line(
            &self.who,
            format_args!("  disk: {verb} {at} fails: {kind:?}"),
        );
        self.trace.count("disk error");
        // What was begun is taken back, which may leave a name missing for a moment.
        self.disturb();
        let action = match verb {
            "open" | "read" => "read",
            "sync_file" if kind == ErrorKind::Denied => "read",
            "list" => "list",
            "stat" => "look at",
            _ => "write",
        };
        DiskError::new(kind, action, at, "made by the simulation")
    }

    fn tell_followed(&mut self) {
        let Some(follow) = &self.follow else { return };
        let mut places = String::new();
        for (path, item) in self.fs.everything() {
            if let Item::File { hash, .. } = item
                && follow.split(',').any(|start| short(&hash) == start)
            {
                places += &format!(" {} at {path};", short(&hash));
            }
        }
        if places != self.followed {
            self.trace.line(&self.who, format_args!("  **{places}"));
            self.followed = places;
        }
    }

    /// The directory that `at` hangs in, and its name there.
    fn parent<'a>(&self, at: At<'a>, action: &'static str) -> Result<(Ino, &'a str)> {
        let fail = |kind| DiskError::new(kind, action, at, "simulated");
        match at {
            At::Temp(name) => Ok((
                self.fs.lookup([OWN, TMP].into_iter()).map_err(fail)?,
                name.as_str(),
            )),
            At::Identity => Ok((self.fs.lookup([OWN].into_iter()).map_err(fail)?, "root")),
            At::Tree(path) => {
                refuse_own(path, action)?;
                let mut names = path.components();
                let Some(name) = names.next_back() else {
                    return Err(fail(ErrorKind::Busy));
                };
                let dir = self.fs.lookup(names).map_err(fail)?;
                match self.fs.body(dir).map_err(fail)? {
                    Body::Dir(_) => Ok((dir, name)),
                    Body::File(_) => Err(fail(ErrorKind::NotADirectory)),
                    Body::Link(_) => Err(fail(ErrorKind::Escapes)),
                }
            }
        }
    }

    fn find(&self, at: At<'_>, action: &'static str) -> Result<Ino> {
        let fail = |kind| DiskError::new(kind, action, at, "simulated");
        if let At::Tree(path) = at {
            refuse_own(path, action)?;
            return self.fs.lookup(path.components()).map_err(fail);
        }
        let (dir, name) = self.parent(at, action)?;
        self.fs.child(dir, name).map_err(fail)
    }

    fn dir(&self, path: &TreePath, action: &'static str) -> Result<Ino> {
        let ino = self.find(At::Tree(path), action)?;
        match self.fs.body(ino) {
            Ok(Body::Dir(_)) => Ok(ino),
            Ok(Body::Link(_)) => Err(DiskError::new(
                ErrorKind::Escapes,
                action,
                path,
                "simulated",
            )),
            _ => Err(DiskError::new(
                ErrorKind::NotADirectory,
                action,
                path,
                "simulated",
            )),
        }
    }

    /// What has just got a name in the tree must be whole.
    fn check_whole(&mut self, at: At<'_>) {
        let At::Tree(path) = at else { return };
        let Ok(ino) = self.find(at, "look at") else {
            return;
        };
        let Ok(content) = self.fs.content(ino) else {
            return;
        };
        let hash = content.hash();
        if !self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&hash)
        {
            let len = content.bytes().len();
            self.violations.push(format!(
                "{}: {path} holds {len} bytes that nobody ever wrote",
                self.who
            ));
        }
    }
}

fn refuse_own(path: &TreePath, action: &'static str) -> Result<()> {
    match path.components().next() == Some(OWN) {
        true => Err(DiskError::new(
            ErrorKind::Reserved,
            action,
            path,
            "this directory belongs to SyncAgent",
        )),
        false => Ok(()),
    }
}

fn failing<'a>(
    action: &'static str,
    at: &'a dyn std::fmt::Display,
) -> impl Fn(ErrorKind) -> DiskError + 'a {
    move |kind| DiskError::new(kind, action, at, "simulated")
}

impl SimDisk {
    fn enter(
        &self,
        verb: &'static str,
        at: &dyn std::fmt::Display,
    ) -> Result<MutexGuard<'_, State>> {
        let mut state = self.drive.state();
        state.enter(self.run, verb, at)?;
        Ok(state)
    }

    fn file(&self, ino: Ino, at: At<'_>) -> SimFile {
        SimFile {
            drive: self.drive.clone(),
            run: self.run,
            ino,
            path: at.to_string(),
        }
    }
}

impl Disk for SimDisk {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exec: true,
            inodes: true,
            symlinks: true,
            parallel: false,
        }
    }

    fn root_device(&self) -> u64 {
        DEVICE
    }

    fn list(&self, path: &TreePath) -> Result<Listing> {
        let state = self.enter("list", path)?;
        let fail = failing("list", path);
        let ino = state.dir(path, "list")?;
        let dir = state.fs.stat(ino).map_err(&fail)?;
        let entries = state.fs.entries(ino).map_err(&fail)?;
        let entries = entries
            .iter()
            .filter(|(name, _)| !(path.is_root() && *name == OWN))
            .map(|(name, ino)| Entry {
                name: Name::parse(name).map_err(|_| name.clone()),
                stat: state.fs.stat(*ino).map_err(&fail),
            });
        Ok(Listing {
            dir,
            entries: entries.collect(),
            incomplete: None,
        })
    }

    fn list_temp(&self) -> Result<Vec<TempName>> {
        let state = self.enter("list", &".syncagent/tmp")?;
        let fail = failing("list", &".syncagent/tmp");
        let tmp = state.fs.lookup([OWN, TMP].into_iter()).map_err(&fail)?;
        let entries = state.fs.entries(tmp).map_err(&fail)?;
        Ok(entries
            .keys()
            .filter_map(|name| TempName::parse(name))
            .collect())
    }

    fn stat(&self, at: At<'_>) -> Result<Stat> {
        let state = self.enter("stat", &at)?;
        state
            .fs
            .stat(state.find(at, "look at")?)
            .map_err(failing("look at", &at))
    }

    fn open(&self, at: At<'_>) -> Result<Box<dyn ReadHandle>> {
        let state = self.enter("open", &at)?;
        let ino = state.find(at, "read")?;
        state.fs.content(ino).map_err(failing("read", &at))?;
        Ok(Box::new(self.file(ino, at)))
    }

    fn read_link(&self, at: At<'_>) -> Result<String> {
        let state = self.enter("stat", &at)?;
        match state.fs.body(state.find(at, "look at")?) {
            Ok(Body::Link(target)) => Ok(target.clone()),
            _ => Err(failing("look at", &at)(ErrorKind::Io)),
        }
    }

    fn create_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        let at = At::Temp(name);
        let mut state = self.enter("create", &at)?;
        let (dir, text) = state.parent(at, "write")?;
        let ino = state
            .fs
            .create(dir, text, Body::File(Content::default()))
            .map_err(failing("write", &at))?;
        Ok(Box::new(self.file(ino, at)))
    }

    fn reopen_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        let at = At::Temp(name);
        let state = self.enter("open", &at)?;
        let ino = state.find(at, "write")?;
        state.fs.content(ino).map_err(failing("write", &at))?;
        Ok(Box::new(self.file(ino, at)))
    }

    fn symlink(&self, target: &str, at: At<'_>) -> Result<()> {
        let mut state = self.enter("symlink", &at)?;
        let (dir, name) = state.parent(at, "write")?;
        state
            .fs
            .create(dir, name, Body::Link(target.to_owned()))
            .map_err(failing("write", &at))?;
        state.check_name(at, "symlink");
        Ok(())
    }

    fn hard_link(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        let mut state = self.enter("hard link", &format_args!("{from} -> {to}"))?;
        let ino = state.find(from, "write")?;
        let (dir, name) = state.parent(to, "write")?;
        state
            .fs
            .link(ino, dir, name)
            .map_err(failing("write", &to))?;
        state.check_whole(to);
        state.check_name(to, "hard link");
        Ok(())
    }

    fn mkdir(&self, path: &TreePath) -> Result<()> {
        let mut state = self.enter("mkdir", path)?;
        let (dir, name) = state.parent(At::Tree(path), "write")?;
        state
            .fs
            .create(dir, name, Body::Dir(BTreeMap::new()))
            .map_err(failing("write", path))?;
        state.check_name(At::Tree(path), "mkdir");
        Ok(())
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        let mut state = self.enter("rename", &format_args!("{from} -> {to}"))?;
        let (a, b) = (state.parent(from, "write")?, state.parent(to, "write")?);
        state
            .fs
            .rename(a, b, true)
            .map_err(failing("write", &from))?;
        state.check_whole(to);
        state.check_name(from, "rename");
        state.check_name(to, "rename");
        Ok(())
    }

    fn rename_noreplace(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        let mut state = self.enter("rename_noreplace", &format_args!("{from} -> {to}"))?;
        let (a, b) = (state.parent(from, "write")?, state.parent(to, "write")?);
        state
            .fs
            .rename(a, b, false)
            .map_err(failing("write", &from))?;
        if let (At::Tree(_), At::Tree(path)) = (from, to)
            && state.dir(path, "look at").is_ok()
        {
            state.trace.count("directory move applied");
        }
        state.check_whole(to);
        state.check_name(from, "rename_noreplace");
        state.check_name(to, "rename_noreplace");
        Ok(())
    }

    fn exchange(&self, a: At<'_>, b: At<'_>) -> Result<()> {
        let mut state = self.enter("exchange", &format_args!("{a} <-> {b}"))?;
        let (from, to) = (state.parent(a, "write")?, state.parent(b, "write")?);
        state.fs.exchange(from, to).map_err(failing("write", &a))?;
        if let (At::Tree(_), At::Tree(_)) = (a, b) {
            state.trace.count("swap applied");
        }
        state.check_whole(a);
        state.check_whole(b);
        state.check_name(a, "exchange");
        state.check_name(b, "exchange");
        Ok(())
    }

    fn rmdir(&self, path: &TreePath) -> Result<()> {
        let mut state = self.enter("rmdir", path)?;
        let (dir, name) = state.parent(At::Tree(path), "write")?;
        state
            .fs
            .remove(dir, name, true)
            .map_err(failing("write", path))?;
        state.check_name(At::Tree(path), "rmdir");
        Ok(())
    }

    fn unlink(&self, at: At<'_>) -> Result<()> {
        let mut state = self.enter("unlink", &at)?;
        let (dir, name) = state.parent(at, "write")?;
        state
            .fs
            .remove(dir, name, false)
            .map_err(failing("write", &at))?;
        state.check_name(at, "unlink");
        Ok(())
    }

    fn set_meta(&self, at: At<'_>, meta: Meta) -> Result<()> {
        let mut state = self.enter("set_meta", &at)?;
        let ino = state.find(at, "write")?;
        state.changes += u64::from(matches!(at, At::Tree(_)));
        state
            .fs
            .set_attributes(ino, meta.mtime_ns, meta.mode)
            .map_err(failing("write", &at))
    }

    fn sync_file(&self, at: At<'_>) -> Result<()> {
        let mut state = self.enter("sync_file", &at)?;
        let ino = state.find(at, "write")?;
        state.fs.content(ino).map_err(failing("write", &at))?;
        state.fs.sync_file(ino).map_err(failing("write", &at))
    }

    fn sync_dir(&self, dir: Dir<'_>) -> Result<()> {
        let at: &dyn std::fmt::Display = match &dir {
            Dir::Tree(path) => path,
            Dir::Own => &OWN,
            Dir::Temp => &".syncagent/tmp",
        };
        let mut state = self.enter("sync_dir", at)?;
        let fail = failing("write", at);
        let ino = match dir {
            Dir::Tree(path) => state.dir(path, "write")?,
            Dir::Own => state.fs.lookup([OWN].into_iter()).map_err(&fail)?,
            Dir::Temp => state.fs.lookup([OWN, TMP].into_iter()).map_err(&fail)?,
        };
        state.fs.sync_dir(ino).map_err(&fail)
    }

    fn sync_all(&self) -> Result<bool> {
        self.enter("sync_all", &"everything")?.fs.sync_all();
        Ok(true)
    }

    fn prepare(&self) -> Result<()> {
        let mut state = self.enter("prepare", &OWN)?;
        let root = state.fs.root();
        let fail = failing("write", &OWN);
        let dir = |fs: &mut Fs, at: Ino, name: &str| match fs.create(
            at,
            name,
            Body::Dir(Default::default()),
        ) {
            Err(ErrorKind::Exists) => fs.child(at, name),
            result => result,
        };
        let own = dir(&mut state.fs, root, OWN).map_err(&fail)?;
        dir(&mut state.fs, own, TMP).map_err(&fail)?;
        Ok(())
    }

    fn lock(&self) -> Result<Guard> {
        struct Unlock(Drive, u64);
        impl Drop for Unlock {
            fn drop(&mut self) {
                let mut state = self.0.state();
                if state.running == self.1 {
                    state.locked = false;
                }
            }
        }
        let mut state = self.enter("lock", &OWN)?;
        if state.locked {
            return Err(failing("lock", &OWN)(ErrorKind::Busy));
        }
        state.locked = true;
        Ok(Box::new(Unlock(self.drive.clone(), self.run)))
    }

    fn identity_origin(&self) -> Option<Origin> {
        None
    }

    fn root_is_same(&self) -> Result<bool> {
        self.enter("stat", &"the root").map(|_| true)
    }
}

/// An open file: it stays the same file whatever happens to its names.
struct SimFile {
    drive: Drive,
    run: u64,
    ino: Ino,
    path: String,
}

impl SimFile {
    fn enter(&self, verb: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.drive.state();
        state.enter(self.run, verb, &self.path)?;
        Ok(state)
    }
}

impl ReadHandle for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let state = self.enter("read")?;
        let bytes = state
            .fs
            .content(self.ino)
            .map_err(failing("read", &self.path))?
            .bytes();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let n = buf.len().min(bytes.len() - start);
        buf[..n].copy_from_slice(&bytes[start..start + n]);
        Ok(n)
    }

    fn stat(&self) -> Result<Stat> {
        let state = self.enter("stat")?;
        state
            .fs
            .stat(self.ino)
            .map_err(failing("look at", &self.path))
    }

    fn set_meta(&self, meta: Meta) -> Result<()> {
        let mut state = self.enter("set_meta")?;
        state.changes += u64::from(!self.path.starts_with(OWN));
        state
            .fs
            .set_attributes(self.ino, meta.mtime_ns, meta.mode)
            .map_err(failing("write", &self.path))
    }
}

impl WriteHandle for SimFile {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut state = self.enter("write")?;
        state.check_write(self.ino, &self.path);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let write = |bytes: &mut Vec<u8>| {
            let end = start.saturating_add(data.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(data);
        };
        state
            .fs
            .write(self.ino, write)
            .map_err(failing("write", &self.path))
    }

    fn set_len(&self, size: u64) -> Result<()> {
        let mut state = self.enter("write")?;
        state.check_write(self.ino, &self.path);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        state
            .fs
            .write(self.ino, |bytes| bytes.resize(size, 0))
            .map_err(failing("write", &self.path))
    }

    fn allocate(&self, _size: u64) -> Result<()> {
        self.enter("allocate").map(drop)
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.enter("sync_file")?;
        state
            .fs
            .sync_file(self.ino)
            .map_err(failing("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_client::folder::disk::conformance::CASES;

    #[test]
    fn the_simulated_disk_keeps_every_promise_of_a_disk() {
        for (promise, case) in CASES {
            let clock = SimClock::default();
            let drive = Drive::new(clock.clone(), Trace::new(clock), "disk", Known::default());
            let disk = drive.start();
            disk.prepare().unwrap();
            println!("{promise}");
            case(&disk);
        }
    }
}
