//! What disk and vault last agreed on, node by node.
//!
//! Rows are written one by one as work completes, so together they need not form a tree: two rows may
//! name one place, a row may hang in a directory that has none. Nothing here assumes otherwise.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Kind, Name, Node, NodeId, OpHash};

use crate::scan::Fingerprint;
use crate::touched::Touched;

/// What was agreed on for one node, and what its file looked like then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AncestorNode {
    /// Its state. The place is the one on this disk, which differs from the vault's where this machine
    /// cannot hold the vault's.
    pub node: Node,
    /// The op that made this state.
    pub op_hash: OpHash,
    /// For files and links: what `stat` said when the row was written; none if that must not be trusted.
    pub fingerprint: Option<Fingerprint>,
    /// The inode number of a directory, or of a file or link without a fingerprint; 0 if unusable.
    pub inode: u64,
    /// Set if the node is in the vault but on purpose not on this disk. Its absence is no deletion.
    pub not_here: bool,
}

/// Every row.
#[derive(Debug, Clone, Default)]
pub struct Ancestor {
    nodes: BTreeMap<NodeId, AncestorNode>,
    children: BTreeMap<NodeId, BTreeSet<(Name, NodeId)>>,
    /// (is directory, inode, node) of what is here.
    inodes: BTreeSet<(bool, u64, NodeId)>,
    /// How many files, directories and links are here.
    counts: [usize; 3],
    /// Directories in which rows were changed.
    touched: Touched<NodeId>,
}

impl Ancestor {
    /// The row of a node.
    pub fn get(&self, node: NodeId) -> Option<&AncestorNode> {
        self.nodes.get(&node)
    }

    /// The row of a node that is on this disk.
    pub fn here(&self, node: NodeId) -> Option<&AncestorNode> {
        self.nodes.get(&node).filter(|row| !row.not_here)
    }

    /// Every row in order of node id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &AncestorNode)> {
        self.nodes.iter().map(|(id, row)| (*id, row))
    }

    /// Whether a row stands at this path of the disk.
    pub fn knows(&self, path: &syncagent_protocol::TreePath) -> bool {
        let mut parents = vec![NodeId::ROOT];
        for name in path.components() {
            let Ok(name) = Name::parse(name) else {
                return false;
            };
            let below = |parent| self.at(parent, &name);
            parents = parents.into_iter().flat_map(below).collect();
        }
        !parents.is_empty()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many of a kind are on this disk.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts[slot(kind)]
    }

    pub(crate) fn take_touched(&mut self) -> Touched<NodeId> {
        self.touched.take()
    }

    /// Writes a row.
    pub fn insert(&mut self, node: NodeId, row: AncestorNode) {
        self.remove(node);
        self.touched.note(|| row.node.parent);
        if !row.not_here {
            self.counts[slot(row.node.body.kind())] += 1;
            let names = self.children.entry(row.node.parent).or_default();
            names.insert((row.node.name.clone(), node));
            self.inodes.extend(inode_key(node, &row));
        }
        self.nodes.insert(node, row);
    }

    /// Drops a row.
    pub fn remove(&mut self, node: NodeId) -> Option<AncestorNode> {
        let row = self.nodes.remove(&node)?;
        self.touched.note(|| row.node.parent);
        if !row.not_here {
            self.counts[slot(row.node.body.kind())] -= 1;
        }
        if let Some(names) = self.children.get_mut(&row.node.parent) {
            names.remove(&(row.node.name.clone(), node));
            if names.is_empty() {
                self.children.remove(&row.node.parent);
            }
        }
        if let Some(key) = inode_key(node, &row) {
            self.inodes.remove(&key);
        }
        Some(row)
    }

    /// What is on this disk in `parent` under `name`: usually one node.
    pub(crate) fn at(&self, parent: NodeId, name: &Name) -> impl Iterator<Item = NodeId> {
        let names = self.children.get(&parent);
        let range = (name.clone(), FIRST)..=(name.clone(), LAST);
        let found = names
            .into_iter()
            .flat_map(move |names| names.range(range.clone()));
        found.map(|(_, id)| *id)
    }

    /// What is on this disk in `parent`, by name.
    pub(crate) fn children(&self, parent: NodeId) -> impl Iterator<Item = (&Name, NodeId)> {
        let names = self.children.get(&parent).into_iter().flatten();
        names.map(|(name, id)| (name, *id))
    }

    /// What had this inode.
    pub(crate) fn with_inode(&self, directory: bool, inode: u64) -> impl Iterator<Item = NodeId> {
        let range = (directory, inode, FIRST)..=(directory, inode, LAST);
        self.inodes.range(range).map(|(_, _, id)| *id)
    }
}

/// The first and the last id in order.
const FIRST: NodeId = NodeId([0; 16]);
const LAST: NodeId = NodeId([u8::MAX; 16]);

impl FromIterator<(NodeId, AncestorNode)> for Ancestor {
    fn from_iter<I: IntoIterator<Item = (NodeId, AncestorNode)>>(rows: I) -> Self {
        let mut ancestor = Self::default();
        for (id, row) in rows {
            ancestor.insert(id, row);
        }
        ancestor
    }
}

impl AncestorNode {
    /// The inode number it had, trusted or not; 0 if unusable.
    pub(crate) fn number(&self) -> u64 {
        self.fingerprint.map_or(self.inode, |print| print.inode)
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
    }
}

fn inode_key(node: NodeId, row: &AncestorNode) -> Option<(bool, u64, NodeId)> {
    let directory = row.node.body.kind() == Kind::Directory;
    Some((directory, row.number(), node)).filter(|(_, inode, _)| *inode != 0)
}
