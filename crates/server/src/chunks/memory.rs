//! Packs in memory, for tests and simulated worlds. What is finished counts as durable.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::ready;

use super::{ChunkStore, PackId, PackReader, PackWriter, StoreError, Stored, StoredPack};

type Packs = Arc<Mutex<BTreeMap<PackId, Bytes>>>;

/// See the module. Clones share their packs: a server that "crashes" finds them again.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    packs: Packs,
}

struct Writer {
    id: PackId,
    bytes: Vec<u8>,
    packs: Packs,
}

struct Reader {
    id: PackId,
    bytes: Bytes,
}

impl MemoryStore {
    fn with<T>(packs: &Packs, look: impl FnOnce(&mut BTreeMap<PackId, Bytes>) -> T) -> T {
        look(&mut packs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ChunkStore for MemoryStore {
    fn begin(&self, id: PackId) -> Stored<'_, Box<dyn PackWriter>> {
        let writer = Writer {
            id,
            bytes: Vec::new(),
            packs: Arc::clone(&self.packs),
        };
        Box::pin(ready(Ok(Box::new(writer) as Box<dyn PackWriter>)))
    }

    fn open(&self, id: PackId) -> Stored<'_, Box<dyn PackReader>> {
        let found = Self::with(&self.packs, |packs| packs.get(&id).cloned());
        let reader = found.map(|bytes| Box::new(Reader { id, bytes }) as Box<dyn PackReader>);
        Box::pin(ready(reader.ok_or(StoreError::NotFound(id))))
    }

    fn delete(&self, id: PackId) -> Stored<'_, ()> {
        Self::with(&self.packs, |packs| packs.remove(&id));
        Box::pin(ready(Ok(())))
    }

    fn list(&self, after: Option<PackId>, max: usize) -> Stored<'_, Vec<StoredPack>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = Self::with(&self.packs, |packs| {
            let found = packs.range((after, Bound::Unbounded)).take(max);
            let stored = |(&id, bytes): (_, &Bytes)| StoredPack {
                id,
                len: bytes.len() as u64,
            };
            found.map(stored).collect()
        });
        Box::pin(ready(Ok(found)))
    }

    fn place(&self, id: PackId) -> String {
        format!("pack {id} in memory")
    }
}

impl PackWriter for Writer {
    fn append(&mut self, bytes: Bytes) -> Stored<'_, ()> {
        self.bytes.extend_from_slice(&bytes);
        Box::pin(ready(Ok(())))
    }

    fn finish(self: Box<Self>, keep: Vec<Range<u64>>) -> Stored<'static, ()> {
        let mut kept = Vec::new();
        for range in keep {
            let Some(part) = self.bytes.get(range.start as usize..range.end as usize) else {
                return Box::pin(ready(Err(StoreError::Broken(
                    "a range beyond the pack".into(),
                ))));
            };
            kept.extend_from_slice(part);
        }
        MemoryStore::with(&self.packs, |packs| packs.insert(self.id, kept.into()));
        Box::pin(ready(Ok(())))
    }
}

impl PackReader for Reader {
    fn read(&self, offset: u64, len: usize) -> Stored<'_, Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(len);
        let found = (end <= self.bytes.len()).then(|| self.bytes.slice(start..end));
        Box::pin(ready(found.ok_or(StoreError::NotFound(self.id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_passes_the_suite() {
        crate::chunks::conformance::check(|| Arc::new(MemoryStore::default())).await;
    }
}
