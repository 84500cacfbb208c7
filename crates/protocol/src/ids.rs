//! Identifiers, each of a type of its own, so that a chunk is never asked for by the name of a node.
//!
//! All are fixed-size byte strings, shown and serialised as lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A text that is not the hexadecimal form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: expected {digits} hexadecimal digits")]
pub struct IdError {
    what: &'static str,
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The identifier in `bytes`, if the length is right.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), HEXLOWER.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| Self::from_slice(&bytes))
                    .ok_or(IdError { what: $what, digits: 2 * $len })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(
    /// A vault: random, chosen when its key is made.
    VaultId, 16, "vault id"
);
id!(
    /// A machine: the first 16 bytes of a hash of its public key.
    MachineId, 16, "machine id"
);
id!(
    /// A file, directory or link for its whole life: random, chosen by the machine that first saw it.
    NodeId, 16, "node id"
);
id!(
    /// A sealed chunk: SHA-256 of its ciphertext.
    ChunkId, 32, "chunk id"
);
id!(
    /// `hash_n`: names commit n and, through it, the whole history before it.
    CommitHash, 32, "commit hash"
);
id!(
    /// One op of a commit.
    OpHash, 32, "op hash"
);
id!(
    /// BLAKE3 of a file's content. Lives inside ciphertext only.
    ContentHash, 32, "content hash"
);

impl NodeId {
    /// The root directory: always there, never written.
    pub const ROOT: Self = Self([0; 16]);
}

impl MachineId {
    /// The id that belongs to an Ed25519 public key.
    pub fn of(public_key: &[u8; 32]) -> Self {
        let hash = crate::sha256(&[b"SyncAgent/v1/machine\0", public_key]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }
}

impl CommitHash {
    /// `hash_0`: what the first commit of a vault names as the commit before it.
    pub fn genesis(vault: VaultId) -> Self {
        Self(crate::sha256(&[b"SyncAgent/v1/genesis\0", &vault.0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_strict_lower_case_hex() {
        let id = NodeId([0xab; 16]);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert!("AB".repeat(16).parse::<NodeId>().is_err());
        assert!("ab".repeat(15).parse::<NodeId>().is_err());
    }

    #[test]
    fn genesis_hash_is_the_documented_one() {
        let vault = VaultId(std::array::from_fn(|i| 0xa0 + i as u8));
        assert_eq!(
            CommitHash::genesis(vault).to_string(),
            "69361ec82e41d5bbff73c395a62370ba2485f5f7b2ac089248b342b79450e60e"
        );
    }
}
