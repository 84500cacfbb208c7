//! `sh -c`.

use std::process::Command;

pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    command
}

/// A process that lives on without this terminal; it leaves the session itself.
pub(crate) fn background(_command: &mut Command) {}
