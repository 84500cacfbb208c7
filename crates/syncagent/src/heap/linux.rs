//! The GNU allocator keeps what was freed, for each thread that ever allocated, until it is told otherwise: mallopt(3),
//! malloc_trim(3).

#![expect(unsafe_code, reason = "two calls of the C library that nothing wraps")]

/// Threads share this many heaps. Without a bound each of them gets its own, and each keeps its own leftovers.
const ARENAS: libc::c_int = 2;

/// Bounds the number of heaps; before there are threads.
pub(crate) fn few_arenas() {
    // SAFETY: it takes numbers, and changes how many heaps are made from here on.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives pages that hold nothing back to the system.
pub(super) fn give_back() {
    // SAFETY: it takes a number, and locks each heap while it walks through it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes of this process that are in memory: proc_pid_statm(5).
pub(super) fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
