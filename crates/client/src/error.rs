//! What can go wrong on one machine: what, to which thing, what now.

use std::path::{Path, PathBuf};

use syncagent_protocol::{Code, TreePath};
use syncagent_vault::VaultError;

use crate::remote::RemoteError;

/// An error of the client, with a stable code.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// This machine lacks something that a command makes.
    #[error("{0}")]
    Setup(String),
    /// The key is not at hand and nobody can be asked.
    #[error("{0}")]
    Locked(String),
    /// The sealed key of this machine cannot be read.
    #[error("the key file {}: {source}", path.display())]
    KeyFile {
        /// `key.saks`, with its path.
        path: PathBuf,
        /// Why.
        source: VaultError,
    },
    /// Something sealed does not open.
    #[error("{0}")]
    Vault(#[from] VaultError),
    /// The server, or the way to it.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// The history does not fit what this machine knows. Nothing was applied or sent.
    #[error("{message}")]
    Halted {
        /// Which rule is broken.
        code: Code,
        /// What, where, what now.
        message: String,
    },
    /// Work on everything waits for a person.
    #[error("{message}")]
    Held {
        /// `E_BRAKE` or `E_ROOT`.
        code: Code,
        /// What, and how to go on.
        message: String,
    },
    /// A file in the folder.
    #[error("{path}: {message}")]
    File {
        /// Which one.
        path: TreePath,
        /// The stable code.
        code: Code,
        /// What is wrong with it.
        message: String,
    },
    /// A file of SyncAgent's own.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database of this machine's state.
    #[error(
        "the local state cannot be used: {0}. `syncagent reset` builds it anew from the folder and the server; no file is touched"
    )]
    State(String),
    /// What a person ordered was sent, and the server did not say that it took it.
    #[error(
        "{0}. Whether the server took what was ordered is not known: it is kept, and sent again with the next sync, as it is. Who no longer wants it can undo it after that"
    )]
    Unanswered(RemoteError),
    /// Another process holds this home or folder.
    #[error("{0}")]
    Busy(String),
}

impl ClientError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Setup(_) => Code::Setup,
            Self::Locked(_) => Code::Locked,
            Self::Vault(error) | Self::KeyFile { source: error, .. } => error.code(),
            Self::Remote(error) | Self::Unanswered(error) => error.code(),
            Self::Halted { code, .. } | Self::Held { code, .. } | Self::File { code, .. } => *code,
            Self::Io { source, .. } => io_code(source),
            Self::State(_) => Code::State,
            Self::Busy(_) => Code::Busy,
        }
    }

    /// The same, with the path of the folder where that is what is wrong: an engine does not know it.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Self {
        match self {
            Self::Held {
                code: Code::Root,
                message,
            } => Self::Held {
                code: Code::Root,
                message: format!("{}: {message}", folder.display()),
            },
            error => error,
        }
    }

    /// Whether the same thing may work later without anybody doing something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Remote(error) | Self::Unanswered(error) => error.is_retryable(),
            _ => matches!(self.code(), Code::DiskFull | Code::Busy),
        }
    }

    /// An I/O error on one of SyncAgent's own files.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.into(),
            source,
        }
    }
}

fn io_code(error: &std::io::Error) -> Code {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::Write,
    }
}

impl From<rusqlite::Error> for ClientError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as E;
        let Some(failure) = error.sqlite_error() else {
            return Self::State(error.to_string());
        };
        // A disk that takes nothing is no damage, and `reset` would not mend it.
        let source = match failure.code {
            E::DiskFull => std::io::ErrorKind::StorageFull.into(),
            // The file beside the database that its users share, and that cannot grow.
            E::SystemIoFailure if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
                std::io::ErrorKind::StorageFull.into()
            }
            E::SystemIoFailure | E::CannotOpen | E::ReadOnly | E::PermissionDenied => {
                std::io::Error::other(error.to_string())
            }
            _ => return Self::State(error.to_string()),
        };
        Self::Io {
            what: "write",
            path: "state.db".into(),
            source,
        }
    }
}

impl From<rusqlite_migration::Error> for ClientError {
    fn from(error: rusqlite_migration::Error) -> Self {
        match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
            error => Self::State(error.to_string()),
        }
    }
}
