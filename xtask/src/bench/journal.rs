//! A file system that keeps a journal, as nearly everybody's does: without one, flushing and renaming are cheaper than
//! people will ever see them. Where the disk has none, one is made in a file and mounted on loop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::needs::quietly;

/// File systems that go by a log or by copies of what changes, whatever they are told.
const ALWAYS: [&str; 6] = ["bcachefs", "btrfs", "f2fs", "jfs", "xfs", "zfs"];
/// File systems whose journal is a matter of choice.
const BY_CHOICE: [&str; 2] = ["ext3", "ext4"];

/// Whether the file system that `dir` is on keeps a journal.
pub(super) fn is_kept(dir: &Path) -> Result<bool> {
    let dir = fs::canonicalize(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mounts")?;
    Ok(match mount_of(&mounts, &dir) {
        Some((device, kind)) if BY_CHOICE.contains(&kind) => has_thread(device),
        Some((_, kind)) => ALWAYS.contains(&kind),
        None => false,
    })
}

/// Device (`major:minor`) and kind of the file system that `dir` is on, from proc_pid_mountinfo(5).
fn mount_of<'a>(mounts: &'a str, dir: &Path) -> Option<(&'a str, &'a str)> {
    let mut found: Option<(usize, &str, &str)> = None;
    for line in mounts.lines() {
        let Some((mount, what)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = mount.split(' ').skip(2);
        let (device, at) = (fields.next()?, fields.nth(1)?.replace("\\040", " "));
        let depth = Path::new(&at).components().count();
        // What is mounted later over the same place hides what was there.
        if dir.starts_with(&at) && found.is_none_or(|(least, ..)| depth >= least) {
            found = Some((depth, device, what.split(' ').next()?));
        }
    }
    found.map(|(_, device, kind)| (device, kind))
}

/// Whether a thread of the kernel writes a journal for a device.
fn has_thread(device: &str) -> bool {
    let device = fs::read_link(format!("/sys/dev/block/{device}"));
    let journals = fs::read_dir("/proc/fs/jbd2");
    let (Ok(device), Ok(journals)) = (device, journals) else {
        return false;
    };
    let Some(name) = device.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let of_it = format!("{name}-");
    journals
        .filter_map(Result::ok)
        .any(|journal| journal.file_name().to_string_lossy().starts_with(&of_it))
}

/// An ext4 in a file, mounted for as long as this is kept.
pub(super) struct Image {
    file: PathBuf,
    mounted: PathBuf,
}

impl Image {
    /// Makes one below `place` with room for `len` bytes, of which it takes what is written.
    pub(super) fn mount(place: &Path, len: u64) -> Result<Self> {
        let name = format!("bench-{}", std::process::id());
        let this = Self {
            file: place.join(format!("{name}.img")),
            mounted: place.join(format!("{name}.mnt")),
        };
        this.make(len).with_context(|| {
            format!(
                "{} is on a file system without a journal, unlike most people's, and none could be mounted from a file there; \
                 mount one and say --dir",
                place.display()
            )
        })?;
        Ok(this)
    }

    /// Where it is mounted.
    pub(super) fn dir(&self) -> &Path {
        &self.mounted
    }

    fn make(&self, len: u64) -> Result<()> {
        fs::create_dir_all(&self.mounted)?;
        File::create(&self.file)?.set_len(len)?;
        // Tables that are written later would be written while something is measured.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        let mut make = Command::new("mkfs.ext4");
        quietly(make.args(["-q", "-F", "-E", options]).arg(&self.file))?;
        let mut mount = Command::new("mount");
        quietly(
            mount
                .args(["-o", "loop"])
                .arg(&self.file)
                .arg(&self.mounted),
        )
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let unmounted = quietly(Command::new("umount").arg(&self.mounted));
        // What is still mounted must not be removed from below.
        if unmounted.is_ok() || fs::remove_dir(&self.mounted).is_ok() {
            let _ = fs::remove_dir(&self.mounted);
            let _ = fs::remove_file(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_a_directory_is_that_of_the_nearest_mount_above() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:25 / /tmp rw - tmpfs tmpfs rw,size=1k\n\
                      31 22 7:0 / /a\\040b rw - ext4 /dev/loop0 rw\n";
        let of = |dir| mount_of(mounts, Path::new(dir));
        assert_eq!(of("/home/x"), Some(("8:1", "ext4")));
        assert_eq!(of("/tmp/x"), Some(("0:25", "tmpfs")));
        assert_eq!(of("/tmpx"), Some(("8:1", "ext4")));
        assert_eq!(of("/a b/c"), Some(("7:0", "ext4")));
    }
}
