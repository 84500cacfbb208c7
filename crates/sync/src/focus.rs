//! Which part of the world a decision is about.
//!
//! Most nodes are the same in ancestor, vault and disk, and nothing is to be decided about them; but a decision looks
//! at every node it is given. [`focus`] therefore picks what differs (the [`Survey`] knows), and with it all that may
//! matter to it:
//!
//! * whatever hangs, on any side, in a directory that something which differs hangs in: names are taken there;
//! * whatever hangs below a directory that differs: it goes with it, or keeps it alive;
//! * what last had the inode number of something strange: that may have been moved;
//! * the way from each of these to the root.
//!
//! A plan made of the part is the plan that the whole world would have led to, unless it reaches out of the part: then
//! [`Wider::reach`] says so, and it is made again of a wider one. The property tests make every decision both ways.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Kind, NodeId, TreePath};

use crate::ancestor::Ancestor;
use crate::plan::{Op, Plan};
use crate::scan::{Observed, Scan};
use crate::survey::{Survey, World};
use crate::tree::{LastOp, Placed, Tree};

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
        let reparented = plan.reparented.values().copied();
        for parent in records.chain(puts).chain(reparented) {
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
pub fn focus(world: &World<'_>, survey: &Survey, wider: &Wider, most: usize) -> Option<Part> {
    let World {
        ancestor,
        scan,
        log,
        remote,
    } = *world;
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
    for id in survey.differs() {
        picked.pick(id);
        if let Some(LastOp::Put(node)) = log.get(id).map(|entry| &entry.op) {
            picked.full.insert(node.parent);
        }
    }
    for path in survey.strange() {
        picked
            .full
            .extend(survey.directory_at(parent_of(path.as_str())));
        let (is_directory, inode) = match scan.entries.get(path) {
            Some(Observed::Directory { inode, .. }) => (true, *inode),
            Some(Observed::File { fingerprint, .. } | Observed::Symlink { fingerprint, .. }) => {
                (false, fingerprint.inode)
            }
            Some(Observed::Unknown) | None => continue,
        };
        for owner in ancestor.with_inode(is_directory, inode) {
            picked.pick(owner);
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
        scan: part_of(scan, survey, &picked.full),
        remote: Placed {
            tree: remote.tree.part(&picked.nodes),
            unplaced: remote.unplaced.clone(),
        },
        full: picked.full,
        whole: picked.whole,
    })
}

/// What was found in the `full` directories, everything strange, and the ways there.
fn part_of(scan: &Scan, survey: &Survey, full: &BTreeSet<NodeId>) -> Scan {
    let strange = survey
        .strange()
        .map(|path| path.parent().unwrap_or_default());
    let known = full.iter().filter_map(|id| survey.path_of(*id));
    let listed: BTreeSet<TreePath> = known.cloned().chain(strange).collect();
    let mut entries = BTreeMap::new();
    for directory in &listed {
        let mut way = Some(directory.clone());
        while let Some(at) = way.filter(|at| !at.is_root() && !entries.contains_key(at)) {
            way = at.parent();
            if let Some(seen) = scan.entries.get(&at) {
                entries.insert(at, seen.clone());
            }
        }
        let children = scan.entries.children(directory);
        entries.extend(children.map(|(path, seen)| (path.clone(), seen.clone())));
    }
    Scan {
        entries: entries.into_iter().collect(),
        root_complete: scan.root_complete,
        no_exec_bit: scan.no_exec_bit,
        skipped: Vec::new(),
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
