//! Systems where the standard library has no call for it.

use std::path::Path;

use super::Disk;

pub(super) fn disk(_: &Path) -> Option<Disk> {
    None
}
