//! The decision: three trees in, one plan out.
//!
//! 1. `sides` lines up the trees: what disk and vault have under two ids becomes one node.
//! 2. `merge` decides node by node what the vault shall hold: place and content are two independent axes,
//!    and a touch of either beats a deletion.
//! 3. `valid` makes a tree of it: living things keep their directories, crossed moves and taken names are
//!    settled in favour of the vault.
//! 4. `disk` derives what this disk shall hold: the same tree, less what it cannot hold or must leave alone.
//! 5. `steps` and `ops` are the differences to what disk and vault hold now; `outcome` the rows they lead to.

mod disk;
mod merge;
mod ops;
mod outcome;
mod sides;
mod steps;
mod valid;

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Body, Name, NodeId};

use crate::ancestor::Ancestor;
use crate::conflict::Utc;
use crate::local::Local;
use crate::placement::Placement;
use crate::plan::Plan;
use crate::tree::{LogTree, Placed};

/// The three trees, and how this machine wants things.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What disk and vault last agreed on.
    pub ancestor: &'a Ancestor,
    /// What is on disk now.
    pub local: &'a Local,
    /// The last op of every node.
    pub log: &'a LogTree,
    /// The tree that follows from it: `log.placed()`.
    pub remote: &'a Placed,
    /// What the nodes held before.
    pub history: &'a dyn History,
    /// How this machine wants things.
    pub policy: &'a Policy,
}

/// Earlier versions in the vault. A file that holds one and has no row is not a change but a copy from before: the
/// index was lost, or the folder was brought over by other means. One that holds a later version than its row says is
/// none either: the index was put back.
pub trait History: std::fmt::Debug {
    /// What any version of `node` held, as far as it is known, oldest first.
    fn versions(&self, node: NodeId) -> Vec<Body>;
}

impl History for BTreeMap<NodeId, Vec<Body>> {
    fn versions(&self, node: NodeId) -> Vec<Body> {
        self.get(&node).cloned().unwrap_or_default()
    }
}

/// How this machine wants things.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The machine's name, for the names of conflict copies.
    pub machine: String,
    /// Now, for the same.
    pub now: Utc,
    /// What this file system can hold.
    pub placement: Placement,
    /// Nodes whose content in the vault could not be fetched: their local side is left alone.
    pub unavailable: BTreeSet<NodeId>,
    /// Nodes that this machine does not hold on purpose (deselected, ignored): not fetched, and their absence
    /// is no deletion.
    pub not_here: BTreeSet<NodeId>,
}

/// A directory and a name in it.
type Place = (NodeId, Name);

/// Decides what has to happen. `new_id` names conflict copies.
pub fn reconcile(input: &Input<'_>, new_id: &mut dyn FnMut() -> NodeId) -> Plan {
    let sides = sides::Sides::line_up(input, new_id);
    // A node may have to be left alone after all once its place on disk is known; then it is decided again.
    let mut left_alone = BTreeSet::new();
    // Each round adds a node, so this ends.
    loop {
        let mut merged = merge::merge(&sides, &left_alone);
        if !sides.needs_hash.is_empty() || !merged.needs_hash.is_empty() {
            let mut needs_hash: Vec<_> = sides
                .needs_hash
                .iter()
                .chain(&merged.needs_hash)
                .copied()
                .collect();
            needs_hash.sort_unstable();
            needs_hash.dedup();
            let mut needs_hash: Vec<_> = needs_hash
                .into_iter()
                .filter_map(|id| sides.local_path(id))
                .collect();
            needs_hash.sort_unstable();
            return Plan {
                needs_hash,
                ..Plan::default()
            };
        }
        valid::make_valid(&sides, &mut merged, new_id);
        let disk = disk::derive(&sides, &mut merged);
        let stuck = disk.stuck_conflicts(&merged);
        if stuck.is_empty() {
            let steps = steps::steps(&sides, &merged, &disk);
            let ops = ops::ops(&sides, &merged, &disk);
            return outcome::plan(&sides, merged, &disk, steps, ops);
        }
        left_alone.extend(stuck);
    }
}
