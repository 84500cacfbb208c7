//! Stable codes: what scripts, tests and people searching for help hold on to.

use serde::{Deserialize, Serialize};

/// A stable error code. The name on the wire and on the terminal is [`Code::as_str`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each is explained by its sentence in `meaning`"
)]
pub enum Code {
    #[serde(rename = "E_CHUNK")]
    Chunk,
    #[serde(rename = "E_READ")]
    Read,
    #[serde(rename = "E_WRITE")]
    Write,
    #[serde(rename = "E_PATH")]
    Path,
    #[serde(rename = "E_OFFLINE")]
    Offline,
    #[serde(rename = "E_DISK_FULL")]
    DiskFull,
    #[serde(rename = "E_BUSY")]
    Busy,
    #[serde(rename = "E_STATE")]
    State,
    #[serde(rename = "E_KEYSLOT")]
    Keyslot,
    #[serde(rename = "E_KDF_POLICY")]
    KdfPolicy,
    #[serde(rename = "E_LOCKED")]
    Locked,
    #[serde(rename = "E_AUTH")]
    Auth,
    #[serde(rename = "E_REVOKED")]
    Revoked,
    #[serde(rename = "E_CERTIFICATE")]
    Certificate,
    #[serde(rename = "E_BRAKE")]
    Brake,
    #[serde(rename = "E_ROOT")]
    Root,
    #[serde(rename = "E_ROLLBACK")]
    Rollback,
    #[serde(rename = "E_FORK")]
    Fork,
    #[serde(rename = "E_VAULT")]
    Vault,
    #[serde(rename = "E_COMMIT")]
    Commit,
    #[serde(rename = "E_VERSION")]
    Version,
    #[serde(rename = "E_MACHINE")]
    Machine,
    #[serde(rename = "E_LIMIT")]
    Limit,
    #[serde(rename = "E_CONFLICT")]
    Conflict,
    #[serde(rename = "E_MISSING")]
    Missing,
    #[serde(rename = "E_NOT_FOUND")]
    NotFound,
    #[serde(rename = "E_USAGE")]
    Usage,
    #[serde(rename = "E_SETUP")]
    Setup,
    #[serde(rename = "E_SERVER")]
    Server,
}

impl Code {
    /// Every code, in the order of the table in docs/cli.md.
    pub const ALL: [Self; 29] = [
        Self::Chunk,
        Self::Read,
        Self::Write,
        Self::Path,
        Self::Offline,
        Self::DiskFull,
        Self::Busy,
        Self::State,
        Self::Keyslot,
        Self::KdfPolicy,
        Self::Locked,
        Self::Auth,
        Self::Revoked,
        Self::Certificate,
        Self::Brake,
        Self::Root,
        Self::Rollback,
        Self::Fork,
        Self::Vault,
        Self::Commit,
        Self::Version,
        Self::Machine,
        Self::Limit,
        Self::Conflict,
        Self::Missing,
        Self::NotFound,
        Self::Usage,
        Self::Setup,
        Self::Server,
    ];

    /// The code as it is printed and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chunk => "E_CHUNK",
            Self::Read => "E_READ",
            Self::Write => "E_WRITE",
            Self::Path => "E_PATH",
            Self::Offline => "E_OFFLINE",
            Self::DiskFull => "E_DISK_FULL",
            Self::Busy => "E_BUSY",
            Self::State => "E_STATE",
            Self::Keyslot => "E_KEYSLOT",
            Self::KdfPolicy => "E_KDF_POLICY",
            Self::Locked => "E_LOCKED",
            Self::Auth => "E_AUTH",
            Self::Revoked => "E_REVOKED",
            Self::Certificate => "E_CERTIFICATE",
            Self::Brake => "E_BRAKE",
            Self::Root => "E_ROOT",
            Self::Rollback => "E_ROLLBACK",
            Self::Fork => "E_FORK",
            Self::Vault => "E_VAULT",
            Self::Commit => "E_COMMIT",
            Self::Version => "E_VERSION",
            Self::Machine => "E_MACHINE",
            Self::Limit => "E_LIMIT",
            Self::Conflict => "E_CONFLICT",
            Self::Missing => "E_MISSING",
            Self::NotFound => "E_NOT_FOUND",
            Self::Usage => "E_USAGE",
            Self::Setup => "E_SETUP",
            Self::Server => "E_SERVER",
        }
    }

    /// The process exit status that reports this code (docs/cli.md).
    pub const fn exit(self) -> u8 {
        match self {
            Self::Chunk | Self::Read | Self::Write | Self::Path | Self::Missing | Self::Server => 1,
            Self::Usage => 2,
            Self::Setup | Self::NotFound => 3,
            Self::Offline | Self::DiskFull | Self::Busy | Self::Conflict => 5,
            Self::State => 7,
            Self::Keyslot | Self::KdfPolicy | Self::Locked => 11,
            Self::Auth | Self::Revoked | Self::Certificate => 12,
            Self::Brake | Self::Root => 13,
            Self::Rollback
            | Self::Fork
            | Self::Vault
            | Self::Commit
            | Self::Version
            | Self::Machine
            | Self::Limit => 14,
        }
    }

    /// One sentence for the table of codes.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Chunk => "a chunk is damaged, missing or not the one that was asked for",
            Self::Read => "a file or directory cannot be read",
            Self::Write => "a file or directory cannot be written",
            Self::Path => "a name or link that cannot be placed safely",
            Self::Offline => "the server cannot be reached",
            Self::DiskFull => "no space is left",
            Self::Busy => {
                "another SyncAgent holds this home or folder, or the server takes nothing now"
            }
            Self::State => "the local state is corrupt beyond rebuilding",
            Self::Keyslot => {
                "wrong password, a damaged key file, or a key slot that the history does not name"
            }
            Self::KdfPolicy => "a key file asks for a derivation that is too weak or too costly",
            Self::Locked => "the key is locked and nobody can be asked",
            Self::Auth => "the server does not accept the token",
            Self::Revoked => "this machine was removed from the vault",
            Self::Certificate => "the server does not prove to be the right one",
            Self::Brake => "a change of very many files waits for a yes",
            Self::Root => "the folder is missing, emptied or replaced",
            Self::Rollback => "the server shows an older history than it did before",
            Self::Fork => "the server shows a different history than it did before",
            Self::Vault => "the key belongs to another vault",
            Self::Commit => "a commit does not fit the history",
            Self::Version => "made by a newer SyncAgent",
            Self::Machine => "a commit of an unknown or removed machine",
            Self::Limit => "an answer or request beyond the limits",
            Self::Conflict => "somebody else was first",
            Self::Missing => "chunks that a commit names are not on the server",
            Self::NotFound => "there is no such thing",
            Self::Usage => "the request is not understood",
            Self::Setup => "this machine is not set up yet",
            Self::Server => "the server failed",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_on_the_wire_is_the_text_on_the_terminal() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn the_page_tells_every_code_with_its_exit_and_meaning() {
        let page = include_str!("../../../docs/cli.md");
        for code in Code::ALL {
            let meaning = format!("| `{code}` | {} |", code.meaning());
            assert!(page.lines().any(|line| line == meaning), "{meaning}");
            let exit = format!("| {} |", code.exit());
            let mut rows = page.lines().filter(|line| line.starts_with(&exit));
            assert!(
                rows.any(|row| row.contains(&format!("`{code}`"))),
                "{code}: {exit}"
            );
        }
    }
}
