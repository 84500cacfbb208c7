//! Unix, with `statvfs`.

use std::path::Path;

use super::Disk;

pub(super) fn disk(path: &Path) -> Option<Disk> {
    let volume = rustix::fs::statvfs(path).ok()?;
    // Some file systems in user space say nothing about themselves, which is not the same as being full.
    (volume.f_blocks > 0).then(|| Disk {
        len: volume.f_blocks.saturating_mul(volume.f_frsize),
        free: volume.f_bavail.saturating_mul(volume.f_frsize),
    })
}
