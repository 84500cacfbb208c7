//! Time arrives as an argument. Only the binary owns a clock that reads the system's.

/// Wall-clock time. It stamps what people see; it decides nothing.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64;
}

/// A clock that stands still, for tests and for replaying.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(
    /// Milliseconds since 1970-01-01 UTC.
    pub u64,
);

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        self.0
    }
}
