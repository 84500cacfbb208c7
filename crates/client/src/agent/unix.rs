//! A socket in the file system, mode 0600, and a session of its own.

use std::io;
use std::path::Path;
use std::time::Duration;

use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, Listener, ListenerOptions, Name, Stream};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;

/// The socket's name.
pub(super) fn name(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>()
}

/// Listens for its owner alone. Where a socket has no mode, the directory round it, 0700, does the same.
pub(super) fn listen(options: ListenerOptions<'_>) -> io::Result<Listener> {
    use interprocess::TryClone as _;
    match options.try_clone()?.mode(0o600).create_sync() {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => options.create_sync(),
        result => result,
    }
}

/// Bounds every read and write.
pub(super) fn set_patience(stream: &Stream, patience: Duration) -> io::Result<()> {
    stream.set_recv_timeout(Some(patience))?;
    stream.set_send_timeout(Some(patience))
}

/// Lives on when the terminal closes.
pub(super) fn detach() {
    // Fails only for a process that leads a group already, and then the terminal's hang-up ends it: no harm.
    let _ = rustix::process::setsid();
}
