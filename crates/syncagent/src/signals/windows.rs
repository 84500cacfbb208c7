//! Ctrl-C and the closing of the console.

use std::io;

use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};

pub(super) fn listen() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut c, mut pause, mut close) = (ctrl_c()?, ctrl_break()?, ctrl_close()?);
    Ok(async move {
        tokio::select! {
            _ = c.recv() => {}
            _ = pause.recv() => {}
            _ = close.recv() => {}
        }
    })
}
