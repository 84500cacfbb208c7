//! Sealed chunks: what a server stores and can check, but not read (format.md, "Chunks").
//!
//! A chunk is named by the SHA-256 of its ciphertext. Its key is a keyed hash of its content, so
//! sealing the same content in the same scope again gives the same bytes, and each key meets one
//! message only: the zero nonce is safe.

use std::cell::RefCell;
pub use syncagent_protocol::pack::padded_len;

use syncagent_protocol::pack::{CHUNK_HEADER_LEN, ChunkKind, ChunkView, MAX_LIST_ENTRIES};
use syncagent_protocol::{ChunkId, NodeId};
use zstd::bulk;

use crate::VaultError;
use crate::crypto;
use crate::keys::{EPOCH, Keys};
use crate::secret::Secret;

/// The longest content of a chunk in bytes.
pub const MAX_CONTENT_LEN: usize = 8 * 1024 * 1024;

const FRAME_HEADER_LEN: usize = 8;
const ZSTD_LEVEL: i32 = 3;

/// Equal content gives equal chunks within a scope: a node's own, or the whole vault (all zeros).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(pub [u8; 16]);

impl Scope {
    /// The scope of a vault that shares equal content between its files.
    pub const VAULT: Self = Self([0; 16]);
}

impl From<NodeId> for Scope {
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

/// The key of one chunk. Wiped when dropped.
#[derive(zeroize::ZeroizeOnDrop)]
pub struct ChunkKey(pub(crate) Secret<32>);

impl ChunkKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::copy_from(bytes))
    }

    /// The bytes, to be sealed inside a manifest.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// What a reader needs to fetch and open a chunk.
pub struct Entry {
    /// Its name on the server.
    pub id: ChunkId,
    /// Its key.
    pub key: ChunkKey,
    /// Bytes of file content in it, or below it if it is a list.
    pub len: u64,
}

impl Entry {
    /// An explicit second copy, for a manifest that is kept while it is rebuilt.
    pub fn duplicate(&self) -> Self {
        Self {
            id: self.id,
            key: ChunkKey(self.key.0.duplicate()),
            len: self.len,
        }
    }
}

/// A sealed chunk, ready to be uploaded.
pub struct Sealed {
    /// How to find and open it again.
    pub entry: Entry,
    /// The bytes for the server.
    pub blob: Vec<u8>,
}

/// Whether content may be compressed; fixed for a vault by its GENESIS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Store as it is.
    Stored,
    /// zstd (RFC 8878) where it saves a tenth.
    Zstd,
}

/// Seals a piece of a file.
pub fn seal_data(
    keys: &Keys,
    scope: Scope,
    content: &[u8],
    codec: Codec,
) -> Result<Sealed, VaultError> {
    if content.is_empty() || content.len() > MAX_CONTENT_LEN {
        return Err(VaultError::Chunk);
    }
    let compressed = match codec {
        Codec::Zstd if looks_compressible(content) => compress(content, ZSTD_LEVEL)
            .filter(|packed| packed.len() <= content.len() - content.len().div_ceil(10)),
        _ => None,
    };
    let (codec, stored) = match &compressed {
        Some(packed) => (1, packed.as_slice()),
        None => (0, content),
    };
    seal(
        keys,
        ChunkKind::Data,
        scope,
        &[],
        codec,
        &[stored],
        content.len() as u64,
    )
}

/// Seals a list of `entries`, whose ids stand in clear so that a server can keep what they name.
pub fn seal_list(keys: &Keys, scope: Scope, entries: &[Entry]) -> Result<Sealed, VaultError> {
    if entries.is_empty() || entries.len() > MAX_LIST_ENTRIES {
        return Err(VaultError::Chunk);
    }
    let mut clear = Vec::with_capacity(4 + 32 * entries.len());
    clear.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    let mut frame = zeroize::Zeroizing::new(Vec::with_capacity(40 * entries.len()));
    let mut total = 0u64;
    for entry in entries {
        clear.extend_from_slice(&entry.id.0);
        frame.extend_from_slice(entry.key.expose());
        frame.extend_from_slice(&entry.len.to_be_bytes());
        total = total.checked_add(entry.len).ok_or(VaultError::Chunk)?;
    }
    seal(keys, ChunkKind::List, scope, &clear, 0, &[&frame], total)
}

/// A sample says quickly that photographs and archives are not worth compressing.
fn looks_compressible(content: &[u8]) -> bool {
    const SAMPLE: usize = 4096;
    if content.len() <= 4 * SAMPLE {
        return true;
    }
    // Three places, because headers often differ from what follows.
    let sample: Vec<u8> = [0, content.len() / 2, content.len() - SAMPLE]
        .iter()
        .flat_map(|&at| content[at..at + SAMPLE].iter().copied())
        .collect();
    compress(&sample, 1).is_some_and(|packed| packed.len() * 20 < sample.len() * 19)
}

thread_local! {
    /// A context takes longer to make than a short file to compress. What it was used for before changes no result.
    static COMPRESSORS: RefCell<[(i32, Option<bulk::Compressor<'static>>); 2]> =
        const { RefCell::new([(1, None), (ZSTD_LEVEL, None)]) };
    static DECOMPRESSOR: RefCell<Option<bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// One zstd frame (RFC 8878).
fn compress(content: &[u8], level: i32) -> Option<Vec<u8>> {
    COMPRESSORS.with_borrow_mut(|kept| {
        let (_, kept) = kept.iter_mut().find(|(of, _)| *of == level)?;
        if kept.is_none() {
            *kept = bulk::Compressor::new(level).ok();
        }
        kept.as_mut()?.compress(content).ok()
    })
}

fn header(kind: ChunkKind) -> [u8; CHUNK_HEADER_LEN] {
    let mut header = *b"SACK\x01\x01\0\0\0\0\0\0";
    header[6] = match kind {
        ChunkKind::Data => 0,
        ChunkKind::List => 1,
    };
    header[8..].copy_from_slice(&EPOCH.to_be_bytes());
    header
}

fn aad(keys: &Keys, kind: ChunkKind, scope: Scope, clear: &[u8]) -> Vec<u8> {
    [&header(kind)[..], &keys.vault.0, &scope.0, clear].concat()
}

fn seal(
    keys: &Keys,
    kind: ChunkKind,
    scope: Scope,
    clear: &[u8],
    codec: u8,
    stored: &[&[u8]],
    len: u64,
) -> Result<Sealed, VaultError> {
    let stored_len: usize = stored.iter().map(|part| part.len()).sum();
    let frame_len = padded_len(FRAME_HEADER_LEN + stored_len);
    let header = header(kind);
    let frame_at = header.len() + clear.len();
    let mut blob = Vec::with_capacity(frame_at + frame_len + crypto::TAG_LEN);
    blob.extend_from_slice(&header);
    blob.extend_from_slice(clear);
    blob.extend_from_slice(&(stored_len as u32).to_be_bytes());
    blob.extend_from_slice(&[codec, 0, 0, 0]);
    for part in stored {
        blob.extend_from_slice(part);
    }
    blob.resize(frame_at + frame_len, 0);
    let mut hash = blake3::Hasher::new_keyed(keys.chunk.expose());
    hash.update(&[1, header[6]]);
    hash.update(&scope.0);
    hash.update(&(clear.len() as u32).to_be_bytes());
    hash.update(clear);
    hash.update(&blob[frame_at..]);
    let key = Secret::copy_from(hash.finalize().as_bytes());
    let tag = crypto::seal(
        key.expose(),
        [0; 12],
        &aad(keys, kind, scope, clear),
        &mut blob[frame_at..],
    )?;
    blob.extend_from_slice(&tag);
    let id = ChunkId(syncagent_protocol::sha256(&[&blob]));
    Ok(Sealed {
        entry: Entry {
            id,
            key: ChunkKey(key),
            len,
        },
        blob,
    })
}

/// Opens a piece of a file. Every byte was checked against what the manifest says, or it is an error.
pub fn open_data(
    keys: &Keys,
    scope: Scope,
    entry: &Entry,
    blob: &[u8],
) -> Result<Vec<u8>, VaultError> {
    let len = usize::try_from(entry.len)
        .ok()
        .filter(|len| (1..=MAX_CONTENT_LEN).contains(len))
        .ok_or(VaultError::Chunk)?;
    let (_, mut frame) = open(keys, scope, entry, blob, ChunkKind::Data)?;
    let (codec, stored) = unframe(&frame)?;
    match codec {
        0 if stored.len() == len => {
            // The frame becomes the content: no second copy of a large piece of memory.
            let mut content = std::mem::take(&mut *frame);
            content.copy_within(FRAME_HEADER_LEN..FRAME_HEADER_LEN + len, 0);
            content.truncate(len);
            Ok(content)
        }
        1 => decompress(stored, len).ok_or(VaultError::Chunk),
        _ => Err(VaultError::Chunk),
    }
}

/// The `len` bytes in one zstd frame (RFC 8878) whose window has at most 8 MiB; nothing may follow it.
///
/// `len` bounds what is allocated and decoded, whatever the compressed bytes claim.
fn decompress(stored: &[u8], len: usize) -> Option<Vec<u8>> {
    if !is_zstd_header_of(stored, len as u64) {
        return None;
    }
    // The library would go on with frames that follow.
    if zstd::zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
        return None;
    }
    let content = DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = bulk::Decompressor::new().ok();
        }
        kept.as_mut()?.decompress(stored, len).ok()
    })?;
    (content.len() == len).then_some(content)
}

/// Whether a zstd frame begins here (RFC 8878, section 3.1.1.1) whose window has at most 8 MiB and which declares
/// `len` bytes of content, or nothing of it.
///
/// The library is not asked: a declared length of 2^64 - 1 is the same to it as none.
fn is_zstd_header_of(stored: &[u8], len: u64) -> bool {
    let Some((&[0x28, 0xb5, 0x2f, 0xfd, descriptor], fields)) = stored.split_first_chunk::<5>()
    else {
        return false;
    };
    let single_segment = descriptor & 1 << 5 != 0;
    let window_len = usize::from(!single_segment);
    let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (declared_len, offset) = match descriptor >> 6 {
        0 => (usize::from(single_segment), 0),
        1 => (2, 256),
        2 => (4, 0),
        _ => (8, 0),
    };
    let declared_at = window_len + dictionary_len;
    let Some(declared) = fields.get(declared_at..declared_at + declared_len) else {
        return false;
    };
    let declared = declared
        .iter()
        .rev()
        .fold(0u64, |value, &b| value << 8 | u64::from(b));
    if declared_len > 0 && declared.checked_add(offset) != Some(len) {
        return false;
    }
    // Of a single segment the window is the content, and `len` is at most that of a chunk.
    single_segment || {
        let base = 1u64 << (10 + (fields[0] >> 3));
        base + base / 8 * u64::from(fields[0] & 7) <= MAX_CONTENT_LEN as u64
    }
}

/// Opens a list chunk: the entries one level down, whose lengths add up to the entry's.
pub fn open_list(
    keys: &Keys,
    scope: Scope,
    entry: &Entry,
    blob: &[u8],
) -> Result<Vec<Entry>, VaultError> {
    let (view, frame) = open(keys, scope, entry, blob, ChunkKind::List)?;
    let (codec, stored) = unframe(&frame)?;
    let ids = view.children();
    if codec != 0 || stored.len() != 40 * ids.len() {
        return Err(VaultError::Chunk);
    }
    let mut total = 0u64;
    let entries: Vec<Entry> = ids
        .zip(stored.as_chunks::<40>().0)
        .map(|(id, bytes)| {
            let entry = crate::manifest::entry_of(id, bytes);
            total = total.checked_add(entry.len).ok_or(VaultError::Chunk)?;
            match entry.len {
                0 => Err(VaultError::Chunk),
                _ => Ok(entry),
            }
        })
        .collect::<Result<_, VaultError>>()?;
    if total == entry.len {
        Ok(entries)
    } else {
        Err(VaultError::Chunk)
    }
}

/// Opens a list chunk right above the data: none of its entries is longer than a chunk can be.
pub fn open_leaves(
    keys: &Keys,
    scope: Scope,
    entry: &Entry,
    blob: &[u8],
) -> Result<Vec<Entry>, VaultError> {
    let leaves = open_list(keys, scope, entry, blob)?;
    match leaves.iter().all(|leaf| leaf.len <= MAX_CONTENT_LEN as u64) {
        true => Ok(leaves),
        false => Err(VaultError::Chunk),
    }
}

/// The longest sealed data chunk with `len` bytes of content: stored as it is, in its frame and padding.
pub fn max_sealed_len(len: u64) -> usize {
    let len = usize::try_from(len).map_or(MAX_CONTENT_LEN, |len| len.min(MAX_CONTENT_LEN));
    CHUNK_HEADER_LEN + padded_len(FRAME_HEADER_LEN + len) + crypto::TAG_LEN
}

/// The longest sealed list chunk.
pub fn max_list_len() -> usize {
    let clear = 4 + 32 * MAX_LIST_ENTRIES;
    let frame = padded_len(FRAME_HEADER_LEN + 40 * MAX_LIST_ENTRIES);
    CHUNK_HEADER_LEN + clear + frame + crypto::TAG_LEN
}

fn open<'a>(
    keys: &Keys,
    scope: Scope,
    entry: &Entry,
    blob: &'a [u8],
    kind: ChunkKind,
) -> Result<(ChunkView<'a>, zeroize::Zeroizing<Vec<u8>>), VaultError> {
    if ChunkId(syncagent_protocol::sha256(&[blob])) != entry.id {
        return Err(VaultError::Chunk);
    }
    let view = ChunkView::parse(blob).map_err(|_| VaultError::Chunk)?;
    if view.kind != kind {
        return Err(VaultError::Chunk);
    }
    let mut frame = zeroize::Zeroizing::new(vec![0; view.ct.len() - crypto::TAG_LEN]);
    crypto::open(
        entry.key.expose(),
        [0; 12],
        &aad(keys, kind, scope, view.clear),
        view.ct,
        &mut frame,
    )
    .ok_or(VaultError::Chunk)?;
    Ok((view, frame))
}

fn unframe(frame: &[u8]) -> Result<(u8, &[u8]), VaultError> {
    let (header, rest) = frame
        .split_first_chunk::<FRAME_HEADER_LEN>()
        .ok_or(VaultError::Chunk)?;
    let stored_len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let (stored, padding) = rest.split_at_checked(stored_len).ok_or(VaultError::Chunk)?;
    let exact = header[5..] == [0; 3]
        && frame.len() == padded_len(FRAME_HEADER_LEN + stored_len)
        && padding.iter().all(|&b| b == 0);
    if exact {
        Ok((header[4], stored))
    } else {
        Err(VaultError::Chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::VaultKey;
    use syncagent_protocol::{VaultId, sha256};

    fn keys(vault: u8) -> Keys {
        VaultKey::from_parts(Secret::copy_from(&[5; 32]), VaultId([vault; 16]))
            .keys()
            .unwrap()
    }

    #[test]
    fn padding_of_the_document() {
        for (len, want) in [
            (1, 4096),
            (4096, 4096),
            (10_000, 10_240),
            ((1 << 20) + 8, 1_081_344),
            ((8 << 20) + 8, 8_650_752),
        ] {
            assert_eq!(padded_len(len), want);
        }
    }

    #[test]
    fn a_frame_has_one_form() {
        let mut frame = vec![0; 4096];
        frame[..4].copy_from_slice(&2u32.to_be_bytes());
        frame[FRAME_HEADER_LEN..][..2].copy_from_slice(b"ok");
        assert_eq!(unframe(&frame).unwrap(), (0, &b"ok"[..]));
        // Each alone: a byte kept for later, a byte behind the content, a length that is no step of the padding.
        let mut reserved = frame.clone();
        reserved[7] = 1;
        let mut padded = frame.clone();
        padded[4095] = 1;
        let longer = [&frame[..], &[0; 4096]].concat();
        for other in [reserved, padded, longer] {
            assert!(matches!(unframe(&other), Err(VaultError::Chunk)));
        }
    }

    #[test]
    fn a_chunk_opens_in_its_vault_and_scope_only() {
        let keys_a = keys(1);
        let text = b"all work and no play ".repeat(1000);
        let random: Vec<u8> = (0..50_000u32)
            .map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[0])
            .collect();
        for content in [&text[..], &random, b"x"] {
            let sealed = seal_data(&keys_a, Scope([1; 16]), content, Codec::Zstd).unwrap();
            let again = seal_data(&keys_a, Scope([1; 16]), content, Codec::Zstd).unwrap();
            assert_eq!(sealed.entry.id, again.entry.id);
            assert_eq!(
                open_data(&keys_a, Scope([1; 16]), &sealed.entry, &sealed.blob).unwrap(),
                content
            );
            assert!(open_data(&keys_a, Scope([2; 16]), &sealed.entry, &sealed.blob).is_err());
            assert!(open_data(&keys(2), Scope([1; 16]), &sealed.entry, &sealed.blob).is_err());
            let other = seal_data(&keys_a, Scope([2; 16]), content, Codec::Zstd).unwrap();
            assert_ne!(sealed.entry.id, other.entry.id);
        }
        let packed = seal_data(&keys_a, Scope([1; 16]), &text, Codec::Zstd).unwrap();
        assert!(packed.blob.len() < text.len() / 2);
    }

    #[test]
    fn a_piece_is_neither_empty_nor_longer_than_the_format_allows() {
        let keys = keys(1);
        let seal = |len: usize| seal_data(&keys, Scope::VAULT, &vec![7; len], Codec::Zstd);
        assert!(seal(0).is_err());
        assert!(seal(MAX_CONTENT_LEN + 1).is_err());
        for len in [1, MAX_CONTENT_LEN] {
            let sealed = seal(len).unwrap();
            let opened = open_data(&keys, Scope::VAULT, &sealed.entry, &sealed.blob);
            assert!(opened.unwrap() == vec![7; len]);
        }
        let list = |len: usize| {
            let entry = |n: usize| Entry {
                id: ChunkId(sha256(&[&n.to_be_bytes()])),
                key: ChunkKey::from_bytes(&[3; 32]),
                len: 1 + n as u64,
            };
            let entries: Vec<Entry> = (0..len).map(entry).collect();
            seal_list(&keys, Scope::VAULT, &entries)
        };
        assert!(list(0).is_err());
        assert!(list(MAX_LIST_ENTRIES + 1).is_err());
        for len in [1, MAX_LIST_ENTRIES] {
            let sealed = list(len).unwrap();
            let opened = open_list(&keys, Scope::VAULT, &sealed.entry, &sealed.blob).unwrap();
            assert_eq!(opened.len(), len);
        }
    }

    #[test]
    fn a_list_is_its_entries_and_nothing_else() {
        let keys = keys(1);
        let opens = |codec: u8, lens: &[u64], total: u64| {
            let clear = [&[0, 0, 0, 2][..], &[1; 32], &[2; 32]].concat();
            let entry = |len: &u64| [&[7; 32][..], &len.to_be_bytes()].concat();
            let stored: Vec<u8> = lens.iter().flat_map(entry).collect();
            let (kind, scope) = (ChunkKind::List, Scope::VAULT);
            let sealed = seal(&keys, kind, scope, &clear, codec, &[&stored], total).unwrap();
            open_list(&keys, scope, &sealed.entry, &sealed.blob).is_ok()
        };
        assert!(opens(0, &[1, 2], 3));
        assert!(!opens(1, &[1, 2], 3), "nothing is compressed");
        assert!(!opens(0, &[1], 1), "an entry for each id");
        assert!(!opens(0, &[1, 2, 3], 6), "and for each entry an id");
        assert!(!opens(0, &[0, 3], 3), "nothing is empty");
        assert!(!opens(0, &[1, 2], 4), "it adds up");
        assert!(!opens(0, &[u64::MAX, 2], 1), "and not beyond");
    }

    #[test]
    fn it_is_compressed_where_that_saves_a_tenth() {
        let keys = keys(1);
        let mut random = vec![0; 10_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        // So many zeros behind random bytes; what they are packed into is next to nothing.
        let is_compressed = |zeros: usize| {
            random[10_000 - zeros..].fill(0);
            let sealed = seal_data(&keys, Scope::VAULT, &random, Codec::Zstd).unwrap();
            let (_, frame) = open(
                &keys,
                Scope::VAULT,
                &sealed.entry,
                &sealed.blob,
                ChunkKind::Data,
            )
            .unwrap();
            unframe(&frame).unwrap().0 == 1
        };
        let got = [0, 500, 900, 1_100, 5_000, 10_000].map(is_compressed);
        assert_eq!(got, [false, false, false, true, true, true]);
    }

    #[test]
    fn a_piece_is_not_judged_by_one_place() {
        let keys = keys(1);
        let mut random = vec![0; 600_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        let (len, sample) = (random.len(), 4096);
        // What half of each byte is known of takes half the space, wherever in the piece that is.
        for plain in [0..len, 0..len / 3, len / 3..2 * len / 3, len - sample..len] {
            let mut content = random.clone();
            content[plain.clone()].iter_mut().for_each(|b| *b &= 0x0f);
            if plain.len() == sample {
                // The rest would not save a tenth otherwise.
                content[sample..len / 2].fill(0);
            }
            let sealed = seal_data(&keys, Scope::VAULT, &content, Codec::Zstd).unwrap();
            assert!(sealed.blob.len() < len * 9 / 10, "{plain:?}");
        }
        let sealed = seal_data(&keys, Scope::VAULT, &random, Codec::Zstd).unwrap();
        assert!(sealed.blob.len() > len);
    }

    #[test]
    fn what_was_compressed_before_changes_no_byte() {
        // Text of any length, some that repeats from far away, some that is found in what came before.
        let content = |i: u32| -> Vec<u8> {
            let len = [1, 300, 20_000, 400_000, 3_000_000][i as usize % 5];
            let word = |n: u32| format!("{} ", blake3::hash(&(n % (7 + i)).to_le_bytes()));
            (0..).flat_map(|n| word(n).into_bytes()).take(len).collect()
        };
        let fresh = |content: Vec<u8>| {
            std::thread::spawn(move || compress(&content, ZSTD_LEVEL).unwrap())
                .join()
                .unwrap()
        };
        for i in 0..20 {
            let _ = decompress(b"\x28\xb5\x2f\xfd nothing of the kind", 40);
            let packed = compress(&content(i), ZSTD_LEVEL).unwrap();
            assert!(packed == fresh(content(i)), "{i}");
            assert!(decompress(&packed, content(i).len()).unwrap() == content(i));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let keys = keys(1);
        let sealed = seal_data(&keys, Scope([1; 16]), b"content", Codec::Stored).unwrap();
        let mut blob = sealed.blob.clone();
        for bit in 0..8 * blob.len() {
            blob[bit / 8] ^= 1 << (bit % 8);
            // Whether its name is looked at, or only what it is.
            for id in [sealed.entry.id, ChunkId(sha256(&[&blob]))] {
                let entry = Entry {
                    id,
                    ..sealed.entry.duplicate()
                };
                let opened = open_data(&keys, Scope([1; 16]), &entry, &blob);
                assert_eq!(opened, Err(VaultError::Chunk), "bit {bit}");
            }
            blob[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_compressed_chunk_is_one_frame_with_a_small_window() {
        // A block as it is: header of the frame, window, 3 bytes of "last, raw, 5 bytes", the bytes.
        let frame = |window: u8| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
            frame.extend_from_slice(&[1 | 5 << 3, 0, 0]);
            frame.extend_from_slice(b"hello");
            frame
        };
        let (largest, larger) = (frame(13 << 3), frame(13 << 3 | 1));
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        let whole = |frame: &[u8]| decompress(frame, 5).as_deref() == Some(b"hello");
        assert!(whole(&largest));
        assert!(whole(&frame(12 << 3 | 7)));
        assert!(!whole(&larger));
        assert!(!whole(&[&largest[..], &[0]].concat()));
        assert!(!whole(&[&largest[..], &skippable].concat()));
        assert!(!whole(&[&skippable, &largest[..]].concat()));
        assert_eq!(decompress(&[&largest[..], &largest].concat(), 10), None);
        // Of a single segment, whose length stands behind the number of a dictionary that nobody has.
        let mut dictionary = vec![0x28, 0xb5, 0x2f, 0xfd, 1 << 5 | 1, 7, 5];
        dictionary.extend_from_slice(&largest[6..]);
        assert_eq!(decompress(&dictionary, 5), None);
        // It declares a length that to the library is none.
        let mut endless = vec![0x28, 0xb5, 0x2f, 0xfd, 3 << 6, 13 << 3];
        endless.extend_from_slice(&[0xff; 8]);
        endless.extend_from_slice(&largest[6..]);
        assert_eq!(decompress(&endless, 5), None);
        assert_eq!(decompress(&largest, 4), None);
        assert_eq!(decompress(&largest, 6), None);
        assert_eq!(decompress(&[], 5), None);

        let keys = keys(1);
        for (stored, opens) in [(&largest, true), (&larger, false)] {
            let kind = ChunkKind::Data;
            let sealed = seal(&keys, kind, Scope([1; 16]), &[], 1, &[stored], 5).unwrap();
            let opened = open_data(&keys, Scope([1; 16]), &sealed.entry, &sealed.blob);
            assert_eq!(opened.is_ok(), opens);
        }
    }

    #[test]
    fn no_piece_below_a_list_is_longer_than_a_chunk() {
        let keys = keys(1);
        let piece = |len| Entry {
            id: ChunkId([1; 32]),
            key: ChunkKey::from_bytes(&[2; 32]),
            len,
        };
        let most = MAX_CONTENT_LEN as u64;
        for (lens, opens) in [
            ([most, 1], true),
            ([1, most + 1], false),
            ([1, 1 << 36], false),
        ] {
            let list = seal_list(&keys, Scope([1; 16]), &lens.map(piece)).unwrap();
            let (scope, entry, blob) = (Scope([1; 16]), &list.entry, &list.blob);
            // Higher up it is what lies below all of a list.
            assert!(open_list(&keys, scope, entry, blob).is_ok());
            let opened = open_leaves(&keys, scope, entry, blob);
            assert_eq!(opened.is_ok(), opens, "{lens:?}");
        }
    }

    #[test]
    fn no_chunk_is_longer_than_what_is_said_of_it() {
        let keys = keys(1);
        for len in [1, 4088, 4089, 100_000, MAX_CONTENT_LEN] {
            let sealed = seal_data(&keys, Scope::VAULT, &vec![7; len], Codec::Stored).unwrap();
            assert_eq!(sealed.blob.len(), max_sealed_len(len as u64));
        }
        assert_eq!(max_sealed_len(u64::MAX), max_sealed_len(8 << 20));
        let piece = || Entry {
            id: ChunkId([1; 32]),
            key: ChunkKey::from_bytes(&[2; 32]),
            len: 1,
        };
        let entries: Vec<Entry> = (0..MAX_LIST_ENTRIES).map(|_| piece()).collect();
        let list = seal_list(&keys, Scope::VAULT, &entries).unwrap();
        assert_eq!(list.blob.len(), max_list_len());
    }

    #[test]
    fn a_wrong_length_in_the_manifest_is_found() {
        let keys = keys(1);
        for codec in [Codec::Stored, Codec::Zstd] {
            let mut sealed = seal_data(&keys, Scope([1; 16]), &[7; 5000], codec).unwrap();
            for len in [0, 1, 4999, 5001, u64::MAX] {
                sealed.entry.len = len;
                assert_eq!(
                    open_data(&keys, Scope([1; 16]), &sealed.entry, &sealed.blob),
                    Err(VaultError::Chunk)
                );
            }
        }
    }
}
