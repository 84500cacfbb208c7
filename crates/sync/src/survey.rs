//! Where the world differs, kept from decision to decision.
//!
//! A directory that is the same in ancestor and on disk is *known*, and so are the root and nothing else. Each known
//! directory is compared entry by entry, row by row, node by node, and what comes of that depends on nothing outside of
//! it. So only directories in which something was touched are compared again; the collections say which these are. A
//! decision about one file among many thousands thus costs what its directory holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use syncagent_protocol::{Kind, NodeId, TreePath};

use crate::ancestor::Ancestor;
use crate::scan::{Observed, Scan};
use crate::touched::Touched;
use crate::tree::{LogTree, Placed};

/// All sides of the world.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// What was last agreed on.
    pub ancestor: &'a Ancestor,
    /// What was found on disk.
    pub scan: &'a Scan,
    /// What the vault says.
    pub log: &'a LogTree,
    /// What hangs where in the vault.
    pub remote: &'a Placed,
}

/// What differs. Begins as if nothing had ever been compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    known: BTreeMap<NodeId, Known>,
    /// The same by path.
    at: HashMap<String, NodeId>,
    /// Those of them in which something differs.
    unclean: BTreeSet<NodeId>,
    /// Rows, and nodes of the vault without a row, that hang in no known directory.
    elsewhere: Vec<NodeId>,
    /// Rows and nodes of the vault in known directories.
    rows: usize,
    nodes: usize,
}

/// What is directly in a known directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    path: TreePath,
    /// How many rows.
    rows: usize,
    /// How many nodes of the vault.
    nodes: usize,
    /// Known directories.
    directories: BTreeSet<NodeId>,
    /// Nodes that are not the same everywhere.
    differs: Vec<NodeId>,
    /// What was found where nothing known is the same, in order, with all that is below.
    strange: Vec<TreePath>,
}

impl Survey {
    /// Compares again what was touched since the last call.
    pub fn follow(
        &mut self,
        ancestor: &mut Ancestor,
        scan: &mut Scan,
        log: &LogTree,
        remote: &mut Placed,
    ) {
        let rows = ancestor.take_touched();
        let found = scan.entries.take_touched();
        let nodes = remote.tree.take_touched();
        let world = World {
            ancestor,
            scan,
            log,
            remote,
        };
        match (found, rows, nodes) {
            (Touched::Some(found), Touched::Some(rows), Touched::Some(nodes)) => {
                let found = found
                    .iter()
                    .filter_map(|path| self.at.get(path.as_str()).copied());
                let touched = found.chain(rows).chain(nodes);
                let touched: BTreeSet<NodeId> =
                    touched.chain(self.unclean.iter().copied()).collect();
                self.compare(&world, touched);
            }
            _ => {
                // Never two of them at a time.
                *self = Self::default();
                *self = Self::whole(&world);
            }
        }
        debug_assert_eq!(*self, Self::whole(&world));
    }

    /// Compares everything.
    fn whole(world: &World<'_>) -> Self {
        let mut survey = Self::default();
        survey.enter(NodeId::ROOT, TreePath::ROOT);
        survey.compare(world, BTreeSet::from([NodeId::ROOT]));
        survey
    }

    fn compare(&mut self, world: &World<'_>, again: BTreeSet<NodeId>) {
        let mut again: Vec<NodeId> = again.into_iter().collect();
        while let Some(id) = again.pop() {
            let Some(before) = self.known.get(&id) else {
                continue;
            };
            let (now, directories) = Known::look(world, id, before.path.clone());
            let gone = before.directories.difference(&now.directories);
            let gone: Vec<NodeId> = gone
                .filter(|directory| self.is_in(**directory, &now.path))
                .copied()
                .collect();
            for directory in gone {
                self.leave(directory);
            }
            for (directory, path) in directories {
                // The same directory can be known at one place only, and it may have been another one until now.
                if self
                    .known
                    .get(&directory)
                    .is_none_or(|known| known.path != path)
                {
                    self.leave(directory);
                    self.enter(directory, path);
                    again.push(directory);
                }
            }
            let is_clean = now.differs.is_empty() && now.strange.is_empty();
            if is_clean {
                self.unclean.remove(&id);
            } else {
                self.unclean.insert(id);
            }
            self.rows += now.rows;
            self.nodes += now.nodes;
            if let Some(before) = self.known.insert(id, now) {
                self.rows -= before.rows;
                self.nodes -= before.nodes;
            }
        }
        self.elsewhere.clear();
        if self.rows != world.ancestor.len() {
            let rows = world
                .ancestor
                .iter()
                .filter(|(_, row)| row.not_here || !self.known.contains_key(&row.node.parent));
            self.elsewhere.extend(rows.map(|(id, _)| id));
        }
        if self.nodes != world.remote.tree.len() {
            let nodes = world.remote.tree.iter().filter(|(id, node)| {
                world.ancestor.get(*id).is_none() && !self.known.contains_key(&node.parent)
            });
            self.elsewhere.extend(nodes.map(|(id, _)| id));
        }
    }

    fn enter(&mut self, id: NodeId, path: TreePath) {
        self.at.insert(path.as_str().to_owned(), id);
        let known = Known {
            path,
            ..Known::default()
        };
        self.known.insert(id, known);
    }

    /// A directory is not known any more, nor is any below it.
    fn leave(&mut self, id: NodeId) {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let Some(known) = self.known.remove(&id) else {
                continue;
            };
            // Another one may be known there by now.
            if self.at.get(known.path.as_str()) == Some(&id) {
                self.at.remove(known.path.as_str());
            }
            self.unclean.remove(&id);
            self.rows -= known.rows;
            self.nodes -= known.nodes;
            let directories = known.directories.into_iter();
            stack.extend(directories.filter(|directory| self.is_in(*directory, &known.path)));
        }
    }

    /// Whether a directory is known right below a path, and not where it may have gone since.
    fn is_in(&self, id: NodeId, path: &TreePath) -> bool {
        let known = self.known.get(&id);
        known.is_some_and(|known| known.path.parent().as_ref() == Some(path))
    }

    /// Nodes that are not the same everywhere.
    pub(crate) fn differs(&self) -> impl Iterator<Item = NodeId> {
        let unclean = self.unclean.iter().filter_map(|id| self.known.get(id));
        unclean
            .flat_map(|known| &known.differs)
            .chain(&self.elsewhere)
            .copied()
    }

    /// What was found where nothing known is the same.
    pub(crate) fn strange(&self) -> impl Iterator<Item = &TreePath> {
        let unclean = self.unclean.iter().filter_map(|id| self.known.get(id));
        unclean.flat_map(|known| &known.strange)
    }

    /// The known directory at a path.
    pub(crate) fn directory_at(&self, path: &str) -> Option<NodeId> {
        self.at.get(path).copied()
    }

    /// Where a known directory is.
    pub(crate) fn path_of(&self, id: NodeId) -> Option<&TreePath> {
        self.known.get(&id).map(|known| &known.path)
    }
}

impl Known {
    /// Compares what is directly in a directory. Also gives the known ones in it, and where they are.
    fn look(world: &World<'_>, id: NodeId, path: TreePath) -> (Self, Vec<(NodeId, TreePath)>) {
        let World {
            ancestor,
            scan,
            log,
            remote,
        } = world;
        let mut now = Self::default();
        let mut directories = Vec::new();
        let mut same = BTreeSet::new();
        for (path, seen) in scan.entries.children(&path) {
            let known = path.name().and_then(|name| {
                let rows = ancestor.at(id, &name);
                let mut rows = rows.filter_map(|id| Some((id, ancestor.here(id)?)));
                rows.find(|(_, row)| scan.is_untouched(seen, row))
            });
            let Some((id, row)) = known else {
                let below = scan.entries.within(path);
                now.strange.extend(below.map(|(path, _)| path.clone()));
                continue;
            };
            same.insert(id);
            if row.node.body.kind() == Kind::Directory && matches!(seen, Observed::Directory { .. })
            {
                now.directories.insert(id);
                directories.push((id, path.clone()));
            }
            let agreed = remote.tree.get(id) == Some(&row.node)
                && log.get(id).map(|entry| entry.op_hash) == Some(row.op_hash);
            if !agreed {
                now.differs.push(id);
            }
        }
        for (_, row) in ancestor.children(id) {
            now.rows += 1;
            if !same.contains(&row) {
                now.differs.push(row);
            }
        }
        for (_, node) in remote.tree.children(id) {
            now.nodes += 1;
            // Also one whose row hangs elsewhere: should the row go, nobody looks here again.
            if ancestor.get(node).is_none_or(|row| row.node.parent != id) {
                now.differs.push(node);
            }
        }
        now.path = path;
        (now, directories)
    }
}

#[cfg(test)]
mod tests {
    use syncagent_protocol::{Body, Name, Node, OpHash};

    use super::*;
    use crate::ancestor::AncestorNode;
    use crate::tree::{Change, LastOp};

    const D: NodeId = NodeId([1; 16]);
    const E: NodeId = NodeId([2; 16]);
    const N: NodeId = NodeId([3; 16]);

    fn node(parent: NodeId, name: &str) -> Node {
        Node {
            parent,
            name: Name::parse(name).unwrap(),
            mtime_ns: 0,
            body: Body::Directory,
        }
    }

    fn row(node: Node, n: u8) -> AncestorNode {
        AncestorNode {
            node,
            op_hash: OpHash([n; 32]),
            fingerprint: None,
            inode: u64::from(n),
            not_here: false,
        }
    }

    #[test]
    fn a_node_that_lost_its_row_is_found_where_the_vault_has_it() {
        let mut log = LogTree::default();
        let put = |id: NodeId, node: Node| Change {
            node: id,
            op: LastOp::Put(node.into()),
            op_hash: OpHash([id.0[0]; 32]),
        };
        let nodes = [
            (D, node(NodeId::ROOT, "D")),
            (E, node(NodeId::ROOT, "E")),
            (N, node(D, "x")),
        ];
        log.apply(1, nodes.clone().map(|(id, node)| put(id, node)));
        let mut remote = log.placed();
        let rows = [
            (D, row(node(NodeId::ROOT, "D"), 1)),
            (E, row(node(NodeId::ROOT, "E"), 2)),
            // The vault has moved it, this disk cannot.
            (N, row(node(E, "a"), 3)),
        ];
        let mut ancestor: Ancestor = rows.into_iter().collect();
        let found = [("D", 1), ("E", 2), ("E/a", 3)].map(|(path, inode)| {
            let seen = Observed::Directory {
                inode,
                complete: true,
                holds_skipped: false,
            };
            (TreePath::parse(path).unwrap(), seen)
        });
        let mut scan = Scan {
            entries: found.into_iter().collect(),
            root_complete: true,
            ..Scan::default()
        };
        let mut survey = Survey::default();
        survey.follow(&mut ancestor, &mut scan, &log, &mut remote);
        assert!(survey.differs().any(|id| id == N));
        // It makes way for something else, and its row goes.
        scan.entries.remove(&TreePath::parse("E/a").unwrap());
        ancestor.remove(N);
        survey.follow(&mut ancestor, &mut scan, &log, &mut remote);
        assert_eq!(survey.differs().collect::<Vec<_>>(), [N]);
    }
}
