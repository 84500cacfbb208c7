//! Changes the disk. **Nothing that differs from what was planned against is overwritten or removed.**
//!
//! New content is *staged* in `.syncagent/tmp`, made durable once a batch ([`Folder::sync_staged`]), then *placed*.
//! A file that is in the way is not overwritten but exchanged with the staged one; what came out is compared with what
//! was expected, and goes back if it differs. What came out as expected (and what is removed) is *retired*: it stays in
//! `.syncagent/tmp` until [`Folder::settle`] has made the new names durable, is compared once more, in case a program
//! that held it open wrote to it meanwhile, and only then unlinked. After a power cut there is thus always the old file
//! or the new one, and a late write surfaces as a file of its own.
//!
//! Names in `.syncagent/tmp` say what a crash may leave under them ([`super::recover`] reads them):
//!
//! | name | what it can be |
//! |---|---|
//! | `new-ID` | staged content, or a link; never anything of the user's |
//! | `part-KEY` | an unfinished download that can be taken up again |
//! | `swap-ID-INODE-EXPECTED-NAME` | before the exchange the staged file (it has INODE), after it what stood at NAME |
//! | `mine-ID-INODE-EXPECTED-NAME` | the same, where the vault does not have what stood at NAME: a conflict copy has it |
//! | `out-ID-EXPECTED-NAME` | what stood at NAME, before it is unlinked |
//! | `aside-ID` | notes that a second name is being made for a file, for a conflict copy |
//! | `id-ID`, `probe-ID` | bytes of our own |
//!
//! EXPECTED is inode, size and mtime of what was planned against, which the vault has: a file that fits it may go, any
//! other is the user's.
//!
//! *Limits.* Between the last check and the exchange lie microseconds, and between the placement and the look at what
//! its own time is now; a write in them that keeps length and mtime is not seen, and neither is one to a retired file
//! by a program that has it open. What such a program writes after the file was let go is nowhere. On file systems
//! without exchange (FAT, some network and Windows ones) a file is held by a second name and replaced; another file
//! renamed over it in between would be lost. Without hard links either, as on FAT, so would be a write in between.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{Code, Name, TreePath};
use syncagent_sync::scan::Fingerprint;

use super::disk::{
    At, Dir, Disk, DiskError, EntryKind, ErrorKind, Meta, Stat, TempName, WriteHandle,
    mode_with_exec,
};

/// From this size on space is claimed before the first byte is written.
const PREALLOCATE: u64 = 1 << 20;

/// Up to so many syncs are done one by one; above, one for the whole volume is cheaper where there is one.
const FEW: usize = 8;

/// How many threads sync files where the system has no call for a whole volume.
const SYNC_THREADS: usize = 8;

/// Gives a rescued file its name: from the name it had, and how many such names were taken already.
pub type RescueName = Box<dyn Fn(&Name, u32) -> Name + Send + Sync>;

/// What must stand at a path for a change of it to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// The regular file with this fingerprint.
    File(Fingerprint),
    /// A symbolic link to this target.
    Link {
        /// Where it points.
        target: String,
    },
}

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApplyError {
    /// What stands there is not what the change was planned against. Nothing was changed: scan it and plan anew.
    #[error("{path} is not what it was a moment ago. It is looked at again")]
    Changed {
        /// Where.
        path: TreePath,
    },
    /// The directory to be removed holds something.
    #[error("{path} is not empty")]
    NotEmpty {
        /// Which.
        path: TreePath,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl ApplyError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Changed { .. } | Self::NotEmpty { .. } => Code::Write,
            Self::Disk(error) => error.code(),
        }
    }

    /// Whether the same may work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Changed { .. } => true,
            Self::NotEmpty { .. } => false,
            Self::Disk(error) => error.is_retryable(),
        }
    }
}

/// Content that was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// What the index may trust: as long as the disk says the same, the content is what was placed.
    pub fingerprint: Fingerprint,
}

/// A file of the user's that could not stay where it was and was kept under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// Where it was; none if a crash erased that.
    pub from: Option<TreePath>,
    /// Where it is.
    pub to: TreePath,
}

/// What [`Folder::settle`] did.
#[derive(Debug, Default)]
pub struct Settled {
    /// Files that were kept under another name since the last call: they want a scan and a word to the user.
    pub rescued: Vec<Rescued>,
    /// Old files that could not be let go, by where they stood, and why: they are kept until a later call.
    pub held: Vec<(TreePath, ApplyError)>,
    /// Files whose bits or times a crash may still undo, and why: the index must not say yet that they are so.
    pub unflushed: Vec<(TreePath, ApplyError)>,
}

/// A synchronised folder that can be changed. One value per folder and process.
pub struct Folder {
    disk: Arc<dyn Disk>,
    rescue_name: RescueName,
    next_id: AtomicU64,
    unsettled: Mutex<Unsettled>,
}

/// Changes that a crash may still undo.
#[derive(Default)]
struct Unsettled {
    /// Directories in which names changed.
    touched: BTreeSet<TreePath>,
    /// Files whose bits or times changed.
    marked: BTreeSet<TreePath>,
    retired: Vec<Retired>,
    rescued: Vec<Rescued>,
}

/// An old file that goes once the new names are durable.
struct Retired {
    temp: TempName,
    path: TreePath,
    /// As it was when it was taken out.
    stat: Stat,
}

/// Content being written.
pub struct Staging {
    disk: Arc<dyn Disk>,
    handle: Option<Box<dyn WriteHandle>>,
    temp: TempName,
    written: u64,
    /// Stays when this value is dropped unfinished: the download is taken up again later.
    resumable: bool,
}

/// Content, or a link, ready to be placed. Dropped without having been placed, it is gone.
pub struct Staged {
    disk: Arc<dyn Disk>,
    temp: TempName,
    stat: Stat,
    exec: bool,
    placed: bool,
}

impl Folder {
    /// A folder that is adopted and locked ([`super::root`]) and recovered ([`super::recover`]).
    pub fn new(disk: Arc<dyn Disk>, rescue_name: RescueName) -> Self {
        Self {
            disk,
            rescue_name,
            next_id: AtomicU64::new(0),
            unsettled: Mutex::default(),
        }
    }

    /// The disk below.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    // ---- staging ----

    /// Starts a file; `size` claims the space, where it is known.
    pub fn stage(&self, size: Option<u64>) -> Result<Staging, ApplyError> {
        loop {
            let temp = self.temp("new", "");
            match self.disk.create_temp(&temp) {
                Err(error) if error.kind == ErrorKind::Exists => {}
                result => return self.staging(result?, temp, size, false),
            }
        }
    }

    /// Starts, or takes up again, a file whose unfinished content outlives this process under `key` (letters,
    /// digits, up to 200). [`Staging::len`] says how much is there; after a crash it may be anything, so check it.
    pub fn stage_resumable(&self, key: &str, size: Option<u64>) -> Result<Staging, ApplyError> {
        let valid = key.len() <= 200 && key.bytes().all(|b| b.is_ascii_alphanumeric());
        let temp = TempName::parse(&format!("part-{key}"))
            .filter(|_| valid && !key.is_empty())
            .ok_or_else(|| {
                DiskError::new(
                    ErrorKind::BadName,
                    "write",
                    ".syncagent/tmp",
                    "not a key of an unfinished download",
                )
            })?;
        let handle = match self.disk.create_temp(&temp) {
            Err(error) if error.kind == ErrorKind::Exists => self.disk.reopen_temp(&temp)?,
            result => result?,
        };
        self.staging(handle, temp, size, true)
    }

    /// Removes unfinished downloads but those that `keep` names, and says how many: no more than time is lost.
    pub fn give_way(&self, keep: &dyn Fn(&str) -> bool) -> Result<usize, ApplyError> {
        let mut gone = 0;
        for temp in self.disk.list_temp()? {
            if temp
                .as_str()
                .strip_prefix("part-")
                .is_some_and(|key| !keep(key))
            {
                self.disk.unlink(At::Temp(&temp))?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    fn staging(
        &self,
        handle: Box<dyn WriteHandle>,
        temp: TempName,
        size: Option<u64>,
        resumable: bool,
    ) -> Result<Staging, ApplyError> {
        let mut staging = Staging {
            disk: Arc::clone(&self.disk),
            handle: Some(handle),
            temp,
            written: 0,
            resumable,
        };
        staging.written = if resumable {
            staging.handle()?.stat()?.size
        } else {
            0
        };
        if let Some(size) = size.filter(|size| *size >= PREALLOCATE) {
            staging.handle()?.allocate(size)?;
        }
        Ok(staging)
    }

    /// Makes a link ready to be placed.
    pub fn stage_link(&self, target: &str, mtime_ns: i64) -> Result<Staged, ApplyError> {
        let temp = loop {
            let temp = self.temp("new", "");
            match self.disk.symlink(target, At::Temp(&temp)) {
                Err(error) if error.kind == ErrorKind::Exists => {}
                result => {
                    result?;
                    break temp;
                }
            }
        };
        let mut staged = Staged {
            disk: Arc::clone(&self.disk),
            temp,
            stat: NO_STAT,
            exec: false,
            placed: false,
        };
        self.disk.set_meta(
            At::Temp(&staged.temp),
            Meta {
                mtime_ns: Some(mtime_ns),
                mode: None,
            },
        )?;
        staged.stat = self.disk.stat(At::Temp(&staged.temp))?;
        Ok(staged)
    }

    /// Makes the content of a batch durable: for many at once with one call, for few one by one.
    pub fn sync_staged(&self, batch: &[&Staged]) -> Result<(), ApplyError> {
        let files: Vec<At<'_>> = batch
            .iter()
            .filter(|staged| staged.stat.kind == EntryKind::File)
            .map(|staged| At::Temp(&staged.temp))
            .collect();
        Ok(self.sync_many(&files, |at| self.disk.sync_file(*at))?)
    }

    /// Makes durable what other programs did: the content of `files` and the names in `dirs`. What is no longer
    /// there is left out. Names which files refuse, and why: they hold up nothing else.
    pub fn sync_found(
        &self,
        files: &[TreePath],
        dirs: &BTreeSet<TreePath>,
    ) -> Result<Vec<(TreePath, ApplyError)>, ApplyError> {
        enum Found<'a> {
            File(&'a TreePath),
            Dir(&'a TreePath),
        }
        let found: Vec<Found<'_>> = files
            .iter()
            .map(Found::File)
            .chain(dirs.iter().map(Found::Dir))
            .collect();
        let refused: Mutex<Vec<(TreePath, ApplyError)>> = Mutex::default();
        let sync = |found: &Found<'_>| {
            let result = match found {
                Found::File(path) => self.disk.sync_file(At::Tree(path)),
                Found::Dir(path) => self.disk.sync_dir(Dir::Tree(path)),
            };
            match (result, found) {
                (Err(error), _) if is_elsewhere(error.kind) => Ok(()),
                // Systems tell of an error once: whoever asks again hears that all is well.
                (Err(error), Found::File(path)) => {
                    let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                    refused.push(((*path).clone(), error.into()));
                    Ok(())
                }
                (result, _) => result,
            }
        };
        if found.len() > FEW && self.disk.sync_all().unwrap_or(false) {
            return Ok(Vec::new());
        }
        self.sync_each(&found, sync)?;
        let mut refused = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
        refused.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(refused)
    }

    fn sync_many<T: Sync>(
        &self,
        all: &[T],
        sync: impl Fn(&T) -> Result<(), DiskError> + Sync,
    ) -> Result<(), DiskError> {
        if all.len() > FEW && self.disk.sync_all()? {
            return Ok(());
        }
        self.sync_each(all, sync)
    }

    fn sync_each<T: Sync>(
        &self,
        all: &[T],
        sync: impl Fn(&T) -> Result<(), DiskError> + Sync,
    ) -> Result<(), DiskError> {
        if all.len() <= 1 || !self.disk.capabilities().parallel {
            return all.iter().try_for_each(sync);
        }
        // Waiting threads, not working ones: more of them than processors lets the device sort its queue.
        let share = all.len().div_ceil(SYNC_THREADS);
        let sync = &sync;
        std::thread::scope(|scope| {
            let threads: Vec<_> = all
                .chunks(share)
                .map(|part| scope.spawn(move || part.iter().try_for_each(sync)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(DiskError::new(
                        ErrorKind::Io,
                        "sync",
                        ".syncagent/tmp",
                        "a thread that synced has failed",
                    ))
                })
            })
        })
    }

    // ---- placing ----

    /// Puts staged content or a staged link to `path`, if `expect` holds there.
    ///
    /// With `aside`, what stands at `path` gets that name as well before it is replaced: a conflict copy.
    /// After an error `staged` can be tried again, there or elsewhere.
    pub fn place(
        &self,
        staged: &mut Staged,
        path: &TreePath,
        expect: &Expect,
        aside: Option<&TreePath>,
    ) -> Result<Placed, ApplyError> {
        let Some(old) = self.check(path, expect)? else {
            self.put_in_place(staged, path)?;
            return self.placed(staged, path);
        };
        if staged.stat.kind == EntryKind::File && old.kind == EntryKind::File && old.mode != 0 {
            // A file keeps its permissions when its content changes.
            let mode = mode_with_exec(old.mode, staged.exec);
            if mode != staged.stat.mode {
                self.disk.set_meta(
                    At::Temp(&staged.temp),
                    Meta {
                        mtime_ns: None,
                        mode: Some(mode),
                    },
                )?;
                staged.stat.mode = mode;
            }
        }
        let note = aside.map(|aside| self.set_aside(path, aside)).transpose()?;
        let result = match note {
            // The file system knows no second names: the old file was renamed, the place is free.
            Some(Aside::Renamed) => self.put_in_place(staged, path),
            Some(Aside::Linked(_)) => self.swap("mine", staged, path, expect, &old),
            None => self.swap("swap", staged, path, expect, &old),
        };
        match note {
            Some(Aside::Linked(note)) => {
                if let Some(aside) = aside {
                    match &result {
                        Ok(()) => {
                            self.keep_aside(path, aside, &old)?;
                            point(Point::AsideKept);
                        }
                        Err(_) => self.undo_aside(aside, &old),
                    }
                }
                self.disk.unlink(At::Temp(&note))?;
            }
            Some(Aside::Renamed) => {
                if let (Err(_), Some(aside)) = (&result, aside) {
                    let _ = self.rename_to_free(At::Tree(aside), path);
                }
            }
            None => {}
        }
        result?;
        self.placed(staged, path)
    }

    /// Looks whether `expect` holds at `path`; returns what stands there.
    fn check(&self, path: &TreePath, expect: &Expect) -> Result<Option<Stat>, ApplyError> {
        let changed = || ApplyError::Changed { path: path.clone() };
        let found = match self.disk.stat(At::Tree(path)) {
            Ok(stat) => Some(stat),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(planned_otherwise(error, path)),
        };
        match (expect, found) {
            (Expect::Absent, None) => Ok(None),
            (Expect::File(fingerprint), Some(stat))
                if stat.kind == EntryKind::File && stat.fingerprint() == *fingerprint =>
            {
                Ok(Some(stat))
            }
            (Expect::Link { target }, Some(stat))
                if stat.kind == EntryKind::Symlink && self.points_to(At::Tree(path), target) =>
            {
                Ok(Some(stat))
            }
            _ => Err(changed()),
        }
    }

    fn points_to(&self, at: At<'_>, target: &str) -> bool {
        self.disk.read_link(at).is_ok_and(|found| found == target)
    }

    /// Whether `at` is what `old` was, moved meanwhile.
    fn is_same(&self, at: At<'_>, old: &Stat, expect: &Expect) -> Result<bool, DiskError> {
        let now = self.disk.stat(at)?;
        Ok(same_but_moved(&now, old)
            && match expect {
                Expect::Link { target } => self.points_to(at, target),
                _ => true,
            })
    }

    /// Moves what is staged to `path`, where nothing is.
    fn put_in_place(&self, staged: &mut Staged, path: &TreePath) -> Result<(), ApplyError> {
        self.rename_to_free(At::Temp(&staged.temp), path)
            .map_err(|error| otherwise(error, path))?;
        staged.placed = true;
        point(Point::NewPlaced);
        self.touch(path);
        Ok(())
    }

    /// A fresh look at what was placed, for the index.
    fn placed(&self, staged: &Staged, path: &TreePath) -> Result<Placed, ApplyError> {
        let ours = staged.stat.fingerprint();
        let fingerprint = match self.disk.stat(At::Tree(path)) {
            // The inode's own time moved with the rename; all else must be what was staged. If it is not, somebody was
            // here already, and the old fingerprint makes the next scan see that.
            Ok(now) if same_but_moved(&now, &staged.stat) => now.fingerprint(),
            _ => ours,
        };
        Ok(Placed { fingerprint })
    }

    /// Exchanges what is staged with what stands at `path`, which must be `old`.
    fn swap(
        &self,
        prefix: &str,
        staged: &mut Staged,
        path: &TreePath,
        expect: &Expect,
        old: &Stat,
    ) -> Result<(), ApplyError> {
        let label = label(path);
        let swap = self.temp(
            prefix,
            &format!("{:x}-{}-{label}", staged.stat.inode, expected(old)),
        );
        self.disk.rename(At::Temp(&staged.temp), At::Temp(&swap))?;
        staged.temp = swap;
        point(Point::SwapNamed);
        match self.disk.exchange(At::Temp(&staged.temp), At::Tree(path)) {
            Ok(()) => point(Point::Exchanged),
            Err(error) if error.kind == ErrorKind::Unsupported => {
                return self.replace(staged, path, expect, old);
            }
            Err(error) => return Err(planned_otherwise(error, path)),
        }
        self.touch(path);
        if self
            .is_same(At::Temp(&staged.temp), old, expect)
            .unwrap_or(false)
        {
            self.retire(&staged.temp, path, old);
            staged.placed = true;
            return Ok(());
        }
        // Somebody was faster. Back with it.
        let back = self.disk.exchange(At::Temp(&staged.temp), At::Tree(path));
        let ours = match back {
            Ok(()) => self
                .disk
                .stat(At::Temp(&staged.temp))
                .is_ok_and(|now| same_but_moved(&now, &staged.stat)),
            Err(_) => false,
        };
        if !ours {
            // Faster twice: what lies in the temp is the user's, whichever of the two it is.
            staged.placed = true;
            match back {
                Ok(()) => drop(self.rescue(&staged.temp, Some(path))?),
                Err(_) => self.put_back(&staged.temp, path)?,
            }
        }
        Err(ApplyError::Changed { path: path.clone() })
    }

    /// [`Folder::swap`] where names cannot be exchanged: holds the old file by a second name and replaces it.
    fn replace(
        &self,
        staged: &mut Staged,
        path: &TreePath,
        expect: &Expect,
        old: &Stat,
    ) -> Result<(), ApplyError> {
        let out = self.temp("out", &format!("{}-{}", expected(old), label(path)));
        let held = match self.disk.hard_link(At::Tree(path), At::Temp(&out)) {
            Ok(()) => true,
            Err(error) if error.kind == ErrorKind::Unsupported => false,
            Err(error) => return Err(planned_otherwise(error, path)),
        };
        // By both names: the file was not written to, and no other one was put in its place.
        let same = |at| self.is_same(at, old, expect).unwrap_or(false);
        let same = (!held || same(At::Temp(&out))) && same(At::Tree(path));
        let renamed = if same {
            self.disk.rename(At::Temp(&staged.temp), At::Tree(path))
        } else {
            Ok(())
        };
        if !same || renamed.is_err() {
            if held {
                self.disk.unlink(At::Temp(&out))?;
            }
            renamed?;
            return Err(ApplyError::Changed { path: path.clone() });
        }
        staged.placed = true;
        self.touch(path);
        if held {
            self.retire(&out, path, old);
        }
        Ok(())
    }

    /// Gives what stands at `path` the name `aside` as well.
    fn set_aside(&self, path: &TreePath, aside: &TreePath) -> Result<Aside, ApplyError> {
        // If the machine dies between here and the exchange, the two names of one file are known for what they are.
        let note = self.temp("aside", "");
        let handle = self.disk.create_temp(&note)?;
        let written = handle.write_at(super::recover::aside_note(path, aside).as_bytes(), 0);
        drop(handle);
        point(Point::AsideNoted);
        let linked = written.and_then(|()| self.disk.hard_link(At::Tree(path), At::Tree(aside)));
        match linked {
            Ok(()) => {
                point(Point::AsideLinked);
                self.touch(aside);
                Ok(Aside::Linked(note))
            }
            Err(error) => {
                self.disk.unlink(At::Temp(&note))?;
                match error.kind {
                    ErrorKind::Unsupported => {
                        self.rename_to_free(At::Tree(path), aside)?;
                        self.touch(aside);
                        self.touch(path);
                        Ok(Aside::Renamed)
                    }
                    ErrorKind::Exists => Err(ApplyError::Changed {
                        path: aside.clone(),
                    }),
                    _ => Err(planned_otherwise(error, path)),
                }
            }
        }
    }

    /// Sees to it that `old`, which was just taken out of `path`, has its other name `aside`: whoever took that name away
    /// meanwhile did so while the file stood at `path` as well.
    fn keep_aside(&self, path: &TreePath, aside: &TreePath, old: &Stat) -> Result<(), ApplyError> {
        let kept = self.disk.stat(At::Tree(aside));
        if kept.is_ok_and(|stat| stat.inode == old.inode && stat.device == old.device) {
            return Ok(());
        }
        let taken_out = {
            let retired = &mut self.unsettled().retired;
            let last = retired.iter().rposition(|retired| retired.path == *path);
            last.map(|last| retired.remove(last))
        };
        match taken_out {
            Some(retired) => self.put_back(&retired.temp, aside),
            None => Ok(()),
        }
    }

    /// Takes the second name away again, if it still is one of `old`.
    fn undo_aside(&self, aside: &TreePath, old: &Stat) {
        let still = |stat: Stat| stat.inode == old.inode && stat.links > 1;
        if self.disk.stat(At::Tree(aside)).is_ok_and(still) {
            // A second name that stays is a copy too many, not a loss.
            let _ = self.disk.unlink(At::Tree(aside));
        }
    }

    /// Stages a link and places it. See [`Folder::place`].
    pub fn place_link(
        &self,
        target: &str,
        mtime_ns: i64,
        path: &TreePath,
        expect: &Expect,
        aside: Option<&TreePath>,
    ) -> Result<Placed, ApplyError> {
        let mut staged = self.stage_link(target, mtime_ns)?;
        self.place(&mut staged, path, expect, aside)
    }

    // ---- the other verbs ----

    /// Makes a directory where nothing is; returns its inode.
    pub fn make_dir(&self, path: &TreePath) -> Result<u64, ApplyError> {
        self.disk
            .mkdir(path)
            .map_err(|error| planned_otherwise(error, path))?;
        point(Point::DirectoryMade);
        self.touch(path);
        Ok(self.disk.stat(At::Tree(path))?.inode)
    }

    /// Sets mtime or the executable bit of the file at `path`, if it is the one expected.
    pub fn set_meta(
        &self,
        path: &TreePath,
        expect: Fingerprint,
        exec: Option<bool>,
        mtime_ns: Option<i64>,
    ) -> Result<Fingerprint, ApplyError> {
        let changed = || ApplyError::Changed { path: path.clone() };
        let file = self
            .disk
            .open(At::Tree(path))
            .map_err(|error| planned_otherwise(error, path))?;
        // By handle, so that what is compared is what is changed.
        let before = file.stat()?;
        if before.fingerprint() != expect {
            return Err(changed());
        }
        let mode = exec
            .filter(|exec| *exec != before.exec())
            .map(|exec| mode_with_exec(before.mode, exec));
        file.set_meta(Meta { mtime_ns, mode })?;
        point(Point::MetaSet);
        self.unsettled().marked.insert(path.clone());
        let after = file.stat()?;
        let moved_by_us = mtime_ns.unwrap_or(before.mtime_ns);
        // Written to meanwhile: the old fingerprint makes the next scan see it.
        if (after.size, after.mtime_ns) != (before.size, moved_by_us) {
            return Ok(Fingerprint {
                mtime_ns: moved_by_us,
                ..before.fingerprint()
            });
        }
        Ok(after.fingerprint())
    }

    /// Moves a file, link or directory with everything in it from `from` to `to`, where nothing is (or which is the
    /// same name to this file system: a change of case). `inode` is what must stand at `from`; 0 is not checked.
    pub fn move_node(&self, from: &TreePath, to: &TreePath, inode: u64) -> Result<(), ApplyError> {
        self.expect_inode(from, inode)?;
        match self.rename_to_free(At::Tree(from), to) {
            Err(ApplyError::Changed { .. }) if self.is_respelling(from, to) => {
                self.disk.rename(At::Tree(from), At::Tree(to))?;
            }
            result => result.map_err(|error| otherwise(error, from))?,
        }
        point(Point::NodeMoved);
        self.touch(from);
        self.touch(to);
        if self.expect_inode(to, inode).is_err() {
            let _ = self.rename_to_free(At::Tree(to), from);
            return Err(ApplyError::Changed { path: from.clone() });
        }
        Ok(())
    }

    /// Lets two nodes change places. The inodes are what must stand there; 0 is not checked.
    pub fn swap_nodes(
        &self,
        a: &TreePath,
        b: &TreePath,
        inode_a: u64,
        inode_b: u64,
    ) -> Result<(), ApplyError> {
        self.expect_inode(a, inode_a)?;
        self.expect_inode(b, inode_b)?;
        self.disk
            .exchange(At::Tree(a), At::Tree(b))
            .map_err(|error| planned_otherwise(error, a))?;
        point(Point::NodesSwapped);
        self.touch(a);
        self.touch(b);
        let wrong =
            self.expect_inode(b, inode_a).is_err() || self.expect_inode(a, inode_b).is_err();
        if wrong {
            let _ = self.disk.exchange(At::Tree(a), At::Tree(b));
            return Err(ApplyError::Changed { path: a.clone() });
        }
        Ok(())
    }

    fn expect_inode(&self, path: &TreePath, inode: u64) -> Result<(), ApplyError> {
        match self.disk.stat(At::Tree(path)) {
            Ok(stat) if inode == 0 || stat.inode == inode => Ok(()),
            Ok(_) => Err(ApplyError::Changed { path: path.clone() }),
            Err(error) => Err(planned_otherwise(error, path)),
        }
    }

    /// Whether both paths are one entry of a file system that does not tell them apart.
    fn is_respelling(&self, from: &TreePath, to: &TreePath) -> bool {
        let fold = |path: &TreePath| {
            path.name()
                .map(|name| super::placement::fold(name.as_str()))
        };
        if from.parent() != to.parent() || fold(from) != fold(to) {
            return false;
        }
        match (self.disk.stat(At::Tree(from)), self.disk.stat(At::Tree(to))) {
            // Two names of one file are another case: renaming one to the other would do nothing.
            (Ok(a), Ok(b)) => {
                a.inode == b.inode
                    && a.device == b.device
                    && (a.kind == EntryKind::Directory || a.links == 1)
            }
            _ => false,
        }
    }

    /// Removes the file or link at `path`, if it is the one expected.
    pub fn remove(&self, path: &TreePath, expect: &Expect) -> Result<(), ApplyError> {
        let Some(old) = self.check(path, expect)? else {
            return Ok(());
        };
        let out = self.temp("out", &format!("{}-{}", expected(&old), label(path)));
        self.disk
            .rename(At::Tree(path), At::Temp(&out))
            .map_err(|error| planned_otherwise(error, path))?;
        point(Point::TakenOut);
        self.touch(path);
        if self.is_same(At::Temp(&out), &old, expect).unwrap_or(false) {
            self.retire(&out, path, &old);
            return Ok(());
        }
        self.put_back(&out, path)?;
        Err(ApplyError::Changed { path: path.clone() })
    }

    /// Removes the directory at `path`, if it is empty; a directory's identity does not matter then.
    pub fn remove_dir(&self, path: &TreePath) -> Result<(), ApplyError> {
        match self.disk.rmdir(path) {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::NotEmpty => {
                return Err(ApplyError::NotEmpty { path: path.clone() });
            }
            Err(error) => return Err(planned_otherwise(error, path)),
        }
        point(Point::DirectoryRemoved);
        self.touch(path);
        Ok(())
    }

    /// Whether there is nothing for [`Folder::settle`] to do.
    pub fn is_settled(&self) -> bool {
        let unsettled = self.unsettled();
        unsettled.touched.is_empty()
            && unsettled.marked.is_empty()
            && unsettled.retired.is_empty()
            && unsettled.rescued.is_empty()
    }

    /// Makes all changes since the last call durable, then lets the old files go. Before this has returned, the index
    /// must not say "in sync".
    pub fn settle(&self) -> Result<Settled, ApplyError> {
        let Unsettled {
            touched,
            marked,
            retired,
            rescued,
        } = std::mem::take(&mut *self.unsettled());
        // What was moved, removed or replaced since is elsewhere; then the directory it was in is in the set as well.
        let files: Vec<TreePath> = marked.iter().cloned().collect();
        let unflushed = match self.sync_found(&files, &touched) {
            Ok(unflushed) => unflushed,
            Err(error) => {
                let mut unsettled = self.unsettled();
                unsettled.touched.extend(touched);
                unsettled.marked.extend(marked);
                unsettled.retired.extend(retired);
                unsettled.rescued.extend(rescued);
                return Err(error);
            }
        };
        point(Point::NamesFlushed);
        let mut held = Vec::new();
        let mut copied = false;
        for retired in retired {
            copied |= retired.temp.as_str().starts_with("mine-");
            if let Err(error) = self.release(&retired) {
                // What was put in its place is durable all the same.
                held.push((retired.path.clone(), error));
                self.unsettled().retired.push(retired);
            }
        }
        if copied {
            // After a power cut it would be there again, and be rescued if the conflict copy is deleted by then.
            if let Err(error) = self.disk.sync_dir(Dir::Temp) {
                tracing::warn!(%error, "cannot flush the directory of temporary files");
            }
        }
        point(Point::OldLetGo);
        let again = unflushed.iter().map(|(path, _)| path.clone());
        self.unsettled().marked.extend(again);
        let mut settled = Settled {
            rescued,
            held,
            unflushed,
        };
        settled.rescued.append(&mut self.unsettled().rescued);
        Ok(settled)
    }

    fn release(&self, retired: &Retired) -> Result<(), ApplyError> {
        // What still has its other name is there, whatever has been done to it since: its time set by a later step, say.
        let has_name = |now: &Stat| retired.temp.as_str().starts_with("mine-") && now.links > 1;
        match self.disk.stat(At::Temp(&retired.temp)) {
            Ok(now) if same_but_moved(&now, &retired.stat) || has_name(&now) => {
                self.disk.unlink(At::Temp(&retired.temp))?
            }
            // A program that had it open wrote to it after it was taken out.
            Ok(_) => drop(self.rescue(&retired.temp, Some(&retired.path))?),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    // ---- below the verbs ----

    fn temp(&self, prefix: &str, rest: &str) -> TempName {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let dash = if rest.is_empty() { "" } else { "-" };
        TempName::new(&format!("{prefix}-{id}{dash}{rest}"))
    }

    fn unsettled(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Continues the numbers of temps behind those that are there.
    pub(super) fn start_after(&self, last: Option<u64>) {
        self.next_id.fetch_max(
            last.map_or(0, |last| last.saturating_add(1)),
            Ordering::Relaxed,
        );
    }

    pub(super) fn touch(&self, path: &TreePath) {
        if let Some(parent) = path.parent() {
            self.unsettled().touched.insert(parent);
        }
    }

    fn retire(&self, temp: &TempName, path: &TreePath, stat: &Stat) {
        self.unsettled().retired.push(Retired {
            temp: temp.clone(),
            path: path.clone(),
            stat: *stat,
        });
    }

    /// Puts what was taken from `path` back, or beside it if the place is taken.
    fn put_back(&self, temp: &TempName, path: &TreePath) -> Result<(), ApplyError> {
        match self.rename_to_free(At::Temp(temp), path) {
            Ok(()) => Ok(()),
            Err(_) => self.rescue(temp, Some(path)).map(drop),
        }
    }

    /// Gives a file of the user's a visible name: beside where it was, else in the root.
    pub(super) fn rescue(
        &self,
        temp: &TempName,
        from: Option<&TreePath>,
    ) -> Result<TreePath, ApplyError> {
        let name = from
            .and_then(TreePath::name)
            .or_else(|| super::recover::name_of(temp));
        let name = name.unwrap_or_else(|| temp.as_name().clone());
        let mut dir = from.and_then(TreePath::parent).unwrap_or_default();
        let mut attempt = 0;
        loop {
            let to = dir.join(&(self.rescue_name)(&name, attempt));
            match self.rename_to_free(At::Temp(temp), &to) {
                Ok(()) => {
                    self.touch(&to);
                    self.unsettled().rescued.push(Rescued {
                        from: from.cloned(),
                        to: to.clone(),
                    });
                    return Ok(to);
                }
                Err(ApplyError::Changed { .. }) if attempt < 10_000 => attempt += 1,
                Err(_) if !dir.is_root() => dir = TreePath::ROOT,
                Err(error) => return Err(error),
            }
        }
    }

    /// Renames to where nothing is; [`ApplyError::Changed`] if something is.
    pub(super) fn rename_to_free(&self, from: At<'_>, to: &TreePath) -> Result<(), ApplyError> {
        let taken = || ApplyError::Changed { path: to.clone() };
        let error = match self.disk.rename_noreplace(from, At::Tree(to)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.kind {
            ErrorKind::Exists | ErrorKind::NotEmpty => return Err(taken()),
            ErrorKind::Unsupported => {}
            _ => return Err(error.into()),
        }
        // A second name fails where something is, as a rename cannot be told to here.
        let stat = self.disk.stat(from)?;
        if stat.kind != EntryKind::Directory {
            match self.disk.hard_link(from, At::Tree(to)) {
                Ok(()) => return Ok(self.disk.unlink(from)?),
                Err(error) if error.kind == ErrorKind::Exists => return Err(taken()),
                Err(error) if error.kind == ErrorKind::Unsupported => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.disk.stat(At::Tree(to)) {
            Err(error) if error.kind == ErrorKind::NotFound => {
                Ok(self.disk.rename(from, At::Tree(to))?)
            }
            Ok(_) => Err(taken()),
            Err(error) => Err(error.into()),
        }
    }
}

/// How a conflict copy got its name.
enum Aside {
    /// As a second name of the file, noted in this temp.
    Linked(TempName),
    /// The file was renamed: its old place is free.
    Renamed,
}

impl Staging {
    fn handle(&self) -> Result<&dyn WriteHandle, DiskError> {
        self.handle.as_deref().ok_or_else(|| {
            DiskError::new(
                ErrorKind::Io,
                "write",
                At::Temp(&self.temp),
                "already finished",
            )
        })
    }

    /// How far it is written: the end of the furthest byte.
    #[allow(clippy::len_without_is_empty, reason = "emptiness is of no interest")]
    pub fn len(&self) -> u64 {
        self.written
    }

    /// Appends.
    pub fn write(&mut self, data: &[u8]) -> Result<(), ApplyError> {
        self.write_at(data, self.written)
    }

    /// Writes at `offset`.
    pub fn write_at(&mut self, data: &[u8], offset: u64) -> Result<(), ApplyError> {
        self.handle()?.write_at(data, offset)?;
        self.written = self.written.max(offset + data.len() as u64);
        Ok(())
    }

    /// Reads back what was written at `offset`; 0 bytes mean the end.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, ApplyError> {
        Ok(self.handle()?.read_at(buf, offset)?)
    }

    /// Cuts off what lies behind `size`.
    pub fn set_len(&mut self, size: u64) -> Result<(), ApplyError> {
        self.handle()?.set_len(size)?;
        self.written = size;
        Ok(())
    }

    /// Ends the file and sets its executable bit and mtime. Its content is not durable yet.
    pub fn finish(mut self, exec: bool, mtime_ns: i64) -> Result<Staged, ApplyError> {
        let handle = self.handle()?;
        let before = handle.stat()?;
        let mode = (before.exec() != exec).then(|| mode_with_exec(before.mode, exec));
        handle.set_meta(Meta {
            mtime_ns: Some(mtime_ns),
            mode,
        })?;
        let stat = handle.stat()?;
        // Only now, so that a failure above leaves no temp behind.
        self.handle = None;
        point(Point::FileStaged);
        Ok(Staged {
            disk: Arc::clone(&self.disk),
            temp: self.temp.clone(),
            stat,
            exec,
            placed: false,
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else {
            return;
        };
        if self.resumable && self.written > 0 {
            // The space that it claimed and did not fill is for others until it is taken up again.
            let _ = handle.set_len(self.written);
        } else {
            drop(handle);
            // What stays is removed at the next start.
            let _ = self.disk.unlink(At::Temp(&self.temp));
        }
    }
}

impl Staged {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.stat.size
    }

    /// The number that it keeps when it is placed; 0 where a system has none.
    pub fn inode(&self) -> u64 {
        self.stat.inode
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            let _ = self.disk.unlink(At::Temp(&self.temp));
        }
    }
}

const NO_STAT: Stat = Stat {
    kind: EntryKind::Symlink,
    size: 0,
    mtime_ns: 0,
    ctime_ns: 0,
    inode: 0,
    device: 0,
    links: 0,
    mode: 0,
};

/// Whether `now` is the same thing with the same content as `then`. The inode's own time is left out, for a
/// rename changes it, and so do a new second name and its removal.
pub(super) fn same_but_moved(now: &Stat, then: &Stat) -> bool {
    (now.kind, now.inode, now.size, now.mtime_ns, now.mode)
        == (then.kind, then.inode, then.size, then.mtime_ns, then.mode)
}

/// An error that only says that the tree is not the one that was planned for.
fn planned_otherwise(error: DiskError, path: &TreePath) -> ApplyError {
    match error.kind {
        ErrorKind::Exists => ApplyError::Changed { path: path.clone() },
        kind if is_elsewhere(kind) => ApplyError::Changed { path: path.clone() },
        _ => error.into(),
    }
}

/// Whether the error says that something else, or nothing, stands there.
fn is_elsewhere(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::NotAFile | ErrorKind::Escapes
    )
}

fn otherwise(error: ApplyError, path: &TreePath) -> ApplyError {
    match error {
        ApplyError::Disk(error) => planned_otherwise(error, path),
        error => error,
    }
}

/// EXPECTED in a temp's name.
pub(super) fn expected(stat: &Stat) -> String {
    format!("{:x}-{:x}-{:x}", stat.inode, stat.size, stat.mtime_ns)
}

/// NAME in a temp's name: the end of the name, as much as fits.
fn label(path: &TreePath) -> String {
    /// 255 bytes hold a name everywhere; the numbers in front need up to 100.
    const FITS: usize = 140;
    let name = path.name();
    let name = name.as_ref().map_or("", Name::as_str);
    let mut start = name.len().saturating_sub(FITS);
    while !name.is_char_boundary(start) {
        start += 1;
    }
    name[start..].to_owned()
}
