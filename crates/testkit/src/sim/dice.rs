//! Everything random in a world comes from its seed, in streams that do not disturb each other.

use std::sync::{Mutex, PoisonError};

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use syncagent_vault::random::Random;

/// A stream of random decisions.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of this name in the world of this seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("syncagent testkit 2027 dice");
        hasher.update(&seed.to_le_bytes());
        hasher.update(stream.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias of a remainder is of no interest here.
        usize::try_from(self.0.next_u64() % (end.max(1) as u64)).unwrap_or(0)
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `items`; none if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// A word, for a stream of its own.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

/// What keys, salts and ids are made of in a world.
#[derive(Debug)]
pub struct SimRandom(Mutex<Dice>);

impl SimRandom {
    /// The randomness of this name.
    pub fn new(seed: u64, stream: &str) -> Self {
        Self(Mutex::new(Dice::new(seed, stream)))
    }
}

impl Random for SimRandom {
    fn fill(&self, out: &mut [u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill(out);
    }
}
