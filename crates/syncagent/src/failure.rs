//! An error on its way to a person: a stable code, a sentence, and an exit status.

use std::fmt;
use std::path::Path;

use syncagent_client::ClientError;
use syncagent_client::remote::RemoteError;
use syncagent_client::setup::SetupError;
use syncagent_protocol::Code;
use syncagent_server::OpenError;
use syncagent_server::catalog::CatalogError;
use syncagent_server::tls::TlsError;
use syncagent_vault::VaultError;

/// What went wrong. Its sentence ends in advice.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn setup(message: impl Into<String>) -> Self {
        Self::new(Code::Setup, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// For `map_err`: a file that a person named cannot be used.
    pub(crate) fn file(code: Code, what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::new(code, format!("cannot {what} {}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Remote(error) => error.into(),
            ClientError::Vault(error) => error.into(),
            ClientError::KeyFile {
                path,
                source: VaultError::Keyslot,
            } => Self::new(
                Code::Keyslot,
                format!(
                    "the key file {} is damaged. Put a copy of it back, or make a new one with `syncagent join URL#INVITATION \
                     --recovery-code-file FILE`, or with `syncagent import-key`",
                    path.display()
                ),
            ),
            ClientError::File {
                path,
                code,
                message,
            } if path.is_root() => Self::new(code, message),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Client(error) => error.into(),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        let advice = match error {
            VaultError::Keyslot => {
                ". Try again; if the password is lost, `syncagent join URL#INVITATION --recovery-code-file FILE` sets a new one"
            }
            VaultError::Export => {
                ". Copy it whole, in one line, and give the password it was exported with"
            }
            _ => "",
        };
        Self::new(error.code(), format!("{error}{advice}"))
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        Self::new(error.code(), format!("{error}{}", advice(error.code())))
    }
}

/// What to do about an answer of the server, or about none.
pub(crate) fn advice(code: Code) -> &'static str {
    match code {
        Code::Auth => ". Ask for a new invitation and run `syncagent register`",
        Code::Revoked => {
            ". Its files stay as they are. To take part again: `syncagent reset --new-machine`, then `syncagent register` \
             with a new invitation"
        }
        Code::Server => ". Its log says why; what is left comes with the next try",
        Code::Offline => ". Check the address and the connection, then try again",
        _ => "",
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Busy(_) => Code::Busy,
            OpenError::Nothing(_) | OpenError::Vault(_) => Code::NotFound,
            OpenError::Directory { error, .. }
                if error.kind() == std::io::ErrorKind::StorageFull =>
            {
                Code::DiskFull
            }
            OpenError::Directory { .. } => Code::Write,
            OpenError::Catalog {
                error: CatalogError::Full | CatalogError::FullAfterwards,
                ..
            } => Code::DiskFull,
            OpenError::Catalog { .. } if error.is_retryable() => Code::Busy,
            OpenError::Catalog { .. } => Code::State,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let code = match &error {
            TlsError::Io { error, .. } if error.kind() == std::io::ErrorKind::StorageFull => {
                Code::DiskFull
            }
            TlsError::Io { what: "read", .. } => Code::Read,
            TlsError::Io { .. } => Code::Write,
            TlsError::Content { .. } | TlsError::Make(_) => Code::Usage,
        };
        Self::new(code, error.to_string())
    }
}

/// Every exit status, and when it comes: the table in docs/cli.md and the manual page.
pub(crate) const STATUSES: [(u8, &str); 11] = [
    (
        0,
        "fine; also names that cannot be placed here, which are listed in `skipped`",
    ),
    (1, "one or more files failed, the rest is in sync"),
    (2, "not understood, or not done because nobody said yes"),
    (3, "not set up, or not found"),
    (
        5,
        "try again: server away (`--once`), disk full, somebody else is at it",
    ),
    (7, "the local state is corrupt beyond rebuilding"),
    (
        Exit::CONFLICTS,
        "conflicts: `sync --once` made copies in this run; `status`: some are there; `conflicts resolve`: some could not \
         be merged",
    ),
    (11, "wrong password, damaged slot, locked and nobody to ask"),
    (
        12,
        "refused: token, invitation, removed machine; or the server, for its certificate",
    ),
    (
        13,
        "everything waits: mass change, folder missing, emptied or replaced",
    ),
    (14, "the history does not fit"),
];

/// The exit status of several outcomes at once: what a person must look at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// The first of those that came up wins.
    pub(crate) const ORDER: [u8; 9] = [14, 12, 11, 13, 7, 5, 1, 10, 0];

    /// Unresolved conflicts, and nothing worse.
    pub(crate) const CONFLICTS: u8 = 10;

    pub(crate) fn add(&mut self, status: u8) {
        let rank = |status| {
            Self::ORDER
                .iter()
                .position(|&known| known == status)
                .unwrap_or(0)
        };
        if rank(status) < rank(self.0) {
            self.0 = status;
        }
    }

    pub(crate) fn status(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_sentence() {
        let said = |status| STATUSES.iter().any(|(known, _)| *known == status);
        for code in Code::ALL {
            assert!(said(code.exit()), "{code} exits with {}", code.exit());
        }
        assert!(Exit::ORDER.into_iter().all(said));
    }

    #[test]
    fn the_worst_comes_first() {
        for (several, want) in [
            (&[0, 10, 1][..], 1),
            (&[10, 0], 10),
            (&[5, 1, 13], 13),
            (&[13, 11, 12], 12),
            (&[12, 14, 7], 14),
            (&[], 0),
        ] {
            let mut exit = Exit::default();
            several.iter().for_each(|&status| exit.add(status));
            assert_eq!(exit.status(), want, "{several:?}");
        }
    }
}
