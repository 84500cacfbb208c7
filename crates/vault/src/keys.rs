//! The vault key and what is derived from it (format.md, "Keys").
//!
//! The vault key only ever feeds HKDF: each use has a key of its own, bound to the vault's id.

use syncagent_protocol::VaultId;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::VaultError;
use crate::crypto;
use crate::random::{self, Random};
use crate::secret::Secret;

/// The one epoch of format version 1.
pub const EPOCH: u32 = 1;

/// The 256 random bits that everything hangs on. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub struct VaultKey {
    key: Secret<32>,
    #[zeroize(skip)]
    vault: VaultId,
}

impl VaultKey {
    /// A new vault: random key, random id.
    pub fn generate(random: &dyn Random) -> Self {
        Self {
            key: random::secret(random),
            vault: VaultId(random::bytes(random)),
        }
    }

    /// The key of an existing vault, as a slot held it.
    pub fn from_parts(key: Secret<32>, vault: VaultId) -> Self {
        Self { key, vault }
    }

    /// The vault this key opens.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.key.expose()
    }

    /// Key-check value: tells two keys apart without telling anything about either.
    pub fn check_value(&self) -> Result<[u8; 16], VaultError> {
        Ok(*self.derive::<16>("kcv", EPOCH)?.expose())
    }

    /// An explicit second copy, for a holder with a life of its own.
    pub fn duplicate(&self) -> Self {
        Self {
            key: self.key.duplicate(),
            vault: self.vault,
        }
    }

    /// `HK`: the one function that the key is input of.
    pub fn derive<const N: usize>(
        &self,
        label: &str,
        context: u32,
    ) -> Result<Secret<N>, VaultError> {
        crypto::hkdf(
            self.key.expose(),
            &self.vault.0,
            &[
                b"SyncAgent/v1/",
                label.as_bytes(),
                &[0],
                &context.to_be_bytes(),
            ],
        )
    }

    /// Derives the keys of daily work.
    pub fn keys(&self) -> Result<Keys, VaultError> {
        let table = self.derive::<2048>("cdc-gear", 2)?;
        let mut gear = Box::new([0u64; 256]);
        for (entry, bytes) in gear.iter_mut().zip(table.expose().as_chunks::<8>().0) {
            *entry = u64::from_be_bytes(*bytes);
        }
        Ok(Keys {
            vault: self.vault,
            chunk: self.derive("chunk-key", EPOCH)?,
            op: self.derive("op-key", EPOCH)?,
            event: self.derive("event-key", EPOCH)?,
            gear: Gear(gear),
            cdc: self.derive("cdc-aes", 2)?,
        })
    }
}

/// The chunker's secret table.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Gear(pub(crate) Box<[u64; 256]>);

/// The keys that seal and open chunks, ops and events of one vault. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub struct Keys {
    #[zeroize(skip)]
    pub(crate) vault: VaultId,
    pub(crate) chunk: Secret<32>,
    pub(crate) op: Secret<32>,
    pub(crate) event: Secret<32>,
    pub(crate) gear: Gear,
    pub(crate) cdc: Secret<16>,
}

impl Keys {
    /// The vault these keys belong to.
    pub fn vault(&self) -> VaultId {
        self.vault
    }
}
