//! The decision: three trees in, one plan out.

use std::collections::BTreeSet;

use syncagent_protocol::NodeId;

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
    /// How this machine wants things.
    pub policy: &'a Policy,
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

/// Decides what has to happen. `new_id` names conflict copies.
pub fn reconcile(input: &Input<'_>, new_id: &mut dyn FnMut() -> NodeId) -> Plan {
    let _ = (input, new_id);
    Plan::default()
}
