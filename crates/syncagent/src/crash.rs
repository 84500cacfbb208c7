//! Dies where a test says, as hard as by SIGKILL. Only in builds with debug assertions (docs/decisions/0011).

use std::sync::atomic::{AtomicU32, Ordering};

use syncagent_protocol::crash;

/// `POINT`, or `POINT:N` for the N-th time that it is reached; what is no point is never reached.
pub(crate) const VARIABLE: &str = "SYNCAGENT_CRASH_AT";

/// Ends the process at the point that `at` names: no destructor runs, nothing is flushed, no thread goes on.
pub(crate) fn arm(at: &str) {
    let (name, times) = at.split_once(':').unwrap_or((at, "1"));
    let name = name.to_owned();
    let left = AtomicU32::new(times.parse().unwrap_or(1));
    crash::arm(move |point| {
        if format!("{point:?}") == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("crash point {name}");
            std::process::abort();
        }
    });
}
