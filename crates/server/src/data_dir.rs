//! The server's directory: one server at a time, nobody else on the machine may look inside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Where a server keeps what it has: everything in one directory, unless catalog or packs are to lie elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The data directory.
    pub data: PathBuf,
    /// The catalog's file.
    pub database: PathBuf,
    /// The directory of the packs.
    pub packs: PathBuf,
}

impl Places {
    /// Everything in the data directory.
    pub fn below(data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        Self {
            database: data.join("syncagent.db"),
            packs: data.join("packs"),
            data,
        }
    }
}

impl From<&Path> for Places {
    fn from(data: &Path) -> Self {
        Self::below(data)
    }
}

impl From<&PathBuf> for Places {
    fn from(data: &PathBuf) -> Self {
        Self::below(data)
    }
}

/// The places of one server, made.
pub(crate) struct DataDir(Places);

impl DataDir {
    /// Makes the directories, private to their owner, if they are not there.
    pub(crate) fn create(places: &Places) -> io::Result<Self> {
        private::create_dir_all(&places.data)?;
        if let Some(parent) = places.database.parent() {
            private::create_dir_all(parent)?;
        }
        private::create_dir_all(&places.packs)?;
        Ok(Self(places.clone()))
    }

    pub(crate) fn database(&self) -> &Path {
        &self.0.database
    }

    pub(crate) fn packs(&self) -> &Path {
        &self.0.packs
    }

    /// Holds all places for one server until the files are dropped, or the process ends however it ends.
    pub(crate) fn lock(&self) -> io::Result<Option<Vec<File>>> {
        let Places {
            data,
            database,
            packs,
        } = &self.0;
        let mut locks = vec![data.join("lock")];
        if database.parent() != Some(data) {
            locks.push(database.with_extension("lock"));
        }
        if packs.parent() != Some(data) {
            locks.push(packs.join("lock"));
        }
        let mut held = Vec::with_capacity(locks.len());
        for lock in locks {
            let file = open_lock(&lock)?;
            match file.try_lock() {
                Ok(()) => held.push(file),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Some(held))
    }

    /// Waits for its turn to change the database's shape: a server and an `invite` may start together.
    pub(crate) fn lock_migration(&self) -> io::Result<File> {
        let file = open_lock(&self.0.database.with_file_name("migration.lock"))?;
        file.lock()?;
        Ok(file)
    }
}

pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Replaces a file that only its owner may read: written beside, flushed, renamed.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("tmp");
    let mut file = private::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    // The directory too: after a crash the rename may otherwise be gone.
    private::sync_dir(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(unix)]
pub(crate) mod private {
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt as _};

    pub(super) fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    }

    pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    }
}

#[cfg(not(unix))]
pub(crate) mod private {
    use super::*;

    pub(super) fn create(path: &Path) -> io::Result<File> {
        File::create(path)
    }

    // A directory cannot be flushed there; the rename is in the journal.
    pub(super) fn sync_dir(_: &Path) -> io::Result<()> {
        Ok(())
    }

    // A new directory inherits the access list of the profile it lies in.
    pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
}
