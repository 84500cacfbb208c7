//! What every [`Disk`](super::Disk) must do.
