//! What is on this disk, node by node: a scan whose entries were told apart.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{ContentHash, Kind, Name, NodeId, TreePath};

use crate::scan::Fingerprint;
use crate::tree::path_to;

/// One node on disk, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// The directory it hangs in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// What the scan found.
    pub state: LocalState,
}

/// What a scan found of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalState {
    /// A file or link that is, bit for bit, what the ancestor row says: its fingerprint has not changed.
    Same,
    /// A file that is new or was touched.
    File {
        /// BLAKE3 of its content; none if it was not read yet.
        hash: Option<ContentHash>,
        /// Length in bytes.
        size: u64,
        /// Whether its owner may execute it.
        exec: bool,
        /// Time of the last change, nanoseconds since 1970.
        mtime_ns: i64,
        /// What `stat` said.
        fingerprint: Fingerprint,
    },
    /// A directory.
    Directory {
        /// Its inode number, 0 if unusable.
        inode: u64,
        /// Whether it holds, directly, anything that is not synchronised or was not seen. Such a directory
        /// is never removed.
        holds_skipped: bool,
        /// Whether every entry was seen. Where not, nothing is put in: the name may be taken.
        complete: bool,
    },
    /// A symbolic link that is new or was touched.
    Symlink {
        /// Where it points.
        target: String,
        /// What `stat` said of the link itself.
        fingerprint: Fingerprint,
    },
    /// Unreadable, ignored though known, or below such a thing: neither changed nor deleted.
    Unknown,
}

/// Everything on this disk that is or shall be synchronised, and what stands in its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// By node.
    pub nodes: BTreeMap<NodeId, LocalNode>,
    /// Places taken by things that are no nodes: ignored, special, unreadable.
    pub occupied: BTreeSet<(NodeId, Name)>,
    /// Set if not everything in the root itself was seen.
    pub root_incomplete: bool,
}

impl Local {
    /// The node's path on disk; the root's is empty.
    pub fn path_of(&self, node: NodeId) -> Option<TreePath> {
        path_to(node, |id| {
            { self.nodes.get(&id) }.map(|here| (here.parent, &here.name))
        })
    }

    /// What `stat` said of a touched or new file or link; none if it is as the ancestor row says.
    pub fn fingerprint(&self, node: NodeId) -> Option<Fingerprint> {
        match self.nodes.get(&node)?.state {
            LocalState::File { fingerprint, .. } | LocalState::Symlink { fingerprint, .. } => {
                Some(fingerprint)
            }
            _ => None,
        }
    }
}

impl LocalState {
    /// The kind of thing, where the state alone tells.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::File { .. } => Some(Kind::File),
            Self::Directory { .. } => Some(Kind::Directory),
            Self::Symlink { .. } => Some(Kind::Symlink),
            Self::Same | Self::Unknown => None,
        }
    }
}
