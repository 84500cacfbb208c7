//! The state of a node: what a PUT says about a file, directory or link, as far as decisions need it.
//!
//! Chunk lists stay out: they can be large and no decision looks at them.

use crate::ids::{ContentHash, NodeId};
use crate::name::Name;

/// What kind of thing a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, never followed.
    Symlink,
}

/// What a node holds. Two nodes whose bodies are equal need no transfer between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Body {
    /// A regular file.
    File {
        /// BLAKE3 of the content.
        hash: ContentHash,
        /// Length of the content in bytes.
        size: u64,
        /// Whether its owner may execute it.
        exec: bool,
    },
    /// A directory; what hangs in it says so itself.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, byte for byte.
        target: String,
    },
}

impl Body {
    /// The kind of node this is the body of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::File,
            Self::Directory => Kind::Directory,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }
}

/// A node and its place: the meaning of its last PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The directory it hangs in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// Time of the last change of content, nanoseconds since 1970. Carried along, never compared between machines.
    pub mtime_ns: i64,
    /// What it holds.
    pub body: Body,
}
