//! Room that uploads leave free, so that what comes after them still fits: the commits that name them, and above all
//! deletions, which are what a person makes when a disk is full.

#[cfg(not(unix))]
#[path = "room/elsewhere.rs"]
mod os;
#[cfg(unix)]
#[path = "room/unix.rs"]
mod os;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is left free of a large disk: the longest commit is 16 MiB, and for a while lies in the catalog and in its journal.
const MOST: u64 = 64 * 1024 * 1024;
/// The part of a small one. From 32 MiB on that is more than SQLite's journal grows to before it is used again from its start.
const PART: u64 = 8;

/// The room on the disk of one directory.
pub(super) struct Room {
    path: PathBuf,
    /// Bytes that are being written at this moment, and that the system may or may not have counted yet.
    coming: AtomicU64,
}

/// Bytes that were let in. Counted until this is dropped.
pub(super) struct LetIn<'a> {
    room: &'a Room,
    len: u64,
}

impl Room {
    pub(super) fn on(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            coming: AtomicU64::new(0),
        }
    }

    /// Whether `len` bytes more leave enough free. Where the system does not say, they do.
    pub(super) fn keep_free(&self, len: u64) -> io::Result<LetIn<'_>> {
        let coming = self.coming.fetch_add(len, Ordering::Relaxed) + len;
        let let_in = LetIn { room: self, len };
        match os::disk(&self.path) {
            Some(disk) if disk.free < coming.saturating_add(reserve(disk.len)) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(let_in),
        }
    }
}

impl Drop for LetIn<'_> {
    fn drop(&mut self) {
        self.room.coming.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// How much a disk holds, and how much of that is free, in bytes.
struct Disk {
    len: u64,
    free: u64,
}

fn reserve(disk_len: u64) -> u64 {
    MOST.min(disk_len / PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_of_a_small_disk_is_kept_free_and_64_mib_of_others() {
        const MIB: u64 = 1024 * 1024;
        for (disk, want) in [(0, 0), (16, 2), (256, 32), (512, 64), (4_000_000, 64)] {
            assert_eq!(reserve(disk * MIB), want * MIB);
        }
    }

    #[test]
    fn what_is_being_written_counts_until_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::on(dir.path());
        let first = room.keep_free(1000).unwrap();
        let second = room.keep_free(200).unwrap();
        assert_eq!(room.coming.load(Ordering::Relaxed), 1200);
        drop(first);
        assert_eq!(room.coming.load(Ordering::Relaxed), 200);
        drop(second);
        assert_eq!(room.coming.load(Ordering::Relaxed), 0);
    }

    #[cfg(unix)]
    #[test]
    fn more_than_a_disk_has_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::on(dir.path());
        let refused = room.keep_free(u64::MAX / 2).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        // And counts no more.
        assert!(room.keep_free(0).is_ok());
        assert_eq!(room.coming.load(Ordering::Relaxed), 0);
    }
}
