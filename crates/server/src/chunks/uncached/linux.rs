//! Linux: `RWF_DONTCACHE` (preadv2(2), since 6.14). What is written goes to the disk at once and leaves the cache then;
//! what was in the cache before stays there.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, ReadWriteFlags};

const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Set once the kernel or the file system refused. One store lies on one file system.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Reads exactly `bytes` at `offset`.
pub(in crate::chunks) fn read_exact_at(
    file: &File,
    mut bytes: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() && !REFUSED.load(Ordering::Relaxed) {
        let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(bytes)], offset, DONTCACHE);
        let Some(n) = taken(read)? else { continue };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[n..];
        offset += n as u64;
    }
    file.read_exact_at(bytes, offset)
}

/// Writes all of `bytes` at `offset`.
pub(in crate::chunks) fn write_all_at(
    file: &File,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() && !REFUSED.load(Ordering::Relaxed) {
        let written = rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, DONTCACHE);
        let Some(n) = taken(written)? else { continue };
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    file.write_all_at(bytes, offset)
}

/// How many bytes the system took, if it is to be asked like that again at all.
fn taken(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(Errno::INTR) => Ok(None),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            REFUSED.store(true, Ordering::Relaxed);
            Ok(None)
        }
        Err(errno) => Err(errno.into()),
    }
}
