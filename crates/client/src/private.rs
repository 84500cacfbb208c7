//! Files that only their owner may read. What differs by system stands in the one module below.

#[cfg(unix)]
#[path = "private/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "private/windows.rs"]
mod system;

pub(crate) use system::{create_dir, create_file, open_lock, sync_dir};
