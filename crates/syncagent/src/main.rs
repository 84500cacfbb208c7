//! The `syncagent` binary: what a person types, and what they get to read.
//!
//! Reading order: [`cli`] (the whole grammar), [`commands`] (one thin module for each verb), [`output`] (what is said),
//! [`failure`] (what went wrong, and the exit status). This file alone reads environment, clock and randomness.

mod ask;
mod cli;
mod commands;
mod context;
#[cfg(debug_assertions)]
mod crash;
mod demo;
mod directories;
mod failure;
mod heap;
mod host;
mod logs;
mod memory;
mod output;
mod password;
mod private_file;
mod reference;
mod settings;
mod shell;
mod signals;
mod space;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use syncagent_protocol::time::Clock;
use syncagent_vault::random::OsRandom;

use crate::cli::Cli;
use crate::context::{Context, VARIABLES, Variables};
use crate::output::Output;

/// The system's clock.
struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock that stands before 1970 stamps 0: time decides nothing.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

fn main() -> ExitCode {
    #[cfg(debug_assertions)]
    if let Ok(at) = std::env::var(crash::VARIABLE) {
        crash::arm(&at);
    }
    heap::few_arenas();
    let arguments: Vec<_> = std::env::args_os().collect();
    let Cli { global, command } = match Cli::read(&arguments) {
        Ok(read) => read,
        Err(failure) => {
            Output::of(&arguments).failure(&failure);
            return ExitCode::from(failure.code.exit());
        }
    };
    let output = Output::new(&global);
    let context = context(global, output.clone());
    let status = context.and_then(|context| {
        if command.handles_keys() && !context.dumps_allowed()? {
            memory::forbid_dumps();
        }
        commands::run(&context, command)
    });
    match status {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code.exit())
        }
    }
}

fn context(global: cli::Global, output: Output) -> failure::Result<Context> {
    let variables = VARIABLES
        .iter()
        .filter_map(|&name| Some((name, std::env::var_os(name)?)));
    let state = |what| {
        move |error| {
            failure::Failure::new(
                syncagent_protocol::Code::State,
                format!("no {what}: {error}"),
            )
        }
    };
    Ok(Context {
        global,
        variables: Variables(variables.filter(|(_, value)| !value.is_empty()).collect()),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom::default()),
        binary: std::env::current_exe().map_err(state("path of this program"))?,
        arguments: std::env::args_os().skip(1).collect(),
        current_dir: std::env::current_dir().map_err(state("current directory"))?,
        interactive: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
        output,
    })
}
