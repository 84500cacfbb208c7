//! Files put together on a real disk out of whatever is at hand.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only `cfg(test)` alone for a test"
)]

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use syncagent_protocol::api::{Event, Machine, MachineReport};
use syncagent_protocol::{ChunkId, Code, ContentHash, MachineId, Name, NodeId, TreePath};
use syncagent_sync::scan::Fingerprint;
use syncagent_vault::chunk::{Codec, Entry, Scope, seal_data, seal_list};
use syncagent_vault::chunker::Class;
use syncagent_vault::keys::{Keys, VaultKey};
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{Content, File};
use syncagent_vault::random::OsRandom;

use super::download::{Done, DownloadError, Downloader, Job, Lists, Source};
use crate::folder::apply::Folder;
use crate::folder::disk::unix::UnixDisk;
use crate::folder::disk::{At, Disk, ErrorKind};
use crate::folder::hooked::{Hooked, error};
use crate::remote::{Page, Posted, Remote, RemoteError};
use crate::work::Work;

const SCOPE: Scope = Scope([9; 16]);

/// A server of which only the chunks are asked for.
#[derive(Default)]
struct Shelf {
    chunks: Mutex<HashMap<ChunkId, Vec<u8>>>,
    fetched: Mutex<Vec<ChunkId>>,
    /// How many ids stood in the longest request, and whether one stood in it twice.
    longest: Mutex<(usize, bool)>,
    /// A request for this one is answered as one beyond the limits is.
    refused: Mutex<Option<ChunkId>>,
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
        let mut longest = self.longest.lock().unwrap();
        let distinct: HashSet<&ChunkId> = ids.iter().collect();
        longest.0 = longest.0.max(ids.len());
        longest.1 |= distinct.len() < ids.len();
        if self
            .refused
            .lock()
            .unwrap()
            .is_some_and(|id| ids.contains(&id))
        {
            let code = Code::Limit;
            let message = "a body of this kind is shorter".to_owned();
            return Box::pin(stream::iter([Err(RemoteError::Refused { code, message })]));
        }
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

/// A file of this content, or that says so, and so long as its manifest says.
fn job(node: u8, level: u8, entries: Vec<Entry>, content: &[u8]) -> Job {
    let manifest = Manifest { level, entries };
    Job {
        node: NodeId([node; 16]),
        file: File {
            size: manifest.total_len().unwrap(),
            exec: false,
            hash: ContentHash(*blake3::hash(content).as_bytes()),
            scope: None,
            class: Class::of(0, None),
            content: Content::Chunks(manifest),
        },
        scope: SCOPE,
        exec: false,
        mtime_ns: 0,
        lists: Lists::new(),
        sources: Vec::new(),
    }
}

fn claims(entry: &Entry, len: u64) -> Entry {
    Entry {
        len,
        ..entry.duplicate()
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
            sources,
            ..job(1, 0, entries, &content)
        };
        self.stage(Vec::from([job])).remove(0)
    }

    /// What comes of a batch, in the order of the jobs' nodes.
    fn stage(&self, jobs: Vec<Job>) -> Vec<Result<Done, DownloadError>> {
        self.shelf.fetched.lock().unwrap().clear();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let mut done = runtime.block_on(self.downloader.stage(jobs)).unwrap();
        done.sort_by_key(|(node, _)| *node);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// A list of these on the server, as anybody with the key can make it.
    fn list(&self, entries: &[Entry]) -> Entry {
        let sealed = seal_list(self.keys(), SCOPE, entries).unwrap();
        let mut chunks = self.shelf.chunks.lock().unwrap();
        chunks.insert(sealed.entry.id, sealed.blob);
        sealed.entry
    }

    /// Bytes on the disk that temps take.
    fn claimed(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let temps = std::fs::read_dir(self.path(".syncagent/tmp")).unwrap();
        temps
            .map(|temp| temp.unwrap().metadata().unwrap().blocks() * 512)
            .sum()
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

#[test]
fn requests_are_bounded_and_ask_for_nothing_twice() {
    let world = World::new(Work::Pool);
    // Cut far finer than by any chunker, but no more than a reader takes.
    let pieces: Vec<[u8; 2]> = (0..3000_u16).map(u16::to_be_bytes).collect();
    let leaves: Vec<Entry> = pieces
        .iter()
        .map(|piece| world.entry(piece, true))
        .collect();
    let low: Vec<Entry> = leaves.chunks(2).map(|pair| world.list(pair)).collect();
    let high: Vec<Entry> = low.chunks(500).map(|lists| world.list(lists)).collect();
    let done = world.stage(Vec::from([job(1, 2, high, &pieces.concat())]));
    assert!(done[0].is_ok(), "{:?}", done[0].as_ref().err());
    assert!(world.staged() == pieces.concat());
    assert_eq!(world.fetched(), 3 + 1500 + 3000);
    let (longest, twice) = *world.shelf.longest.lock().unwrap();
    assert!(longest <= 1024 && !twice, "{longest} ids, twice: {twice}");
    drop(done);

    // The same few again and again, each time said to be as long as it was not said to be yet.
    let few: Vec<Entry> = leaves.iter().take(65).map(Entry::duplicate).collect();
    let many: Vec<Entry> =
        { (1..=256).flat_map(|len| few.iter().map(move |few| claims(few, len))) }.collect();
    let lists = many
        .chunks(512)
        .map(|entries| world.list(entries))
        .collect();
    let done = world.stage(Vec::from([job(1, 1, lists, b"")]));
    assert_eq!(done[0].as_ref().err().unwrap().code(), Code::Chunk);
    let (longest, twice) = *world.shelf.longest.lock().unwrap();
    assert!(longest <= 1024 && !twice, "{longest} ids, twice: {twice}");
}

#[test]
fn a_file_that_claims_more_chunks_than_it_can_have_is_named_before_they_are_laid_out() {
    let world = World::new(Work::Pool);
    let byte = world.entry(b"x", true);
    let times = |n: usize, entry: &Entry| (0..n).map(|_| entry.duplicate()).collect::<Vec<_>>();
    let low = world.list(&times(512, &byte));
    let high = world.list(&times(512, &low));
    let highest = world.list(&times(512, &high));
    let content = vec![b'x'; 512 * 128];
    let good = world.entry(&content, true);
    // As many as a reader takes, and what needs a hundred times the memory of this machine.
    for (level, entries, is_taken) in [
        (1, times(128, &low), true),
        (2, times(33, &high), false),
        (3, times(128, &highest), false),
    ] {
        let jobs = [
            job(1, level, entries, &content),
            job(2, 0, Vec::from([good.duplicate()]), &content),
        ];
        let done = world.stage(Vec::from(jobs));
        let code = done[0].as_ref().err().map(DownloadError::code);
        assert_eq!(code, (!is_taken).then_some(Code::Chunk), "level {level}");
        assert!(done[1].is_ok());
        // Each list once, and the one chunk if it comes to that; and the good file's.
        assert_eq!(world.fetched(), 3, "level {level}");
    }
}

#[test]
fn what_is_refused_for_one_file_is_that_files_error() {
    let world = World::new(Work::Pool);
    let content = b"a content that the server gives";
    let [refused, given] = [b"refused".as_slice(), content].map(|piece| world.entry(piece, true));
    *world.shelf.refused.lock().unwrap() = Some(refused.id);
    let list = world.list(&[refused.duplicate(), refused.duplicate()]);
    let pair = [refused.duplicate(), refused.duplicate()];
    let done = world.stage(Vec::from([
        // By its list, by its data, and alone.
        job(1, 1, Vec::from([list.duplicate()]), b""),
        job(2, 0, Vec::from(pair), b""),
        job(
            3,
            0,
            Vec::from([given.duplicate(), given.duplicate()]),
            &content.repeat(2),
        ),
        job(4, 0, Vec::from([refused]), b""),
        job(5, 0, Vec::from([given.duplicate()]), content),
    ]));
    for refused in [0, 1, 3] {
        let error = done[refused].as_ref().err().unwrap();
        assert_eq!(error.code(), Code::Chunk);
        assert!(error.to_string().contains("a body of this kind"), "{error}");
    }
    assert!(done[2].is_ok() && done[4].is_ok());
}

#[test]
fn a_claimed_length_takes_neither_memory_nor_disk() {
    let world = World::new(Work::Pool);
    let byte = world.entry(b"x", true);
    // Nobody may look at what a claim of 64 GiB says is there: it would be read into memory.
    let claim = world.list(&[claims(&byte, 64 << 30), byte.duplicate()]);
    let job_1 = job(1, 1, Vec::from([claim]), b"claimed");
    let left = world.path(&format!(".syncagent/tmp/part-{}", job_1.file.hash));
    std::fs::write(&left, b"left over").unwrap();
    let done = world.stage(Vec::from([job_1]));
    assert_eq!(done[0].as_ref().err().unwrap().code(), Code::Chunk);
    std::fs::remove_file(left).unwrap();

    // Lists that are in order, and chunks that are not.
    let pieces: Vec<Entry> = (0..8).map(|_| claims(&byte, 8 << 20)).collect();
    let list = world.list(&pieces);
    let done = world.stage(Vec::from([job(1, 1, Vec::from([list]), b"claimed")]));
    assert_eq!(done[0].as_ref().err().unwrap().code(), Code::Chunk);
    assert_eq!(world.claimed(), 0);

    // What did come stays, and no more: it is taken up again when the rest can be had.
    let piece = Dice::new(1).bytes(1 << 20);
    let true_piece = world.entry(&piece, true);
    let entries = [true_piece, claims(&byte, 8 << 20), claims(&byte, 8 << 20)];
    let done = world.stage(Vec::from([job(1, 0, Vec::from(entries), b"claimed")]));
    assert_eq!(done[0].as_ref().err().unwrap().code(), Code::Chunk);
    let claimed = world.claimed();
    assert!((1 << 20..2 << 20).contains(&claimed), "{claimed} bytes");
}

#[test]
fn a_chunk_longer_than_it_can_be_is_not_kept() {
    let world = World::new(Work::Pool);
    let long = world.entry(&Dice::new(1).bytes(100_000), true);
    let wanted = [(long.id, 8_000), (ChunkId([1; 32]), 8_000)];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let blobs = runtime
        .block_on(super::download::fetch_each(&*world.shelf, wanted))
        .unwrap();
    assert_eq!(blobs, [Some(Bytes::new()), None]);
}

#[test]
fn another_file_of_the_same_hash_does_not_touch_what_is_ready() {
    let world = World::new(Work::Pool);
    let pieces: Vec<Vec<u8>> = (0..20).map(|i| Dice::new(i).bytes(1_000_003)).collect();
    let content = pieces.concat();
    let entries = |skip: usize| {
        let pieces = pieces.iter().cycle().skip(skip).take(20);
        pieces.map(|piece| world.entry(piece, true)).collect()
    };
    // It says that its content is the same, and it is not.
    let done = world.stage(Vec::from([
        job(1, 0, entries(0), &content),
        job(2, 0, entries(1), &content),
    ]));
    assert!(done[0].is_ok());
    assert_eq!(done[1].as_ref().err().unwrap().code(), Code::Chunk);
    assert!(world.staged() == content);
}

#[test]
fn what_was_broken_off_gives_way_on_a_full_disk() {
    let mut world = World::new(Work::Pool);
    let content = vec![7; 100_000];
    let good = || {
        let entries = Vec::from([world.entry(&content, true)]);
        job(1, 0, entries, &content)
    };
    let (first, again) = (good(), good());
    let left = world.path(".syncagent/tmp/part-0123");
    std::fs::write(&left, vec![1; 1 << 20]).unwrap();
    // Full for as long as that lies there.
    let lies_there = left.clone();
    let disk = Hooked::new(
        world.downloader.folder.disk(),
        move |_, verb, path| match verb == "create_temp"
            && !path.contains("part-0123")
            && lies_there.exists()
        {
            true => Err(error(ErrorKind::Full)),
            false => Ok(()),
        },
    );
    let rescued = |_: &Name, n: u32| Name::parse(&format!("rescued-{n}")).unwrap();
    world.downloader.folder = Arc::new(Folder::new(disk, Box::new(rescued)));
    let done = world.stage(Vec::from([first]));
    assert!(done[0].is_ok(), "{:?}", done[0].as_ref().err());
    assert!(world.staged() == content);
    drop(done);
    // Where nothing is left over, it is said and not tried for ever.
    std::fs::create_dir(&left).unwrap();
    let done = world.stage(Vec::from([again]));
    assert_eq!(done[0].as_ref().err().unwrap().code(), Code::DiskFull);
}
