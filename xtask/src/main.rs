//! Everything a contributor runs, as `cargo xtask <command>`.
//!
//! The whole grammar stands on this page. A command is one variant here and one module beside it.

mod bench;
mod coverage;
mod cross;
mod demo;
mod docs;
#[cfg(test)]
mod features;
mod mutants;
mod mutation;
mod needs;
mod report;
mod simulate;
mod steps;
mod suites;
mod tally;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::needs::Consent;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Everything a contributor runs."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a change must pass before it is shown: format, lints, documentation, fast tests, vectors.
    Check {
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Everything: the checks, every test against the release binary, and the other systems' types.
    Test {
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// The tests again and again, with more cases, more seeds and longer fuzzing each round.
    Soak {
        /// How long to go on.
        #[arg(long, default_value_t = 8.0)]
        hours: f64,
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Type-check the product for Windows and macOS.
    Cross {
        /// Only check; the one thing this command can do so far, named because a build may join it.
        #[arg(long, required = true)]
        check: bool,
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Run simulated worlds: the real engine and server on a made-up disk, network and clock.
    Simulate {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first one; a failing world is seen again with `--seeds 1 --seed N`.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Machines in each, 2 to 5; in turn if nothing is said.
        #[arg(long, value_parser = clap::value_parser!(u64).range(2..=5))]
        machines: Option<u64>,
        /// Worlds in which each person keeps to a directory of their own, so that nothing can be a conflict.
        #[arg(long)]
        apart: bool,
        /// Put what the engines log into the trace of a failing world.
        #[arg(long)]
        trace: bool,
    },
    /// Break each invariant of docs/sync.md on purpose, and see a test fail. Needs git and a clone.
    Mutants {
        /// Only those of `crates/testkit/mutants` with this in their name.
        names: Vec<String>,
    },
    /// Change operators and results in the code that decides and seals, and see unit and property tests fail.
    Mutation {
        /// Only these: reconcile, state, commit, log, chunk.
        modules: Vec<String>,
        /// A part of each, such as 0/4.
        #[arg(long, value_name = "K/N")]
        shard: Option<String>,
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Count the lines that tests run through; `protocol`, `vault` and `sync` have a limit.
    Coverage {
        /// Only the crates with a limit.
        #[arg(long)]
        quick: bool,
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Build in release mode and run `syncagent demo`.
    Demo {
        /// Where the demonstration keeps its folders.
        dir: Option<PathBuf>,
    },
    /// Make docs/config.md and docs/cli.md from the code.
    Docs,
    /// Measure A -> server -> B beside rsync and Syncthing: time, processor, bytes on the wire, memory.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Check { yes } => suites::check(&workspace, Consent::new(yes)),
        Command::Test { yes } => suites::test(&workspace, Consent::new(yes)),
        Command::Soak { hours, yes } => suites::soak(&workspace, Consent::new(yes), hours),
        Command::Cross { check: _, yes } => suites::cross(&workspace, Consent::new(yes)),
        Command::Simulate {
            seeds,
            seed,
            machines,
            apart,
            trace,
        } => {
            let worlds = simulate::Worlds {
                seeds,
                seed,
                machines,
                apart,
                trace,
            };
            simulate::run(&workspace, &worlds)
        }
        Command::Mutants { names } => mutants::run(&workspace, &names),
        Command::Mutation {
            modules,
            shard,
            yes,
        } => mutation::run(&workspace, Consent::new(yes), &modules, shard.as_deref()),
        Command::Coverage { quick, yes } => coverage::run(&workspace, Consent::new(yes), quick),
        Command::Demo { dir } => demo::run(&workspace, dir),
        Command::Docs => docs::run(&workspace),
        Command::Bench(options) => bench::run(&workspace, &options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        super::Cli::command().debug_assert();
    }
}
