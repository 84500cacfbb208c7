//! Files into sealed chunks and back, streaming, with bounded memory.
//!
//! [`seal`] reads a file once and cuts, hashes and seals it; [`upload`] packs what is new and sends it;
//! [`download`] puts files together from what the disk already holds and what the server has, each part by part
//! (`assemble`).
//!
//! Memory does not depend on the size of files: a window of two chunks being cut, the packs in flight
//! ([`upload::PACKS_IN_FLIGHT`]), the answers in flight ([`download::FETCHES_IN_FLIGHT`]).

mod assemble;
pub mod download;
pub mod seal;
#[cfg(all(test, unix))]
mod tests;
pub mod upload;

use syncagent_protocol::ChunkId;
use syncagent_vault::chunk::{ChunkKey, Entry};
use syncagent_vault::manifest::ENTRY_LEN;

/// The data chunks of a file as they are kept in the index: `id ‖ key ‖ len` each.
pub fn encode_leaves(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRY_LEN * entries.len());
    for entry in entries {
        bytes.extend_from_slice(&entry.id.0);
        bytes.extend_from_slice(entry.key.expose());
        bytes.extend_from_slice(&entry.len.to_be_bytes());
    }
    bytes
}

/// The reverse of [`encode_leaves`]; what does not fit is left out.
pub fn decode_leaves(bytes: &[u8]) -> Vec<Entry> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    entries
        .iter()
        .map(|bytes| {
            let (mut id, mut key, mut len) = ([0; 32], zeroize::Zeroizing::new([0; 32]), [0; 8]);
            id.copy_from_slice(&bytes[..32]);
            key.copy_from_slice(&bytes[32..64]);
            len.copy_from_slice(&bytes[64..]);
            Entry {
                id: ChunkId(id),
                key: ChunkKey::from_bytes(&key),
                len: u64::from_be_bytes(len),
            }
        })
        .collect()
}
