//! What the server keeps: packs of sealed chunks, each written once and never changed.
//!
//! A pack is there whole or not at all, and durable before [`PackWriter::finish`] answers. It is kept in
//! the form in which it was uploaded (`protocol::pack`), so it tells by itself what is in it. Which chunk
//! lies where is the catalog's to know.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod directory;
pub mod memory;
mod room;
mod uncached;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::future::BoxFuture;

/// Names a pack: random, chosen by the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub [u8; 16]);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// Why a pack could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such pack, or it ends before the bytes asked for.
    #[error("pack {0} is not there, or is cut off")]
    NotFound(PackId),
    /// It is there, and what it lies on cannot give these bytes.
    #[error("a part of pack {0} cannot be read")]
    Unreadable(PackId),
    /// No space is left, but for what is kept free.
    #[error("no space is left for packs")]
    Full,
    /// Anything else, with its cause for the log.
    #[error("the chunk store failed: {0}")]
    Broken(String),
}

impl StoreError {
    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A finished pack, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPack {
    /// Its name.
    pub id: PackId,
    /// How many bytes of it there are.
    pub len: u64,
}

/// The answer of a store.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Where packs are kept.
pub trait ChunkStore: Send + Sync {
    /// Begins a new pack. Until it is finished nobody sees it.
    fn begin(&self, id: PackId) -> Stored<'_, Box<dyn PackWriter>>;

    /// Opens a pack for reading.
    fn open(&self, id: PackId) -> Stored<'_, Box<dyn PackReader>>;

    /// Removes a pack; one that is not there is no error.
    fn delete(&self, id: PackId) -> Stored<'_, ()>;

    /// Finished packs in order of id, from the one behind `after` on, at most `max`: a store may hold more than fit into
    /// memory, and some tell no more than a thousand at once.
    fn list(&self, after: Option<PackId>, max: usize) -> Stored<'_, Vec<StoredPack>>;

    /// Where a person finds a pack, for the log.
    fn place(&self, id: PackId) -> String;
}

/// A pack that is being written. Dropped before it is finished, it leaves nothing.
pub trait PackWriter: Send {
    /// Adds bytes at the end.
    fn append(&mut self, bytes: Bytes) -> Stored<'_, ()>;

    /// Makes the pack of those `keep` ranges of what was appended (ascending, not overlapping), in order.
    /// Durable when it answers.
    fn finish(self: Box<Self>, keep: Vec<Range<u64>>) -> Stored<'static, ()>;
}

/// A pack that is being read. However much is read, it is opened once.
pub trait PackReader: Send + Sync {
    /// Exactly `len` bytes from `offset` on.
    fn read(&self, offset: u64, len: usize) -> Stored<'_, Bytes>;
}
