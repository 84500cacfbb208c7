//! Which part of the world a decision is about.
//!
//! Most nodes are the same in ancestor, vault and disk, and nothing is to be decided about them; but a decision looks
//! at every node it is given. [`focus`] therefore picks what differs, and with it all that may matter to it:
//!
//! * whatever hangs, on any side, in a directory that something which differs hangs in: names are taken there;
//! * whatever hangs below a directory that differs: it goes with it, or keeps it alive;
//! * what last had the inode number of something strange: that may have been moved;
//! * the way from each of these to the root.
//!
//! A plan made of the part is the plan that the whole world would have led to, unless it reaches out of the part: then
//! [`Wider::reach`] says so, and it is made again of a wider one. The property tests make every decision both ways.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use syncagent_protocol::{Kind, NodeId, TreePath};

use crate::ancestor::Ancestor;
use crate::plan::{Op, Plan};
use crate::scan::{Observed, Scan};
use crate::tree::{LastOp, LogTree, Placed, Tree};

/// A part of the world that can be decided about as if it were the whole.
#[derive(Debug, Clone)]
pub struct Part {
    /// The rows in it.
    pub ancestor: Ancestor,
    /// What was found of it.
    pub scan: Scan,
    /// What the vault places of it.
    pub remote: Placed,
    /// Directories that are in it with all they hold directly.
    full: BTreeSet<NodeId>,
    /// Directories that are in it with all that is below them.
    whole: BTreeSet<NodeId>,
}

/// What a part must hold beyond what differs.
#[derive(Debug, Clone, Default)]
pub struct Wider {
    full: BTreeSet<NodeId>,
    whole: BTreeSet<NodeId>,
}

impl Wider {
    /// Takes note of what `plan`, made of `part`, touches outside of it. Whether there is any: then the plan is void.
    pub fn reach(&mut self, part: &Part, plan: &Plan) -> bool {
        let mut outside = false;
        let is_known =
            |id: NodeId| part.remote.tree.contains(id) || part.ancestor.get(id).is_some();
        let records = plan.records.values().map(|record| record.node.parent);
        let puts = plan.all_ops().filter_map(|op| match op {
            Op::Put(put) => Some(put.parent),
            Op::Trash { .. } => None,
        });
        for parent in records.chain(puts) {
            if is_known(parent) && !part.full.contains(&parent) {
                outside |= self.full.insert(parent);
            }
        }
        for (id, record) in &plan.records {
            let goes_elsewhere = record.node.body.kind() == Kind::Directory
                && part.ancestor.get(*id).is_some_and(|row| {
                    (row.node.parent, &row.node.name) != (record.node.parent, &record.node.name)
                });
            if goes_elsewhere && !part.whole.contains(id) {
                outside |= self.whole.insert(*id);
            }
        }
        outside
    }
}

/// Picks the part that has to be decided about; none if that is more than `most` nodes.
pub fn focus(
    ancestor: &Ancestor,
    scan: &Scan,
    log: &LogTree,
    remote: &Placed,
    wider: &Wider,
    most: usize,
) -> Option<Part> {
    let survey = Survey::new(ancestor, scan, log, remote);
    let mut picked = Picked {
        ancestor,
        tree: &remote.tree,
        full: wider.full.clone(),
        whole: BTreeSet::new(),
        nodes: BTreeSet::new(),
    };
    for id in &wider.whole {
        picked.pick_whole(*id);
    }
    for id in &survey.differs {
        picked.pick(*id);
        if let Some(LastOp::Put(node)) = log.get(*id).map(|entry| &entry.op) {
            picked.full.insert(node.parent);
        }
    }
    for path in &survey.strange {
        if let Some(parent) = survey.directory_at.get(parent_of(path.as_str())) {
            picked.full.insert(*parent);
        }
        let (is_directory, inode) = match scan.entries.get(*path) {
            Some(Observed::Directory { inode, .. }) => (true, *inode),
            Some(Observed::File { fingerprint, .. } | Observed::Symlink { fingerprint, .. }) => {
                (false, fingerprint.inode)
            }
            Some(Observed::Unknown) | None => continue,
        };
        for owner in ancestor.with_inode(is_directory, inode) {
            picked.pick(*owner);
        }
    }
    picked.fill();
    if picked.nodes.len() > most {
        return None;
    }
    Some(Part {
        ancestor: picked
            .nodes
            .iter()
            .filter_map(|id| Some((*id, ancestor.get(*id)?.clone())))
            .collect(),
        scan: survey.part(&picked.full),
        remote: Placed {
            tree: remote.tree.part(&picked.nodes),
            unplaced: remote.unplaced.clone(),
        },
        full: picked.full,
        whole: picked.whole,
    })
}

/// What differs.
struct Survey<'a> {
    scan: &'a Scan,
    /// Nodes that are not the same everywhere.
    differs: Vec<NodeId>,
    /// What was found where nothing known is the same, in order.
    strange: Vec<&'a TreePath>,
    /// Known directories at the place and with the number they had.
    directory_at: HashMap<&'a str, NodeId>,
    path_of: BTreeMap<NodeId, &'a str>,
}

impl<'a> Survey<'a> {
    fn new(ancestor: &Ancestor, scan: &'a Scan, log: &LogTree, remote: &Placed) -> Self {
        let mut survey = Self {
            scan,
            differs: Vec::new(),
            strange: Vec::new(),
            directory_at: HashMap::from([("", NodeId::ROOT)]),
            path_of: BTreeMap::from([(NodeId::ROOT, "")]),
        };
        let mut same = Vec::with_capacity(ancestor.len());
        let mut in_vault = 0;
        for (path, seen) in &scan.entries {
            let known = survey
                .directory_at
                .get(parent_of(path.as_str()))
                .zip(path.name())
                .and_then(|(parent, name)| {
                    let rows = ancestor.at(*parent, &name).iter().copied();
                    let mut rows = rows.filter_map(|id| Some((id, ancestor.here(id)?)));
                    rows.find(|(_, row)| scan.is_untouched(seen, row))
                });
            let Some((id, row)) = known else {
                survey.strange.push(path);
                continue;
            };
            same.push(id);
            if let Observed::Directory { .. } = seen {
                survey.directory_at.insert(path.as_str(), id);
                survey.path_of.insert(id, path.as_str());
            }
            let node = remote.tree.get(id);
            in_vault += usize::from(node.is_some());
            let agreed = node == Some(&row.node)
                && log.get(id).map(|entry| entry.op_hash) == Some(row.op_hash);
            if !agreed {
                survey.differs.push(id);
            }
        }
        if same.len() != ancestor.len() {
            same.sort_unstable();
            let is_same = |id: &NodeId| same.binary_search(id).is_ok();
            let rows = ancestor.iter().map(|(id, _)| id);
            survey.differs.extend(rows.filter(|id| !is_same(id)));
        }
        if in_vault != remote.tree.len() {
            let nodes = remote.tree.iter().map(|(id, _)| id);
            survey
                .differs
                .extend(nodes.filter(|id| ancestor.get(*id).is_none()));
        }
        survey
    }

    /// What was found in the `full` directories, everything strange, and the ways there.
    fn part(&self, full: &BTreeSet<NodeId>) -> Scan {
        let mut listed: HashSet<&str> = full
            .iter()
            .filter_map(|id| self.path_of.get(id).copied())
            .collect();
        listed.extend(self.strange.iter().map(|path| parent_of(path.as_str())));
        let mut ways: HashSet<&str> = HashSet::new();
        for path in &listed {
            let mut at = *path;
            while !at.is_empty() && ways.insert(at) {
                at = parent_of(at);
            }
        }
        let is_in = |path: &TreePath| {
            ways.contains(path.as_str()) || listed.contains(parent_of(path.as_str()))
        };
        let entries = self.scan.entries.iter();
        Scan {
            entries: entries
                .filter(|(path, _)| is_in(path))
                .map(|(path, seen)| (path.clone(), seen.clone()))
                .collect(),
            root_complete: self.scan.root_complete,
            no_exec_bit: self.scan.no_exec_bit,
            skipped: Vec::new(),
        }
    }
}

/// The nodes of a part.
struct Picked<'a> {
    ancestor: &'a Ancestor,
    tree: &'a Tree,
    full: BTreeSet<NodeId>,
    whole: BTreeSet<NodeId>,
    nodes: BTreeSet<NodeId>,
}

impl Picked<'_> {
    /// A node that differs: with the directories it hangs in and, if it is one, with all that is below it.
    fn pick(&mut self, id: NodeId) {
        self.nodes.insert(id);
        let sides = self.sides(id);
        self.full.extend(sides.iter().map(|(parent, _)| *parent));
        if sides.iter().any(|(_, kind)| *kind == Kind::Directory) {
            self.pick_whole(id);
        }
    }

    fn pick_whole(&mut self, id: NodeId) {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            if !self.whole.insert(id) {
                continue;
            }
            self.full.insert(id);
            for (child, kind) in self.children(id) {
                if kind == Kind::Directory {
                    stack.push(child);
                }
            }
        }
    }

    /// Takes in what the full directories hold, and the ways to the root.
    fn fill(&mut self) {
        self.nodes.extend(self.full.iter().copied());
        for directory in self.full.clone() {
            let children = self.children(directory);
            self.nodes.extend(children.into_iter().map(|(id, _)| id));
        }
        let mut stack: Vec<NodeId> = self.nodes.iter().copied().collect();
        while let Some(id) = stack.pop() {
            for (parent, _) in self.sides(id) {
                if self.nodes.insert(parent) {
                    stack.push(parent);
                }
            }
        }
        self.nodes.remove(&NodeId::ROOT);
    }

    /// Where a node hangs and what it is, in the ancestor and in the vault.
    fn sides(&self, id: NodeId) -> Vec<(NodeId, Kind)> {
        let row = self.ancestor.get(id).map(|row| &row.node);
        let nodes = row.into_iter().chain(self.tree.get(id));
        nodes.map(|node| (node.parent, node.body.kind())).collect()
    }

    /// What hangs in a directory, in the ancestor and in the vault.
    fn children(&self, id: NodeId) -> Vec<(NodeId, Kind)> {
        let here = self.ancestor.children(id).map(|(_, child)| child);
        let there = self.tree.children(id).map(|(_, child)| child);
        let ids: BTreeSet<NodeId> = here.chain(there).collect();
        ids.into_iter()
            .flat_map(|child| {
                let kinds = self.sides(child);
                kinds.into_iter().map(move |(_, kind)| (child, kind))
            })
            .collect()
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
