//! What do machines agree on?
//!
//! Plain data, no I/O, no keys: the identifiers, names and nodes of a vault, the signed log as far as
//! anyone without the vault key can check it, the framing of packs, and the shapes of the HTTP API.
//! The contract behind this crate is `docs/format.md` (bytes) and `docs/protocol.md` (HTTP).
//!
//! Reading order: [`ids`], [`name`], [`path`], [`node`], [`commit`], [`pack`], [`api`], [`code`].
//! Beside it: [`crash`], where tests kill.

pub mod api;
mod bytes;
pub mod code;
pub mod commit;
pub mod crash;
pub mod ids;
pub mod invitation;
pub mod name;
pub mod node;
pub mod pack;
pub mod path;
pub mod signature;
pub mod time;

pub use code::Code;
pub use ids::{ChunkId, CommitHash, ContentHash, MachineId, NodeId, OpHash, VaultId};
pub use name::Name;
pub use node::{Body, Kind, Node};
pub use path::TreePath;

/// SHA-256 of `parts` joined.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
