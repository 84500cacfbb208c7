//! What the log says: the last op of every node, and the tree that follows from it.
//!
//! The tree is a function only of the last PUT, TRASH or PURGE of each node, taken after whole commits.
//! No op is ever void and none depends on the order inside its commit, so swaps and cycles of renames are
//! atomic and pruning old ops cannot change the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use syncagent_protocol::{Code, Kind, Name, Node, NodeId, OpHash, TreePath};

use crate::touched::Touched;

/// The last op of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastOp {
    /// A PUT that was opened and understood.
    Put(Arc<Node>),
    /// A PUT whose body does not open, does not parse or holds an invalid name.
    Unreadable,
    /// It was moved into the trash.
    Trashed,
    /// Every version of it was given up.
    Purged,
}

impl LastOp {
    /// What a PUT says.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::Put(node) => Some(node),
            Self::Unreadable | Self::Trashed | Self::Purged => None,
        }
    }
}

/// What one commit does to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The node.
    pub node: NodeId,
    /// What it is after the commit.
    pub op: LastOp,
    /// Names the op.
    pub op_hash: OpHash,
}

/// The last op of a node, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The op.
    pub op: LastOp,
    /// Position of its commit.
    pub n: u64,
    /// Names the op.
    pub op_hash: OpHash,
}

/// Why a node whose last op is a PUT hangs nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The PUT cannot be read.
    Unreadable,
    /// Its parent is unknown, deleted, not a directory or itself not placed.
    Orphan,
    /// It hangs, directly or not, in itself.
    Cycle,
    /// A sibling with a smaller id has the same name.
    NameTaken(NodeId),
    /// It would stand where SyncAgent keeps its own files.
    Reserved,
}

impl Why {
    /// In words, as half a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unreadable => {
                "its record in the vault cannot be read, or has a name that nothing can have"
            }
            Self::Orphan => "its directory is gone from the vault",
            Self::Cycle => "it hangs in itself",
            Self::NameTaken(_) => "its name is taken by another",
            Self::Reserved => "its name is SyncAgent's own",
        }
    }

    /// No machine writes some of these by itself: a failure. The others come of what several machines did at once.
    pub fn code(self) -> Option<Code> {
        match self {
            Self::Unreadable | Self::Reserved => Some(Code::Path),
            Self::Orphan | Self::Cycle | Self::NameTaken(_) => None,
        }
    }
}

/// The path of `node`, where `place` says in which directory each hangs, and under which name; none if one of them hangs
/// nowhere. The root's is empty.
pub(crate) fn path_to<'a>(
    node: NodeId,
    place: impl Fn(NodeId) -> Option<(NodeId, &'a Name)>,
) -> Option<TreePath> {
    let mut names = Vec::new();
    let mut at = node;
    while at != NodeId::ROOT {
        let (parent, name) = place(at)?;
        names.push(name);
        at = parent;
    }
    Some(names.into_iter().rev().collect())
}

/// Placed nodes: every one hangs in a directory of the tree, under a name of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Shared with the log: they are many.
    nodes: BTreeMap<NodeId, Arc<Node>>,
    children: BTreeMap<NodeId, BTreeMap<Name, NodeId>>,
    /// Directories in which nodes were changed.
    touched: Touched<NodeId>,
}

impl Tree {
    /// The node, if it is placed. The root is no node.
    pub fn get(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node).map(Arc::as_ref)
    }

    /// Whether the node is placed or the root.
    pub fn contains(&self, node: NodeId) -> bool {
        node == NodeId::ROOT || self.nodes.contains_key(&node)
    }

    /// Number of nodes, without the root.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node in order of its id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, &**node))
    }

    pub(crate) fn take_touched(&mut self) -> Touched<NodeId> {
        self.touched.take()
    }

    /// Takes in what became of `changed` nodes. Whether each has a place of its own, as all others had before: if not,
    /// the tree is useless.
    fn follow(&mut self, log: &LogTree, changed: &BTreeSet<NodeId>) -> bool {
        for id in changed {
            self.take_out(*id);
        }
        for id in changed {
            let node = match log.get(*id).map(|entry| &entry.op) {
                Some(LastOp::Put(node)) => node,
                Some(LastOp::Trashed | LastOp::Purged) => continue,
                Some(LastOp::Unreadable) | None => return false,
            };
            let is_reserved = node.parent == NodeId::ROOT && node.name.is_reserved_in_root();
            if is_reserved || self.child(node.parent, &node.name).is_some() {
                return false;
            }
            self.touched.note(|| node.parent);
            let siblings = self.children.entry(node.parent).or_default();
            siblings.insert(node.name.clone(), *id);
            self.nodes.insert(*id, Arc::clone(node));
        }
        // What hangs in something changed must still hang in a directory, and that in the root. A circle goes through
        // something changed, too.
        let directory = |id: &NodeId| {
            let node = self.nodes.get(id);
            node.filter(|node| node.body.kind() == Kind::Directory)
        };
        let mut in_root = BTreeSet::from([NodeId::ROOT]);
        changed.iter().all(|id| {
            if directory(id).is_none() && self.children.contains_key(id) {
                return false;
            }
            let mut way = BTreeSet::new();
            let mut at = match self.nodes.get(id) {
                Some(node) => node.parent,
                None => return true,
            };
            while !in_root.contains(&at) {
                match directory(&at) {
                    Some(node) if way.insert(at) => at = node.parent,
                    _ => return false,
                }
            }
            in_root.extend(way);
            true
        })
    }

    fn take_out(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        self.touched.note(|| node.parent);
        if let Some(siblings) = self.children.get_mut(&node.parent) {
            siblings.remove(&node.name);
            if siblings.is_empty() {
                self.children.remove(&node.parent);
            }
        }
    }

    /// The tree of some of the nodes.
    pub(crate) fn part(&self, ids: &BTreeSet<NodeId>) -> Self {
        let mut part = Self::default();
        for (id, node) in ids.iter().filter_map(|id| Some((*id, self.nodes.get(id)?))) {
            let siblings = part.children.entry(node.parent).or_default();
            siblings.insert(node.name.clone(), id);
            part.nodes.insert(id, Arc::clone(node));
        }
        part
    }

    /// What hangs in `parent` under `name`.
    pub fn child(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        self.children.get(&parent)?.get(name).copied()
    }

    /// What hangs in `parent`, by name.
    pub fn children(&self, parent: NodeId) -> impl DoubleEndedIterator<Item = (&Name, NodeId)> {
        self.children
            .get(&parent)
            .into_iter()
            .flatten()
            .map(|(name, id)| (name, *id))
    }

    /// Where the node hangs; the root's path is empty.
    pub fn path_of(&self, node: NodeId) -> Option<TreePath> {
        path_to(node, |id| {
            { self.nodes.get(&id) }.map(|here| (here.parent, &here.name))
        })
    }

    /// What hangs at `path`.
    pub fn at(&self, path: &TreePath) -> Option<NodeId> {
        path.components().try_fold(NodeId::ROOT, |parent, name| {
            self.children.get(&parent)?.get(name).copied()
        })
    }

    /// Every node below `from` with its path: a directory directly before its content, names in order.
    pub fn walk(&self, from: NodeId) -> Vec<(TreePath, NodeId)> {
        let mut out = Vec::new();
        let mut stack = vec![(self.path_of(from).unwrap_or_default(), from)];
        while let Some((path, node)) = stack.pop() {
            stack.extend(
                self.children(node)
                    .rev()
                    .map(|(name, id)| (path.join(name), id)),
            );
            if node != from {
                out.push((path, node));
            }
        }
        out
    }
}

/// The tree a log leads to, and what of it hangs nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// What hangs somewhere.
    pub tree: Tree,
    /// Nodes whose last op is a PUT but which hang nowhere. They are kept and reported, never taken for deleted.
    pub unplaced: BTreeMap<NodeId, Why>,
}

impl Placed {
    /// Takes in that the last ops of `changed` nodes are others now. What comes of it is what [`LogTree::placed`]
    /// gives; where everything has a place, it costs what was changed.
    pub fn follow(&mut self, log: &LogTree, changed: &BTreeSet<NodeId>) {
        let few = changed.len() < log.nodes.len() / 2;
        if !(few && self.unplaced.is_empty() && self.tree.follow(log, changed)) {
            *self = log.placed();
        }
    }
}

/// The last op of every node the log names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTree {
    head: u64,
    nodes: BTreeMap<NodeId, LogEntry>,
}

impl LogTree {
    /// Position of the last commit applied; 0 before the first.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Applies everything commit `n` says about nodes. Commits are applied whole and in order.
    pub fn apply(&mut self, n: u64, changes: impl IntoIterator<Item = Change>) {
        self.head = n;
        for Change { node, op, op_hash } in changes {
            self.nodes.insert(node, LogEntry { op, n, op_hash });
        }
    }

    /// Restores a tree that was stored: its head and each node's last op.
    pub fn restore(head: u64, nodes: impl IntoIterator<Item = (NodeId, LogEntry)>) -> Self {
        Self {
            head,
            nodes: nodes.into_iter().collect(),
        }
    }

    /// The last op of a node.
    pub fn get(&self, node: NodeId) -> Option<&LogEntry> {
        self.nodes.get(&node)
    }

    /// The last op of every node, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &LogEntry)> {
        self.nodes.iter().map(|(id, entry)| (*id, entry))
    }

    /// Works out what hangs where.
    pub fn placed(&self) -> Placed {
        let mut waiting: BTreeMap<NodeId, Vec<(NodeId, &Arc<Node>)>> = BTreeMap::new();
        let mut unplaced = BTreeMap::new();
        for (id, entry) in &self.nodes {
            match &entry.op {
                LastOp::Put(node) => waiting.entry(node.parent).or_default().push((*id, node)),
                LastOp::Unreadable => drop(unplaced.insert(*id, Why::Unreadable)),
                LastOp::Trashed | LastOp::Purged => {}
            }
        }
        let mut tree = Tree::default();
        let mut placed = Vec::new();
        let mut directories = vec![NodeId::ROOT];
        while let Some(parent) = directories.pop() {
            // In order of id, so whoever has the smaller id is there first.
            let mut names = BTreeMap::new();
            for (id, node) in waiting.remove(&parent).unwrap_or_default() {
                if parent == NodeId::ROOT && node.name.is_reserved_in_root() {
                    unplaced.insert(id, Why::Reserved);
                } else if let Some(first) = names.get(&node.name) {
                    unplaced.insert(id, Why::NameTaken(*first));
                } else {
                    names.insert(node.name.clone(), id);
                    placed.push((id, Arc::clone(node)));
                    if node.body.kind() == Kind::Directory {
                        directories.push(id);
                    }
                }
            }
            if !names.is_empty() {
                tree.children.insert(parent, names);
            }
        }
        tree.nodes = placed.into_iter().collect();
        let homeless: Vec<NodeId> = waiting.into_values().flatten().map(|(id, _)| id).collect();
        let circling = self.circling(&homeless);
        for id in homeless {
            let why = if circling.contains(&id) {
                Why::Cycle
            } else {
                Why::Orphan
            };
            unplaced.insert(id, why);
        }
        Placed { tree, unplaced }
    }

    /// Those that hang, directly or not, in themselves.
    fn circling(&self, homeless: &[NodeId]) -> BTreeSet<NodeId> {
        let mut circling = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for start in homeless {
            let mut way = Vec::new();
            let mut at = *start;
            while seen.insert(at) {
                way.push(at);
                match self.nodes.get(&at).map(|entry| &entry.op) {
                    Some(LastOp::Put(node)) => at = node.parent,
                    _ => break,
                }
            }
            // Where the way meets itself, not an earlier one, a circle closes.
            if let Some(first) = way.iter().position(|id| *id == at)
                && let Some(LastOp::Put(_)) = self.nodes.get(&at).map(|entry| &entry.op)
            {
                circling.extend(way.drain(first..));
            }
        }
        circling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncagent_protocol::{Body, ContentHash};

    fn id(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn put(node: u8, parent: u8, name: &str, body: Body) -> Change {
        let name = Name::parse(name).unwrap();
        let parent = if parent == 0 {
            NodeId::ROOT
        } else {
            id(parent)
        };
        let node_state = Node {
            parent,
            name,
            mtime_ns: 0,
            body,
        };
        Change {
            node: id(node),
            op: LastOp::Put(node_state.into()),
            op_hash: OpHash([node; 32]),
        }
    }

    fn file(node: u8, parent: u8, name: &str) -> Change {
        put(
            node,
            parent,
            name,
            Body::File {
                hash: ContentHash([0; 32]),
                size: 0,
                exec: false,
            },
        )
    }

    fn dir(node: u8, parent: u8, name: &str) -> Change {
        put(node, parent, name, Body::Directory)
    }

    fn other(node: u8, op: LastOp) -> Change {
        Change {
            node: id(node),
            op,
            op_hash: OpHash([node; 32]),
        }
    }

    /// What the commits lead to, followed one by one or not.
    fn follow(commits: Vec<Vec<Change>>) -> Placed {
        let mut log = LogTree::default();
        let mut followed = Placed::default();
        for (n, commit) in commits.into_iter().enumerate() {
            let changed = commit.iter().map(|change| change.node).collect();
            log.apply(n as u64 + 1, commit);
            followed.follow(&log, &changed);
            assert_eq!(followed, log.placed());
        }
        followed
    }

    /// Placed paths with their ids, then unplaced ids with the reason.
    fn check(commits: Vec<Vec<Change>>, placed: &[(&str, u8)], unplaced: &[(u8, Why)]) {
        // Beside many others a commit is followed change by change, alone everything is worked out anew.
        let mut beside = vec![dir(100, 0, "others")];
        beside.extend((101..130).map(|n| file(n, 100, &format!("{n}"))));
        follow([vec![beside], commits.clone()].concat());
        let got = follow(commits);
        let walked: Vec<_> = got.tree.walk(NodeId::ROOT);
        let walked: Vec<_> = walked
            .iter()
            .map(|(path, node)| (path.as_str(), node.0[0]))
            .collect();
        assert_eq!(walked, placed);
        assert_eq!(
            got.unplaced,
            unplaced.iter().map(|(n, why)| (id(*n), *why)).collect()
        );
        for (path, node) in placed {
            let path = TreePath::parse(path).unwrap();
            assert_eq!(
                (got.tree.at(&path), got.tree.path_of(id(*node))),
                (Some(id(*node)), Some(path))
            );
        }
    }

    #[test]
    fn what_hangs_where() {
        check(
            vec![vec![file(2, 1, "b"), dir(1, 0, "a")]],
            &[("a", 1), ("a/b", 2)],
            &[],
        );
        // The last op counts, whenever it came.
        check(
            vec![vec![file(1, 0, "a")], vec![file(1, 0, "b")]],
            &[("b", 1)],
            &[],
        );
        check(
            vec![vec![file(1, 0, "a")], vec![other(1, LastOp::Trashed)]],
            &[],
            &[],
        );
        check(
            vec![vec![other(1, LastOp::Purged)], vec![file(1, 0, "a")]],
            &[("a", 1)],
            &[],
        );
        // Names are bytes.
        check(
            vec![vec![file(1, 0, "a"), file(2, 0, "A")]],
            &[("A", 2), ("a", 1)],
            &[],
        );
    }

    #[test]
    fn what_hangs_nowhere() {
        check(vec![vec![file(1, 9, "a")]], &[], &[(1, Why::Orphan)]);
        check(
            vec![vec![file(1, 2, "a"), file(2, 0, "b")]],
            &[("b", 2)],
            &[(1, Why::Orphan)],
        );
        check(
            vec![
                vec![dir(1, 0, "a"), file(2, 1, "b")],
                vec![other(1, LastOp::Trashed)],
            ],
            &[],
            &[(2, Why::Orphan)],
        );
        check(
            vec![vec![dir(1, 2, "a"), dir(2, 1, "b"), file(3, 1, "c")]],
            &[],
            &[(1, Why::Cycle), (2, Why::Cycle), (3, Why::Orphan)],
        );
        check(
            vec![vec![file(2, 0, "a")], vec![file(1, 0, "a")]],
            &[("a", 1)],
            &[(2, Why::NameTaken(id(1)))],
        );
        check(
            vec![vec![dir(1, 0, ".syncagent"), file(2, 1, "a")]],
            &[],
            &[(1, Why::Reserved), (2, Why::Orphan)],
        );
        check(
            vec![vec![dir(1, 0, "a"), dir(2, 1, ".syncagent")]],
            &[("a", 1), ("a/.syncagent", 2)],
            &[],
        );
        check(
            vec![vec![other(1, LastOp::Unreadable), file(2, 1, "a")]],
            &[],
            &[(1, Why::Unreadable), (2, Why::Orphan)],
        );
    }

    #[test]
    fn swaps_take_effect_at_once() {
        let start = vec![file(1, 0, "a"), file(2, 0, "b")];
        check(
            vec![start, vec![file(1, 0, "b"), file(2, 0, "a")]],
            &[("a", 2), ("b", 1)],
            &[],
        );
    }

    #[test]
    fn a_change_that_leaves_something_nowhere_is_noticed_among_many() {
        let start = vec![dir(1, 0, "a"), dir(2, 1, "b"), file(3, 2, "c")];
        for (commit, nowhere) in [
            (file(4, 0, ".syncagent"), (4, Why::Reserved)),
            (file(4, 1, "b"), (4, Why::NameTaken(id(2)))),
            (file(4, 3, "d"), (4, Why::Orphan)),
            (file(2, 1, "b"), (3, Why::Orphan)),
            (other(2, LastOp::Purged), (3, Why::Orphan)),
            (other(3, LastOp::Unreadable), (3, Why::Unreadable)),
            (dir(3, 3, "c"), (3, Why::Cycle)),
        ] {
            let mut commits = vec![start.clone(), vec![commit]];
            commits[0].extend((101..130).map(|n| file(n, 0, &format!("{n}"))));
            let got = follow(commits);
            assert_eq!(got.unplaced, BTreeMap::from([(id(nowhere.0), nowhere.1)]));
        }
    }

    #[test]
    fn a_small_commit_costs_what_it_changes() {
        let mut log = LogTree::default();
        let mut placed = Placed::default();
        let start = (1..=9).map(|n| dir(n, 0, &format!("{n}")));
        log.apply(
            1,
            start.chain((11..=30).map(|n| file(n, 1, &format!("{n}")))),
        );
        placed.follow(&log, &log.iter().map(|(id, _)| id).collect());
        assert!(matches!(placed.tree.take_touched(), Touched::All));
        let commit = [
            file(11, 2, "x"),
            file(12, 0, "w"),
            file(31, 3, "y"),
            dir(4, 5, "z"),
        ];
        log.apply(2, commit);
        placed.follow(&log, &[11, 12, 31, 4].map(id).into());
        let Touched::Some(touched) = placed.tree.take_touched() else {
            panic!("everything was worked out anew for four changes among thirty");
        };
        let want = [id(1), id(2), id(3), NodeId::ROOT, id(5)];
        assert_eq!(touched, BTreeSet::from(want));
        assert_eq!(placed, log.placed());
    }

    #[test]
    fn only_what_hangs_somewhere_is_in_the_tree() {
        let tree = follow(vec![vec![dir(1, 0, "a"), file(2, 1, "b"), file(3, 9, "c")]]).tree;
        assert!(tree.contains(NodeId::ROOT) && tree.contains(id(1)) && tree.contains(id(2)));
        assert!(!tree.contains(id(3)) && !tree.contains(id(9)));
        assert!(!tree.is_empty());
        assert!(follow(vec![vec![file(3, 9, "c")]]).tree.is_empty());
        assert!(Tree::default().is_empty());
    }

    #[test]
    fn a_log_that_was_stored_goes_on_where_it_was() {
        let mut log = LogTree::default();
        assert_eq!(log.head(), 0);
        log.apply(1, [dir(1, 0, "a"), file(2, 1, "b")]);
        log.apply(7, [other(2, LastOp::Trashed)]);
        assert_eq!(log.head(), 7);
        let nodes: Vec<_> = log.iter().map(|(id, entry)| (id, entry.clone())).collect();
        let mut restored = LogTree::restore(log.head(), nodes);
        assert_eq!(restored, log);
        for log in [&mut restored, &mut log] {
            log.apply(8, [file(3, 1, "c")]);
        }
        assert_eq!((restored.placed(), restored.head()), (log.placed(), 8));
    }

    #[test]
    fn a_deep_tree_needs_no_stack() {
        let chain = (1..50_000_u32).map(|n| {
            let node = |n: u32| {
                NodeId(std::array::from_fn(|i| {
                    if i < 4 { n.to_be_bytes()[i] } else { 1 }
                }))
            };
            let parent = if n == 1 { NodeId::ROOT } else { node(n - 1) };
            let name = Name::parse("d").unwrap();
            let state = Node {
                parent,
                name,
                mtime_ns: 0,
                body: Body::Directory,
            };
            Change {
                node: node(n),
                op: LastOp::Put(state.into()),
                op_hash: OpHash([0; 32]),
            }
        });
        let mut log = LogTree::default();
        log.apply(1, chain);
        assert_eq!(log.placed().tree.len(), 49_999);
    }
}
