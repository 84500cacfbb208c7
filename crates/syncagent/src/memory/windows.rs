//! Windows writes dumps only where its user set that up, and no program can become another.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::windows::io::AsHandle as _;
use std::path::Path;

pub(crate) fn forbid_dumps() {}

/// Says that it cannot be done: what is dropped is wiped, and what libraries copied stays until the process ends.
pub(crate) fn start_over(_binary: &Path, _arguments: &[OsString]) -> io::Error {
    io::ErrorKind::Unsupported.into()
}

/// Stdin without a buffer in between, in which a secret would lie about.
pub(crate) fn read_pipe() -> io::Result<impl Read> {
    Ok(File::from(io::stdin().as_handle().try_clone_to_owned()?))
}
