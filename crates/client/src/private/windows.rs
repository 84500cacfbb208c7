//! A profile's directories are private to their user on Windows; files in them inherit that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a directory and its parents.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Makes or empties a file.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// Opens a lock file, keeping what is in it.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Directories need no flush: NTFS journals renames.
pub(crate) fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}
