//! Randomness as an argument, so that tests and simulated worlds repeat exactly.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::secret::Secret;

/// A source of random bytes.
pub trait Random: Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct OsRandom(SystemRandom);

impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) {
        // A system whose generator fails cannot be trusted with a key; there is nothing to fall back to.
        assert!(
            self.0.fill(out).is_ok(),
            "the operating system's random generator failed"
        );
    }
}

/// `N` random bytes that are public, such as salts and ids.
pub fn bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut out = [0; N];
    random.fill(&mut out);
    out
}

/// `N` random bytes that are secret.
pub fn secret<const N: usize>(random: &dyn Random) -> Secret<N> {
    let mut out = Secret::zeroed();
    random.fill(out.as_mut());
    out
}
