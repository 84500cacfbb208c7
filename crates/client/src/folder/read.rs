//! Reads a file so that what was read is one state of it: "an upload is one consistent reading of the file".

use syncagent_protocol::TreePath;
use syncagent_sync::scan::Fingerprint;

use super::disk::{At, Disk, DiskError, ReadHandle, Stat};
use super::scan::is_racy;

/// Why a file was not read as one state.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// It is not what was scanned, or it changed while it was read: look at it again.
    #[error("{path} changed while it was read. It is read again when it holds still")]
    Changed {
        /// Which.
        path: TreePath,
    },
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl ReadError {
    /// Whether the same may work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Changed { .. } => true,
            Self::Disk(error) => error.is_retryable(),
        }
    }
}

/// A file being read.
pub struct StableRead {
    handle: Box<dyn ReadHandle>,
    path: TreePath,
    before: Stat,
    offset: u64,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Of the file from its opening to now.
    pub fingerprint: Fingerprint,
    /// Whether its owner may execute it.
    pub exec: bool,
    /// As in [`syncagent_sync::scan::Observed::File`]: what was read may be sent, but not trusted to still be there.
    pub racy: bool,
}

/// Opens the regular file at `path`; if `expected` is given, only if it is still that.
pub fn open_stable(
    disk: &dyn Disk,
    path: &TreePath,
    expected: Option<Fingerprint>,
) -> Result<StableRead, ReadError> {
    let handle = disk.open(At::Tree(path))?;
    let before = handle.stat()?;
    if expected.is_some_and(|expected| expected != before.fingerprint()) {
        return Err(ReadError::Changed { path: path.clone() });
    }
    Ok(StableRead {
        handle,
        path: path.clone(),
        before,
        offset: 0,
    })
}

impl StableRead {
    /// Its length when it was opened. More than that is never part of the reading.
    pub fn size(&self) -> u64 {
        self.before.size
    }

    /// Reads on from where the last call of this method ended; 0 bytes mean the end.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        let n = self.read_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }

    /// Reads at `offset`; 0 bytes mean the end. May be shorter than `buf` before the end as well.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        // A file that grows faster than it is read must not be read for ever.
        let left = usize::try_from(self.before.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let n = self.handle.read_at(&mut buf[..wanted], offset)?;
        if n == 0 && wanted > 0 {
            return Err(ReadError::Changed {
                path: self.path.clone(),
            });
        }
        Ok(n)
    }

    /// Whether everything that was read is of one state.
    pub fn finish(self, now_ns: i64) -> Result<Reading, ReadError> {
        let after = self.handle.stat()?;
        // The inode's own time also tells that the file was replaced or removed meanwhile.
        if after.fingerprint() != self.before.fingerprint() {
            return Err(ReadError::Changed { path: self.path });
        }
        Ok(Reading {
            fingerprint: after.fingerprint(),
            exec: after.exec(),
            racy: is_racy(&after, now_ns),
        })
    }
}

impl std::io::Read for StableRead {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        StableRead::read(self, buf).map_err(std::io::Error::other)
    }
}
