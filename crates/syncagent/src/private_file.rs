//! Files that a person asked for and only they may read.

#[cfg(unix)]
#[path = "private_file/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "private_file/windows.rs"]
mod system;

pub(crate) use system::create_new;
