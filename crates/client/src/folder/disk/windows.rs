//! A [`Disk`] over the standard library, for Windows.
//!
//! Limits, all of what the standard library offers: names cannot be exchanged and renames always replace, so changes
//! go the ways that [`crate::folder::apply`] has for such file systems; files have no numbers, so moves are recognised by
//! content; a path is checked for links name by name before it is used, not by the system while it is used; a
//! directory's names are durable when NTFS writes its journal; links and the executable bit are not kept.

use std::fs::{File, FileTimes, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use syncagent_protocol::name::RESERVED;
use syncagent_protocol::{Name, TreePath};

use super::{
    At, Capabilities, Dir, Disk, DiskError, Entry, EntryKind, ErrorKind, Guard, Listing, Meta,
    Origin, ReadHandle, Stat, TempName, WriteHandle,
};

/// `FILE_FLAG_OPEN_REPARSE_POINT`: a link is opened itself, not what it points to.
const NO_FOLLOW: u32 = 0x0020_0000;
/// `GENERIC_READ | FILE_WRITE_ATTRIBUTES`: reading, and setting times.
const READ_AND_TIMES: u32 = 0x8000_0000 | 0x0100;
/// `ERROR_SHARING_VIOLATION` and `ERROR_LOCK_VIOLATION`: another program has the file open without sharing it.
const IN_USE: [i32; 2] = [32, 33];

type Result<T> = std::result::Result<T, DiskError>;

/// Neither: here every file system says when a file was made.
pub(super) fn number_and_change(_: &std::fs::Metadata) -> (u64, i64) {
    (0, 0)
}

/// A folder on a file system of this machine.
pub struct WindowsDisk {
    root: PathBuf,
}

impl WindowsDisk {
    /// Opens the folder at `root`, which must be a directory. Changes nothing in it.
    pub fn open(root: &Path) -> Result<Self> {
        let error = |error| fail("look at", root.display(), error);
        // The canonical form (`\\?\C:\...`) switches off the limit of 260 characters and all rewriting of names.
        let root = root.canonicalize().map_err(error)?;
        let stat = stat_of(&std::fs::metadata(&root).map_err(error)?);
        if stat.kind != EntryKind::Directory {
            return Err(DiskError::new(
                ErrorKind::NotADirectory,
                "look at",
                root.display(),
                "not a directory",
            ));
        }
        Ok(Self { root })
    }

    /// The path the folder was opened at.
    pub fn path(&self) -> &Path {
        &self.root
    }

    fn own(&self) -> PathBuf {
        self.root.join(RESERVED)
    }

    /// The path of `at`, if every directory above it is one, and no link.
    fn resolve(&self, at: At<'_>, action: &'static str) -> Result<PathBuf> {
        let path = match at {
            At::Temp(name) => {
                return Ok(self
                    .own()
                    .join("tmp")
                    .join(plain(name.as_str(), at, action)?));
            }
            At::Identity => return Ok(self.own().join("root")),
            At::Tree(path) => path,
        };
        if path
            .components()
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(RESERVED))
        {
            return Err(DiskError::new(
                ErrorKind::Reserved,
                action,
                path,
                "this directory belongs to SyncAgent",
            ));
        }
        let mut found = self.root.clone();
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            found.push(plain(name, at, action)?);
            if names.peek().is_none() {
                break;
            }
            let stat = stat_of(
                &found
                    .symlink_metadata()
                    .map_err(|error| fail(action, path, error))?,
            );
            match stat.kind {
                EntryKind::Directory => {}
                EntryKind::Symlink => {
                    return Err(DiskError::new(
                        ErrorKind::Escapes,
                        action,
                        path,
                        "a link is on the way",
                    ));
                }
                _ => {
                    return Err(DiskError::new(
                        ErrorKind::NotADirectory,
                        action,
                        path,
                        "not a directory",
                    ));
                }
            }
        }
        Ok(found)
    }

    fn temp(&self, name: &TempName, options: &mut OpenOptions) -> Result<Box<dyn WriteHandle>> {
        let at = At::Temp(name);
        let path = self.resolve(at, "write")?;
        let file = options
            .read(true)
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(path);
        let file = file.map_err(|error| fail("write", at, error))?;
        Ok(Box::new(WindowsFile {
            file,
            path: at.to_string(),
        }))
    }
}

/// A name that the system takes for one name and not for a path or a stream.
fn plain<'a>(name: &'a str, at: At<'_>, action: &'static str) -> Result<&'a str> {
    if name.contains(['\\', '/', ':']) {
        return Err(DiskError::new(
            ErrorKind::BadName,
            action,
            at,
            "the name contains a reserved character",
        ));
    }
    Ok(name)
}

fn fail(action: &'static str, path: impl std::fmt::Display, error: io::Error) -> DiskError {
    let in_use = error
        .raw_os_error()
        .is_some_and(|code| IN_USE.contains(&code));
    let error = DiskError::from_io(action, path, error);
    if in_use {
        error.with_kind(ErrorKind::Busy)
    } else {
        error
    }
}

fn is_denied_or_in_use(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::PermissionDenied
        || code.is_some_and(|code| IN_USE.contains(&code))
}

fn stat_of(metadata: &Metadata) -> Stat {
    let kind = metadata.file_type();
    let kind = if kind.is_symlink() {
        EntryKind::Symlink
    } else if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_file() {
        EntryKind::File
    } else {
        EntryKind::Special
    };
    let size = if kind == EntryKind::File {
        metadata.len()
    } else {
        0
    };
    let mtime_ns = metadata.modified().map_or(0, nanoseconds);
    Stat {
        kind,
        size,
        mtime_ns,
        ctime_ns: 0,
        inode: 0,
        device: 0,
        links: 1,
        mode: 0,
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let saturated = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => saturated(after),
        Err(before) => -saturated(before.duration()),
    }
}

fn system_time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

impl Disk for WindowsDisk {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exec: false,
            inodes: false,
            symlinks: false,
            parallel: true,
        }
    }

    fn root_device(&self) -> u64 {
        0
    }

    fn list(&self, dir: &TreePath) -> Result<Listing> {
        let error = |error| fail("list", dir, error);
        let path = self.resolve(At::Tree(dir), "list")?;
        let stat = stat_of(&path.symlink_metadata().map_err(error)?);
        match stat.kind {
            EntryKind::Directory => {}
            EntryKind::Symlink => {
                return Err(DiskError::new(ErrorKind::Escapes, "list", dir, "a link"));
            }
            _ => {
                return Err(DiskError::new(
                    ErrorKind::NotADirectory,
                    "list",
                    dir,
                    "not a directory",
                ));
            }
        }
        let mut entries = Vec::new();
        let mut incomplete = None;
        for entry in path.read_dir().map_err(error)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(failed) => {
                    incomplete = Some(error(failed));
                    break;
                }
            };
            let raw = entry.file_name();
            if dir.is_root() && raw.eq_ignore_ascii_case(RESERVED) {
                continue;
            }
            let name = raw.to_str().and_then(|text| Name::parse(text).ok());
            let name = name.ok_or_else(|| format!("{raw:?}").trim_matches('"').to_owned());
            let stat = entry.metadata().map(|metadata| stat_of(&metadata));
            let stat = stat.map_err(|error| fail("look at", dir, error));
            entries.push(Entry { name, stat });
        }
        Ok(Listing {
            dir: stat,
            entries,
            incomplete,
        })
    }

    fn list_temp(&self) -> Result<Vec<TempName>> {
        let error = |error| fail("list", ".syncagent/tmp", error);
        let listing = match self.own().join("tmp").read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(error)?,
        };
        let mut names = Vec::new();
        for entry in listing {
            names.extend(
                entry
                    .map_err(error)?
                    .file_name()
                    .to_str()
                    .and_then(TempName::parse),
            );
        }
        names.sort_unstable();
        Ok(names)
    }

    fn stat(&self, at: At<'_>) -> Result<Stat> {
        let path = self.resolve(at, "look at")?;
        Ok(stat_of(
            &path
                .symlink_metadata()
                .map_err(|error| fail("look at", at, error))?,
        ))
    }

    fn open(&self, at: At<'_>) -> Result<Box<dyn ReadHandle>> {
        let path = self.resolve(at, "read")?;
        let error = |error| fail("read", at, error);
        let kind = stat_of(&path.symlink_metadata().map_err(error)?).kind;
        if kind != EntryKind::File {
            return Err(DiskError::new(
                ErrorKind::NotAFile,
                "read",
                at,
                "not a regular file",
            ));
        }
        let open = |access| {
            OpenOptions::new()
                .access_mode(access)
                .custom_flags(NO_FOLLOW)
                .open(&path)
        };
        // Without the right to set times it can still be read.
        let file = match open(READ_AND_TIMES) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => OpenOptions::new()
                .read(true)
                .custom_flags(NO_FOLLOW)
                .open(&path),
            result => result,
        };
        let file = WindowsFile {
            file: file.map_err(error)?,
            path: at.to_string(),
        };
        if file.stat()?.kind != EntryKind::File {
            return Err(DiskError::new(
                ErrorKind::NotAFile,
                "read",
                at,
                "not a regular file",
            ));
        }
        Ok(Box::new(file))
    }

    fn read_link(&self, at: At<'_>) -> Result<String> {
        let path = self.resolve(at, "look at")?;
        let target = std::fs::read_link(path).map_err(|error| fail("look at", at, error))?;
        target.into_os_string().into_string().map_err(|_| {
            DiskError::new(
                ErrorKind::NotUtf8,
                "look at",
                at,
                "the link's target is not well-formed text",
            )
        })
    }

    fn create_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        self.temp(name, OpenOptions::new().create_new(true))
    }

    fn reopen_temp(&self, name: &TempName) -> Result<Box<dyn WriteHandle>> {
        self.temp(name, &mut OpenOptions::new())
    }

    fn symlink(&self, _target: &str, at: At<'_>) -> Result<()> {
        // Making one takes a privilege, and it must be known beforehand whether the target is a directory.
        Err(DiskError::new(
            ErrorKind::Unsupported,
            "write",
            at,
            "links are not made on Windows",
        ))
    }

    fn hard_link(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        let (old, new) = (self.resolve(from, "link")?, self.resolve(to, "link")?);
        std::fs::hard_link(old, new).map_err(|error| {
            let error = fail("link", to, error);
            // FAT answers so.
            let none = error.source.raw_os_error() == Some(1);
            if none {
                error.with_kind(ErrorKind::Unsupported)
            } else {
                error
            }
        })
    }

    fn mkdir(&self, path: &TreePath) -> Result<()> {
        let found = self.resolve(At::Tree(path), "make directory")?;
        std::fs::create_dir(found).map_err(|error| fail("make directory", path, error))
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        let (old, new) = (self.resolve(from, "rename")?, self.resolve(to, "rename")?);
        std::fs::rename(old, new).map_err(|error| fail("rename", from, error))
    }

    fn rename_noreplace(&self, from: At<'_>, _to: At<'_>) -> Result<()> {
        Err(DiskError::new(
            ErrorKind::Unsupported,
            "rename",
            from,
            "renaming always replaces here",
        ))
    }

    fn exchange(&self, a: At<'_>, _b: At<'_>) -> Result<()> {
        Err(DiskError::new(
            ErrorKind::Unsupported,
            "exchange",
            a,
            "names cannot be exchanged here",
        ))
    }

    fn rmdir(&self, path: &TreePath) -> Result<()> {
        let found = self.resolve(At::Tree(path), "remove")?;
        std::fs::remove_dir(found).map_err(|error| fail("remove", path, error))
    }

    fn unlink(&self, at: At<'_>) -> Result<()> {
        let path = self.resolve(at, "remove")?;
        std::fs::remove_file(&path).map_err(|error| {
            let error = fail("remove", at, error);
            if path.is_dir() {
                error.with_kind(ErrorKind::NotAFile)
            } else {
                error
            }
        })
    }

    fn set_meta(&self, at: At<'_>, meta: Meta) -> Result<()> {
        let path = self.resolve(at, "set times of")?;
        let file = OpenOptions::new()
            .access_mode(READ_AND_TIMES)
            .custom_flags(NO_FOLLOW)
            .open(path);
        let file = file.map_err(|error| fail("set times of", at, error))?;
        WindowsFile {
            file,
            path: at.to_string(),
        }
        .set_meta(meta)
    }

    fn sync_file(&self, at: At<'_>) -> Result<()> {
        let path = self.resolve(at, "sync")?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(path);
        match file.and_then(|file| file.sync_all()) {
            // Only who may write may flush: not what is read-only, nor what another program keeps to itself. That is written
            // back by the system within seconds, and no file may be left out for it.
            Err(error) if matches!(at, At::Tree(_)) && is_denied_or_in_use(&error) => {
                self.stat(at).map(drop)
            }
            result => result.map_err(|error| fail("sync", at, error)),
        }
    }

    fn sync_dir(&self, dir: Dir<'_>) -> Result<()> {
        // NTFS journals names; there is nothing to ask for but whether the directory is there.
        match dir {
            Dir::Tree(path) => self.stat(At::Tree(path)).map(drop),
            Dir::Own | Dir::Temp => Ok(()),
        }
    }

    fn sync_all(&self) -> Result<bool> {
        Ok(false)
    }

    fn prepare(&self) -> Result<()> {
        std::fs::create_dir_all(self.own().join("tmp"))
            .map_err(|error| fail("make directory", RESERVED, error))
    }

    fn lock(&self) -> Result<Guard> {
        let path = ".syncagent/lock";
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.own().join("lock"));
        let file = file.map_err(|error| fail("lock", path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(DiskError::new(
                ErrorKind::Busy,
                "lock",
                path,
                "another SyncAgent holds this folder",
            )),
            Err(std::fs::TryLockError::Error(error)) => Err(fail("lock", path, error)),
        }
    }

    fn identity_origin(&self) -> Option<Origin> {
        let path = self.resolve(At::Identity, "look at").ok()?;
        Some(Origin::of(&path.symlink_metadata().ok()?))
    }

    fn root_is_same(&self) -> Result<bool> {
        // Directories have no numbers here; the identity inside tells them apart.
        let metadata = self
            .root
            .metadata()
            .map_err(|error| fail("look at", self.root.display(), error))?;
        Ok(metadata.is_dir())
    }
}

/// An open file.
struct WindowsFile {
    file: File,
    path: String,
}

impl ReadHandle for WindowsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file
            .seek_read(buf, offset)
            .map_err(|error| fail("read", &self.path, error))
    }

    fn stat(&self) -> Result<Stat> {
        Ok(stat_of(
            &self
                .file
                .metadata()
                .map_err(|error| fail("look at", &self.path, error))?,
        ))
    }

    fn set_meta(&self, meta: Meta) -> Result<()> {
        let Some(mtime_ns) = meta.mtime_ns else {
            return Ok(());
        };
        let times = FileTimes::new().set_modified(system_time(mtime_ns));
        self.file
            .set_times(times)
            .map_err(|error| fail("set times of", &self.path, error))
    }
}

impl WriteHandle for WindowsFile {
    fn write_at(&self, mut data: &[u8], mut offset: u64) -> Result<()> {
        while !data.is_empty() {
            let n = self
                .file
                .seek_write(data, offset)
                .map_err(|error| fail("write", &self.path, error))?;
            data = &data[n..];
            offset += n as u64;
        }
        Ok(())
    }

    fn set_len(&self, size: u64) -> Result<()> {
        self.file
            .set_len(size)
            .map_err(|error| fail("write", &self.path, error))
    }

    fn allocate(&self, _size: u64) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| fail("sync", &self.path, error))
    }
}
