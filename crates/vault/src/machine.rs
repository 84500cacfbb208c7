//! A machine's signing key: made on it, never leaves it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use syncagent_protocol::MachineId;
use zeroize::ZeroizeOnDrop;

use crate::VaultError;
use crate::random::{self, Random};
use crate::secret::Secret;

/// An Ed25519 key pair (RFC 8032). Wiped when dropped; the library wipes its own copy.
#[derive(ZeroizeOnDrop)]
pub struct MachineKey {
    seed: Secret<32>,
    #[zeroize(skip)]
    pair: Ed25519KeyPair,
    #[zeroize(skip)]
    public: [u8; 32],
}

impl MachineKey {
    /// A new key.
    pub fn generate(random: &dyn Random) -> Result<Self, VaultError> {
        Self::from_seed(random::secret(random))
    }

    /// The key with this seed.
    pub fn from_seed(seed: Secret<32>) -> Result<Self, VaultError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| VaultError::Provider)?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| VaultError::Provider)?;
        Ok(Self { seed, pair, public })
    }

    /// The seed, to be stored on this machine alone.
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    /// The public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The id that belongs to the key.
    pub fn id(&self) -> MachineId {
        MachineId::of(&self.public)
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}
