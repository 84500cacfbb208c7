//! What every chunk store promises, row by row. Each implementation runs [`check`] on fresh stores.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests: it fails by panicking"
)]

use std::sync::Arc;

use bytes::Bytes;

use super::{ChunkStore, PackId, StoreError, StoredPack};

const ID: PackId = PackId([7; 16]);

/// Runs every row, each on a store of its own.
pub async fn check(fresh: impl Fn() -> Arc<dyn ChunkStore>) {
    a_finished_pack_is_read_back(&*fresh()).await;
    a_long_pack_is_read_back(&*fresh()).await;
    only_what_is_kept_is_there(&*fresh()).await;
    an_unfinished_pack_is_not_there(&*fresh()).await;
    what_is_not_there_is_not_found(&*fresh()).await;
    packs_are_listed_in_order(&*fresh()).await;
}

async fn write(store: &dyn ChunkStore, id: PackId, bytes: &'static [u8]) {
    let mut writer = store.begin(id).await.unwrap();
    for piece in bytes.chunks(3) {
        writer.append(Bytes::from_static(piece)).await.unwrap();
    }
    writer
        .finish(std::iter::once(0..bytes.len() as u64).collect())
        .await
        .unwrap();
}

async fn a_finished_pack_is_read_back(store: &dyn ChunkStore) {
    write(store, ID, b"0123456789").await;
    let reader = store.open(ID).await.unwrap();
    assert_eq!(reader.read(0, 10).await.unwrap(), "0123456789");
    assert_eq!(reader.read(8, 2).await.unwrap(), "89");
    assert_eq!(reader.read(3, 4).await.unwrap(), "3456");
    assert!(matches!(
        reader.read(8, 3).await,
        Err(StoreError::NotFound(ID))
    ));
}

async fn a_long_pack_is_read_back(store: &dyn ChunkStore) {
    let bytes: Bytes = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = store.begin(ID).await.unwrap();
    // Long and short pieces in turns, within pages and at their ends.
    let mut rest = bytes.clone();
    for len in [8, 262_144, 300_001, 5, 1_048_576, usize::MAX] {
        let piece = rest.split_to(len.min(rest.len()));
        writer.append(piece).await.unwrap();
    }
    let keep = std::iter::once(0..bytes.len() as u64).collect();
    writer.finish(keep).await.unwrap();
    let reader = store.open(ID).await.unwrap();
    for (at, len) in [(0, bytes.len()), (1, 262_144), (262_149, 262_144), (3, 7)] {
        assert!(reader.read(at as u64, len).await.unwrap() == bytes[at..at + len]);
    }
    assert!(matches!(
        reader.read(bytes.len() as u64 - 262_144, 262_145).await,
        Err(StoreError::NotFound(ID))
    ));
}

#[allow(
    clippy::single_range_in_vec_init,
    reason = "a range is kept, not its numbers"
)]
async fn only_what_is_kept_is_there(store: &dyn ChunkStore) {
    for (keep, want) in [
        (vec![0..2, 4..5, 8..10], "01489"),
        (vec![0..10], "0123456789"),
        (vec![0..4], "0123"),
        (vec![3..10], "3456789"),
    ] {
        let mut writer = store.begin(ID).await.unwrap();
        writer
            .append(Bytes::from_static(b"0123456789"))
            .await
            .unwrap();
        writer.finish(keep).await.unwrap();
        let reader = store.open(ID).await.unwrap();
        assert_eq!(reader.read(0, want.len()).await.unwrap(), want);
        assert!(reader.read(0, want.len() + 1).await.is_err());
        store.delete(ID).await.unwrap();
    }
}

async fn an_unfinished_pack_is_not_there(store: &dyn ChunkStore) {
    let mut writer = store.begin(ID).await.unwrap();
    writer.append(Bytes::from_static(b"0123")).await.unwrap();
    assert!(matches!(
        store.open(ID).await,
        Err(StoreError::NotFound(ID))
    ));
    assert_eq!(store.list(None, 9).await.unwrap(), []);
    drop(writer);
    assert_eq!(store.list(None, 9).await.unwrap(), []);
    // Its name is free again.
    write(store, ID, b"ab").await;
}

async fn what_is_not_there_is_not_found(store: &dyn ChunkStore) {
    assert!(matches!(
        store.open(ID).await,
        Err(StoreError::NotFound(ID))
    ));
    store.delete(ID).await.unwrap();
    write(store, ID, b"ab").await;
    store.delete(ID).await.unwrap();
    assert!(matches!(
        store.open(ID).await,
        Err(StoreError::NotFound(ID))
    ));
}

async fn packs_are_listed_in_order(store: &dyn ChunkStore) {
    let ids = [PackId([1; 16]), PackId([0x10; 16]), PackId([0xff; 16])];
    for id in [ids[2], ids[0], ids[1]] {
        write(store, id, b"x").await;
    }
    let stored = ids.map(|id| StoredPack { id, len: 1 });
    assert_eq!(store.list(None, 9).await.unwrap(), stored);
    assert_eq!(store.list(None, 2).await.unwrap(), stored[..2]);
    let rest = store.list(Some(ids[1]), 2).await.unwrap();
    assert_eq!(rest, stored[2..]);
    // From behind a pack that is not there, and from the last one.
    let between = PackId([0x0f; 16]);
    assert_eq!(store.list(Some(between), 1).await.unwrap(), stored[1..2]);
    assert_eq!(store.list(Some(ids[2]), 9).await.unwrap(), []);
    // As long as what was kept of it.
    let mut writer = store.begin(between).await.unwrap();
    writer.append(Bytes::from_static(b"012345")).await.unwrap();
    writer.finish(vec![0..2, 3..6]).await.unwrap();
    let len = store.list(Some(ids[0]), 1).await.unwrap()[0].len;
    assert_eq!(len, 5);
}
