//! What a decision comes to: steps on this disk, ops for the log, rows for the ancestor.
//!
//! A plan holds no pending work beyond itself: stop after any of its steps, scan again, and the next
//! plan finishes the job. How to carry one out is written at [`Plan`].

use std::collections::BTreeMap;

use serde::Serialize;
use syncagent_protocol::{Kind, Name, Node, NodeId, OpHash, TreePath};

use crate::scan::Skipped;

/// What shall happen. To carry it out:
///
/// 1. If `needs_hash` is not empty, read those files and decide again; everything else is empty then.
/// 2. In one transaction, drop the rows in `forget`, write the rows of `agreed` (from `records`), and let those of
///    `reparented` name their new directory ([`crate::AncestorNode::in_directory`]).
/// 3. Before a step that makes a node (`MakeDir`, `Fetch`, `Link`, an `aside`), remember its id for its path
///    (`pending_ids` of [`mod@crate::identify`]), so that an interruption does not make a stranger of it.
/// 4. Do the `steps` strictly in order. A step that finds other than what was scanned is given up, with
///    every later step that needs it; the next pass decides anew. What a step
///    removes ([`Step::removes`]) loses its row afterwards.
/// 5. Post the `ops`: groups in order, each group within one commit.
/// 6. Once everything planned for a node is done (its steps, its op), write its row from `records` with the
///    fingerprint of what now stands at `path`; a TRASH drops the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// On this disk, strictly in order.
    pub steps: Vec<Step>,
    /// For the log. Groups go in order; each must stand in one commit, because names would clash in between.
    pub ops: Vec<Group>,
    /// The ancestor row of each node once everything planned for it is done.
    pub records: BTreeMap<NodeId, Record>,
    /// Nodes with nothing left to do: their rows (in `records`) may be written at once.
    pub agreed: Vec<NodeId>,
    /// Rows to drop before anything else is done.
    pub forget: Vec<NodeId>,
    /// Nodes whose directory goes by another id from now on, and that id. Nothing else about their rows changes by
    /// that, and they may have records, steps and ops besides.
    pub reparented: BTreeMap<NodeId, NodeId>,
    /// Files that must be read before anything can be decided, as scanned.
    pub needs_hash: Vec<TreePath>,
    /// Where both sides said something different.
    pub conflicts: Vec<Conflict>,
    /// What this machine leaves alone, and why.
    pub skipped: Vec<Skipped>,
}

impl Plan {
    /// Whether disk and vault are in sync: nothing to do, nothing to ask. Rows may still be written.
    pub fn is_idle(&self) -> bool {
        self.steps.is_empty() && self.ops.is_empty() && self.needs_hash.is_empty()
    }

    /// Every op, in order.
    pub fn all_ops(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().flat_map(|group| &group.0)
    }
}

/// What the ancestor row of a node becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The state agreed on. For a file sent with [`Content::FromDisk`] its hash and size are those of the
    /// content that was sent; what stands here is what the scan knew.
    pub node: Node,
    /// The op that made this state; none: the op this plan sends.
    pub op_hash: Option<OpHash>,
    /// Where it stands on this disk after the steps.
    pub path: TreePath,
}

/// A file that makes room: it is first linked to this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Where the present file goes on.
    pub path: TreePath,
    /// Which node it is there.
    pub node: NodeId,
}

/// One change on this disk. Paths are valid when its turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make an empty directory where nothing stands.
    MakeDir {
        /// The directory.
        node: NodeId,
        /// Where.
        path: TreePath,
    },
    /// Put the vault's content of a file in place, by rename.
    Fetch {
        /// The file.
        node: NodeId,
        /// Where.
        path: TreePath,
        /// What must still stand there, as scanned; none: nothing may.
        replaces: Option<NodeId>,
        /// Where what stands there goes on.
        aside: Option<Aside>,
        /// Whether the owner may execute it; the rest of the state is the vault's.
        exec: bool,
        /// Time of its last change, nanoseconds since 1970.
        mtime_ns: i64,
    },
    /// Put a symbolic link in place, by rename.
    Link {
        /// The link.
        node: NodeId,
        /// Where.
        path: TreePath,
        /// Where it points.
        target: String,
        /// What must still stand there, as scanned; none: nothing may.
        replaces: Option<NodeId>,
        /// Where what stands there goes on.
        aside: Option<Aside>,
    },
    /// Set exec bit and time of a file whose content is right.
    SetMeta {
        /// The file.
        node: NodeId,
        /// Where.
        path: TreePath,
        /// Whether its owner may execute it.
        exec: bool,
        /// Time of its last change, nanoseconds since 1970.
        mtime_ns: i64,
    },
    /// Rename. Nothing stands at `to`, unless both are exchanged.
    Move {
        /// What moves.
        node: NodeId,
        /// From where.
        from: TreePath,
        /// To where.
        to: TreePath,
        /// What stands at `to` and goes to `from` at the same instant.
        exchange_with: Option<NodeId>,
    },
    /// Remove a file or link that still is as scanned, or an empty directory.
    Remove {
        /// What goes.
        node: NodeId,
        /// From where.
        path: TreePath,
        /// What it is.
        kind: Kind,
    },
}

impl Step {
    /// The node that is gone from this disk after the step: removed, or replaced by another.
    pub fn removes(&self) -> Option<NodeId> {
        match self {
            Self::Remove { node, .. } => Some(*node),
            Self::Fetch {
                node,
                replaces: Some(old),
                aside: None,
                ..
            }
            | Self::Link {
                node,
                replaces: Some(old),
                aside: None,
                ..
            } if old != node => Some(*old),
            _ => None,
        }
    }

    /// Another node that it brings somewhere: what it changes places with, or sets aside.
    pub fn other(&self) -> Option<NodeId> {
        match self {
            Self::Move { exchange_with, .. } => *exchange_with,
            Self::Fetch { aside, .. } | Self::Link { aside, .. } => {
                aside.as_ref().map(|aside| aside.node)
            }
            _ => None,
        }
    }

    /// The node the step is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::MakeDir { node, .. }
            | Self::Fetch { node, .. }
            | Self::Link { node, .. }
            | Self::SetMeta { node, .. }
            | Self::Move { node, .. }
            | Self::Remove { node, .. } => *node,
        }
    }
}

/// Ops that must stand in one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group(
    /// Parents before children.
    pub Vec<Op>,
);

/// One op for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The whole state of a node.
    Put(Put),
    /// Into the trash with it.
    Trash {
        /// What goes.
        node: NodeId,
    },
}

impl Op {
    /// The node the op is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Put(put) => put.node,
            Self::Trash { node } => *node,
        }
    }
}

/// The whole state of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The node.
    pub node: NodeId,
    /// The directory it hangs in.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// What it holds.
    pub content: Content,
    /// For files: whether the owner may execute it.
    pub exec: bool,
    /// Time of the last change, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// For a conflict copy: the node and version it lost against.
    pub conflict_of: Option<(NodeId, OpHash)>,
    /// The op the edit started from.
    pub based_on: Option<OpHash>,
}

/// Where the content of a PUT comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The file at this path, after the steps.
    FromDisk {
        /// Where it stands.
        path: TreePath,
    },
    /// What the node's last PUT holds: only place or meta change.
    Keep,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
}

/// Both sides said something different, and both are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// What keeps the name: the vault's.
    pub node: NodeId,
    /// What took another name: this machine's.
    pub copy: NodeId,
    /// The name both wanted.
    pub path: TreePath,
    /// The name the copy has now.
    pub copy_path: TreePath,
    /// The version both started from, if there was one.
    pub ancestor_version: Option<OpHash>,
    /// The version the copy lost against.
    pub remote_version: Option<OpHash>,
}
