//! Memory that is not needed any more goes back to the system: a daemon rests for most of its life, and what its first
//! look at everything took should not stay with it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "heap/linux.rs"]
mod system;

/// Other allocators see to it themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod system {
    pub(crate) fn few_arenas() {}

    pub(super) fn give_back() {}

    pub(super) fn resident() -> Option<u64> {
        None
    }
}

use std::time::Duration;

use syncagent_client::engine::Status;
use tokio::sync::watch;

pub(crate) use system::few_arenas;

/// How long nothing may have happened before it counts as rest.
const REST: Duration = Duration::from_secs(2);
/// Growth, in bytes, that is worth the way through the heap: one edit is not.
const WORTH_IT: u64 = 1024 * 1024;

/// Gives back what is free whenever the daemon comes to rest and has grown; it never wakes up for that by itself.
pub(crate) async fn give_back_at_rest(mut status: watch::Receiver<Status>) {
    let mut least = 0;
    while status.changed().await.is_ok() {
        while let Ok(changed) = tokio::time::timeout(REST, status.changed()).await {
            if changed.is_err() {
                return;
            }
        }
        if let Some(now) = system::resident()
            && now >= least + WORTH_IT
        {
            system::give_back();
            least = system::resident().unwrap_or(now);
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_goes_back_to_the_system() {
        const PIECES: usize = 64 * 1024;
        const LEN: usize = 1024;
        let mut pieces: Vec<_> = (0..PIECES).map(|_| vec![1_u8; LEN]).collect();
        let full = system::resident().unwrap();
        // The last one pins what is below it.
        pieces.drain(..PIECES - 1);
        system::give_back();
        let left = system::resident().unwrap();
        let given = full.saturating_sub(left);
        assert!(given > (PIECES * LEN / 2) as u64, "{given} of {full} bytes");
        assert_eq!(pieces.len(), 1);
    }
}
