//! Long pieces of packs, written and read past the page cache where the system can: a gigabyte that only passes
//! through drives nothing out of the machine's memory, and the pages it needs are few and used again and again.

#[cfg(not(target_os = "linux"))]
#[path = "uncached/elsewhere.rs"]
mod os;
#[cfg(target_os = "linux")]
#[path = "uncached/linux.rs"]
mod os;

pub(super) use os::{read_exact_at, write_all_at};
