//! What macOS has instead of Linux's calls.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{EntryKind, Stat};

/// macOS has no call that resolves a path below a directory without following links: walk.
pub(super) fn open_beneath(
    _root: impl AsFd,
    _path: &str,
    _flags: OFlags,
) -> Option<rustix::io::Result<OwnedFd>> {
    None
}

/// Not worth its own call: APFS reports a full disk at the write.
pub(super) fn allocate(_file: impl AsFd, _size: u64) -> rustix::io::Result<()> {
    Ok(())
}

/// A file is told as a whole to stay out of the cache here (`F_NOCACHE`), not a call: not done.
pub(super) fn read_uncached(
    _file: impl AsFd,
    _buf: &mut [u8],
    _offset: u64,
) -> rustix::io::Result<usize> {
    Err(Errno::OPNOTSUPP)
}

/// As [`read_uncached`].
pub(super) fn write_uncached(
    _file: impl AsFd,
    _data: &[u8],
    _offset: u64,
) -> rustix::io::Result<usize> {
    Err(Errno::OPNOTSUPP)
}

/// There is no such call; files are synced one by one.
pub(super) fn sync_volume(_dir: impl AsFd) -> rustix::io::Result<bool> {
    Ok(false)
}

/// Puts a directory on the disk. A plain `fsync` ends in the drive's own memory here, and names are only as safe as the
/// directory they stand in. File systems that know no other way are asked the plain way.
pub(super) fn sync_handle(dir: impl AsFd) -> rustix::io::Result<()> {
    match rustix::fs::fcntl_fullfsync(&dir) {
        Err(Errno::NOTSUP | Errno::INVAL | Errno::NOTTY) => rustix::fs::fsync(dir),
        done => done,
    }
}

/// macOS cannot open a directory only to look things up in it.
pub(super) const LOOK: OFlags = OFlags::RDONLY;

/// What `stat` said, in the types of every system.
pub(super) fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        kind: kind_of(stat.st_mode),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        inode: stat.st_ino,
        device: u64::from(stat.st_dev.cast_unsigned()),
        links: u64::from(stat.st_nlink),
        mode: u32::from(stat.st_mode) & 0o7777,
    }
}

/// Permission bits in the type the system takes.
pub(super) fn mode_of(mode: u32) -> Mode {
    // Twelve bits always fit.
    Mode::from_raw_mode((mode & 0o7777) as u16)
}

fn kind_of(mode: u16) -> EntryKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Special,
    }
}

/// Saturates: a time that does not fit was not set by anybody in earnest.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
