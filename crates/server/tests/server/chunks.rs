//! Packs in, chunks out.
