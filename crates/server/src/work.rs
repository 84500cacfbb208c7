//! Where blocking work runs: on threads of its own, or in place in a deterministic world.
//!
//! Nothing else in this crate decides it, so a simulated world that asks for [`Work::Inline`] gets a
//! server without a single thread or hidden order of events.

use std::future::Future;

/// Where blocking work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Work {
    /// On tokio's blocking threads.
    #[default]
    Pool,
    /// In place, on the caller's thread: for single-threaded, deterministic worlds.
    Inline,
}

/// The work panicked, or the runtime is shutting down.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a piece of work did not come to its end")]
pub struct Lost;

impl Work {
    /// Runs `job`. On the pool it comes to its end even if nobody waits for it any more.
    pub async fn run<T: Send + 'static>(
        self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        match self {
            Self::Inline => Ok(job()),
            Self::Pool => tokio::task::spawn_blocking(job).await.map_err(|_| Lost),
        }
    }

    /// Sees `task` through even if the caller is dropped in the middle (a client that hung up), so that
    /// what was written is also told.
    pub async fn see_through<T: Send + 'static>(
        self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Lost> {
        match self {
            Self::Inline => Ok(task.await),
            Self::Pool => tokio::spawn(task).await.map_err(|_| Lost),
        }
    }
}
