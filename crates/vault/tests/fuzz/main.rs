//! Whatever is thrown at a parser: it never panics, what it accepts is written again byte for byte, and its memory
//! stays within what its input justifies.
//!
//! Every parser of `protocol` and `vault` is given the vectors of `vectors/v1` and what becomes of them under
//! `engine`'s changes. Where a tag, a hash or a signature would catch a change at the door, `made` makes it anew with
//! the right key, so that what is behind the door is tried too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chunks;
mod control;
mod engine;
mod keys;
mod log;
mod made;
mod plain;
mod seeds;
