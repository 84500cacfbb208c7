//! Cuts files where their content says so, without telling where that is.
//!
//! Content-defined chunking with a keyed Gear hash, whose value goes through AES before it decides:
//! cut points that depend on bits of a keyed rolling hash leak the key ("Chunking attacks on file
//! backup services using content-defined chunking", Truong, Merino, Zhang et al., 2025). With a PRF in
//! between, an observer of chunk lengths learns nothing about the table (format.md, "Cut").
//!
//! What grows to the longest size is cut at the last place that a second, easier mask found: with two thresholds and two
//! divisors ("A Framework for Analyzing and Improving Content-Based Chunking Algorithms", Eshghi and Tang, 2005) that cut
//! follows the content, too, and an insertion before it does not move the chunks after it.

use aws_lc_rs::cipher::{AES_128, StreamingEncryptingKey, UnboundCipherKey};
use zeroize::Zeroize;

use crate::VaultError;
use crate::keys::{Gear, Keys};

/// Number of classes of chunk sizes.
pub const CLASSES: u8 = 6;
/// The most data chunks of one file: 16 TiB of average ones of the highest class.
pub const MAX_CHUNKS: usize = 1 << 22;
/// The hash forgets a byte after 64 steps.
const WINDOW: usize = 64;
/// AES blocks encrypted at once: enough to keep the pipeline full, few enough for the nearest cache.
const BATCH: usize = 512;
/// Blocks looked at before anything is decided: a cut is rare, so most groups hold none.
const GROUP: usize = 16;

/// Chunk sizes of a class, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// No cut before this.
    pub min: usize,
    /// Where the mask changes, so that lengths gather around it.
    pub avg: usize,
    /// No cut after this: a chunk that gets here ends at the last place that would nearly have done, or here.
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

/// The most data chunks that a file of `size` bytes is made of, whoever cut it (format.md, "Cut"), and never more than
/// [`MAX_CHUNKS`]: a reader has all of them in memory.
pub fn most_chunks(size: u64) -> usize {
    // The shortest of a file that keeps its class as long as it can, and one that is as short as it likes.
    let most = (size >> 20).saturating_add(65_537);
    usize::try_from(most).map_or(MAX_CHUNKS, |most| most.min(MAX_CHUNKS))
}

/// Finds cut points. One for each thread of work: it owns scratch memory of a few KiB.
pub struct Chunker<'k> {
    gear: &'k Gear,
    aes: StreamingEncryptingKey,
    sizes: Sizes,
    scratch: Box<Scratch>,
}

/// Hashes, and what AES makes of them: `u64 h ‖ 0^8` in, a block out.
#[derive(Zeroize)]
struct Scratch {
    hashes: [[u8; 16]; BATCH],
    // The library wants room for one block more, which a stream in other modes would still hold back.
    values: [[u8; 16]; BATCH + 1],
}

impl<'k> Chunker<'k> {
    /// A chunker for files of `class`.
    pub fn new(keys: &'k Keys, class: Class) -> Result<Self, VaultError> {
        let key =
            UnboundCipherKey::new(&AES_128, keys.cdc.expose()).map_err(|_| VaultError::Provider)?;
        // ECB as a PRF of one block, not as a mode of encryption: nothing of it is sent. The streaming
        // form encrypts many blocks a call, the other one block after the other. Its padding would
        // only come with a last block that is never asked for.
        let aes = StreamingEncryptingKey::ecb_pkcs7(key).map_err(|_| VaultError::Provider)?;
        Ok(Self {
            gear: &keys.gear,
            aes,
            sizes: class.sizes(),
            scratch: Box::new(Scratch {
                hashes: [[0; 16]; BATCH],
                values: [[0; 16]; BATCH + 1],
            }),
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
        let mut h = window[min - WINDOW..min]
            .iter()
            .fold(0, |h, &byte| roll(table, h, byte));
        let bits = avg.trailing_zeros();
        let mut spare = None;
        let mut at = min;
        while at < end {
            // A batch ends where the mask changes: the byte at avg - 1 is the first of the easier ones.
            let easier = avg - 1;
            let (zeros, nearly) = match at < easier {
                true => (bits + 2, bits + 2),
                false => (bits - 2, bits - 4),
            };
            let stop = if at < easier { end.min(easier) } else { end };
            let batch = &window[at..stop.min(at + BATCH)];
            let hashes = &mut self.scratch.hashes[..batch.len()];
            h = roll_all(table, h, batch, hashes);
            self.aes
                .update(
                    hashes.as_flattened(),
                    self.scratch.values.as_flattened_mut(),
                )
                .ok()
                .filter(|update| update.written().len() == 16 * batch.len())
                .ok_or(VaultError::Provider)?;
            let values = &self.scratch.values[..batch.len()];
            let mut from = 0;
            while let Some(index) = first_with_zeros(&values[from..], nearly) {
                let next = from + index + 1;
                if has_zeros(&values[next - 1], mask(zeros)) {
                    return Ok(at + next);
                }
                spare = Some(at + next);
                from = next;
            }
            at += batch.len();
        }
        Ok(match spare {
            Some(spare) if end == max => spare,
            _ => end,
        })
    }
}

#[inline]
fn roll(table: &[u64; 256], h: u64, byte: u8) -> u64 {
    (h << 1).wrapping_add(table[usize::from(byte)])
}

/// The hash after each of `bytes`, into the first half of its block; the other half stays zero.
fn roll_all(table: &[u64; 256], mut h: u64, bytes: &[u8], blocks: &mut [[u8; 16]]) -> u64 {
    let (fours, rest) = bytes.as_chunks::<4>();
    let (block_fours, block_rest) = blocks.as_chunks_mut::<4>();
    for (four, blocks) in fours.iter().zip(block_fours) {
        // What four bytes add does not depend on `h`, so only every fourth step has to wait for the one before.
        let mut added = 0;
        let mut last = h;
        for (i, (block, &byte)) in (1..).zip(blocks.iter_mut().zip(four)) {
            added = roll(table, added, byte);
            last = (h << i).wrapping_add(added);
            block[..8].copy_from_slice(&last.to_be_bytes());
        }
        h = last;
    }
    for (block, &byte) in block_rest.iter_mut().zip(rest) {
        h = roll(table, h, byte);
        block[..8].copy_from_slice(&h.to_be_bytes());
    }
    h
}

/// The first `zeros` bits, 1 to 63, in the order in which they lie in memory, so that no value has to be turned round.
fn mask(zeros: u32) -> u64 {
    (u64::MAX << (64 - zeros)).to_be()
}

fn has_zeros(value: &[u8; 16], mask: u64) -> bool {
    let (first, _) = value.split_at(8);
    first
        .try_into()
        .map(u64::from_ne_bytes)
        .is_ok_and(|v| v & mask == 0)
}

/// The first of `values` whose first `zeros` bits are zero.
fn first_with_zeros(values: &[[u8; 16]], zeros: u32) -> Option<usize> {
    let mask = mask(zeros);
    let group = values
        .chunks(GROUP)
        // No early end within a group: that is what lets it be done for many values at once.
        .position(|group| {
            group
                .iter()
                .fold(false, |any, value| any | has_zeros(value, mask))
        })?;
    let start = group * GROUP;
    let index = values[start..]
        .iter()
        .position(|value| has_zeros(value, mask))?;
    Some(start + index)
}

impl Drop for Chunker<'_> {
    fn drop(&mut self) {
        self.scratch.zeroize();
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

    #[test]
    fn no_cut_makes_more_chunks_than_a_reader_takes() {
        for k in 0..CLASSES {
            let class = Class(k);
            let min = class.sizes().min as u64;
            // As long as the class is kept at most, which of the last one has no end.
            let longest = match k {
                5 => (MAX_CHUNKS as u64) * min,
                _ => class.range().1 * 4,
            };
            assert_eq!(Class::of(longest, Some(class)), class);
            for size in [0, 1, min, longest / 3, longest - 1, longest] {
                let most = size.div_ceil(min);
                assert!(most <= most_chunks(size) as u64, "class {k}, {size}");
            }
        }
        assert_eq!(most_chunks(0), 65_537);
        assert_eq!(most_chunks(u64::MAX), MAX_CHUNKS);
    }
}
