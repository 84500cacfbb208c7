//! A named pipe, which by default its creator alone may open for writing.

use std::io;
use std::path::Path;
use std::time::Duration;

use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericNamespaced, Listener, ListenerOptions, Name, Stream};

/// The pipe's name: pipes have no directories, so the path is hashed into it.
pub(super) fn name(path: &Path) -> io::Result<Name<'static>> {
    let hash = syncagent_protocol::sha256(&[path.as_os_str().as_encoded_bytes()]);
    format!(
        "syncagent-agent-{}",
        data_encoding::HEXLOWER.encode(&hash[..16])
    )
    .to_ns_name::<GenericNamespaced>()
}

/// Listens for its owner alone.
pub(super) fn listen(options: ListenerOptions<'_>) -> io::Result<Listener> {
    options.create_sync()
}

/// Pipes have no time-outs here; each connection has a thread of its own.
pub(super) fn set_patience(_stream: &Stream, _patience: Duration) -> io::Result<()> {
    Ok(())
}

/// Whoever starts the process detaches it.
pub(super) fn detach() {}
