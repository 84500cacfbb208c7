//! A [`Disk`](super::Disk) over the standard library, for Windows.
