//! How much room a disk has.

#[cfg(unix)]
#[path = "space/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "space/windows.rs"]
mod system;

/// Bytes that may still be written to the volume a path is on; none if the system does not say.
pub(crate) use system::free;
