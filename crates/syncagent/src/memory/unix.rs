//! Limits of the process, and `exec`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From here on a crash writes no memory to disk.
pub(crate) fn forbid_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    // A system that refuses this is no reason to refuse the work.
    let _ = setrlimit(Resource::Core, none);
    debuggers::forbid();
}

#[cfg(target_os = "linux")]
mod debuggers {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    /// A limit of the size does not hold where dumps go to a program, and does not keep others of this user out.
    pub(super) fn forbid() {
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

#[cfg(not(target_os = "linux"))]
mod debuggers {
    pub(super) fn forbid() {}
}

/// Becomes another run of a program, with the same process id and files: of this one's memory nothing is left, neither
/// what libraries copied nor what stood on a stack. Returns only if that cannot be done.
pub(crate) fn start_over(binary: &Path, arguments: &[OsString]) -> io::Error {
    Command::new(binary).args(arguments).exec()
}

/// Stdin without a buffer in between, in which a secret would lie about.
pub(crate) fn read_pipe() -> io::Result<impl Read> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}
