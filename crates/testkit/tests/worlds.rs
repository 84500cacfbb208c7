//! Simulated worlds by the hundred: each seed is a world of its own, and each must keep every promise.
//!
//! `SYNCAGENT_SEEDS` says how many (200), `SYNCAGENT_SEED` where to begin (0), `SYNCAGENT_MACHINES` how many machines
//! each has (from 2 to 5 in turn). A failing world prints everything that happened in it, and `SYNCAGENT_TRACE=1` adds what the engines logged,
//! plans and all; `SYNCAGENT_FOLLOW=1234abcd` tells where the content of this hash is whenever that changes. The same
//! seed shows the same world again, call by call: `cargo xtask simulate --seeds 1 --seed N`.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use syncagent_testkit::sim::world::{Counts, Failure, Size, has_fault, run};

/// Edits in each world, at least.
const EDITS: u64 = 30;

/// What a hundred worlds of two to five machines have seen at least, so that empty ones cannot pass.
const AT_LEAST: [(&str, u64); 34] = [
    ("edit", 4000),
    ("pass that ended well", 800),
    ("said to be in sync", 800),
    ("second pass", 15),
    ("conflict", 80),
    ("directory move", 40),
    ("directory move applied", 10),
    ("swap applied", 40),
    ("hard link", 60),
    ("edit between two calls", 40),
    ("deletion that must stay", 25),
    // Machines.
    ("crash", 200),
    ("crash in apply", 5),
    ("power cut", 100),
    ("clock jump", 40),
    ("disk error", 300),
    ("full disk", 12),
    ("unreadable for a while", 8),
    // The network.
    ("request cut", 15),
    ("request late", 6),
    ("request repeated", 6),
    ("request echoed", 6),
    ("half an answer", 6),
    ("lost reply", 5),
    // The server.
    ("409", 40),
    ("422", 40),
    ("lost pack", 18),
    ("lost chunks", 10),
    ("server put back", 6),
    ("rollback noticed", 20),
    ("recovered", 1),
    ("union", 1),
    ("fork", 1),
    ("fork noticed", 1),
];

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a number, not {text:?}")),
        Err(_) => otherwise,
    }
}

/// What a hundred worlds in which people keep apart have seen at least.
const AT_LEAST_APART: [(&str, u64); 20] = [
    ("edit", 4000),
    ("pass that ended well", 800),
    ("arrived exactly", 1200),
    ("directory move", 40),
    ("directory move applied", 10),
    ("swap applied", 40),
    ("deletion that must stay", 25),
    ("crash", 200),
    ("crash in apply", 5),
    ("power cut", 100),
    ("clock jump", 40),
    ("disk error", 300),
    ("edit between two calls", 40),
    ("request cut", 15),
    ("request echoed", 6),
    ("lost reply", 5),
    ("409", 40),
    ("422", 20),
    ("lost pack", 18),
    ("lost chunks", 10),
];

/// Runs the worlds that are asked for, or one of so many of them, and says what they have seen. Two to five machines in
/// turn if nothing is said.
fn run_all(one_in: u64, apart: bool) -> (u64, Counts) {
    let first = number("SYNCAGENT_SEED", 0);
    let seeds = number("SYNCAGENT_SEEDS", 200).div_ceil(one_in);
    let machines_of = |seed: u64| number("SYNCAGENT_MACHINES", 2 + seed % 4);
    let next = AtomicU64::new(first);
    let total: Mutex<Counts> = Mutex::default();
    let failures: Mutex<Vec<Box<Failure>>> = Mutex::default();
    let (harmless, idle) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    let size = Size {
                        machines: usize::try_from(machines_of(seed)).unwrap(),
                        apart,
                        ..Size::default()
                    };
                    match run(seed, size) {
                        Ok(told) => {
                            if !has_fault(&told.counts) {
                                harmless.fetch_add(1, Ordering::Relaxed);
                            }
                            if told.counts.get("edit").is_none_or(|n| *n < EDITS) {
                                idle.fetch_add(1, Ordering::Relaxed);
                            }
                            let mut total = total.lock().unwrap();
                            for (what, n) in told.counts {
                                *total.entry(what).or_default() += n;
                            }
                        }
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|failure| failure.seed);
    let seconds = started.elapsed().as_secs_f64();
    let speed = seeds as f64 / seconds;
    // Straight to the terminal: tests keep to themselves what they print, unless they fail.
    let kind = if apart { "worlds apart" } else { "worlds" };
    let mut told =
        format!("{seeds} {kind} from {first} on in {seconds:.1} s, {speed:.1} a second:");
    for (what, n) in &total {
        let _ = write!(told, "\n  {n:>9}  {what}");
    }
    for failure in &failures {
        let _ = write!(
            told,
            "\nseed {}: {}",
            failure.seed,
            failure.wrong.join("\n    ")
        );
    }
    let _ = writeln!(std::io::stderr().lock(), "{told}");
    if let Some(failure) = failures.first() {
        let count = failures.len();
        panic!("{failure}\n{count} of {seeds} worlds broke a promise");
    }
    assert_eq!(harmless.into_inner(), 0, "worlds in which nothing failed");
    assert_eq!(idle.into_inner(), 0, "worlds with fewer than {EDITS} edits");
    (seeds, total)
}

/// Holds what was seen against what has to be.
fn assert_seen(seeds: u64, total: &Counts, at_least: &[(&str, u64)]) {
    // With more machines, fewer things happen on each.
    let is_usual = number("SYNCAGENT_MACHINES", 0) == 0;
    for (what, in_a_hundred) in at_least {
        let seen = total.get(what).copied().unwrap_or(0);
        let wanted = if seeds >= 100 && is_usual {
            in_a_hundred * seeds / 100
        } else {
            0
        };
        assert!(
            seen >= wanted,
            "{what}: only {seen} in {seeds} worlds, not {wanted}"
        );
    }
}

#[test]
fn every_world_keeps_every_promise() {
    let (seeds, total) = run_all(1, false);
    assert_seen(seeds, &total, &AT_LEAST);
}

/// Also under crashes, cut requests and full disks: no conflict copy, and each name, bit and time as it was left.
#[test]
fn what_one_machine_alone_changes_arrives_exactly() {
    let (seeds, total) = run_all(5, true);
    assert_seen(seeds, &total, &AT_LEAST_APART);
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [1, 2, 3] {
        let size = Size {
            machines: 3,
            ..Size::default()
        };
        let tell = || match run(seed, size) {
            Ok(told) => told.trace,
            Err(failure) => failure.trace,
        };
        let (once, again) = (tell(), tell());
        let differs = once.iter().zip(&again).position(|(a, b)| a != b);
        assert_eq!(differs.map(|line| (&once[line], &again[line])), None);
        assert_eq!(once.len(), again.len());
    }
}
