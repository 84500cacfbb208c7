//! One time for a whole world, which passes only when somebody says so, and what each machine takes it for.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use syncagent_protocol::time::Clock;

/// 2027-01-15, in nanoseconds since 1970.
const START_NS: i64 = 1_800_000_000_000_000_000;

/// How coarse file systems stamp: one tick of a kernel at 250 Hz.
pub const TICK_NS: i64 = 4_000_000;

/// A clock that is moved by hand. Clones show the same time.
#[derive(Debug, Clone)]
pub struct SimClock {
    /// The world's time.
    world: Arc<AtomicI64>,
    /// How far this clock is wrong.
    off: Arc<AtomicI64>,
}

impl Default for SimClock {
    fn default() -> Self {
        Self {
            world: Arc::new(AtomicI64::new(START_NS)),
            off: Arc::default(),
        }
    }
}

impl SimClock {
    /// Another clock of the same world: it runs at the same pace and can be set on its own.
    pub fn another(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            off: Arc::default(),
        }
    }

    /// Nanoseconds since 1970.
    pub fn now_ns(&self) -> i64 {
        self.world.load(Ordering::Relaxed) + self.off.load(Ordering::Relaxed)
    }

    /// The time as a file system stamps it.
    pub fn stamp_ns(&self) -> i64 {
        let now = self.now_ns();
        now - now.rem_euclid(TICK_NS)
    }

    /// Lets time pass, for all clocks of the world.
    pub fn advance_ns(&self, ns: i64) {
        self.world.fetch_add(ns, Ordering::Relaxed);
    }

    /// Sets this clock alone: so far from the world's time.
    pub fn set_off_ns(&self, ns: i64) {
        self.off.store(ns, Ordering::Relaxed);
    }

    /// Nanoseconds since the world began, whatever the clock shows.
    pub fn age_ns(&self) -> i64 {
        self.world.load(Ordering::Relaxed) - START_NS
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now_ns() / 1_000_000).unwrap_or(0)
    }
}
