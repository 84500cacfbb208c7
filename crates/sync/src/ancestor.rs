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
        !self.at_path(path).is_empty()
    }

    /// The nodes whose rows stand at this path of the disk.
    pub fn at_path(&self, path: &syncagent_protocol::TreePath) -> Vec<NodeId> {
        let mut found = vec![NodeId::ROOT];
        for name in path.components() {
            let Ok(name) = Name::parse(name) else {
                return Vec::new();
            };
            let below = |parent| self.at(parent, &name);
            found = found.into_iter().flat_map(below).collect();
        }
        found
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
    pub fn with_inode(&self, directory: bool, inode: u64) -> impl Iterator<Item = NodeId> {
        let range = (directory, inode, FIRST)..=(directory, inode, LAST);
        self.inodes.range(range).map(|(_, _, id)| *id)
    }
}

/// The first and the last id in order.
const FIRST: NodeId = NodeId([0; 16]);
const LAST: NodeId = NodeId([u8::MAX; 16]);

/// Built in one go: maps that are filled row by row are half empty, and there may be very many rows.
impl FromIterator<(NodeId, AncestorNode)> for Ancestor {
    fn from_iter<I: IntoIterator<Item = (NodeId, AncestorNode)>>(rows: I) -> Self {
        let nodes: BTreeMap<NodeId, AncestorNode> = rows.into_iter().collect();
        let here = || nodes.iter().filter(|(_, row)| !row.not_here);
        let mut counts = [0; 3];
        for (_, row) in here() {
            counts[slot(row.node.body.kind())] += 1;
        }
        let names = here().map(|(id, row)| (row.node.parent, row.node.name.clone(), *id));
        let mut names: Vec<(NodeId, Name, NodeId)> = names.collect();
        names.sort_unstable();
        let siblings = names.chunk_by(|(one, ..), (other, ..)| one == other);
        let children = siblings.filter_map(|siblings| {
            let (parent, ..) = siblings.first()?;
            let names = siblings.iter().map(|(_, name, id)| (name.clone(), *id));
            Some((*parent, names.collect()))
        });
        let inodes = here().filter_map(|(id, row)| inode_key(*id, row));
        Self {
            children: children.collect(),
            inodes: inodes.collect(),
            counts,
            touched: Touched::All,
            nodes,
        }
    }
}

impl AncestorNode {
    /// The same row, of a node whose directory goes by another id.
    #[must_use]
    pub fn in_directory(&self, parent: NodeId) -> Self {
        let mut row = self.clone();
        row.node.parent = parent;
        row
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_protocol::Body;

    #[test]
    fn built_at_once_or_row_by_row_it_is_the_same() {
        let row = |n: u8, parent: u8, not_here| {
            let row = AncestorNode {
                node: Node {
                    parent: NodeId([parent; 16]),
                    name: Name::parse(["a", "b"][usize::from(n % 2)]).unwrap(),
                    mtime_ns: 0,
                    body: Body::Directory,
                },
                op_hash: OpHash([n; 32]),
                fingerprint: None,
                inode: u64::from(n / 2),
                not_here,
            };
            (NodeId([n; 16]), row)
        };
        let rows = (1..40).map(|n| row(n, n % 5, n % 7 == 0));
        let at_once: Ancestor = rows.clone().collect();
        let mut by_row = Ancestor::default();
        for (id, row) in rows.rev() {
            by_row.insert(id, row);
        }
        assert_eq!(at_once.nodes, by_row.nodes);
        assert_eq!(at_once.children, by_row.children);
        assert_eq!(at_once.inodes, by_row.inodes);
        assert_eq!(at_once.counts, by_row.counts);
        for id in by_row.nodes.keys().copied().collect::<Vec<_>>() {
            by_row.remove(id);
        }
        assert!(by_row.children.is_empty() && by_row.inodes.is_empty() && by_row.counts == [0; 3]);
    }
}
