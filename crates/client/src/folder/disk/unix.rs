//! A [`Disk`] over `*at` system calls, for Linux and macOS.
//!
//! Every verb resolves its directory anew below a handle of the root. Handles of other directories are *not* kept
//! between verbs: a kept one follows its directory wherever it is moved, also out of the root. On Linux one
//! `openat2` resolves a whole path, which costs as little as checking a kept handle would.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use syncagent_protocol::name::RESERVED;
use syncagent_protocol::{Name, TreePath};

use super::{
    At, Capabilities, Dir, Disk, DiskError, Entry, EntryKind, ErrorKind, Guard, Listing, Meta,
    Origin, ReadHandle, Stat, TempName, WriteHandle, os,
};

const TMP: &str = "tmp";
const LOCK: &str = "lock";
const IDENTITY: &str = "root";

/// Flags of every open: never a link, never a terminal, never waiting for a fifo's other end.
const OPEN: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK);
const OPEN_DIR: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::DIRECTORY);

type Result<T> = std::result::Result<T, DiskError>;

/// A file's number, and when anything of it last changed, nanoseconds since 1970.
pub(super) fn number_and_change(file: &std::fs::Metadata) -> (u64, i64) {
    let seconds = file.ctime().checked_mul(1_000_000_000);
    let ctime_ns = seconds.and_then(|ns| ns.checked_add(file.ctime_nsec()));
    (file.ino(), ctime_ns.unwrap_or(0))
}

/// A folder on a file system of this machine.
pub struct UnixDisk {
    path: PathBuf,
    root: OwnedFd,
    root_stat: Stat,
    own: OnceLock<Own>,
}

/// Handles of `.syncagent` and `.syncagent/tmp`.
struct Own {
    dir: OwnedFd,
    tmp: OwnedFd,
    inode: u64,
}

/// A directory handle for the length of one verb.
enum Handle<'a> {
    Kept(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kept(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

impl UnixDisk {
    /// Opens the folder at `root`, which must be a directory. Changes nothing in it.
    pub fn open(root: &Path) -> Result<Self> {
        let error = |errno: Errno| fail("look at", root.display(), errno);
        // A link as the root itself is the person's own choice and is followed; whatever it is now is held.
        let fd = rustix::fs::open(
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(error)?;
        let root_stat = os::stat_of(&rustix::fs::fstat(&fd).map_err(error)?);
        let disk = Self {
            path: root.to_owned(),
            root: fd,
            root_stat,
            own: OnceLock::new(),
        };
        if let Ok(own) = disk.open_own() {
            let _ = disk.own.set(own);
        }
        Ok(disk)
    }

    /// The path the folder was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_own(&self) -> Result<Own> {
        let open = |parent: BorrowedFd<'_>, name: &str| {
            rustix::fs::openat(parent, name, OPEN_DIR | OFlags::RDONLY, Mode::empty())
                .map_err(|errno| fail("look at", RESERVED, errno))
        };
        let dir = open(self.root.as_fd(), RESERVED)?;
        let tmp = open(dir.as_fd(), TMP)?;
        let inode = os::stat_of(
            &rustix::fs::fstat(&dir).map_err(|errno| fail("look at", RESERVED, errno))?,
        )
        .inode;
        Ok(Own { dir, tmp, inode })
    }

    fn own(&self, action: &'static str, at: At<'_>) -> Result<&Own> {
        self.own.get().ok_or_else(|| {
            DiskError::new(
                ErrorKind::NotFound,
                action,
                at,
                "the folder was not prepared",
            )
        })
    }

    fn refuse_own(path: &TreePath, action: &'static str) -> Result<()> {
        if path.components().next() == Some(RESERVED) {
            return Err(DiskError::new(
                ErrorKind::Reserved,
                action,
                path,
                "this directory belongs to SyncAgent",
            ));
        }
        Ok(())
    }

    /// Opens what stands at `path`, through directories of this folder only.
    fn open_beneath(
        &self,
        path: &TreePath,
        flags: OFlags,
        action: &'static str,
    ) -> Result<OwnedFd> {
        Self::refuse_own(path, action)?;
        let text = if path.is_root() { "." } else { path.as_str() };
        let opened = match os::open_beneath(&self.root, text, flags) {
            Some(opened) => opened,
            None => self.walk(path, flags),
        };
        opened.map_err(|errno| fail(action, path, errno))
    }

    /// [`UnixDisk::open_beneath`] where the system has no single call for it.
    fn walk(&self, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let dir = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let flags = if names.peek().is_some() {
                OPEN_DIR | os::LOOK
            } else {
                flags
            };
            let next = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                // What a link is called here differs by system and flags.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) if is_link(dir, name) => {
                    return Err(Errno::LOOP);
                }
                result => result?,
            };
            if os::stat_of(&rustix::fs::fstat(&next)?).device != self.root_stat.device {
                return Err(Errno::XDEV);
            }
            at = Some(next);
        }
        match at {
            Some(fd) => Ok(fd),
            None => rustix::fs::openat(&self.root, ".", flags, Mode::empty()),
        }
    }

    /// The directory that `at` hangs in, and its name there.
    fn parent<'a>(&'a self, at: At<'a>, action: &'static str) -> Result<(Handle<'a>, &'a str)> {
        match at {
            At::Temp(name) => Ok((
                Handle::Kept(self.own(action, at)?.tmp.as_fd()),
                name.as_str(),
            )),
            At::Identity => Ok((Handle::Kept(self.own(action, at)?.dir.as_fd()), IDENTITY)),
            At::Tree(path) => {
                Self::refuse_own(path, action)?;
                let Some((_, name)) = path.as_str().rsplit_once('/') else {
                    let name = if path.is_root() { "." } else { path.as_str() };
                    return Ok((Handle::Kept(self.root.as_fd()), name));
                };
                let dir = path.parent().unwrap_or_default();
                let fd = self.open_beneath(&dir, OPEN_DIR | os::LOOK, action)?;
                Ok((Handle::Opened(fd), name))
            }
        }
    }

    fn temp(
        &self,
        name: &TempName,
        flags: OFlags,
        action: &'static str,
    ) -> Result<Box<dyn WriteHandle>> {
        let at = At::Temp(name);
        let (dir, text) = self.parent(at, action)?;
        // The permissions a new file of this user gets. While it lies here, the directory is readable by nobody else.
        let mode = Mode::from_raw_mode(0o666);
        let fd = rustix::fs::openat(&dir, text, OPEN | OFlags::RDWR | flags, mode)
            .map_err(|errno| fail(action, at, errno))?;
        Ok(Box::new(UnixFile::new(fd, at)))
    }

    fn rename_with(
        &self,
        from: At<'_>,
        to: At<'_>,
        flags: RenameFlags,
        action: &'static str,
    ) -> Result<()> {
        let (from_dir, from_name) = self.parent(from, action)?;
        let (to_dir, to_name) = self.parent(to, action)?;
        let result = if flags.is_empty() {
            rustix::fs::renameat(&from_dir, from_name, &to_dir, to_name)
        } else {
            rustix::fs::renameat_with(&from_dir, from_name, &to_dir, to_name, flags)
        };
        result.map_err(|errno| {
            let kind = match errno {
                Errno::INVAL if into_itself(from, to) => ErrorKind::Io,
                Errno::INVAL | Errno::NOTSUP | Errno::NOSYS if !flags.is_empty() => {
                    ErrorKind::Unsupported
                }
                _ => return fail(action, to_or_from(errno, from, to), errno),
            };
            fail(action, from, errno).with_kind(kind)
        })
    }
}

fn into_itself(from: At<'_>, to: At<'_>) -> bool {
    matches!((from, to), (At::Tree(from), At::Tree(to)) if to.is_within(from) || from.is_within(to))
}

/// The side an error of a rename is about.
fn to_or_from<'a>(errno: Errno, from: At<'a>, to: At<'a>) -> At<'a> {
    if matches!(
        errno,
        Errno::EXIST | Errno::NOTEMPTY | Errno::NAMETOOLONG | Errno::ILSEQ
    ) {
        to
    } else {
        from
    }
}

fn is_link(dir: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| os::stat_of(&stat).kind == EntryKind::Symlink)
}

fn fail(action: &'static str, path: impl std::fmt::Display, errno: Errno) -> DiskError {
    let error = DiskError::from_io(action, path, errno.into());
    match errno {
        Errno::LOOP => error.with_kind(ErrorKind::Escapes),
        Errno::ILSEQ => error.with_kind(ErrorKind::BadName),
        Errno::NOTSUP | Errno::NOSYS => error.with_kind(ErrorKind::Unsupported),
        _ => error,
    }
}

fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
        },
    }
}

impl Disk for UnixDisk {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exec: true,
            inodes: true,
            symlinks: true,
            parallel: true,
        }
    }

    fn root_device(&self) -> u64 {
        self.root_stat.device
    }

    fn list(&self, dir: &TreePath) -> Result<Listing> {
        let error = |errno| fail("list", dir, errno);
        let fd = self.open_beneath(dir, OPEN_DIR | OFlags::RDONLY, "list")?;
        let own_inode = if dir.is_root() {
            self.own.get().map(|own| own.inode)
        } else {
            None
        };
        let stat = os::stat_of(&rustix::fs::fstat(&fd).map_err(error)?);
        let mut stream = rustix::fs::Dir::new(fd).map_err(error)?;
        let mut names = Vec::new();
        let mut incomplete = None;
        while let Some(next) = stream.read() {
            match next {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => names.push((entry.ino(), entry.file_name().to_owned())),
                Err(errno) => {
                    incomplete = Some(error(errno));
                    break;
                }
            }
        }
        // In the order of inodes: with cold caches this reads the inode table forwards.
        names.sort_unstable_by_key(|(inode, _)| *inode);
        let fd = stream.fd().map_err(error)?;
        let mut entries = Vec::with_capacity(names.len());
        for (_, raw) in names {
            if dir.is_root() && raw.to_bytes() == RESERVED.as_bytes() {
                continue;
            }
            let found = rustix::fs::statat(fd, &*raw, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| os::stat_of(&stat));
            // Where case or normalisation are not told apart, the same directory shows under another spelling.
            let ours = matches!(found, Ok(stat) if stat.kind == EntryKind::Directory && Some(stat.inode) == own_inode);
            if ours {
                continue;
            }
            let name = Name::from_bytes(raw.to_bytes()).map_err(|_| lossless(raw.to_bytes()));
            let stat = found.map_err(|errno| match &name {
                Ok(name) => fail("look at", dir.join(name), errno),
                Err(shown) => fail("look at", format_args!("{dir}/{shown}"), errno),
            });
            entries.push(Entry { name, stat });
        }
        Ok(Listing {
            dir: stat,
            entries,
            incomplete,
        })
    }

    fn list_temp(&self) -> Result<Vec<TempName>> {
        let error = |errno| fail("list", ".syncagent/tmp", errno);
        let Some(own) = self.own.get() else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&own.tmp).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name().to_str().ok().and_then(TempName::parse);
            names.extend(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn stat(&self, at: At<'_>) -> Result<Stat> {
        let (dir, name) = self.parent(at, "look at")?;
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| fail("look at", at, errno))?;
        Ok(os::stat_of(&stat))
    }

    fn open(&self, at: At<'_>) -> Result<Box<dyn ReadHandle>> {
        let fd = match at {
            At::Tree(path) => self.open_beneath(path, OPEN | OFlags::RDONLY, "read")?,
            _ => {
                let (dir, name) = self.parent(at, "read")?;
                rustix::fs::openat(&dir, name, OPEN | OFlags::RDONLY, Mode::empty())
                    .map_err(|errno| fail("read", at, errno))?
            }
        };
        let file = UnixFile::new(fd, at);
        let stat = file.stat()?;
        if stat.kind != EntryKind::File {
            return Err(DiskError::new(
                ErrorKind::NotAFile,
                "read",
                at,
                "not a regular file",
            ));
        }
        file.expect(stat.size);
        Ok(Box::new(file))
    }

    fn read_link(&self, at: At<'_>) -> Result<String> {
        let (dir, name) = self.parent(at, "look at")?;
        let target = rustix::fs::readlinkat(&dir, name, Vec::new())
            .map_err(|errno| fail("look at", at, errno))?;
        target.into_string().map_err(|_| {
            DiskError::new(
                ErrorKind::NotUtf8,
                "look at",
                at,
                "the link's target is not well-formed UTF-8",
            )
        })
    }

    fn create_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        self.temp(name, OFlags::CREATE | OFlags::EXCL, "write")
    }

    fn reopen_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        self.temp(name, OFlags::empty(), "write")
    }

    fn symlink(&self, target: &str, at: At<'_>) -> Result<()> {
        let (dir, name) = self.parent(at, "write")?;
        rustix::fs::symlinkat(target, &dir, name).map_err(|errno| fail("write", at, errno))
    }

    fn hard_link(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        let (from_dir, from_name) = self.parent(from, "link")?;
        let (to_dir, to_name) = self.parent(to, "link")?;
        rustix::fs::linkat(&from_dir, from_name, &to_dir, to_name, AtFlags::empty()).map_err(
            |errno| {
                let error = fail("link", to_or_from(errno, from, to), errno);
                // EPERM is how Linux says both "not on this file system" and "not of somebody else's file".
                if matches!(errno, Errno::PERM | Errno::MLINK) {
                    error.with_kind(ErrorKind::Unsupported)
                } else {
                    error
                }
            },
        )
    }

    fn mkdir(&self, path: &TreePath) -> Result<()> {
        let (dir, name) = self.parent(path.into(), "make directory")?;
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o777))
            .map_err(|errno| fail("make directory", path, errno))
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        self.rename_with(from, to, RenameFlags::empty(), "rename")
    }

    fn rename_noreplace(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        self.rename_with(from, to, RenameFlags::NOREPLACE, "rename")
    }

    fn exchange(&self, a: At<'_>, b: At<'_>) -> Result<()> {
        self.rename_with(a, b, RenameFlags::EXCHANGE, "exchange")
    }

    fn rmdir(&self, path: &TreePath) -> Result<()> {
        let (dir, name) = self.parent(path.into(), "remove")?;
        rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR).map_err(|errno| {
            let error = fail("remove", path, errno);
            // POSIX allows both answers for a directory that is not empty.
            if errno == Errno::EXIST {
                error.with_kind(ErrorKind::NotEmpty)
            } else {
                error
            }
        })
    }

    fn unlink(&self, at: At<'_>) -> Result<()> {
        let (dir, name) = self.parent(at, "remove")?;
        rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(|errno| {
            let error = fail("remove", at, errno);
            let directory = errno == Errno::ISDIR || errno == Errno::PERM && self.is_dir(at);
            if directory {
                error.with_kind(ErrorKind::NotAFile)
            } else {
                error
            }
        })
    }

    fn set_meta(&self, at: At<'_>, meta: Meta) -> Result<()> {
        let error = |errno| fail("set times of", at, errno);
        let (dir, name) = self.parent(at, "set times of")?;
        if let Some(mode) = meta.mode {
            // By handle: a system call that changes permissions by name would follow a link put there meanwhile.
            let fd = rustix::fs::openat(&dir, name, OPEN | OFlags::RDONLY, Mode::empty())
                .map_err(error)?;
            rustix::fs::fchmod(&fd, os::mode_of(mode)).map_err(error)?;
        }
        if let Some(mtime_ns) = meta.mtime_ns {
            rustix::fs::utimensat(&dir, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(error)?;
        }
        Ok(())
    }

    fn sync_file(&self, at: At<'_>) -> Result<()> {
        let (dir, name) = self.parent(at, "sync")?;
        let fd = rustix::fs::openat(&dir, name, OPEN | OFlags::RDONLY, Mode::empty())
            // What may not be opened cannot be read either, which is what its owner has to know.
            .map_err(|errno| fail("read", at, errno))?;
        // Through std, which knows that macOS needs F_FULLFSYNC.
        File::from(fd)
            .sync_all()
            .map_err(|error| DiskError::from_io("sync", at, error))
    }

    fn sync_dir(&self, dir: Dir<'_>) -> Result<()> {
        let (handle, path): (Handle<'_>, Cow<'_, str>) = match dir {
            Dir::Tree(path) => {
                let fd = self.open_beneath(path, OPEN_DIR | OFlags::RDONLY, "sync")?;
                (Handle::Opened(fd), path.to_string().into())
            }
            Dir::Own => (
                Handle::Kept(self.own("sync", At::Identity)?.dir.as_fd()),
                RESERVED.into(),
            ),
            Dir::Temp => (
                Handle::Kept(self.own("sync", At::Identity)?.tmp.as_fd()),
                ".syncagent/tmp".into(),
            ),
        };
        os::sync_handle(&handle).map_err(|errno| fail("sync", path, errno))
    }

    fn sync_all(&self) -> Result<bool> {
        os::sync_volume(&self.root).map_err(|errno| fail("sync", &TreePath::ROOT, errno))
    }

    fn prepare(&self) -> Result<()> {
        if self.own.get().is_some() {
            return Ok(());
        }
        let make = |parent: BorrowedFd<'_>, name: &str| match rustix::fs::mkdirat(
            parent,
            name,
            Mode::RWXU,
        ) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(fail("make directory", RESERVED, errno)),
        };
        make(self.root.as_fd(), RESERVED)?;
        let dir = rustix::fs::openat(
            &self.root,
            RESERVED,
            OPEN_DIR | OFlags::RDONLY,
            Mode::empty(),
        )
        .map_err(|errno| fail("look at", RESERVED, errno))?;
        // Temps hold decrypted content before it has its final permissions.
        rustix::fs::fchmod(&dir, Mode::RWXU)
            .map_err(|errno| fail("make directory", RESERVED, errno))?;
        make(dir.as_fd(), TMP)?;
        let _ = self.own.set(self.open_own()?);
        Ok(())
    }

    fn lock(&self) -> Result<Guard> {
        let path = ".syncagent/lock";
        let own = self.own("lock", At::Identity)?;
        let flags = OPEN | OFlags::RDWR | OFlags::CREATE;
        let fd = rustix::fs::openat(&own.dir, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| fail("lock", path, errno))?;
        let file = File::from(fd);
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(DiskError::new(
                ErrorKind::Busy,
                "lock",
                path,
                "another SyncAgent holds this folder",
            )),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(DiskError::from_io("lock", path, error))
            }
        }
    }

    fn identity_origin(&self) -> Option<Origin> {
        let own = self.own("look at", At::Identity).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(own.dir.as_fd(), IDENTITY, flags, Mode::empty()).ok()?;
        Some(Origin::of(&File::from(fd).metadata().ok()?))
    }

    fn root_is_same(&self) -> Result<bool> {
        let now = rustix::fs::stat(&self.path)
            .map_err(|errno| fail("look at", self.path.display(), errno))?;
        let now = os::stat_of(&now);
        Ok((now.device, now.inode) == (self.root_stat.device, self.root_stat.inode))
    }
}

impl UnixDisk {
    fn is_dir(&self, at: At<'_>) -> bool {
        self.stat(at)
            .is_ok_and(|stat| stat.kind == EntryKind::Directory)
    }
}

/// How a name that is not text is shown: what is text as it is, every other byte as `\xNN`.
fn lossless(raw: &[u8]) -> String {
    let mut shown = String::with_capacity(raw.len() + 8);
    for chunk in raw.utf8_chunks() {
        shown.push_str(&chunk.valid().escape_debug().to_string());
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Files of this many bytes and more are read and written past the page cache, where the system can: what only passes
/// through should drive nothing else out of memory.
const LONG: u64 = 16 * 1024 * 1024;

/// An open file.
struct UnixFile {
    file: File,
    path: String,
    /// Past the page cache.
    uncached: AtomicBool,
}

impl UnixFile {
    fn new(fd: OwnedFd, at: At<'_>) -> Self {
        Self {
            file: fd.into(),
            path: at.to_string(),
            uncached: AtomicBool::new(false),
        }
    }

    /// Chooses the way by how long the file is, or will be.
    fn expect(&self, size: u64) {
        self.uncached.store(size >= LONG, Ordering::Relaxed);
    }

    /// Past the page cache; `None` if it is not to be gone that way, or cannot.
    fn uncached(
        &self,
        transfer: impl FnOnce() -> rustix::io::Result<usize>,
    ) -> Option<std::io::Result<usize>> {
        if !self.uncached.load(Ordering::Relaxed) {
            return None;
        }
        match transfer() {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.uncached.store(false, Ordering::Relaxed);
                None
            }
            result => Some(result.map_err(Into::into)),
        }
    }

    fn fail(&self, action: &'static str, errno: Errno) -> DiskError {
        fail(action, &self.path, errno)
    }
}

impl ReadHandle for UnixFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            let result = self.uncached(|| os::read_uncached(&self.file, buf, offset));
            match result.unwrap_or_else(|| self.file.read_at(buf, offset)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => {
                    return result.map_err(|error| DiskError::from_io("read", &self.path, error));
                }
            }
        }
    }

    fn stat(&self) -> Result<Stat> {
        let stat = rustix::fs::fstat(&self.file).map_err(|errno| self.fail("look at", errno))?;
        Ok(os::stat_of(&stat))
    }

    fn set_meta(&self, meta: Meta) -> Result<()> {
        if let Some(mode) = meta.mode {
            rustix::fs::fchmod(&self.file, os::mode_of(mode))
                .map_err(|errno| self.fail("set times of", errno))?;
        }
        if let Some(mtime_ns) = meta.mtime_ns {
            rustix::fs::futimens(&self.file, &times(mtime_ns))
                .map_err(|errno| self.fail("set times of", errno))?;
        }
        Ok(())
    }
}

impl WriteHandle for UnixFile {
    fn write_at(&self, mut data: &[u8], mut offset: u64) -> Result<()> {
        while !data.is_empty()
            && let Some(result) = self.uncached(|| os::write_uncached(&self.file, data, offset))
        {
            match result {
                Ok(n @ 1..) => {
                    data = &data[n..];
                    offset += n as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The other way says what is wrong.
                _ => break,
            }
        }
        self.file
            .write_all_at(data, offset)
            .map_err(|error| DiskError::from_io("write", &self.path, error))
    }

    fn set_len(&self, size: u64) -> Result<()> {
        self.file
            .set_len(size)
            .map_err(|error| DiskError::from_io("write", &self.path, error))
    }

    fn allocate(&self, size: u64) -> Result<()> {
        self.expect(size);
        os::allocate(&self.file, size).map_err(|errno| self.fail("write", errno))
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| DiskError::from_io("sync", &self.path, error))
    }
}
