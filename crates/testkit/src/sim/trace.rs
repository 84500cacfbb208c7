//! What happened in a world, line by line, for the person who has to understand a failure.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::SimClock;

/// The events of a world, and how often what happened. Clones write into the same one.
#[derive(Clone)]
pub struct Trace {
    clock: SimClock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    lines: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// An empty trace.
    pub fn new(clock: SimClock) -> Self {
        Self {
            clock,
            inner: Arc::default(),
        }
    }

    /// Writes a line.
    pub fn line(&self, who: &str, what: impl fmt::Display) {
        let us = self.clock.age_ns() / 1000;
        let line = format!(
            "{:>6}.{:06} {who:<9} {what}",
            us / 1_000_000,
            us % 1_000_000
        );
        self.with(|inner| inner.lines.push(line));
    }

    /// Counts something that a world must have seen.
    pub fn count(&self, what: &'static str) {
        self.with(|inner| *inner.counts.entry(what).or_default() += 1);
    }

    /// How often what happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.with(|inner| inner.counts.clone())
    }

    /// How often this did.
    pub fn counted(&self, what: &str) -> u64 {
        self.with(|inner| inner.counts.get(what).copied().unwrap_or(0))
    }

    /// All lines.
    pub fn lines(&self) -> Vec<String> {
        self.with(|inner| inner.lines.clone())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the program itself logs, among the lines.
struct Log(Trace);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .line("log", String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Trace {
    /// Until the guard is dropped, what this thread's programs log stands among the lines, plans and all.
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let trace = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .with_writer(Mutex::new(Log(trace)))
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}
