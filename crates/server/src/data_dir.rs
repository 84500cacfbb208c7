//! The server's directory: one server at a time, nobody else on the machine may look inside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where things lie below the data directory.
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Makes the directory, private to its owner, if it is not there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        private::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("syncagent.db")
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.0.join("packs")
    }

    /// Holds the directory for one server until the file is dropped, or the process ends however it ends.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let file = self.open_lock("lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits for its turn to change the database's shape: a server and an `invite` may start together.
    pub(crate) fn lock_migration(&self) -> io::Result<File> {
        let file = self.open_lock("migration.lock")?;
        file.lock()?;
        Ok(file)
    }

    fn open_lock(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.0.join(name))
    }
}

#[cfg(unix)]
mod private {
    use super::*;
    use std::os::unix::fs::DirBuilderExt;

    pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    }
}

#[cfg(not(unix))]
mod private {
    use super::*;

    // A new directory inherits the access list of the profile it lies in.
    pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
}
