//! Where blocking work runs: on threads of its own in a daemon, in place in a simulated world.

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

/// How to run work that blocks or computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// On the runtime's blocking threads; batches on the rayon pool.
    Pool,
    /// At once, in the caller, in order: the same seed gives the same world.
    Inline,
}

impl Work {
    /// Runs one piece of work.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Pool => match tokio::task::spawn_blocking(work).await {
                Ok(value) => value,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }

    /// Runs `work` on each item; the results are in the order of the items.
    pub fn map<T: Send, R: Send>(
        self,
        items: Vec<T>,
        work: impl Fn(T) -> R + Sync + Send,
    ) -> Vec<R> {
        match self {
            Self::Inline => items.into_iter().map(work).collect(),
            Self::Pool if items.len() == 1 => items.into_iter().map(work).collect(),
            Self::Pool => items.into_par_iter().map(work).collect(),
        }
    }

    /// Runs two pieces of work, side by side if possible.
    pub fn join<A: Send, B: Send>(
        self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match self {
            Self::Inline => (a(), b()),
            Self::Pool => rayon::join(a, b),
        }
    }
}
