//! Simulated worlds by the hundred: each seed is a world of its own, and each must keep every promise.
//!
//! `SYNCAGENT_SEEDS` says how many (200), `SYNCAGENT_SEED` where to begin (0), `SYNCAGENT_MACHINES` how many machines.
//! A failing world prints everything that happened in it; the same seed shows it again, call by call.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use syncagent_testkit::sim::world::{Counts, Failure, Size, run};

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a number, not {text:?}")),
        Err(_) => otherwise,
    }
}

#[test]
fn every_world_keeps_every_promise() {
    let first = number("SYNCAGENT_SEED", 0);
    let seeds = number("SYNCAGENT_SEEDS", 200);
    let machines = usize::try_from(number("SYNCAGENT_MACHINES", 2)).unwrap();
    let size = Size {
        machines,
        ..Size::default()
    };
    let next = AtomicU64::new(first);
    let total: Mutex<Counts> = Mutex::default();
    let failures: Mutex<Vec<Box<Failure>>> = Mutex::default();
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match run(seed, size) {
                        Ok(counts) => {
                            let mut total = total.lock().unwrap();
                            for (what, n) in counts {
                                *total.entry(what).or_default() += n;
                            }
                        }
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            });
        }
    });
    let total: BTreeMap<_, _> = total.into_inner().unwrap();
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|failure| failure.seed);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seeds} worlds of {machines} machines in {seconds:.1} s ({:.1} a second): {total:#?}",
        seeds as f64 / seconds
    );
    for failure in &failures {
        println!("seed {}: {}", failure.seed, failure.wrong.join("\n    "));
    }
    if let Some(failure) = failures.first() {
        panic!(
            "{failure}\n{} of {seeds} worlds broke a promise",
            failures.len()
        );
    }
}
