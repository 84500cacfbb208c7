//! Cuts files where their content says so, without telling where that is.
//!
//! Content-defined chunking with a keyed Gear hash, whose value goes through AES before it decides:
//! cut points that depend on bits of a keyed rolling hash leak the key ("Chunking attacks on file
//! backup services using content-defined chunking", Truong, Merino, Zhang et al., 2025). With a PRF in
//! between, an observer of chunk lengths learns nothing about the table (format.md, "Cut").

use aws_lc_rs::cipher::{AES_128, EncryptingKey, UnboundCipherKey};
use zeroize::Zeroize;

use crate::VaultError;
use crate::keys::{Gear, Keys};

/// Number of classes of chunk sizes.
pub const CLASSES: u8 = 6;
/// The hash forgets a byte after 64 steps.
const WINDOW: usize = 64;
/// AES blocks encrypted at once.
const BATCH: usize = 256;

/// Chunk sizes of a class, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// No cut before this.
    pub min: usize,
    /// Where the mask changes, so that lengths gather around it.
    pub avg: usize,
    /// Forced cut.
    pub max: usize,
}

/// A class of chunk sizes: `avg` is 128 KiB times two to the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// The class with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        (number < CLASSES).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Sizes of a file that starts in this class: above the first, up to the second.
    fn range(self) -> (u64, u64) {
        let avg = self.sizes().avg as u64;
        let lower = if self.0 == 0 { 0 } else { 2048 * avg };
        let upper = if self.0 == CLASSES - 1 {
            u64::MAX
        } else {
            4096 * avg
        };
        (lower, upper)
    }

    /// The class for a file of `size` bytes that had class `before`, if any.
    ///
    /// Hysteresis: a file keeps its class while its size stays within a factor of four of the range,
    /// so that one that grows and shrinks at a border is not uploaded anew each time.
    pub fn of(size: u64, before: Option<Self>) -> Self {
        if let Some(class) = before {
            let (lower, upper) = class.range();
            if (class.0 == 0 || lower / 4 < size) && size <= upper.saturating_mul(4) {
                return class;
            }
        }
        (0..CLASSES)
            .map(Self)
            .find(|class| size <= class.range().1)
            .unwrap_or(Self(CLASSES - 1))
    }

    /// Chunk sizes of the class.
    pub fn sizes(self) -> Sizes {
        let avg = (128 * 1024) << self.0;
        Sizes {
            min: avg / 4,
            avg,
            max: 2 * avg,
        }
    }
}

/// Finds cut points. One for each thread of work: it owns scratch memory of a few KiB.
pub struct Chunker<'k> {
    gear: &'k Gear,
    aes: EncryptingKey,
    sizes: Sizes,
    blocks: Box<[u8; 16 * BATCH]>,
}

impl<'k> Chunker<'k> {
    /// A chunker for files of `class`.
    pub fn new(keys: &'k Keys, class: Class) -> Result<Self, VaultError> {
        let key =
            UnboundCipherKey::new(&AES_128, keys.cdc.expose()).map_err(|_| VaultError::Provider)?;
        // ECB as a block-wise PRF over distinct positions, not as a mode of encryption: nothing of it is sent.
        let aes = EncryptingKey::ecb(key).map_err(|_| VaultError::Provider)?;
        Ok(Self {
            gear: &keys.gear,
            aes,
            sizes: class.sizes(),
            blocks: Box::new([0; 16 * BATCH]),
        })
    }

    /// The sizes this chunker keeps to.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Length of the chunk that `window` begins with.
    ///
    /// `window` holds at least `sizes().max` bytes, or everything up to the end of the file.
    pub fn cut(&mut self, window: &[u8]) -> Result<usize, VaultError> {
        let Sizes { min, avg, max } = self.sizes;
        if window.len() <= min {
            return Ok(window.len());
        }
        let end = window.len().min(max);
        let table = &self.gear.0;
        let step = |h: u64, byte: u8| (h << 1).wrapping_add(table[usize::from(byte)]);
        let mut h = window[min - WINDOW..min].iter().fold(0, |h, &b| step(h, b));
        let bits = avg.trailing_zeros();
        let mut at = min;
        while at < end {
            let batch = &window[at..end.min(at + BATCH)];
            let blocks = &mut self.blocks[..16 * batch.len()];
            for (block, &byte) in blocks.as_chunks_mut::<16>().0.iter_mut().zip(batch) {
                h = step(h, byte);
                *block = (u128::from(h) << 64).to_be_bytes();
            }
            self.aes.encrypt(blocks).map_err(|_| VaultError::Provider)?;
            for (i, block) in blocks.as_chunks::<16>().0.iter().enumerate() {
                let len = at + i + 1;
                let zeros = if len < avg { bits + 2 } else { bits - 2 };
                if u128::from_be_bytes(*block).leading_zeros() >= zeros {
                    return Ok(len);
                }
            }
            at += batch.len();
        }
        Ok(end)
    }
}

impl Drop for Chunker<'_> {
    fn drop(&mut self) {
        self.blocks.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn class_by_size_with_hysteresis() {
        let of = |size, before: Option<u8>| Class::of(size, before.map(Class)).number();
        for (size, before, want) in [
            (0, None, 0),
            (512 * MIB, None, 0),
            (512 * MIB + 1, None, 1),
            (1024 * MIB, None, 1),
            (1024 * MIB + 1, None, 2),
            (8192 * MIB, None, 4),
            (8192 * MIB + 1, None, 5),
            (u64::MAX, None, 5),
            (2048 * MIB, Some(0), 0),
            (2048 * MIB + 1, Some(0), 3),
            (0, Some(0), 0),
            (128 * MIB + 1, Some(1), 1),
            (128 * MIB, Some(1), 0),
            (4096 * MIB + 1, Some(1), 4),
        ] {
            assert_eq!(of(size, before), want, "{size} {before:?}");
        }
    }
}
