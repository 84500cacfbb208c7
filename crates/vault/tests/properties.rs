//! Whatever is sealed opens as it was, whatever is parsed is written again as it was, and nothing panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use syncagent_protocol::commit::{Commit, OpBody, OpKind};
use syncagent_protocol::pack::{ChunkKind, ChunkView};
use syncagent_protocol::{ChunkId, CommitHash, ContentHash, Name, NodeId, OpHash, VaultId};
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{
    ChunkKey, Codec, Entry, Scope, open_data, open_list, seal_data, seal_list,
};
use syncagent_vault::chunker::{CLASSES, Chunker, Class, Sizes};
use syncagent_vault::commit::{Opener, Position, SealedCommit, seal};
use syncagent_vault::keys::{Keys, VaultKey};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{Content, Draft, File, Opened, Put, PutBody, Surroundings, read_body};
use syncagent_vault::random::{OsRandom, Random};
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::secret::Secret;
use syncagent_vault::slot::{self, KdfParams, Slot, SlotRandom};

const NODE: NodeId = NodeId([0xee; 16]);

fn vault_key() -> VaultKey {
    VaultKey::from_parts(Secret::copy_from(&[7; 32]), VaultId([1; 16]))
}

fn keys() -> Keys {
    vault_key().keys().unwrap()
}

/// The same cases at every run: what holds with overwhelming probability must not fail once a year.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Entries, described: what holds keys cannot be printed, and cases that fail have to be.
#[derive(Debug, Clone)]
struct Entries {
    /// A number that gives the id, and the length. Few ids, so that some come twice.
    given: Vec<(u64, u64)>,
    ends_group: bool,
}

impl Entries {
    fn build(&self) -> Vec<Entry> {
        let entry = |&(id, len): &(u64, u64)| {
            let mut id: [u8; 32] = bytes(id, 32).try_into().unwrap();
            if self.ends_group {
                id[31] = 0x80;
            }
            Entry {
                id: ChunkId(id),
                key: ChunkKey::from_bytes(&id),
                len,
            }
        };
        self.given.iter().map(entry).collect()
    }
}

/// A PUT, described.
#[derive(Debug, Clone)]
struct State {
    parent: [u8; 16],
    name: String,
    mtime_ns: i64,
    shape: Shape,
    based_on: Option<[u8; 32]>,
    conflict_of: Option<([u8; 16], [u8; 32])>,
}

#[derive(Debug, Clone)]
enum Shape {
    File {
        content: Held,
        exec: bool,
        hash: [u8; 32],
        scope: Option<[u8; 16]>,
        class: u8,
    },
    Directory,
    Symlink(String),
}

#[derive(Debug, Clone)]
enum Held {
    Inline(Vec<u8>),
    Chunks(u8, Entries),
}

impl State {
    fn build(&self) -> Put {
        let body = match &self.shape {
            Shape::File {
                content,
                exec,
                hash,
                scope,
                class,
            } => {
                let (size, content) = match content {
                    Held::Inline(bytes) => (bytes.len() as u64, Content::Inline(bytes.clone())),
                    Held::Chunks(level, entries) => {
                        let (level, entries) = (*level, entries.build());
                        let manifest = Manifest { level, entries };
                        let size = manifest.total_len().unwrap();
                        (size, Content::Chunks(manifest))
                    }
                };
                PutBody::File(File {
                    size,
                    exec: *exec,
                    hash: ContentHash(*hash),
                    scope: scope.map(Scope).filter(|scope| *scope != Scope::VAULT),
                    class: Class::from_number(*class).unwrap(),
                    content,
                })
            }
            Shape::Directory => PutBody::Directory,
            Shape::Symlink(target) => PutBody::Symlink {
                target: target.clone(),
            },
        };
        Put {
            parent: NodeId(self.parent),
            name: Name::parse(&self.name).unwrap(),
            mtime_ns: self.mtime_ns,
            body,
            based_on: self.based_on.map(OpHash),
            conflict_of: self
                .conflict_of
                .map(|(node, hash)| (NodeId(node), OpHash(hash))),
        }
    }
}

prop_compose! {
    fn entries(max: usize)(
        given in vec((0u64..500, 1u64..1_000_000), 1..max),
        ends_group in any::<bool>(),
    ) -> Entries {
        Entries { given, ends_group }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let content = prop_oneof![
        vec(any::<u8>(), 0..1500).prop_map(Held::Inline),
        (0u8..4, entries(129)).prop_map(|(level, entries)| Held::Chunks(level, entries)),
    ];
    let file = (
        content,
        any::<bool>(),
        any::<[u8; 32]>(),
        option::of(any::<[u8; 16]>()),
        0..CLASSES,
    );
    prop_oneof![
        4 => file.prop_map(|(content, exec, hash, scope, class)| Shape::File {
            content, exec, hash, scope, class,
        }),
        1 => Just(Shape::Directory),
        1 => "[^\0]{1,300}".prop_map(Shape::Symlink),
    ]
}

prop_compose! {
    fn put()(
        parent in any::<[u8; 16]>(),
        name in "[^/\0]{1,60}".prop_filter("names", |name| Name::parse(name).is_ok()),
        mtime_ns in any::<i64>(),
        shape in shape(),
        based_on in option::of(any::<[u8; 32]>()),
        conflict_of in option::of(any::<([u8; 16], [u8; 32])>()),
    ) -> State {
        State { parent, name, mtime_ns, shape, based_on, conflict_of }
    }
}

/// A commit of PUTs, and of TRASHes of other nodes.
fn sealed(puts: &[State], trashed: &BTreeSet<[u8; 16]>, machine: &MachineKey) -> SealedCommit {
    let puts = puts.iter().enumerate().map(|(i, put)| {
        let mut node = NODE.0;
        node[0] = i as u8;
        Draft::put(NodeId(node), &put.build()).unwrap()
    });
    let trashed = trashed.iter().map(|node| Draft::trash(NodeId(*node)));
    let position = Position {
        n: 2,
        prev: CommitHash([3; 32]),
        time_ms: 4,
    };
    let drafts = puts.chain(trashed).collect();
    seal(&keys(), machine, position, drafts, &OsRandom::default()).unwrap()
}

/// The posted form, put together again from what was parsed.
fn encode(commit: &Commit<'_>) -> Vec<u8> {
    let mut out = commit.header.encode().to_vec();
    for op in &commit.ops {
        let OpBody::Whole { refs, ct } = op.body else {
            panic!("it was dropped");
        };
        out.extend_from_slice(&op.head.encode());
        out.extend_from_slice(refs);
        out.extend_from_slice(ct);
    }
    out.extend_from_slice(commit.signature);
    out
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn a_put_is_read_as_it_was_written(put in put()) {
        let put = put.build();
        let tlv = put.encode();
        let read = Put::parse(&tlv, NODE).ok().unwrap();
        prop_assert_eq!(read.encode(), tlv.clone());
        prop_assert_eq!(read.node(), put.node());
        prop_assert_eq!(read.refs(), put.refs());

        let draft = Draft::put(NODE, &put).unwrap();
        let (head, refs) = (draft.head(), draft.refs_bytes());
        let surroundings = Surroundings { kind: head.kind, node: NODE, refs: &refs, dedup_vault: false };
        let Ok(Opened::Put(node, read)) = read_body(surroundings, draft.body()) else {
            panic!("it is a PUT");
        };
        prop_assert_eq!((node, read.encode()), (NODE, tlv));
    }

    #[test]
    fn a_damaged_body_is_read_or_refused(
        put in put(), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let draft = Draft::put(NODE, &put.build()).unwrap();
        let refs = draft.refs_bytes();
        let mut body = draft.body().to_vec();
        let at = at.index(body.len());
        body[at] ^= flip;
        let surroundings = Surroundings { kind: OpKind::Put, node: NODE, refs: &refs, dedup_vault: false };
        if let Ok(Opened::Put(_, read)) = read_body(surroundings, &body) {
            // Every byte that is read has a meaning: the state is another one, and written as it was read.
            let again = Draft::put(NODE, &read).unwrap();
            prop_assert_eq!(again.body(), body);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Put::parse(&bytes, NODE).map(drop);
        let _ = Commit::parse(&bytes).map(drop);
        let _ = Commit::parse_served(&bytes).map(drop);
        let _ = ChunkView::parse(&bytes).map(drop);
        let _ = Slot::parse(&bytes).map(drop);
        let _ = Manifest::parse(&bytes).map(drop);
        for kind in (0..10).filter_map(OpKind::from_u8) {
            let surroundings = Surroundings { kind, node: NODE, refs: &[], dedup_vault: true };
            let _ = read_body(surroundings, &bytes).map(drop);
        }
    }

    #[test]
    fn a_commit_is_parsed_as_it_was_sealed(
        puts in vec(put(), 0..5),
        trashed in prop::collection::btree_set(any::<[u8; 16]>(), 1..4),
        dropped in vec(any::<bool>(), 9),
    ) {
        prop_assume!(!trashed.contains(&[0; 16]));
        let machine = MachineKey::from_seed(Secret::copy_from(&[5; 32])).unwrap();
        let sealed = sealed(&puts, &trashed, &machine);
        let mut commit = Commit::parse(&sealed.bytes).unwrap();
        prop_assert!(commit.verify().is_ok());
        prop_assert_eq!(encode(&commit), sealed.bytes.clone());
        let keys = keys();
        let opener = Opener::new(&keys, &commit).unwrap();
        for index in 0..commit.ops.len() {
            if let Opened::Put(node, put) = opener.open(index).ok().unwrap() {
                prop_assert_eq!(put.encode(), puts[usize::from(node.0[0])].build().encode());
            }
        }

        let hashes: Vec<_> = commit.ops.iter().map(|op| match op.body {
            OpBody::Whole { refs, ct } => [refs, ct].map(|part| syncagent_protocol::sha256(&[part])),
            OpBody::Dropped { .. } => panic!("it was dropped"),
        }).collect();
        for (op, [refs_hash, ct_hash]) in commit.ops.iter_mut().zip(&hashes).zip(dropped).filter_map(|(op, dropped)| dropped.then_some(op)) {
            op.body = OpBody::Dropped { refs_hash, ct_hash };
        }
        let served = commit.to_served();
        let read = Commit::parse_served(&served).unwrap();
        prop_assert_eq!(read.to_served(), served.clone());
        prop_assert_eq!((read.hash(), &read.op_hashes), (sealed.hash, &commit.op_hashes));
    }

    #[test]
    fn a_slot_is_parsed_as_it_was_sealed(seed in any::<u64>(), created in any::<u64>()) {
        struct Seeded(u64);
        impl Random for Seeded {
            fn fill(&self, out: &mut [u8]) {
                out.copy_from_slice(&bytes(self.0, out.len()));
            }
        }
        let (key, random) = (vault_key(), Seeded(seed));
        let code = RecoveryCode::generate(&random);
        let opener = slot::Opener::Recovery(&code);
        let parts = SlotRandom::new(&random);
        let slot = Slot::seal(&key, &opener, KdfParams::DEFAULT, created, &parts).unwrap();
        let read = Slot::parse(slot.as_bytes()).unwrap();
        prop_assert_eq!(read.as_bytes(), slot.as_bytes());
        prop_assert_eq!((read.slot_id(), read.vault()), (parts.slot_id, key.vault()));
        let opened = read.open(&opener, None).ok().unwrap();
        prop_assert_eq!(opened.check_value(), key.check_value());
        let typed: RecoveryCode = code.to_text().parse().ok().unwrap();
        prop_assert!(read.open(&slot::Opener::Recovery(&typed), None).is_ok());
    }

    #[test]
    fn a_chunk_opens_as_it_was_sealed(
        seed in any::<u64>(), len in 1usize..100_000, repeat in 1usize..20_000, zstd in any::<bool>(),
    ) {
        let pattern = bytes(seed, repeat);
        let content: Vec<u8> = pattern.iter().copied().cycle().take(len).collect();
        let codec = if zstd { Codec::Zstd } else { Codec::Stored };
        let (keys, scope) = (keys(), Scope(NODE.0));
        let sealed = seal_data(&keys, scope, &content, codec).unwrap();
        let again = seal_data(&keys, scope, &content, codec).unwrap();
        prop_assert_eq!((sealed.entry.id, sealed.entry.key.expose()), (again.entry.id, again.entry.key.expose()));
        prop_assert_eq!(&sealed.blob, &again.blob);
        let view = ChunkView::parse(&sealed.blob).unwrap();
        prop_assert_eq!((view.kind, view.clear.len()), (ChunkKind::Data, 0));
        prop_assert_eq!([&sealed.blob[..12], view.clear, view.ct].concat(), sealed.blob.clone());
        prop_assert_eq!(open_data(&keys, scope, &sealed.entry, &sealed.blob).unwrap(), content);
    }
}

/// Where `content` is cut, as positions of the ends.
fn cuts(keys: &Keys, class: Class, content: &[u8]) -> Vec<usize> {
    let mut chunker = Chunker::new(keys, class).unwrap();
    let (mut at, mut ends) = (0, Vec::new());
    while at < content.len() {
        at += chunker.cut(&content[at..]).unwrap();
        ends.push(at);
    }
    ends
}

/// A byte put in changes the chunk that it falls into, and seldom the next. Where chunks that reach the longest size are
/// cut just there, one of thirty such bytes moves the cut, and with it the begin of the next chunk.
#[test]
fn a_byte_put_in_seldom_changes_more_than_its_chunk() {
    const TRIES: u64 = 1000;
    let (keys, class) = (keys(), Class::from_number(0).unwrap());
    let Sizes { avg, max, .. } = class.sizes();
    let content = bytes(1, 64 << 20);
    let before = cuts(&keys, class, &content);
    let mut chunker = Chunker::new(&keys, class).unwrap();
    let random = bytes(2, 8 * TRIES as usize);
    let costly = random.as_chunks::<8>().0.iter().filter(|random| {
        let at = (u64::from_le_bytes(**random) % content.len() as u64) as usize;
        let here = before.partition_point(|end| *end <= at);
        let start = here.checked_sub(1).map_or(0, |i| before[i]);
        let reach = &content[start..content.len().min(start + 8 * max)];
        let longer = [&reach[..at - start], b"!", &reach[at - start..]].concat();
        let mut end = 0;
        while end < longer.len()
            && before
                .binary_search(&(start + end).wrapping_sub(1))
                .is_err()
        {
            end += chunker.cut(&longer[end..]).unwrap();
        }
        2 * end > 5 * avg
    });
    let costly = costly.count() as u64;
    assert!(costly < TRIES / 100, "{costly} of {TRIES}");
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn cuts_cover_the_content_within_the_sizes(seed in any::<u64>(), len in 0usize..2_000_000, zeros in 0usize..600_000) {
        let mut content = bytes(seed, len);
        let from = len / 3;
        content.splice(from..from, std::iter::repeat_n(0, zeros));
        let class = Class::from_number((seed % 3) as u8).unwrap();
        let sizes = class.sizes();
        let ends = cuts(&keys(), class, &content);
        prop_assert_eq!(ends.last().copied().unwrap_or(0), content.len());
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let lens: Vec<usize> = starts.zip(&ends).map(|(start, end)| end - start).collect();
        prop_assert!(lens.iter().all(|len| (1..=sizes.max).contains(len)));
        prop_assert!(lens.iter().rev().skip(1).all(|len| *len > sizes.min));
    }

    #[test]
    fn after_an_insertion_at_the_front_the_old_cuts_come_back(seed in any::<u64>(), inserted in 1usize..200_000) {
        let (keys, class) = (keys(), Class::from_number(0).unwrap());
        let content = bytes(seed, 3_000_000);
        let longer = [bytes(!seed, inserted), content.clone()].concat();
        let before = cuts(&keys, class, &content);
        let after: Vec<usize> = cuts(&keys, class, &longer)
            .into_iter()
            .filter_map(|end| end.checked_sub(inserted))
            .collect();
        let shared = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
        prop_assert!(shared >= before.len() / 2, "{} of {}", shared, before.len());
    }

    #[test]
    fn below_a_manifest_stand_the_chunks_it_was_built_from(entries in entries(3000)) {
        let (keys, scope) = (keys(), Scope(NODE.0));
        let entries = entries.build();
        let stated: Vec<(ChunkId, [u8; 32], u64)> =
            entries.iter().map(|e| (e.id, *e.key.expose(), e.len)).collect();
        let mut blobs = BTreeMap::new();
        let manifest = Manifest::build::<VaultError>(entries, |group| {
            let sealed = seal_list(&keys, scope, group)?;
            blobs.insert(sealed.entry.id, sealed.blob);
            Ok(sealed.entry)
        }).ok().unwrap();
        prop_assert!((1..=128).contains(&manifest.entries.len()));
        prop_assert_eq!(manifest.total_len(), Some(stated.iter().map(|e| e.2).sum()));
        let raw = manifest.encode();
        let read = Manifest::parse(&raw).ok().unwrap();
        prop_assert_eq!(read.encode(), raw);
        let mut below = read.entries;
        for _ in 0..read.level {
            below = below.iter()
                .flat_map(|list| open_list(&keys, scope, list, &blobs[&list.id]).ok().unwrap())
                .collect();
        }
        let found: Vec<(ChunkId, [u8; 32], u64)> =
            below.iter().map(|e| (e.id, *e.key.expose(), e.len)).collect();
        prop_assert_eq!(found, stated);
    }
}
