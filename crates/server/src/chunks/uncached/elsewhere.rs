//! Where a system has no such way: through the cache.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

/// Reads exactly `bytes` at `offset`.
pub(in crate::chunks) fn read_exact_at(
    mut file: &File,
    bytes: &mut [u8],
    offset: u64,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

/// Writes all of `bytes` at `offset`.
pub(in crate::chunks) fn write_all_at(
    mut file: &File,
    bytes: &[u8],
    offset: u64,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}
