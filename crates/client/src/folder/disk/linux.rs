//! The system calls that only Linux has.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{EntryKind, Stat};

/// Set once the kernel (or a container's filter) refused `openat2`.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// The kernel takes paths up to PATH_MAX, the byte behind them included.
const MAX_CALL_LEN: usize = 4095;

/// A directory on the way to something.
const DIRECTORY: OFlags = LOOK
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::DIRECTORY);

/// Opens `path` below `root`, following no link and staying on the volume: in one call, or in one for each piece of a path
/// that is longer than the kernel takes. `None`: this kernel cannot, walk component by component.
pub(super) fn open_beneath(
    root: impl AsFd,
    path: &str,
    flags: OFlags,
) -> Option<rustix::io::Result<OwnedFd>> {
    let mut dir: Option<OwnedFd> = None;
    let mut rest = path;
    while rest.len() >= MAX_CALL_LEN {
        // A path of thousands of levels would otherwise cost a call for each of them, whatever is done there.
        let cut = rest.as_bytes()[..MAX_CALL_LEN - 1]
            .iter()
            .rposition(|byte| *byte == b'/')?;
        let from = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        match open_piece(from, &rest[..cut], DIRECTORY)? {
            Ok(opened) => dir = Some(opened),
            error => return Some(error),
        }
        rest = &rest[cut + 1..];
    }
    let from = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    open_piece(from, rest, flags)
}

fn open_piece(root: impl AsFd, path: &str, flags: OFlags) -> Option<rustix::io::Result<OwnedFd>> {
    if NO_OPENAT2.load(Ordering::Relaxed) {
        return None;
    }
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    // EAGAIN: a rename happened somewhere meanwhile and the kernel is not sure; that passes.
    for _ in 0..16 {
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => {
                NO_OPENAT2.store(true, Ordering::Relaxed);
                return None;
            }
            result => return Some(result),
        }
    }
    None
}

/// Claims space; the length of the file stays.
pub(super) fn allocate(file: impl AsFd, size: u64) -> rustix::io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// `RWF_DONTCACHE` (preadv2(2), since 6.14): what is written goes to the disk at once and leaves the page cache then, as
/// does what is read; what was in the cache before stays there.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Reads past the page cache. `EOPNOTSUPP` where kernel or file system cannot.
pub(super) fn read_uncached(
    file: impl AsFd,
    buf: &mut [u8],
    offset: u64,
) -> rustix::io::Result<usize> {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(buf)], offset, DONTCACHE)
}

/// Writes past the page cache. `EOPNOTSUPP` where kernel or file system cannot.
pub(super) fn write_uncached(
    file: impl AsFd,
    data: &[u8],
    offset: u64,
) -> rustix::io::Result<usize> {
    rustix::io::pwritev2(file, &[IoSlice::new(data)], offset, DONTCACHE)
}

/// Makes a whole volume durable.
pub(super) fn sync_volume(dir: impl AsFd) -> rustix::io::Result<bool> {
    rustix::fs::syncfs(dir).map(|()| true)
}

/// Puts a directory on the disk.
pub(super) fn sync_handle(dir: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fsync(dir)
}

/// Looking at an entry whose permissions forbid reading it.
pub(super) const LOOK: OFlags = OFlags::PATH;

/// What `stat` said, in the types of every system.
#[allow(
    clippy::unnecessary_cast,
    reason = "the widths differ between architectures"
)]
pub(super) fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        kind: kind_of(stat.st_mode as u32),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
        links: stat.st_nlink as u64,
        mode: stat.st_mode as u32 & 0o7777,
    }
}

/// Permission bits in the type the system takes.
pub(super) fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn kind_of(mode: u32) -> EntryKind {
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
