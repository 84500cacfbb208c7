//! A named pipe; pipes have no directories, so the path is hashed into the name.

use std::io;
use std::path::Path;

use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{GenericNamespaced, ListenerOptions, Name};

fn name(path: &Path) -> io::Result<Name<'static>> {
    let hash = syncagent_protocol::sha256(&[path.as_os_str().as_encoded_bytes()]);
    format!(
        "syncagent-control-{}",
        data_encoding::HEXLOWER.encode(&hash[..16])
    )
    .to_ns_name::<GenericNamespaced>()
}

pub(super) fn listen(path: &Path) -> io::Result<Listener> {
    ListenerOptions::new().name(name(path)?).create_tokio()
}

pub(super) async fn connect(path: &Path) -> io::Result<Stream> {
    Stream::connect(name(path)?).await
}
