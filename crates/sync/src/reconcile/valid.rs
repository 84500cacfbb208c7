//! Makes a tree of what was decided node by node.
//!
//! What lives keeps its directory. Where both sides together would put directories into each other, or two
//! nodes under one name, the vault was first and the local side gives way.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Kind, NodeId};

use super::Place;
use super::merge::{Lost, Merged, Source, Want, as_remote};
use super::sides::Sides;
use crate::local::LocalState;
use crate::scan::Skipped;

pub(super) fn make_valid(
    sides: &Sides<'_>,
    merged: &mut Merged,
    new_id: &mut dyn FnMut() -> NodeId,
) {
    // Reviving a directory may close a circle, undoing a move may need a directory. Nodes only ever go from
    // absent to present and from the local place to the vault's, or are held back for good: this ends.
    while give_directories(sides, merged) || break_circles(sides, merged) {}
    settle_names(sides, merged);
    copy_clashing(sides, merged, new_id);
}

/// Keeps or makes again every directory that something living hangs in.
fn give_directories(sides: &Sides<'_>, merged: &mut Merged) -> bool {
    let homeless = |merged: &Merged| -> Vec<NodeId> {
        let vault = &merged.vault;
        let at_home =
            |want: &Want| want.place.0 == NodeId::ROOT || vault.contains_key(&want.place.0);
        vault
            .iter()
            .filter(|(_, want)| !at_home(want))
            .map(|(id, _)| *id)
            .collect()
    };
    let mut any = false;
    loop {
        let ids = homeless(merged);
        if ids.is_empty() {
            return any;
        }
        any = true;
        for id in ids {
            let Some(directory) = merged.vault.get(&id).map(|want| want.place.0) else {
                continue;
            };
            if merged.vault.contains_key(&directory) {
                continue;
            }
            let here = sides.local.get(&directory);
            let is_directory =
                here.is_some_and(|here| matches!(here.state, LocalState::Directory { .. }));
            if let Some(node) = sides.remote(directory) {
                let source = if is_directory {
                    Source::Both
                } else {
                    Source::Vault
                };
                merged.vault.insert(directory, as_remote(node, source));
            } else if is_directory && !merged.still.contains(&directory) {
                let Some(place) = sides.local_place(directory) else {
                    continue;
                };
                let want = Want {
                    place,
                    kind: Kind::Directory,
                    source: Source::Disk,
                    exec: false,
                    mtime_ns: 0,
                };
                merged.vault.insert(directory, want);
            } else {
                hold(sides, merged, id);
            }
        }
    }
}

/// Disk and vault keep what they have of this node, because the directory it is in on disk hangs nowhere in
/// the vault.
fn hold(sides: &Sides<'_>, merged: &mut Merged, id: NodeId) {
    merged.vault.remove(&id);
    merged.clashing.remove(&id);
    merged.lost.remove(&id);
    if let Some(node) = sides.remote(id) {
        merged.vault.insert(id, as_remote(node, Source::Both));
    }
    if let Some(path) = sides.local_path(id) {
        merged.still.insert(id);
        merged.skipped.push(Skipped {
            path: path.to_string(),
            reason: "held",
            code: None,
            detail: "its directory hangs nowhere in the vault; restore that directory, or move this out of it".into(),
        });
    }
}

/// Crossed moves of directories: whoever committed first decides, so local moves are undone.
fn break_circles(sides: &Sides<'_>, merged: &mut Merged) -> bool {
    let circling = circling(&merged.vault);
    for id in &circling {
        let Some(node) = sides.remote(*id) else {
            continue;
        };
        if let Some(want) = merged.vault.get_mut(id) {
            want.place = (node.parent, node.name.clone());
        }
    }
    !circling.is_empty()
}

/// The nodes on circles.
fn circling(vault: &BTreeMap<NodeId, Want>) -> BTreeSet<NodeId> {
    let mut clear = BTreeSet::from([NodeId::ROOT]);
    let mut circling = BTreeSet::new();
    for start in vault.keys() {
        let mut way = Vec::new();
        let mut on_way = BTreeSet::new();
        let mut at = *start;
        while !clear.contains(&at) && on_way.insert(at) {
            way.push(at);
            match vault.get(&at) {
                Some(want) => at = want.place.0,
                None => break,
            }
        }
        if !clear.contains(&at)
            && vault.contains_key(&at)
            && let Some(first) = way.iter().position(|id| *id == at)
        {
            circling.extend(way[first..].iter().copied());
        }
        clear.extend(way);
    }
    circling
}

/// One name, one node: what stands there in the vault already keeps it.
fn settle_names(sides: &Sides<'_>, merged: &mut Merged) {
    let mut by_place: BTreeMap<Place, Vec<NodeId>> = BTreeMap::new();
    for (id, want) in &merged.vault {
        by_place.entry(want.place.clone()).or_default().push(*id);
    }
    let stands_there = |id: NodeId, place: &Place| {
        sides
            .remote(id)
            .is_some_and(|node| node.parent == place.0 && node.name == place.1)
    };
    let mut losers: Vec<(NodeId, NodeId)> = Vec::new();
    for (place, ids) in &by_place {
        // An unplaced node with a smaller id would push a newcomer out of the tree.
        let claim = sides.claims.get(place).copied();
        let winner = match ids.iter().copied().find(|id| stands_there(*id, place)) {
            Some(id) => id,
            None => claim
                .filter(|claim| ids.iter().all(|id| claim < id))
                .unwrap_or(ids[0]),
        };
        losers.extend(
            ids.iter()
                .filter(|id| **id != winner)
                .map(|id| (*id, winner)),
        );
    }
    let mut taken: BTreeSet<Place> = by_place.into_keys().collect();
    for (id, winner) in losers {
        let Some(want) = merged.vault.get_mut(&id) else {
            continue;
        };
        let parent = want.place.0;
        let name = sides.free_name(parent, &want.place.1, |name| {
            taken.contains(&(parent, name.clone()))
        });
        taken.insert((parent, name.clone()));
        want.place.1 = name;
        let ancestor_version = sides.base(id).map(|row| row.op_hash);
        merged.lost.insert(
            id,
            Lost {
                to: winner,
                to_version: sides.remote_op(winner),
                ancestor_version,
            },
        );
    }
}

/// Content changed on both sides: the local version goes on as a node of its own, beside the vault's.
fn copy_clashing(sides: &Sides<'_>, merged: &mut Merged, new_id: &mut dyn FnMut() -> NodeId) {
    let mut taken: BTreeSet<Place> = merged
        .vault
        .values()
        .map(|want| want.place.clone())
        .collect();
    for id in merged.clashing.clone() {
        let Some(want) = merged.vault.get(&id) else {
            continue;
        };
        let parent = want.place.0;
        let name = sides.free_name(parent, &want.place.1, |name| {
            taken.contains(&(parent, name.clone()))
        });
        let place = (parent, name);
        taken.insert(place.clone());
        let exec = sides.local_exec(id).unwrap_or(want.exec);
        let mtime_ns = sides.local_mtime(id);
        let kind = want.kind;
        let copy = new_id();
        merged.vault.insert(
            copy,
            Want {
                place,
                kind,
                source: Source::Disk,
                exec,
                mtime_ns,
            },
        );
        merged.copies.insert(id, copy);
        let ancestor_version = sides.base(id).map(|row| row.op_hash);
        merged.lost.insert(
            copy,
            Lost {
                to: id,
                to_version: sides.remote_op(id),
                ancestor_version,
            },
        );
    }
}
