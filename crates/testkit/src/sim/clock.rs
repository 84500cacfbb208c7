//! One time for a whole world, which passes only when somebody says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use syncagent_protocol::time::Clock;

/// 2027-01-15, in nanoseconds since 1970.
const START_NS: i64 = 1_800_000_000_000_000_000;

/// How coarse file systems stamp: one tick of a kernel at 250 Hz.
pub const TICK_NS: i64 = 4_000_000;

/// A clock that is moved by hand. Clones show the same time.
#[derive(Debug, Clone)]
pub struct SimClock(Arc<AtomicI64>);

impl Default for SimClock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(START_NS)))
    }
}

impl SimClock {
    /// Nanoseconds since 1970.
    pub fn now_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The time as a file system stamps it.
    pub fn stamp_ns(&self) -> i64 {
        let now = self.now_ns();
        now - now.rem_euclid(TICK_NS)
    }

    /// Lets time pass.
    pub fn advance_ns(&self, ns: i64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }

    /// Nanoseconds since the world began.
    pub fn age_ns(&self) -> i64 {
        self.now_ns() - START_NS
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now_ns() / 1_000_000).unwrap_or(0)
    }
}
