//! When to look, when to sync, when to wait: events in, effects out, time as an argument.
//!
//! An event from the watcher is a hint to look, never a fact. At most one pass runs at a time; what comes in
//! meanwhile waits for its end.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::TreePath;

/// Waiting times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Quiet time after a file was closed by whoever wrote it.
    pub closed_ms: u64,
    /// Quiet time after any other hint.
    pub quiet_ms: u64,
    /// How long a file that is written over and over is waited for.
    pub settle_ms: u64,
    /// From one full scan to the next.
    pub full_scan_ms: u64,
    /// After the first failure; doubled after each further one ...
    pub backoff_first_ms: u64,
    /// ... up to this.
    pub backoff_max_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            closed_ms: 100,
            quiet_ms: 250,
            settle_ms: 3000,
            full_scan_ms: 300_000,
            backoff_first_ms: 1000,
            backoff_max_ms: 60_000,
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The engine is ready: look at everything.
    Started,
    /// Something may have changed at or below this path.
    Changed {
        /// Where.
        path: TreePath,
        /// Whether a file was closed after writing, or renamed into place: no more is to be expected soon.
        closed: bool,
    },
    /// The watcher lost track.
    Overflow,
    /// The server's log has grown (a hint, perhaps of a commit of our own).
    Head {
        /// Its head.
        n: u64,
    },
    /// This machine has applied the log up to here.
    Applied {
        /// Position.
        n: u64,
    },
    /// The pass that an effect started has ended.
    Done {
        /// How.
        outcome: Outcome,
    },
    /// Somebody asked for a sync at once.
    Now,
    /// Somebody asked for quiet.
    Pause,
    /// Somebody asked to go on.
    Resume,
    /// The time of a [`Effect::WakeAt`] has come (an early or late one does no harm).
    Woke,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Disk and vault agree.
    Settled,
    /// The server moved on meanwhile, or a file changed: plan again at once.
    Again,
    /// The server could not be reached or failed: wait before the next try.
    Failed,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look at these paths and what is below them, then sync. Ends with [`Event::Done`].
    ScanPaths(BTreeSet<TreePath>),
    /// Look at everything, then sync. Ends with [`Event::Done`].
    FullScan,
    /// Get what is new in the log, then sync. Ends with [`Event::Done`]; if it comes together with a scan, both
    /// are one pass.
    Fetch,
    /// Send [`Event::Woke`] at this time, in place of any wake-up asked for earlier.
    WakeAt(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hint {
    first_ms: u64,
    due_ms: u64,
}

/// What is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    hints: BTreeMap<TreePath, Hint>,
    full_scan_at: Option<u64>,
    fetch: bool,
    head: u64,
    applied: u64,
    running: bool,
    paused: bool,
    failures: u32,
    retry_at: Option<u64>,
}

impl Schedule {
    /// Whether somebody asked for quiet.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether something was heard of on this disk that no pass has looked at, and one will.
    pub fn is_waiting(&self) -> bool {
        !self.paused && !self.hints.is_empty()
    }

    /// Whether a pass runs.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// When the server is tried again after a failure.
    pub fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Takes in an event and says what to do.
    pub fn handle(&mut self, now_ms: u64, event: Event, config: &Config) -> Vec<Effect> {
        match event {
            Event::Started | Event::Overflow => self.full_scan_at = Some(now_ms),
            Event::Changed { path, closed } => self.hint(now_ms, path, closed, config),
            Event::Head { n } => {
                self.head = self.head.max(n);
                // It speaks to us again.
                self.retry_at = None;
            }
            Event::Applied { n } => self.applied = self.applied.max(n),
            Event::Done { outcome } => self.done(now_ms, outcome, config),
            Event::Now => {
                self.full_scan_at = Some(now_ms);
                self.fetch = true;
                self.retry_at = None;
                self.failures = 0;
            }
            Event::Pause => self.paused = true,
            Event::Resume => {
                self.paused = false;
                self.fetch = true;
            }
            Event::Woke => {}
        }
        self.effects(now_ms, config)
    }

    fn hint(&mut self, now_ms: u64, path: TreePath, closed: bool, config: &Config) {
        let quiet = if closed {
            config.closed_ms
        } else {
            config.quiet_ms
        };
        let hint = self.hints.entry(path).or_insert(Hint {
            first_ms: now_ms,
            due_ms: 0,
        });
        hint.due_ms = (now_ms + quiet).min((hint.first_ms + config.settle_ms).max(now_ms));
    }

    fn done(&mut self, now_ms: u64, outcome: Outcome, config: &Config) {
        self.running = false;
        match outcome {
            Outcome::Settled => self.failures = 0,
            Outcome::Again => {
                self.failures = 0;
                self.fetch = true;
            }
            Outcome::Failed => {
                let doubled = config
                    .backoff_first_ms
                    .saturating_mul(1 << self.failures.min(20));
                self.retry_at = Some(now_ms + doubled.min(config.backoff_max_ms));
                self.failures = self.failures.saturating_add(1);
                self.fetch = true;
            }
        }
    }

    fn effects(&mut self, now_ms: u64, config: &Config) -> Vec<Effect> {
        if self.running || self.paused {
            return Vec::new();
        }
        if let Some(at) = self.retry_at {
            if at > now_ms {
                return vec![Effect::WakeAt(at)];
            }
            self.retry_at = None;
        }
        let mut effects = Vec::new();
        if self.full_scan_at.is_some_and(|at| at <= now_ms) {
            self.full_scan_at = Some(now_ms + config.full_scan_ms);
            self.hints.clear();
            effects.push(Effect::FullScan);
        } else {
            let due: BTreeSet<_> = self
                .hints
                .extract_if(.., |_, hint| hint.due_ms <= now_ms)
                .map(|(p, _)| p)
                .collect();
            if !due.is_empty() {
                effects.push(Effect::ScanPaths(due));
            }
        }
        if self.fetch || self.head > self.applied {
            self.fetch = false;
            // The hint is used up: one that names a commit this machine cannot apply must not start pass after pass.
            self.head = self.applied;
            effects.push(Effect::Fetch);
        }
        if !effects.is_empty() {
            self.running = true;
            return effects;
        }
        let next = self
            .hints
            .values()
            .map(|hint| hint.due_ms)
            .chain(self.full_scan_at)
            .min();
        next.map(Effect::WakeAt).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> Effect {
        Effect::ScanPaths(
            texts
                .iter()
                .map(|text| TreePath::parse(text).unwrap())
                .collect(),
        )
    }

    fn changed(path: &str, closed: bool) -> Event {
        Event::Changed {
            path: TreePath::parse(path).unwrap(),
            closed,
        }
    }

    /// Runs events at their times, each with the effects it must have.
    fn check(rows: Vec<(u64, Event, Vec<Effect>)>) {
        let mut schedule = Schedule::default();
        for (now, event, want) in rows {
            assert_eq!(
                schedule.handle(now, event.clone(), &Config::default()),
                want,
                "{event:?} at {now}"
            );
        }
    }

    const SETTLED: Event = Event::Done {
        outcome: Outcome::Settled,
    };
    const FAILED: Event = Event::Done {
        outcome: Outcome::Failed,
    };

    #[test]
    fn quiet_is_waited_for() {
        check(vec![
            (0, Event::Started, vec![Effect::FullScan]),
            (10, SETTLED, vec![Effect::WakeAt(300_000)]),
            (1000, changed("a", true), vec![Effect::WakeAt(1100)]),
            (1050, changed("b", false), vec![Effect::WakeAt(1100)]),
            (1060, changed("a", true), vec![Effect::WakeAt(1160)]),
            (1100, Event::Woke, vec![Effect::WakeAt(1160)]),
            (1160, Event::Woke, vec![paths(&["a"])]),
            (1200, changed("c", true), vec![]),
            (1400, SETTLED, vec![paths(&["b", "c"])]),
            (1500, SETTLED, vec![Effect::WakeAt(300_000)]),
            (300_000, Event::Woke, vec![Effect::FullScan]),
            (300_100, SETTLED, vec![Effect::WakeAt(600_000)]),
        ]);
    }

    #[test]
    fn a_file_that_is_written_for_ever_is_looked_at_after_the_settle_time() {
        let mut schedule = Schedule::default();
        let mut seen = None;
        for now in (0..5000).step_by(100) {
            if schedule.handle(now, changed("a", false), &Config::default()) == vec![paths(&["a"])]
            {
                seen = Some(now);
                break;
            }
        }
        assert_eq!(seen, Some(3000));
    }

    #[test]
    fn failures_back_off_and_a_sign_of_life_ends_it() {
        let mut schedule = Schedule::default();
        let config = Config::default();
        let mut now = 0;
        schedule.handle(now, Event::Now, &config);
        for wait in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            assert_eq!(
                schedule.handle(now, FAILED, &config),
                [Effect::WakeAt(now + wait)]
            );
            now += wait;
            assert_eq!(
                schedule.handle(now, Event::Woke, &config).last(),
                Some(&Effect::Fetch)
            );
        }
        schedule.handle(now, FAILED, &config);
        assert_eq!(
            schedule.handle(now + 5, Event::Head { n: 7 }, &config),
            [Effect::Fetch]
        );
        assert_eq!(schedule.retry_at(), None);
    }

    #[test]
    fn a_paused_machine_does_nothing_and_forgets_nothing() {
        check(vec![
            (0, Event::Pause, vec![]),
            (1, changed("a", true), vec![]),
            (2, Event::Head { n: 3 }, vec![]),
            (500, Event::Woke, vec![]),
            (600, Event::Resume, vec![paths(&["a"]), Effect::Fetch]),
        ]);
    }

    #[test]
    fn heads_already_applied_start_nothing() {
        check(vec![
            (0, Event::Applied { n: 5 }, vec![]),
            (1, Event::Head { n: 5 }, vec![]),
            (2, Event::Head { n: 6 }, vec![Effect::Fetch]),
            (3, Event::Head { n: 7 }, vec![]),
            (4, Event::Applied { n: 6 }, vec![]),
            (5, SETTLED, vec![Effect::Fetch]),
            (6, Event::Applied { n: 7 }, vec![]),
            (7, SETTLED, vec![]),
        ]);
    }

    #[test]
    fn again_means_at_once() {
        check(vec![
            (0, Event::Now, vec![Effect::FullScan, Effect::Fetch]),
            (
                5,
                Event::Done {
                    outcome: Outcome::Again,
                },
                vec![Effect::Fetch],
            ),
            (6, SETTLED, vec![Effect::WakeAt(300_000)]),
        ]);
    }
}
