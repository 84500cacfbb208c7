//! Builds the product as it is shipped and runs its demonstration in this terminal.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cargo};

/// Builds, then becomes `syncagent demo [DIR]`.
pub(crate) fn run(workspace: &Workspace, dir: Option<PathBuf>) -> Result<ExitCode> {
    let status = cargo()
        .args(["build", "--locked", "--release", "--package", "syncagent"])
        .current_dir(&workspace.root)
        .status()
        .context("cannot run cargo build")?;
    if !status.success() {
        bail!("the release build failed");
    }
    let mut demo = Command::new(workspace.release_binary());
    demo.arg("demo").args(dir);
    become_command(&mut demo)
}

/// In place of this process, so that Ctrl-C and signals have one receiver.
#[cfg(unix)]
fn become_command(command: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec()).with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// Where a process cannot be replaced it is waited for.
#[cfg(not(unix))]
fn become_command(command: &mut Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
