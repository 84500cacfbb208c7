//! When a process that runs until told otherwise is told.

#[cfg(unix)]
#[path = "signals/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "signals/windows.rs"]
mod system;

use std::io::Read as _;
use std::time::Duration;

use crate::failure::{Failure, Result};

/// How long a child whose parent is gone may take to end in order.
const GRACE: Duration = Duration::from_secs(15);

/// Waits for Ctrl-C, a request to terminate or, with `until_eof`, the end of stdin.
///
/// Listening begins when this is called, not when the answer is first awaited: no signal in between is missed.
pub(crate) fn told_to_end(until_eof: bool) -> Result<impl Future<Output = ()> + Send + 'static> {
    let signal = system::listen().map_err(|error| {
        Failure::new(
            syncagent_protocol::Code::State,
            format!("no signals: {error}"),
        )
    })?;
    let eof = until_eof.then(|| {
        let (ended, eof) = tokio::sync::oneshot::channel::<()>();
        // A thread, because a read from stdin cannot be taken back, and a runtime would wait for it at its end.
        std::thread::spawn(move || {
            let mut sink = [0; 64];
            while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
            drop(ended);
            std::thread::sleep(GRACE);
            std::process::exit(i32::from(syncagent_protocol::Code::Busy.exit()));
        });
        eof
    });
    let eof = async {
        match eof {
            Some(eof) => drop(eof.await),
            None => std::future::pending().await,
        }
    };
    Ok(async move {
        tokio::select! {
            () = signal => {}
            () = eof => {}
        }
    })
}
