//! One synchronised folder on this machine: scan it, watch it, read from it, change it.
//!
//! Synchronous: the daemon calls from blocking threads, simulated worlds in place. [`disk`] is the seam over the
//! operating system; everything else here is written against it and knows no system:
//!
//! - [`root`]: is this still the folder that was adopted, and is it ours alone?
//! - [`scan`]: what is there? [`watch`]: where to look again. [`placement`]: what cannot be there?
//! - [`read`]: one consistent reading of a file.
//! - [`apply`]: changes, each with its check at the last moment; [`recover`]: what a crash left behind.

pub mod apply;
pub mod disk;
pub mod placement;
pub mod read;
pub mod recover;
pub mod root;
pub mod scan;
#[cfg(all(test, unix))]
mod tests;
pub mod watch;

pub use apply::{ApplyError, Expect, Folder, Placed, Rescued, Settled, Staged, Staging};
pub use disk::{Disk, DiskError};
#[cfg(all(test, unix))]
pub(crate) use tests::hooked;
