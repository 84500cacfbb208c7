//! Runs simulated worlds, many or one of them again: `crates/testkit/tests/worlds.rs` with numbers from the command line.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, cargo};

/// Which worlds.
pub(crate) struct Worlds {
    pub seeds: u64,
    pub seed: u64,
    /// How many machines each has: from two to five in turn if nothing is said.
    pub machines: Option<u64>,
    /// Whether people keep apart: each in a directory of their own.
    pub apart: bool,
    /// Whether the engines' own logs stand in the trace of a failing world.
    pub trace: bool,
}

pub(crate) fn run(workspace: &Workspace, worlds: &Worlds) -> Result<ExitCode> {
    // Of the whole workspace, because one package alone would resolve other features and build its dependencies anew.
    let line = "test --locked --workspace --test worlds -- --nocapture";
    // Of those that keep apart the test runs a fifth.
    let (test, times) = match worlds.apart {
        true => ("what_one_machine_alone_changes_arrives_exactly", 5),
        false => ("every_world_keeps_every_promise", 1),
    };
    let mut command = cargo();
    command
        .args(line.split(' '))
        .arg(test)
        .current_dir(&workspace.root)
        .env("SYNCAGENT_SEEDS", (worlds.seeds * times).to_string())
        .env("SYNCAGENT_SEED", worlds.seed.to_string())
        .env("RUST_BACKTRACE", "0");
    if let Some(machines) = worlds.machines {
        command.env("SYNCAGENT_MACHINES", machines.to_string());
    }
    if worlds.trace {
        command.env("SYNCAGENT_TRACE", "1");
    }
    let status = command.status().context("cannot run cargo test")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
