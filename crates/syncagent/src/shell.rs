//! How a command that a person wrote as one line is run.

#[cfg(unix)]
#[path = "shell/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "shell/windows.rs"]
mod system;

pub(crate) use system::{background, command};
