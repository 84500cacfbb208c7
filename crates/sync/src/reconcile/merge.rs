//! Node by node: what shall the vault hold?
//!
//! Place and content are decided apart, each from its ancestor; a touch of either beats a deletion.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Kind, Name, Node, NodeId, OpHash};

use super::Place;
use super::sides::{Equal, Sides, exec_of, same_content};
use crate::local::{LocalNode, LocalState};
use crate::scan::Skipped;

/// Who has the content a node shall hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Disk and vault.
    Both,
    /// The vault: it has to be fetched.
    Vault,
    /// This disk: it has to be sent.
    Disk,
}

/// What the vault shall hold of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) exec: bool,
    pub(super) mtime_ns: i64,
}

/// A local version that goes on as a node of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// What it lost against.
    pub(super) to: NodeId,
    pub(super) to_version: Option<OpHash>,
    pub(super) ancestor_version: Option<OpHash>,
}

#[derive(Debug, Default)]
pub(super) struct Merged {
    /// What the vault shall hold.
    pub(super) vault: BTreeMap<NodeId, Want>,
    /// Nodes of which disk and vault keep what they have.
    pub(super) still: BTreeSet<NodeId>,
    /// Nodes that both sides changed: the vault's version stays, the local one needs a name.
    pub(super) clashing: BTreeSet<NodeId>,
    /// The copies made of those, by the node they are of.
    pub(super) copies: BTreeMap<NodeId, NodeId>,
    /// What lost its name.
    pub(super) lost: BTreeMap<NodeId, Lost>,
    /// Rows of nodes that are gone on both sides.
    pub(super) gone: BTreeSet<NodeId>,
    pub(super) needs_hash: Vec<NodeId>,
    pub(super) skipped: Vec<Skipped>,
}

pub(super) fn merge(sides: &Sides<'_>, left_alone: &BTreeSet<NodeId>) -> Merged {
    let mut merged = Merged::default();
    let rows = sides.input.ancestor.iter().map(|(id, _)| id);
    let ids: BTreeSet<NodeId> = rows
        .chain(sides.local.keys().copied())
        .chain(sides.tree.iter().map(|(id, _)| id))
        .collect();
    for id in ids {
        merged.decide(sides, id, left_alone.contains(&id));
    }
    merged
}

impl Merged {
    /// The names from the root down to where a node shall hang.
    pub(super) fn way_to(&self, id: NodeId) -> Vec<&Name> {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(want) = self.vault.get(&at) {
            names.push(&want.place.1);
            at = want.place.0;
        }
        names.reverse();
        names
    }

    fn decide(&mut self, sides: &Sides<'_>, id: NodeId, left_alone: bool) {
        let here = sides.local.get(&id);
        if sides.is_unplaced(id) {
            // Nothing is sent and nothing is touched until a later PUT repairs it.
            if here.is_some() {
                self.still.insert(id);
            }
            return;
        }
        if left_alone || here.is_some_and(|here| here.state == LocalState::Unknown) {
            self.leave_alone(sides, id);
            return;
        }
        match here {
            Some(here) => self.present(sides, id, here),
            None => self.absent(sides, id),
        }
        if sides.policy.unavailable.contains(&id)
            && self
                .vault
                .get(&id)
                .is_some_and(|want| want.source == Source::Vault)
        {
            self.leave_alone(sides, id);
        }
    }

    fn leave_alone(&mut self, sides: &Sides<'_>, id: NodeId) {
        self.clashing.remove(&id);
        self.vault.remove(&id);
        if sides.local.contains_key(&id) || sides.policy.unavailable.contains(&id) {
            self.still.insert(id);
        }
        if let Some(node) = sides.remote(id) {
            self.vault.insert(id, as_remote(node, Source::Both));
        }
    }

    /// It is not on disk: deleted, never here, or not here on purpose.
    fn absent(&mut self, sides: &Sides<'_>, id: NodeId) {
        match (sides.base(id), sides.remote(id)) {
            (Some(row), Some(node)) => {
                let touched = !same_content(&row.node.body, &node.body)
                    || exec_of(&row.node.body) != exec_of(&node.body)
                    || sides.base_place(row) != (node.parent, &node.name);
                if touched || sides.policy.not_here.contains(&id) {
                    self.vault.insert(id, as_remote(node, Source::Vault));
                }
            }
            (None, Some(node)) => drop(self.vault.insert(id, as_remote(node, Source::Vault))),
            (Some(_), None) => drop(self.gone.insert(id)),
            (None, None) => {}
        }
    }

    fn present(&mut self, sides: &Sides<'_>, id: NodeId, here: &LocalNode) {
        let base = sides.base(id);
        let Some(mut changed) = self.ask(id, base.map(|row| sides.holds(id, here, &row.node.body)))
        else {
            return;
        };
        let here_place = (here.parent, here.name.clone());
        let exec = sides.local_exec(id);
        let exec_changed =
            base.is_some_and(|row| exec.is_some_and(|exec| exec != exec_of(&row.node.body)));
        let Some(node) = sides.remote(id) else {
            let moved = base.is_some_and(|row| sides.base_place(row) != (here.parent, &here.name));
            let deleted = match base {
                None => sides.is_of_the_deleted(id, here),
                Some(row) if changed && !moved && !exec_changed => sides.is_later(id, here, row),
                Some(_) => Equal::No,
            };
            match deleted {
                Equal::Yes => return,
                Equal::No => {}
                Equal::Ask => return self.needs_hash.push(id),
            }
            if base.is_none() || changed || exec_changed || moved {
                let place = match sides.renamed.get(&id) {
                    Some(renamed) => {
                        let lost = Lost {
                            to: renamed.was,
                            to_version: sides.remote_op(renamed.was),
                            ancestor_version: sides
                                .input
                                .ancestor
                                .get(renamed.was)
                                .map(|row| row.op_hash),
                        };
                        self.lost.insert(id, lost);
                        (here.parent, renamed.name.clone())
                    }
                    None => here_place,
                };
                let kind = sides.local_body(id, false).kind();
                let (exec, mtime_ns) = (exec.unwrap_or(false), sides.local_mtime(id));
                self.vault.insert(
                    id,
                    Want {
                        place,
                        kind,
                        source: Source::Disk,
                        exec,
                        mtime_ns,
                    },
                );
            }
            return;
        };
        let mut want = as_remote(node, Source::Both);
        let remote_changed = match base {
            Some(row) => !same_content(&row.node.body, &node.body),
            // New on both sides under one id.
            None => {
                changed = true;
                true
            }
        };
        match (changed, remote_changed) {
            (false, false) => {}
            (false, true) => want.source = Source::Vault,
            (true, false) => want.source = Source::Disk,
            (true, true) => match sides.holds(id, here, &node.body) {
                Equal::Yes => {}
                Equal::No => {
                    let earlier = match base {
                        None => sides.is_earlier(id, here),
                        Some(row) => sides.is_later(id, here, row),
                    };
                    match earlier {
                        Equal::Yes => {}
                        Equal::No => drop(self.clashing.insert(id)),
                        Equal::Ask => return self.needs_hash.push(id),
                    }
                    want.source = Source::Vault;
                }
                Equal::Ask => return self.needs_hash.push(id),
            },
        }
        if let Some(row) = base {
            let stays_remotely = sides.base_place(row) == (node.parent, &node.name);
            if stays_remotely {
                want.place = here_place;
            }
            if exec_changed {
                want.exec = exec.unwrap_or(want.exec);
            }
            let untouched_remotely = stays_remotely
                && (row.node.mtime_ns, &row.node.body) == (node.mtime_ns, &node.body);
            let mtime_ns = sides.local_mtime(id);
            match want.source {
                Source::Disk => want.mtime_ns = mtime_ns,
                // A new time alone is worth sending only if nothing else is going on.
                Source::Both if want.kind == Kind::File && untouched_remotely => {
                    want.mtime_ns = mtime_ns
                }
                Source::Both | Source::Vault => {}
            }
        }
        self.vault.insert(id, want);
    }

    /// Whether content differs; none if the file must be read first.
    fn ask(&mut self, id: NodeId, equal: Option<Equal>) -> Option<bool> {
        match equal {
            Some(Equal::Ask) => {
                self.needs_hash.push(id);
                None
            }
            Some(Equal::No) => Some(true),
            Some(Equal::Yes) | None => Some(false),
        }
    }
}

/// Exactly what the vault holds.
pub(super) fn as_remote(node: &Node, source: Source) -> Want {
    Want {
        place: (node.parent, node.name.clone()),
        kind: node.body.kind(),
        source,
        exec: exec_of(&node.body),
        mtime_ns: node.mtime_ns,
    }
}
