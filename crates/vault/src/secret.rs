//! Fixed-size secrets that wipe themselves and cannot be printed, cloned or serialised by accident.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// All zeros, to be filled through [`Secret::as_mut`].
    pub fn zeroed() -> Self {
        Self(Box::new([0; N]))
    }

    /// Copies `bytes`; the caller wipes its own copy.
    pub fn copy_from(bytes: &[u8; N]) -> Self {
        let mut secret = Self::zeroed();
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to be filled.
    #[expect(
        clippy::should_implement_trait,
        reason = "the trait's method would not say how many bytes there are"
    )]
    pub fn as_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// An explicit second copy, for the few places that own one for good reason.
    pub fn duplicate(&self) -> Self {
        Self::copy_from(&self.0)
    }
}
