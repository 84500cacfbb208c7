//! Manifest: the ordered chunks of a file, and how long lists of them become chunks themselves.

use syncagent_protocol::ChunkId;
use syncagent_protocol::commit::FormatError;
use syncagent_protocol::pack::MAX_LIST_ENTRIES;
use zeroize::Zeroizing;

use crate::VaultError;
use crate::chunk::{ChunkKey, Entry, MAX_CONTENT_LEN};

/// Most entries that stand in an op.
pub const MAX_INLINE_ENTRIES: usize = 128;
/// Most levels of lists above the data.
pub const MAX_LEVEL: u8 = 3;
/// Length of an entry in bytes.
pub const ENTRY_LEN: usize = 72;

/// The chunks of a file: data at level 0, lists of level n-1 at level n.
pub struct Manifest {
    /// Number of levels of list chunks between these entries and the data.
    pub level: u8,
    /// In the order of the file's content.
    pub entries: Vec<Entry>,
}

/// An entry from its id and the sealed `key ‖ len`.
pub(crate) fn entry_of(id: ChunkId, key_and_len: &[u8; 40]) -> Entry {
    let mut key = [0; 32];
    key.copy_from_slice(&key_and_len[..32]);
    let len = key_and_len[32..]
        .iter()
        .fold(0, |value, &b| value << 8 | u64::from(b));
    let entry = Entry {
        id,
        key: ChunkKey::from_bytes(&key),
        len,
    };
    zeroize::Zeroize::zeroize(&mut key);
    entry
}

impl Manifest {
    /// Groups `entries` until at most [`MAX_INLINE_ENTRIES`] are left.
    ///
    /// A group ends after an entry whose id says so, not at a fixed count: an insertion at the front
    /// changes one list, and the others keep their ids. Only where that would hardly make a level
    /// smaller (a file that repeats one chunk) it is cut by count. Each list goes through `seal`,
    /// which uploads it and returns how to find it.
    pub fn build<E: From<VaultError>>(
        entries: Vec<Entry>,
        mut seal: impl FnMut(&[Entry]) -> Result<Entry, E>,
    ) -> Result<Self, E> {
        let mut manifest = Self { level: 0, entries };
        while manifest.entries.len() > MAX_INLINE_ENTRIES {
            if manifest.level == MAX_LEVEL {
                return Err(VaultError::Commit(FormatError::Limit("size of a file")).into());
            }
            let lists = groups(&manifest.entries)
                .into_iter()
                .map(&mut seal)
                .collect::<Result<_, _>>()?;
            manifest = Self {
                level: manifest.level + 1,
                entries: lists,
            };
        }
        Ok(manifest)
    }

    /// Bytes of content below all entries.
    pub fn total_len(&self) -> Option<u64> {
        self.entries
            .iter()
            .try_fold(0u64, |sum, entry| sum.checked_add(entry.len))
    }

    /// The distinct chunk ids in order of first appearance: what the op names in clear.
    pub fn refs(&self) -> Vec<ChunkId> {
        let mut seen = std::collections::BTreeSet::new();
        self.entries
            .iter()
            .map(|entry| entry.id)
            .filter(|id| seen.insert(*id))
            .collect()
    }

    /// `level ‖ entries`, to be sealed inside an op.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + ENTRY_LEN * self.entries.len()));
        out.push(self.level);
        for entry in &self.entries {
            out.extend_from_slice(&entry.id.0);
            out.extend_from_slice(entry.key.expose());
            out.extend_from_slice(&entry.len.to_be_bytes());
        }
        out
    }

    /// Parses `level ‖ entries`.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultError> {
        let (&level, rest) = bytes
            .split_first()
            .ok_or(VaultError::Op("empty manifest"))?;
        let (entries, left) = rest.as_chunks::<ENTRY_LEN>();
        if level > MAX_LEVEL
            || !left.is_empty()
            || entries.is_empty()
            || entries.len() > MAX_INLINE_ENTRIES
        {
            return Err(VaultError::Op("a manifest beyond its limits"));
        }
        let entries = entries
            .iter()
            .map(|bytes| {
                let (id, key_and_len) = bytes
                    .split_first_chunk::<32>()
                    .ok_or(VaultError::Op("manifest entry"))?;
                let key_and_len = key_and_len
                    .first_chunk::<40>()
                    .ok_or(VaultError::Op("manifest entry"))?;
                let entry = entry_of(ChunkId(*id), key_and_len);
                match entry.len {
                    0 => Err(VaultError::Op("a manifest entry without content")),
                    len if level == 0 && len > MAX_CONTENT_LEN as u64 => {
                        Err(VaultError::Op("a manifest entry longer than any chunk"))
                    }
                    _ => Ok(entry),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { level, entries })
    }
}

/// Cuts a level where its ids say so, or by count if they would leave it hardly smaller than it is.
fn groups(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut groups = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let boundary = rest
            .iter()
            .take(MAX_LIST_ENTRIES)
            .position(|entry| entry.id.0[31] & 0x7f == 0);
        let len = boundary.map_or(rest.len().min(MAX_LIST_ENTRIES), |at| at + 1);
        let (group, after) = rest.split_at(len);
        groups.push(group);
        rest = after;
    }
    // Zeros, above all: one id again and again, which may be one that ends a group.
    if 16 * groups.len() > entries.len() {
        groups = entries.chunks(MAX_LIST_ENTRIES).collect();
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(i: u32) -> Entry {
        let id = ChunkId(syncagent_protocol::sha256(&[&i.to_be_bytes()]));
        Entry {
            id,
            key: ChunkKey::from_bytes(&[1; 32]),
            len: 10,
        }
    }

    #[test]
    fn a_file_of_one_chunk_repeated_can_be_stored() {
        // An id that ends a group every time it appears: by content, no level would ever shrink.
        let repeated = || Entry {
            id: ChunkId([0x80; 32]),
            key: ChunkKey::from_bytes(&[1; 32]),
            len: 10,
        };
        let entries = (0..1000).map(|_| repeated()).collect();
        let mut sizes = Vec::new();
        let manifest = Manifest::build::<VaultError>(entries, |group| {
            sizes.push(group.len());
            Ok(repeated())
        })
        .unwrap();
        assert_eq!((manifest.level, manifest.entries.len()), (1, 2));
        assert_eq!(sizes, [512, 488]);
    }

    #[test]
    fn short_files_need_no_lists_and_long_ones_group_by_content() {
        let build = |range: std::ops::Range<u32>| {
            let mut lists = Vec::new();
            let manifest = Manifest::build::<VaultError>(range.map(entry).collect(), |group| {
                let ids: Vec<[u8; 32]> = group.iter().map(|e| e.id.0).collect();
                let parts: Vec<&[u8]> = ids.iter().map(|id| id.as_slice()).collect();
                let id = ChunkId(syncagent_protocol::sha256(&parts));
                lists.push(id);
                Ok(Entry {
                    id,
                    key: ChunkKey::from_bytes(&[2; 32]),
                    len: group.iter().map(|e| e.len).sum(),
                })
            })
            .unwrap();
            (manifest, lists)
        };
        let (short, lists) = build(0..128);
        assert_eq!((short.level, short.entries.len(), lists.len()), (0, 128, 0));
        let (long, before) = build(0..20_000);
        assert_eq!(long.total_len(), Some(200_000));
        assert!(long.level >= 1 && long.entries.len() <= 128);
        let (_, after) = build(1..20_000);
        let fresh = after.iter().filter(|id| !before.contains(id)).count();
        assert!(
            fresh <= usize::from(long.level) + 1,
            "{fresh} lists are new after one entry fell away"
        );
    }
}
