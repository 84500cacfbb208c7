use syncagent_protocol::{ChunkId, Code};
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{ChunkKey, Entry, Scope, open_list, seal_list};
use syncagent_vault::manifest::Manifest;

use crate::chunk::same;
use crate::harness::{Fields, hex, sha256};

pub(crate) use crate::harness::nothing_is_refused as refuse;

pub(crate) fn code(_: &str) -> Option<Code> {
    None
}

fn entries(c: &Fields<'_>) -> Vec<Entry> {
    let count = c.number("count");
    match c.text("generator") {
        "sha256_entries" => {
            let seed = c.bytes("seed");
            let hash = |what: &[u8], i: u64| {
                syncagent_protocol::sha256(&[&seed, what, &i.to_be_bytes()])
            };
            (0..count)
                .map(|i| Entry {
                    id: ChunkId(hash(b"id", i)),
                    key: ChunkKey::from_bytes(&hash(b"ck", i)),
                    len: 100_000 + i,
                })
                .collect()
        }
        "repeat" => (0..count).map(|_| crate::chunk::entry(c)).collect(),
        other => panic!("there is no generator {other}"),
    }
}

pub(crate) fn case(c: &Fields<'_>) {
    let (keys, scope) = (c.keys(), Scope(c.array("scope")));
    let source = c.object("data_entries");
    let mut blobs = std::collections::BTreeMap::new();
    let mut groups = Vec::new();
    let built = Manifest::build::<VaultError>(entries(&source), |group| {
        let sealed = seal_list(&keys, scope, group)?;
        groups.push((group.len() as u64, sealed.entry.id));
        blobs.insert(sealed.entry.id, sealed.blob);
        Ok(sealed.entry)
    })
    .ok()
    .unwrap();
    assert_eq!(u64::from(built.level), c.number("level"));
    assert_eq!(built.total_len(), Some(c.number("size")));
    let levels = c.objects("levels_lowest_first");
    assert_eq!(levels.len(), usize::from(built.level));
    let mut groups = groups.into_iter();
    for level in levels {
        let sizes = level.numbers("group_sizes");
        let made: Vec<(u64, ChunkId)> = groups.by_ref().take(sizes.len()).collect();
        assert!(made.iter().map(|(size, _)| *size).eq(sizes));
        let ids: Vec<u8> = made.iter().flat_map(|(_, id)| id.0).collect();
        assert_eq!(sha256(&ids), level.array("chunk_ids_sha256"));
    }
    assert_eq!(groups.next(), None);
    let raw = built.encode();
    assert_eq!(raw.len() as u64, c.number("manifest_length"));
    assert_eq!(sha256(&raw), c.array("manifest_sha256"));
    if c.has("manifest") {
        assert_eq!(hex(&raw), c.text("manifest"));
    }

    // And down again: what a reader finds below it are the data chunks it was built from.
    let read = Manifest::parse(&raw).ok().unwrap();
    assert_eq!((read.level, read.encode().to_vec()), (built.level, raw.to_vec()));
    let mut below = read.entries;
    for _ in 0..read.level {
        below = below
            .iter()
            .flat_map(|list| open_list(&keys, scope, list, &blobs[&list.id]).ok().unwrap())
            .collect();
    }
    let expected = entries(&source);
    assert_eq!(below.len(), expected.len());
    assert!(below.iter().zip(&expected).all(|(a, b)| same(a, b)));
}
