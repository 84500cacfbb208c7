//! The operating system as the folder code sees it: a thin seam, every path relative to the root.
//!
//! A [`Disk`] promises four things that the code above relies on:
//!
//! 1. **Nothing outside the root.** A link anywhere in a path is an error ([`ErrorKind::Escapes`]), never followed.
//! 2. **Each verb is one atomic step** of the operating system, or it says [`ErrorKind::Unsupported`].
//! 3. **Names are exact.** A name that is not well-formed UTF-8 is reported as such, never approximated.
//! 4. **Nothing is durable until a `sync_*` verb returned.**
//!
//! What differs by system stands in one module each: `unix` with `linux` and `macos`, and `windows`.
//! The suite in `conformance` (feature of that name) is what every implementation and every double passes.

use std::fmt;
use std::io;
use std::sync::Arc;

use syncagent_protocol::{Code, Name, TreePath};
use syncagent_sync::scan::Fingerprint;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "linux.rs"]
mod os;
#[cfg(target_vendor = "apple")]
#[path = "macos.rs"]
mod os;
#[cfg(unix)]
pub mod unix;
#[cfg(windows)]
pub mod windows;

#[cfg(unix)]
pub use unix::UnixDisk as NativeDisk;
#[cfg(unix)]
use unix::number_and_change;
#[cfg(windows)]
pub use windows::WindowsDisk as NativeDisk;
#[cfg(windows)]
use windows::number_and_change;

/// A name in `.syncagent/tmp`. Made by the folder code alone, so it never needs escaping.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TempName(Name);

impl TempName {
    /// The temp of this name; none if it could not be a file's name.
    pub fn parse(text: &str) -> Option<Self> {
        Name::parse(text).ok().map(Self)
    }

    /// The temp of this name, composed by the folder code of a word, numbers and a part of a name.
    pub(super) fn new(text: &str) -> Self {
        Self(Name::parse(text).expect("parts of names make a name"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn as_name(&self) -> &Name {
        &self.0
    }
}

impl fmt::Debug for TempName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Where a verb works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'a> {
    /// In the synchronised tree.
    Tree(&'a TreePath),
    /// In `.syncagent/tmp`.
    Temp(&'a TempName),
    /// The file `.syncagent/root`, which says whose folder this is.
    Identity,
}

impl<'a> From<&'a TreePath> for At<'a> {
    fn from(path: &'a TreePath) -> Self {
        Self::Tree(path)
    }
}

impl<'a> From<&'a TempName> for At<'a> {
    fn from(name: &'a TempName) -> Self {
        Self::Temp(name)
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(path) => write!(f, "{path}"),
            Self::Temp(name) => write!(f, ".syncagent/tmp/{}", name.0),
            Self::Identity => f.write_str(".syncagent/root"),
        }
    }
}

/// A directory whose entries are to survive a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dir<'a> {
    /// One of the synchronised tree.
    Tree(&'a TreePath),
    /// `.syncagent` itself.
    Own,
    /// `.syncagent/tmp`.
    Temp,
}

/// What kind of thing stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, fifo or device.
    Special,
}

/// What the system says of one entry, links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: EntryKind,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of the inode, nanoseconds since 1970; 0 where a system has none.
    pub ctime_ns: i64,
    /// Identifies the entry on its volume; 0 where a system has none.
    pub inode: u64,
    /// The volume; 0 where a system has none.
    pub device: u64,
    /// How many names it has.
    pub links: u64,
    /// Permission bits, as `chmod` takes them; 0 where a system has none.
    pub mode: u32,
}

impl Stat {
    /// The part that decides whether content is looked at again.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            size: self.size,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            inode: self.inode,
        }
    }

    /// Whether its owner may execute it.
    pub fn exec(&self) -> bool {
        self.mode & 0o100 != 0
    }
}

/// The permission bits `mode` with the executable ones set wherever reading is allowed, or cleared.
pub fn mode_with_exec(mode: u32, exec: bool) -> u32 {
    if exec {
        mode | 0o100 | ((mode & 0o444) >> 2)
    } else {
        mode & !0o111
    }
}

/// What to set on an entry; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// Time of the last change of content, nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// Permission bits; without effect where a system has none.
    pub mode: Option<u32>,
}

/// One entry of a directory.
#[derive(Debug)]
pub struct Entry {
    /// Its name, or how a name that is not well-formed UTF-8 is shown.
    pub name: Result<Name, String>,
    /// What it is; an error if it could not be looked at.
    pub stat: Result<Stat, DiskError>,
}

/// A directory and what is in it.
#[derive(Debug)]
pub struct Listing {
    /// The directory itself, looked at *before* its entries: compare with a later [`Disk::stat`] to know
    /// whether the listing is of one moment.
    pub dir: Stat,
    /// Its entries in no order, without `.`, `..` and, in the root, `.syncagent`.
    pub entries: Vec<Entry>,
    /// Why not all entries are here.
    pub incomplete: Option<DiskError>,
}

/// What this disk can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it keeps the executable bit. If not, nothing can be concluded from [`Stat::exec`].
    pub exec: bool,
    /// Whether [`Stat::inode`] and [`Stat::device`] mean something.
    pub inodes: bool,
    /// Whether symbolic links can be made.
    pub symlinks: bool,
    /// Whether verbs may be called from several threads at once to gain time. A simulated disk says no,
    /// so that a seed reproduces a run.
    pub parallel: bool,
}

/// A file open for reading: it stays the same file whatever happens to its name.
pub trait ReadHandle: Send + Sync {
    /// Reads at `offset`; 0 bytes mean the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError>;
    /// Looks at the file itself.
    fn stat(&self) -> Result<Stat, DiskError>;
    /// Sets times and permission bits of the file itself.
    fn set_meta(&self, meta: Meta) -> Result<(), DiskError>;
}

/// A temp open for writing.
pub trait WriteHandle: ReadHandle {
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), DiskError>;
    /// Cuts or extends the file to `size`.
    fn set_len(&self, size: u64) -> Result<(), DiskError>;
    /// Claims space for `size` bytes, so that a full disk shows now. Without effect where it cannot be done.
    fn allocate(&self, size: u64) -> Result<(), DiskError>;
    /// Makes the content durable.
    fn sync(&self) -> Result<(), DiskError>;
}

/// Holds something as long as it lives.
pub type Guard = Box<dyn Send + Sync>;

/// One synchronised folder as the operating system shows it. See the module's four promises.
///
/// Every `tree` path whose first name is `.syncagent` is refused with [`ErrorKind::Reserved`].
pub trait Disk: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// The volume of the root, as [`Stat::device`] says it.
    fn root_device(&self) -> u64;

    /// Reads a directory and looks at every entry.
    fn list(&self, dir: &TreePath) -> Result<Listing, DiskError>;
    /// What lies in `.syncagent/tmp`.
    fn list_temp(&self) -> Result<Vec<TempName>, DiskError>;
    /// Looks at an entry; a link is not followed.
    fn stat(&self, at: At<'_>) -> Result<Stat, DiskError>;
    /// Opens a regular file for reading; a link or anything else is refused.
    fn open(&self, at: At<'_>) -> Result<Box<dyn ReadHandle>, DiskError>;
    /// Where a link points. [`ErrorKind::NotUtf8`] if that is not text.
    fn read_link(&self, at: At<'_>) -> Result<String, DiskError>;

    /// Makes a new, empty temp, open for reading and writing.
    fn create_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>, DiskError>;
    /// Opens a temp that is there for reading and writing.
    fn reopen_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>, DiskError>;
    /// Makes a symbolic link where nothing is.
    fn symlink(&self, target: &str, at: At<'_>) -> Result<(), DiskError>;
    /// Gives a file (or, where the system can, a link) a second name where nothing is.
    fn hard_link(&self, from: At<'_>, to: At<'_>) -> Result<(), DiskError>;
    /// Makes a directory where nothing is.
    fn mkdir(&self, path: &TreePath) -> Result<(), DiskError>;

    /// Renames; a file at `to` is replaced.
    fn rename(&self, from: At<'_>, to: At<'_>) -> Result<(), DiskError>;
    /// Renames to where nothing is.
    fn rename_noreplace(&self, from: At<'_>, to: At<'_>) -> Result<(), DiskError>;
    /// Lets two names change places.
    fn exchange(&self, a: At<'_>, b: At<'_>) -> Result<(), DiskError>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &TreePath) -> Result<(), DiskError>;
    /// Removes the name of anything but a directory.
    fn unlink(&self, at: At<'_>) -> Result<(), DiskError>;
    /// Sets times (and, but for links, permission bits) by name; a link is not followed.
    fn set_meta(&self, at: At<'_>, meta: Meta) -> Result<(), DiskError>;

    /// Makes the content of a file durable.
    fn sync_file(&self, at: At<'_>) -> Result<(), DiskError>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: Dir<'_>) -> Result<(), DiskError>;
    /// Makes everything on the volume durable at once; `false` if the system has no such call, then the
    /// caller syncs one by one.
    fn sync_all(&self) -> Result<bool, DiskError>;

    /// Makes `.syncagent` and `.syncagent/tmp`, readable by their owner alone, if they are not there.
    fn prepare(&self) -> Result<(), DiskError>;
    /// Locks the folder against a second daemon, until the guard is dropped. [`ErrorKind::Busy`] if it is locked.
    fn lock(&self) -> Result<Guard, DiskError>;
    /// By what the file with the folder's identity is known from copies of it. None if it cannot be looked at.
    fn identity_origin(&self) -> Option<Origin>;
    /// Whether the root's path still leads to the directory that was opened. [`ErrorKind::NotFound`] if it leads nowhere.
    fn root_is_same(&self) -> Result<bool, DiskError>;
}

/// By what a file is known from copies of it: they may have its content, name and times, but none of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// When it was made, nanoseconds since 1970. None where the file system does not say.
    pub born_ns: Option<i64>,
    /// Its number; 0 if there is none. Some file systems make numbers up with each mount.
    pub inode: u64,
    /// When anything of it last changed, nanoseconds since 1970, also by other than writing; 0 if nobody says.
    pub ctime_ns: i64,
}

impl Origin {
    /// What the system says of a file.
    pub(crate) fn of(file: &std::fs::Metadata) -> Self {
        let born = file.created().ok();
        let since = born.and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok());
        let (inode, ctime_ns) = number_and_change(file);
        Self {
            born_ns: since.and_then(|since| i64::try_from(since.as_nanos()).ok()),
            inode,
            ctime_ns,
        }
    }
}

/// What went wrong, as far as a decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing is there.
    NotFound,
    /// Something is there.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// No permission, or a read-only volume.
    Denied,
    /// No space, or over the quota.
    Full,
    /// Something on the way is no directory.
    NotADirectory,
    /// Not a regular file, where one is needed.
    NotAFile,
    /// A link on the way: not followed.
    Escapes,
    /// SyncAgent's own directory: not part of the tree.
    Reserved,
    /// Another volume: a mount point is not entered, and nothing is renamed across.
    OtherVolume,
    /// The file system cannot hold this name.
    BadName,
    /// The name or the link's target is not well-formed UTF-8.
    NotUtf8,
    /// The file system has no such operation.
    Unsupported,
    /// Somebody holds it; later it may work.
    Busy,
    /// Anything else.
    Io,
}

/// An operation on the disk failed: what, on which path, why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {path}: {}{source}", self.in_use())]
pub struct DiskError {
    /// What went wrong, for decisions.
    pub kind: ErrorKind,
    /// The verb, for the sentence: `read`, `rename`, ...
    pub action: &'static str,
    /// Below the root, escaped for display.
    pub path: String,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}

impl DiskError {
    /// An error of this kind where the system itself said nothing.
    pub fn new(
        kind: ErrorKind,
        action: &'static str,
        path: impl fmt::Display,
        why: &'static str,
    ) -> Self {
        Self {
            kind,
            action,
            path: path.to_string(),
            source: Arc::new(io::Error::other(why)),
        }
    }

    /// What the system said, sorted.
    pub fn from_io(action: &'static str, path: impl fmt::Display, source: io::Error) -> Self {
        Self {
            kind: kind_of(&source),
            action,
            path: path.to_string(),
            source: Arc::new(source),
        }
    }

    /// What "resource busy" means to a person.
    fn in_use(&self) -> &'static str {
        match self.kind {
            ErrorKind::Busy => "it is in use by another program: ",
            _ => "",
        }
    }

    /// The same with a kind that only the caller can know.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        match self.kind {
            ErrorKind::Full => Code::DiskFull,
            ErrorKind::Escapes
            | ErrorKind::Reserved
            | ErrorKind::OtherVolume
            | ErrorKind::BadName
            | ErrorKind::NotUtf8 => Code::Path,
            _ if matches!(self.action, "read" | "list" | "look at") => Code::Read,
            _ => Code::Write,
        }
    }

    /// Whether the same may work later without anybody doing anything about it.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Full | ErrorKind::Busy | ErrorKind::Io)
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::Exists,
        K::DirectoryNotEmpty => ErrorKind::NotEmpty,
        K::PermissionDenied | K::ReadOnlyFilesystem => ErrorKind::Denied,
        K::StorageFull | K::QuotaExceeded => ErrorKind::Full,
        K::NotADirectory => ErrorKind::NotADirectory,
        K::IsADirectory => ErrorKind::NotAFile,
        K::CrossesDevices => ErrorKind::OtherVolume,
        K::InvalidFilename => ErrorKind::BadName,
        K::Unsupported => ErrorKind::Unsupported,
        K::ResourceBusy | K::WouldBlock | K::Interrupted | K::ExecutableFileBusy => ErrorKind::Busy,
        _ => ErrorKind::Io,
    }
}
