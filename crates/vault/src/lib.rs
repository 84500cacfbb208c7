//! What does a secret look like?
//!
//! Bytes in, bytes out: keys, key slots, chunks, ops and commits of `docs/format.md`. No I/O, no clock;
//! randomness arrives as an argument. Secrets here have no `Debug`, `Clone` or `Serialize` and are
//! wiped when dropped.
//!
//! Reading order: [`keys`], [`slot`], [`chunker`], [`chunk`], [`manifest`], [`op`], [`commit`], [`export`].

pub mod chunk;
pub mod chunker;
pub mod commit;
mod crypto;
pub mod event;
pub mod export;
pub mod keys;
pub mod machine;
pub mod manifest;
pub mod op;
pub mod random;
pub mod recovery;
pub mod secret;
pub mod slot;
mod tlv;

use syncagent_protocol::{Code, commit::FormatError, name::NameError};

/// Why something sealed cannot be opened, or something cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// A key slot that does not open: one error for every cause, so that nothing is learned from it.
    #[error("wrong password or damaged key file")]
    Keyslot,
    /// A key slot whose derivation is outside the policy. Found before anything is derived.
    #[error("the key file asks for a key derivation outside the allowed range")]
    KdfPolicy,
    /// A password that is too short.
    #[error("a password needs at least {} characters", slot::MIN_PASSWORD_CHARS)]
    WeakPassword,
    /// A chunk that is not what its manifest says.
    #[error("a chunk is damaged or is not the one that was asked for")]
    Chunk,
    /// An op whose body does not open or parse. If it is a PUT, its node alone is unreadable.
    #[error("an entry of the log cannot be read: {0}")]
    Op(&'static str),
    /// A PUT that can be read, of a name that nothing can have: its node is kept and nowhere placed.
    #[error("an entry of the log cannot be placed: {0}")]
    Name(NameError),
    /// A GENESIS with a value from the future.
    #[error("the vault was made by a newer SyncAgent ({0})")]
    Version(&'static str),
    /// A MACHINE_ADD that does not open, parse or fit.
    #[error("a machine cannot join the vault: {0}")]
    Machine(&'static str),
    /// The envelope of a commit, or a limit of what can be sealed.
    #[error("a commit does not fit: {0}")]
    Commit(#[from] FormatError),
    /// An export that is damaged or was sealed with another password.
    #[error("the export is damaged or its password is wrong")]
    Export,
    /// A mistyped recovery code.
    #[error(
        "this is not a recovery code: it has nine groups of four characters; check for a typing error"
    )]
    RecoveryCode,
    /// Something of another vault.
    #[error("made with the key of another vault")]
    OtherVault,
    /// The provider failed; with valid lengths this does not happen.
    #[error("the cryptographic library refused an operation")]
    Provider,
}

impl VaultError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Keyslot | Self::WeakPassword | Self::Export | Self::RecoveryCode => Code::Keyslot,
            Self::KdfPolicy => Code::KdfPolicy,
            Self::Chunk => Code::Chunk,
            Self::Op(_) => Code::Commit,
            Self::Name(_) => Code::Path,
            Self::Version(_) => Code::Version,
            Self::Machine(_) => Code::Machine,
            Self::Commit(error) => error.code(),
            Self::OtherVault => Code::Vault,
            Self::Provider => Code::State,
        }
    }
}
