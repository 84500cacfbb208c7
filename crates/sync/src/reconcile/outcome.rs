//! What a plan leads to: the rows to write, the conflicts to tell of, what was left alone.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Node, NodeId, TreePath};

use super::disk::Disk;
use super::merge::{Merged, Source, Want};
use super::sides::{Sides, with_exec};
use crate::local::LocalState;
use crate::plan::{Conflict, Group, Plan, Record, Step};
use crate::scan::Skipped;
use crate::tree::Why;

pub(super) fn plan(
    sides: &Sides<'_>,
    mut merged: Merged,
    disk: &Disk,
    steps: Vec<Step>,
    ops: Vec<Group>,
) -> Plan {
    let mut plan = Plan {
        steps,
        ops,
        skipped: std::mem::take(&mut merged.skipped),
        ..Plan::default()
    };
    let touched = touched(&plan.steps);
    let sent: BTreeSet<NodeId> = plan.all_ops().map(|op| op.node()).collect();
    let origin: BTreeMap<NodeId, NodeId> = merged
        .copies
        .iter()
        .map(|(id, copy)| (*copy, *id))
        .collect();
    for (id, want) in &merged.vault {
        if merged.still.contains(id) {
            continue;
        }
        let Some(path) = disk.path_of(*id) else {
            continue;
        };
        let node = state_here(
            sides,
            disk,
            *id,
            want,
            origin.get(id).copied().unwrap_or(*id),
        );
        let op_hash = if sent.contains(id) {
            None
        } else {
            sides.remote_op(*id)
        };
        let busy = touched.contains(id) || sent.contains(id);
        if busy || row_differs(sides, *id, &node, op_hash) {
            if !busy {
                plan.agreed.push(*id);
            }
            plan.records.insert(
                *id,
                Record {
                    node,
                    op_hash,
                    path,
                },
            );
        }
    }
    for id in &disk.yielded {
        if let (Some(row), Some(path), Some((parent, name))) =
            (sides.base(*id), disk.path_of(*id), disk.place.get(id))
        {
            let node = Node {
                parent: *parent,
                name: name.clone(),
                ..row.node.clone()
            };
            plan.records.insert(
                *id,
                Record {
                    node,
                    op_hash: Some(row.op_hash),
                    path,
                },
            );
        }
    }
    plan.forget = sides
        .forget
        .iter()
        .chain(&merged.gone)
        .chain(&disk.evicted)
        .copied()
        .collect();
    plan.forget
        .retain(|id| sides.input.ancestor.get(*id).is_some());
    follow_directories(sides, &mut plan);
    plan.conflicts = conflicts(sides, &merged, &sent);
    plan.skipped.extend(unplaced(sides));
    plan.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    plan
}

/// What hangs, by its row, in a directory that goes by another id from now on: that row names this id at once, whatever
/// is still to come for the node. The row of the old id goes now; if the rest were put off, the node would be a stranger,
/// an edit of it a conflict, and its deletion or new name undone. In a directory that has no row it would be one anyway.
fn follow_directories(sides: &Sides<'_>, plan: &mut Plan) {
    let settled: BTreeSet<NodeId> = plan.agreed.iter().chain(&plan.forget).copied().collect();
    let agreed: BTreeSet<NodeId> = plan.agreed.iter().copied().collect();
    for (id, row) in sides.input.ancestor.iter() {
        let (parent, _) = sides.base_place(row);
        let has_row = || sides.base(parent).is_some() || agreed.contains(&parent);
        if parent != row.node.parent && !settled.contains(&id) && has_row() {
            plan.reparented.insert(id, parent);
        }
    }
}

/// Every node that some step changes.
fn touched(steps: &[Step]) -> BTreeSet<NodeId> {
    let mut touched = BTreeSet::new();
    for step in steps {
        touched.insert(step.node());
        match step {
            Step::Move {
                exchange_with: Some(other),
                ..
            } => drop(touched.insert(*other)),
            Step::Fetch {
                aside: Some(aside), ..
            }
            | Step::Link {
                aside: Some(aside), ..
            } => {
                touched.insert(aside.node);
            }
            _ => {}
        }
    }
    touched
}

fn state_here(sides: &Sides<'_>, disk: &Disk, id: NodeId, want: &Want, origin: NodeId) -> Node {
    let (parent, name) = disk.place.get(&id).unwrap_or(&want.place).clone();
    let body = match sides.remote(id) {
        Some(node) if want.source != Source::Disk => with_exec(node.body.clone(), want.exec),
        _ => sides.local_body(origin, want.exec),
    };
    Node {
        parent,
        name,
        mtime_ns: want.mtime_ns,
        body,
    }
}

fn row_differs(
    sides: &Sides<'_>,
    id: NodeId,
    node: &Node,
    op: Option<syncagent_protocol::OpHash>,
) -> bool {
    let Some(row) = sides.base(id) else {
        return true;
    };
    let seen_anew = match sides.local.get(&id).map(|here| &here.state) {
        Some(LocalState::File { .. } | LocalState::Symlink { .. }) => true,
        Some(LocalState::Directory { inode, .. }) => *inode != row.inode,
        Some(LocalState::Same | LocalState::Unknown) | None => false,
    };
    seen_anew || row.node != *node || Some(row.op_hash) != op
}

fn conflicts(sides: &Sides<'_>, merged: &Merged, sent: &BTreeSet<NodeId>) -> Vec<Conflict> {
    let path = |id: NodeId| -> TreePath { merged.way_to(id).into_iter().collect() };
    let lost = merged.lost.iter().filter(|(copy, _)| sent.contains(copy));
    lost.map(|(copy, lost)| Conflict {
        node: lost.to,
        copy: *copy,
        path: match merged.vault.contains_key(&lost.to) {
            true => path(lost.to),
            false => sides.local_path(*copy).unwrap_or_default(),
        },
        copy_path: path(*copy),
        ancestor_version: lost.ancestor_version,
        remote_version: lost.to_version,
    })
    .collect()
}

fn unplaced(sides: &Sides<'_>) -> Vec<Skipped> {
    let describe = |(id, reason): (&NodeId, &Why)| {
        let last = sides.log.get(*id);
        let last = last.and_then(|entry| Some((entry.op.node()?, entry.n)));
        let todo = match (reason.code(), last) {
            (None, Some((_, n))) => {
                format!("`syncagent restore {id} --version {n}` places it again")
            }
            _ => format!(
                "an earlier version, if there is one, comes back with `syncagent restore {id} --version N`"
            ),
        };
        Skipped {
            path: match last {
                Some((node, _)) => format!("{} ({id})", node.name),
                None => id.to_string(),
            },
            reason: "unplaced",
            code: reason.code(),
            detail: format!("{}; {todo}", reason.words()),
        }
    };
    sides.input.remote.unplaced.iter().map(describe).collect()
}
