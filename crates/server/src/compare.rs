//! Does the store have what the catalog says?
//!
//! It may not: packs and catalog are often copied one after the other, so that a backup has packs older than its catalog, and
//! files get lost. What the catalog believes then is what every machine is told: that content is there, which nobody can
//! fetch, and which nobody sends again. So both are compared when a server starts, and what is not there is noted as a gap.
//!
//! Nothing is deleted, on either side. A gap is closed when the pack is back, for example because its disk was not mounted; and
//! a pack that the catalog does not know may be all that is left of something.

use crate::app::App;
use crate::catalog::{CatalogError, Gap, KnownPack, Lost};
use crate::chunks::{PackId, StoreError};

/// Packs that are compared at once: 8 GiB of content, in less than 100 KiB of memory.
#[cfg(not(test))]
const PAGE: usize = 1000;
/// So that tests turn pages.
#[cfg(test)]
const PAGE: usize = 3;

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// Packs that the catalog knows.
    pub known: u64,
    /// Those of them that are not there, or cut off.
    pub broken: u64,
    /// One of these.
    pub example: Option<PackId>,
    /// Packs that had gaps and are whole.
    pub back: u64,
    /// What now counts as missing.
    pub lost: Lost,
    /// Packs that the catalog does not know: of uploads that a crash cut off, or newer than the catalog.
    pub unknown: u64,
    /// How many bytes these have.
    pub unknown_len: u64,
}

/// Why there was no comparison, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server goes down.
    #[error("the server goes down")]
    Closing,
}

impl CompareError {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Catalog(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::Closing => true,
        }
    }
}

impl App {
    /// Compares every pack that the catalog knows with the store, page by page, and notes what is not there. May run beside
    /// requests.
    pub async fn compare(&self) -> Result<Compared, CompareError> {
        let mut compared = Compared::default();
        let mut after = None;
        loop {
            // First the catalog: what it knows was in the store before, so what is not there now is gone.
            let known = self.0.catalog.packs(after, PAGE).await?;
            self.compare_page(after, &known, &mut compared).await?;
            let Some(last) = known.last() else { break };
            after = Some(last.id);
        }
        compared.lost = self.0.catalog.lost().await?;
        Ok(compared)
    }

    /// Compares the stored packs behind `after` with `known`, and with none if that was all.
    async fn compare_page(
        &self,
        mut after: Option<PackId>,
        known: &[KnownPack],
        compared: &mut Compared,
    ) -> Result<(), CompareError> {
        let last = known.last().map(|pack| pack.id);
        let mut known = known.iter().peekable();
        let mut page = Page::default();
        'all: loop {
            if *self.0.closing.borrow() {
                return Err(CompareError::Closing);
            }
            let stored = self.0.chunks.list(after, PAGE).await?;
            for pack in &stored {
                if last.is_some_and(|last| pack.id > last) {
                    break 'all;
                }
                while let Some(gone) = known.next_if(|known| known.id < pack.id) {
                    page.found(gone, None);
                }
                match known.next_if(|known| known.id == pack.id) {
                    Some(known) => page.found(known, Some(pack.len)),
                    None => {
                        compared.unknown += 1;
                        compared.unknown_len += pack.len;
                    }
                }
            }
            match stored.last() {
                Some(pack) => after = Some(pack.id),
                None => break,
            }
        }
        for gone in known {
            page.found(gone, None);
        }
        compared.known += page.known;
        compared.broken += page.gaps.len() as u64;
        compared.example = { compared.example }.or(page.gaps.first().map(|gap| gap.pack));
        compared.back += page.back.len() as u64;
        if !page.back.is_empty() {
            self.0.catalog.close_gaps(page.back).await?;
        }
        if !page.gaps.is_empty() {
            self.0.catalog.open_gaps(page.gaps).await?;
        }
        Ok(())
    }

    /// [`App::compare`], told to whoever reads the log.
    pub(crate) async fn compare_and_tell(&self) {
        match self.compare().await {
            Ok(compared) => self.tell(&compared),
            Err(CompareError::Closing) => {}
            Err(error) => tracing::error!(
                %error,
                "cannot compare the packs with the catalog. If packs are missing, machines are not asked for what was in them; \
                 start the server again to have it tried again"
            ),
        }
    }

    fn tell(&self, compared: &Compared) {
        let Compared {
            known,
            broken,
            example,
            back,
            lost,
            unknown,
            unknown_len,
        } = *compared;
        if back > 0 {
            tracing::info!("{back} packs that were missing or cut off are there again");
        }
        if let Some(example) = example
            && lost.chunks > 0
        {
            let place = self.0.chunks.place(example);
            let mounted = match broken == known {
                true => {
                    ". None is there: is their disk mounted? If not, mount it and start the server again"
                }
                false => "",
            };
            tracing::error!(
                "{broken} of {known} packs are missing or cut off, one of them is {place}{mounted}. {chunks} chunks in them count \
                 as missing, until machines that still have these files send them again: run `syncagent recover` there, or put \
                 the packs back from a backup and start the server again",
                chunks = lost.chunks
            );
        }
        if unknown > 0 {
            tracing::info!(
                "{unknown} packs of {unknown_len} bytes are in no list of the catalog. They are left where they are: a crash cut \
                 their upload off, or the catalog is older than they are"
            );
        }
    }
}

/// What came of one page.
#[derive(Default)]
struct Page {
    known: u64,
    gaps: Vec<Gap>,
    back: Vec<PackId>,
}

impl Page {
    /// `len`: how many bytes of the pack the store has.
    fn found(&mut self, pack: &KnownPack, len: Option<u64>) {
        self.known += 1;
        let there = len.unwrap_or(0);
        if there < pack.len {
            self.gaps.push(Gap {
                pack: pack.id,
                bytes: there..pack.len,
            });
        } else if pack.is_cut {
            self.back.push(pack.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use syncagent_protocol::ChunkId;
    use syncagent_protocol::pack::ChunkKind;
    use syncagent_protocol::time::FixedClock;

    use super::*;
    use crate::app::Parts;
    use crate::catalog::sqlite::SqliteCatalog;
    use crate::catalog::{Catalog as _, NewChunk, NewPack, VaultKey};
    use crate::chunks::memory::MemoryStore;
    use crate::work::Work;

    const LEN: u64 = 30;

    struct World {
        app: App,
        vault: VaultKey,
    }

    fn id(n: u8) -> PackId {
        PackId([n; 16])
    }

    impl World {
        async fn new() -> Self {
            let catalog = SqliteCatalog::in_memory(Work::Inline).unwrap();
            let vault = catalog.invite([1; 32], 0, 1).await.unwrap();
            let parts = Parts {
                catalog: Arc::new(catalog),
                chunks: Arc::new(MemoryStore::default()),
                clock: Arc::new(FixedClock(1)),
                entropy: Arc::new(|_: &mut [u8]| ()),
                work: Work::Inline,
            };
            Self {
                app: App::new(parts),
                vault,
            }
        }

        async fn store(&self, n: u8, len: usize) {
            let mut writer = self.app.0.chunks.begin(id(n)).await.unwrap();
            writer.append(Bytes::from(vec![n; len])).await.unwrap();
            writer
                .finish(std::iter::once(0..len as u64).collect())
                .await
                .unwrap();
        }

        /// Two chunks, of the bytes from 10 to before 20 and from 20 to before 30.
        async fn record(&self, n: u8) {
            let chunk = |which: u8| NewChunk {
                id: ChunkId([n.wrapping_mul(2) + which; 32]),
                offset: 10 + 10 * u64::from(which),
                len: 10,
                kind: ChunkKind::Data,
                children: Vec::new(),
            };
            let pack = NewPack {
                id: id(n),
                len: LEN,
                chunks: vec![chunk(0), chunk(1)],
                renewed: Vec::new(),
                now_ms: 1,
            };
            let recorded = self.app.0.catalog.record_pack(self.vault, pack).await;
            assert_eq!(recorded.unwrap(), 2);
        }

        /// Which of a pack's two chunks are known.
        async fn known(&self, n: u8) -> Vec<bool> {
            let ids = [0, 1].map(|which| ChunkId([n.wrapping_mul(2) + which; 32]));
            self.app
                .0
                .catalog
                .known(self.vault, ids.to_vec())
                .await
                .unwrap()
        }
    }

    #[tokio::test]
    async fn what_the_store_lacks_is_missing_and_nothing_else() {
        let world = World::new().await;
        let cut = |n| [3, 8, 20].contains(&n);
        let gone = |n| [1, 4, 5, 6, 7, 13].contains(&n);
        for n in (1..=13).chain([20, 21]) {
            world.record(n).await;
            if cut(n) {
                world.store(n, 25).await;
            } else if !gone(n) {
                world.store(n, LEN as usize).await;
            }
        }
        // Unknown ones: before all others, between them, behind them, more than a page.
        for n in [0, 14, 15, 16, 17, 18, 19, 22, 23, 24, 25, 26] {
            world.store(n, 7).await;
        }
        let compared = world.app.compare().await.unwrap();
        let want = Compared {
            known: 15,
            broken: 9,
            example: Some(id(1)),
            back: 0,
            lost: Lost {
                chunks: 2 * 6 + 3,
                packs: 9,
            },
            unknown: 12,
            unknown_len: 7 * 12,
        };
        assert_eq!(compared, want);
        for n in (1..=13).chain([20, 21]) {
            assert_eq!(world.known(n).await, [!gone(n), !gone(n) && !cut(n)], "{n}");
        }
        // Nothing was deleted, and a second look says the same.
        assert_eq!(world.app.compare().await.unwrap(), want);
        // Packs that are back, and one that is gone only now.
        for n in [1, 20] {
            world.store(n, LEN as usize).await;
        }
        world.app.0.chunks.delete(id(2)).await.unwrap();
        let compared = world.app.compare().await.unwrap();
        assert_eq!((compared.broken, compared.back), (8, 2));
        for (n, want) in [(1, [true; 2]), (20, [true; 2]), (2, [false; 2])] {
            assert_eq!(world.known(n).await, want, "{n}");
        }
    }

    #[tokio::test]
    async fn a_server_with_nothing_compares_nothing() {
        let world = World::new().await;
        assert_eq!(world.app.compare().await.unwrap(), Compared::default());
        world.app.close();
        let ended = world.app.compare().await;
        assert!(matches!(ended, Err(CompareError::Closing)));
    }
}
