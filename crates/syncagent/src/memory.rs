//! What of a process with the key in it must not outlive its use: no dumps on disk, nothing left after a lock.

#[cfg(unix)]
#[path = "memory/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "memory/windows.rs"]
mod system;

pub(crate) use system::{forbid_dumps, read_pipe, start_over};
