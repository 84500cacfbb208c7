//! Files put together on a real disk out of whatever is at hand.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only `cfg(test)` alone for a test"
)]

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use syncagent_protocol::api::{Event, Machine, MachineReport};
use syncagent_protocol::{ChunkId, Code, ContentHash, MachineId, Name, NodeId, TreePath};
use syncagent_sync::scan::Fingerprint;
use syncagent_vault::chunk::{Codec, Entry, Scope, seal_data};
use syncagent_vault::chunker::Class;
use syncagent_vault::keys::{Keys, VaultKey};
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{Content, File};
use syncagent_vault::random::OsRandom;

use super::download::{Done, DownloadError, Downloader, Job, Lists, Source};
use crate::folder::apply::Folder;
use crate::folder::disk::unix::UnixDisk;
use crate::folder::disk::{At, Disk};
use crate::remote::{Page, Posted, Remote, RemoteError};
use crate::work::Work;

const SCOPE: Scope = Scope([9; 16]);

/// A server of which only the chunks are asked for.
#[derive(Default)]
struct Shelf {
    chunks: Mutex<HashMap<ChunkId, Vec<u8>>>,
    fetched: Mutex<Vec<ChunkId>>,
}

fn not_asked<T>() -> BoxFuture<'static, Result<T, RemoteError>> {
    Box::pin(async { panic!("a download asks for chunks alone") })
}

impl Remote for Shelf {
    fn commits(&self, _: u64) -> BoxFuture<'_, Result<Page, RemoteError>> {
        not_asked()
    }
    fn post_commit(&self, _: Bytes) -> BoxFuture<'_, Result<Posted, RemoteError>> {
        not_asked()
    }
    fn post_lost(&self, _: Bytes) -> BoxFuture<'_, Result<Posted, RemoteError>> {
        not_asked()
    }
    fn post_pack(&self, _: Bytes) -> BoxFuture<'_, Result<(), RemoteError>> {
        not_asked()
    }
    fn missing(&self, _: Vec<ChunkId>) -> BoxFuture<'_, Result<Vec<ChunkId>, RemoteError>> {
        not_asked()
    }
    fn fetch(&self, ids: Vec<ChunkId>) -> BoxStream<'_, Result<Option<Vec<u8>>, RemoteError>> {
        self.fetched.lock().unwrap().extend(&ids);
        let chunks = self.chunks.lock().unwrap();
        let blobs: Vec<_> = ids.iter().map(|id| Ok(chunks.get(id).cloned())).collect();
        Box::pin(stream::iter(blobs))
    }
    fn slot(&self, _: u8, _: bool) -> BoxFuture<'_, Result<Option<Bytes>, RemoteError>> {
        not_asked()
    }
    fn put_slot(&self, _: u8, _: Bytes) -> BoxFuture<'_, Result<(), RemoteError>> {
        not_asked()
    }
    fn machines(&self) -> BoxFuture<'_, Result<Vec<Machine>, RemoteError>> {
        not_asked()
    }
    fn remove_machine(&self, _: MachineId) -> BoxFuture<'_, Result<(), RemoteError>> {
        not_asked()
    }
    fn report(&self, _: MachineReport) -> BoxFuture<'_, Result<(), RemoteError>> {
        not_asked()
    }
    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        not_asked()
    }
}

/// Numbers that a seed decides.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(
            blake3::Hasher::new()
                .update(&seed.to_le_bytes())
                .finalize_xof(),
        )
    }

    fn number(&mut self, range: Range<usize>) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        range.start + (u64::from_le_bytes(bytes) % range.len() as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }
}

struct World {
    temp: tempfile::TempDir,
    shelf: Arc<Shelf>,
    downloader: Downloader,
}

impl World {
    fn new(work: Work) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let disk = UnixDisk::open(temp.path()).unwrap();
        disk.prepare().unwrap();
        let rescued = |_: &Name, n: u32| Name::parse(&format!("rescued-{n}")).unwrap();
        let shelf = Arc::new(Shelf::default());
        let downloader = Downloader {
            folder: Arc::new(Folder::new(Arc::new(disk), Box::new(rescued))),
            remote: Arc::clone(&shelf) as Arc<dyn Remote>,
            keys: Arc::new(VaultKey::generate(&OsRandom::default()).keys().unwrap()),
            work,
        };
        Self {
            temp,
            shelf,
            downloader,
        }
    }

    fn keys(&self) -> &Keys {
        &self.downloader.keys
    }

    fn entry(&self, piece: &[u8], on_the_server: bool) -> Entry {
        let sealed = seal_data(self.keys(), SCOPE, piece, Codec::Stored).unwrap();
        if on_the_server {
            let mut chunks = self.shelf.chunks.lock().unwrap();
            chunks.insert(sealed.entry.id, sealed.blob);
        }
        sealed.entry
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A file in the folder that holds these pieces.
    fn source(&self, name: &str, pieces: &[&[u8]]) -> Source {
        std::fs::write(self.path(name), pieces.concat()).unwrap();
        let leaves = pieces
            .iter()
            .map(|piece| (self.entry(piece, false).id, piece.len() as u64));
        Source {
            path: TreePath::parse(name).unwrap(),
            fingerprint: self.fingerprint(name),
            leaves: Some(Arc::new(leaves.collect())),
        }
    }

    fn fingerprint(&self, name: &str) -> Fingerprint {
        let path = TreePath::parse(name).unwrap();
        let disk = self.downloader.folder.disk();
        disk.stat(At::Tree(&path)).unwrap().fingerprint()
    }

    fn get(&self, pieces: &[&[u8]], sources: Vec<Source>) -> Result<Done, DownloadError> {
        self.get_without(None, pieces, sources)
    }

    /// The same from a server that lacks this chunk.
    fn get_without(
        &self,
        lost: Option<ChunkId>,
        pieces: &[&[u8]],
        sources: Vec<Source>,
    ) -> Result<Done, DownloadError> {
        let entries: Vec<_> = pieces.iter().map(|piece| self.entry(piece, true)).collect();
        if let Some(lost) = lost {
            self.shelf.chunks.lock().unwrap().remove(&lost).unwrap();
        }
        let content = pieces.concat();
        let job = Job {
            node: NodeId([1; 16]),
            file: File {
                size: content.len() as u64,
                exec: false,
                hash: ContentHash(*blake3::hash(&content).as_bytes()),
                scope: None,
                class: Class::of(0, None),
                content: Content::Chunks(Manifest { level: 0, entries }),
            },
            scope: SCOPE,
            exec: false,
            mtime_ns: 0,
            lists: Lists::new(),
            sources,
        };
        self.shelf.fetched.lock().unwrap().clear();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let mut done = runtime
            .block_on(self.downloader.stage(Vec::from([job])))
            .unwrap();
        done.remove(0).1
    }

    /// What lies in the one temp.
    fn staged(&self) -> Vec<u8> {
        let mut temps = std::fs::read_dir(self.path(".syncagent/tmp")).unwrap();
        let content = std::fs::read(temps.next().unwrap().unwrap().path()).unwrap();
        assert!(temps.next().is_none());
        content
    }

    fn fetched(&self) -> usize {
        self.shelf.fetched.lock().unwrap().len()
    }
}

#[test]
fn whatever_is_at_hand_makes_the_file() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let world = World::new(match seed % 2 {
            0 => Work::Pool,
            _ => Work::Inline,
        });
        // Around a page, far below and far above one; a few come twice.
        let known: Vec<Vec<u8>> = (0..12)
            .map(|_| match dice.number(0..3) {
                0 => dice.number(1..40),
                1 => dice.number(4090..4103),
                _ => dice.number(4096..300_000),
            })
            .map(|len| Dice::new(seed ^ len as u64).bytes(len))
            .collect();
        let pick = |dice: &mut Dice, n: usize| -> Vec<&[u8]> {
            (0..n)
                .map(|_| known[dice.number(0..known.len())].as_slice())
                .collect()
        };
        let wanted = {
            let n = dice.number(2..30);
            pick(&mut dice, n)
        };
        let mut sources = Vec::new();
        for k in 0..dice.number(0..3) {
            let n = dice.number(1..6);
            sources.push(world.source(&format!("source {k}"), &pick(&mut dice, n)));
        }
        let at_hand: std::collections::HashSet<ChunkId> = sources
            .iter()
            .flat_map(|source| source.leaves.iter().flat_map(|leaves| leaves.iter()))
            .map(|(id, _)| *id)
            .collect();
        let distinct: std::collections::HashSet<ChunkId> = wanted
            .iter()
            .map(|piece| world.entry(piece, false).id)
            .collect();

        let done = world.get(&wanted, sources).unwrap();
        assert!(world.staged() == wanted.concat(), "seed {seed}");
        assert_eq!(done.staged.size(), wanted.concat().len() as u64);
        // Only what is nowhere here, and each once.
        assert_eq!(
            world.fetched(),
            distinct.difference(&at_hand).count(),
            "seed {seed}"
        );
        drop(done);
    }
}

#[test]
fn a_source_that_is_not_what_it_was_costs_a_way_to_the_server_and_nothing_else() {
    let world = World::new(Work::Pool);
    let pieces: Vec<Vec<u8>> = (0..8).map(|i| Dice::new(i).bytes(50_000)).collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let whole = |world: &World| Source {
        leaves: None,
        ..world.source("copy", &pieces)
    };
    // As it should be, in parts and as a whole.
    for source in [world.source("in parts", &pieces), whole(&world)] {
        drop(world.get(&pieces, Vec::from([source])).unwrap());
        assert_eq!(world.fetched(), 0);
    }
    // Touched since it was scanned.
    let source = whole(&world);
    std::fs::write(world.path("copy"), "short").unwrap();
    let done = world.get(&pieces, Vec::from([source])).unwrap();
    assert!(world.staged() == pieces.concat());
    assert_eq!(world.fetched(), pieces.len());
    drop(done);
    // Said to hold more than it does, or something else: nothing but the hash tells.
    for (name, held) in [
        ("shorter", pieces.concat()[..120_000].to_vec()),
        ("other", {
            let mut other = pieces.concat();
            other[200_000] ^= 1;
            other
        }),
    ] {
        let mut source = world.source(name, &pieces);
        std::fs::write(world.path(name), held).unwrap();
        source.fingerprint = world.fingerprint(name);
        let done = world.get(&pieces, Vec::from([source])).unwrap();
        assert!(world.staged() == pieces.concat(), "{name}");
        assert!(world.fetched() > 0, "{name}");
        drop(done);
    }
}

#[test]
fn a_download_that_was_broken_off_is_gone_on_with() {
    let world = World::new(Work::Pool);
    // Long enough to be taken up again, and of lengths that end within pages.
    let pieces: Vec<Vec<u8>> = (0..20).map(|i| Dice::new(i).bytes(1_000_003)).collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let lost = Some(world.entry(pieces[12], false).id);
    // The server lacks one of them the first time.
    let error = world.get_without(lost, &pieces, Vec::new()).err().unwrap();
    assert_eq!(error.code(), Code::Chunk);
    let done = world.get(&pieces, Vec::new()).unwrap();
    assert!(world.staged() == pieces.concat());
    let again = world.fetched();
    assert!(again < 10, "{again} of 20 were fetched again");
    // What is damaged in what was left is noticed and fetched.
    drop(done);
    world.get_without(lost, &pieces, Vec::new()).err().unwrap();
    let temp = std::fs::read_dir(world.path(".syncagent/tmp"))
        .unwrap()
        .next();
    let temp = temp.unwrap().unwrap().path();
    let mut left = std::fs::read(&temp).unwrap();
    left[3_000_000] ^= 1;
    std::fs::write(&temp, left).unwrap();
    drop(world.get(&pieces, Vec::new()).unwrap());
    assert_eq!(world.fetched(), again + 1);
}
