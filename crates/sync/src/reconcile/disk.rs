//! What this disk shall hold: the vault's tree, less what it cannot hold, plus what must be left alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncagent_protocol::{Kind, NodeId, TreePath};

use super::Place;
use super::merge::{Merged, Source};
use super::sides::Sides;
use crate::local::LocalState;
use crate::scan::Skipped;
use crate::tree::path_to;

#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Where each node shall stand on disk.
    pub(super) place: BTreeMap<NodeId, Place>,
    /// Nodes that make room; the vault has their content.
    pub(super) evicted: BTreeSet<NodeId>,
    /// Nodes left alone by the vault whose place a placed node needs.
    pub(super) yielded: BTreeSet<NodeId>,
}

impl Disk {
    pub(super) fn path_of(&self, id: NodeId) -> Option<TreePath> {
        path_to(id, |id| {
            { self.place.get(&id) }.map(|(parent, name)| (*parent, name))
        })
    }

    /// Conflicts that cannot be carried out here, because there is no place for the vault's version or the copy.
    pub(super) fn stuck_conflicts(&self, merged: &Merged) -> Vec<NodeId> {
        let in_place =
            |id: &NodeId| self.place.get(id) == merged.vault.get(id).map(|want| &want.place);
        let stuck = merged
            .copies
            .iter()
            .filter(|(id, copy)| !in_place(id) || !in_place(copy));
        stuck.map(|(id, _)| *id).collect()
    }
}

pub(super) fn derive(sides: &Sides<'_>, merged: &mut Merged) -> Disk {
    let mut pinned = BTreeSet::new();
    loop {
        let mut layout = Layout::new(sides, merged, &pinned);
        layout.fill();
        let stuck = layout.displace();
        let (disk, skipped) = (layout.disk, layout.skipped);
        // Each round pins at least one more node to where it stands; where all stand now is a tree.
        let before = pinned.len();
        pinned.extend(stuck);
        if pinned.len() == before {
            merged.skipped.extend(skipped);
            return disk;
        }
    }
}

struct Layout<'a> {
    sides: &'a Sides<'a>,
    merged: &'a Merged,
    disk: Disk,
    /// What keeps its place whatever happens, by directory.
    fixed: BTreeMap<NodeId, Vec<(NodeId, Place)>>,
    is_fixed: BTreeSet<NodeId>,
    /// What the vault wants in a directory.
    wanted: BTreeMap<NodeId, Vec<NodeId>>,
    /// Names in use, by directory, in the form this file system compares.
    names: BTreeMap<NodeId, BTreeSet<String>>,
    queue: VecDeque<NodeId>,
    skipped: Vec<Skipped>,
}

impl<'a> Layout<'a> {
    fn new(sides: &'a Sides<'a>, merged: &'a Merged, pinned: &BTreeSet<NodeId>) -> Self {
        let mut layout = Self {
            sides,
            merged,
            disk: Disk::default(),
            fixed: BTreeMap::new(),
            is_fixed: BTreeSet::new(),
            wanted: BTreeMap::new(),
            names: BTreeMap::new(),
            queue: VecDeque::from([NodeId::ROOT]),
            skipped: Vec::new(),
        };
        for (parent, name) in &sides.occupied {
            let key = sides.policy.placement.key(name);
            layout.names.entry(*parent).or_default().insert(key);
        }
        let wanted_places: BTreeSet<&Place> =
            merged.vault.values().map(|want| &want.place).collect();
        for id in merged.still.iter().chain(pinned) {
            let Some(mut place) = sides.local_place(*id) else {
                continue;
            };
            let unknown = sides
                .local
                .get(id)
                .is_some_and(|here| here.state == LocalState::Unknown);
            if sides.is_unplaced(*id) && !unknown && wanted_places.contains(&place) {
                let parent = place.0;
                place.1 = sides.free_name(parent, &place.1, |name| {
                    wanted_places.contains(&(parent, name.clone()))
                });
                layout.disk.yielded.insert(*id);
            }
            layout.fix(*id, place);
        }
        layout.fix_leftovers();
        for (id, want) in &merged.vault {
            let nowhere = !sides.local.contains_key(id)
                && (sides.policy.not_here.contains(id)
                    || merged.still.contains(id)
                    || (want.source == Source::Vault && sides.policy.unavailable.contains(id)));
            if !layout.is_fixed.contains(id) && !nowhere {
                layout.wanted.entry(want.place.0).or_default().push(*id);
            }
        }
        layout
    }

    fn fix(&mut self, id: NodeId, place: Place) {
        if self.is_fixed.insert(id) {
            self.fixed.entry(place.0).or_default().push((id, place));
        }
    }

    /// A directory that is gone from the vault but holds something that is to be left alone stays on disk.
    fn fix_leftovers(&mut self) {
        let sides = self.sides;
        let mut holding: Vec<NodeId> = self.fixed.keys().copied().collect();
        holding.extend(sides.occupied.iter().map(|(parent, _)| *parent));
        let skipping = sides.local.iter().filter(|(_, here)| {
            matches!(
                here.state,
                LocalState::Directory {
                    holds_skipped: true,
                    ..
                }
            )
        });
        holding.extend(skipping.map(|(id, _)| *id));
        for id in holding {
            let mut at = id;
            while at != NodeId::ROOT
                && !self.merged.vault.contains_key(&at)
                && !self.is_fixed.contains(&at)
            {
                let Some(place) = sides.local_place(at) else {
                    break;
                };
                let parent = place.0;
                self.fix(at, place);
                at = parent;
            }
        }
    }

    /// From the root down: what is fixed, then what the vault wants, those that stand there already first.
    fn fill(&mut self) {
        while let Some(directory) = self.queue.pop_front() {
            for (id, place) in self.fixed.remove(&directory).unwrap_or_default() {
                self.put(id, place);
            }
            let mut ids = self.wanted.remove(&directory).unwrap_or_default();
            ids.sort_by_key(|id| {
                let want = self.merged.vault.get(id).map(|want| &want.place);
                (self.sides.local_place(*id).as_ref() != want, *id)
            });
            for id in ids {
                let Some(want) = self.merged.vault.get(&id) else {
                    continue;
                };
                match self.refusal(id, &want.place, want.kind) {
                    None => self.put(id, want.place.clone()),
                    Some(why) => self.skip(id, why),
                }
            }
        }
    }

    fn refusal(&self, id: NodeId, (parent, name): &Place, kind: Kind) -> Option<&'static str> {
        let rules = &self.sides.policy.placement;
        if kind == Kind::Symlink && !rules.symlinks && !self.sides.local.contains_key(&id) {
            return Some("this system does not let links be made");
        }
        let seen = match self.sides.local.get(parent).map(|here| &here.state) {
            Some(LocalState::Directory { complete, .. }) => *complete,
            Some(LocalState::Unknown) => false,
            None if *parent == NodeId::ROOT => !self.sides.input.local.root_incomplete,
            _ => true,
        };
        if !seen
            && self
                .sides
                .local_place(id)
                .is_none_or(|place| (place.0, &place.1) != (*parent, name))
        {
            return Some("its directory could not be read in full");
        }
        if !self.is_free(*parent, name) {
            return Some("the name is taken on this disk");
        }
        rules.refuses(*parent, name)
    }

    fn is_free(&self, parent: NodeId, name: &syncagent_protocol::Name) -> bool {
        let key = self.sides.policy.placement.key(name);
        self.names
            .get(&parent)
            .is_none_or(|names| !names.contains(&key))
    }

    fn put(&mut self, id: NodeId, place: Place) {
        let key = self.sides.policy.placement.key(&place.1);
        self.names.entry(place.0).or_default().insert(key);
        self.disk.place.insert(id, place);
        self.queue.push_back(id);
    }

    fn skip(&mut self, id: NodeId, why: &'static str) {
        let path: TreePath = self.merged.way_to(id).into_iter().collect();
        self.skipped.push(Skipped {
            path: path.to_string(),
            reason: "unplaceable",
            code: None,
            detail: why.into(),
        });
    }

    /// What is here but cannot go where the vault has it keeps its path while that is free. If not, it makes
    /// room, if the vault has its content; if that is not so either, it has to stay. Returns what has to.
    fn displace(&mut self) -> BTreeSet<NodeId> {
        loop {
            let here = self.sides.local.keys().filter(|id| {
                let known = self.merged.vault.contains_key(id) || self.is_fixed.contains(id);
                known && !self.disk.place.contains_key(id) && !self.disk.evicted.contains(id)
            });
            let homeless: Vec<NodeId> = here.copied().collect();
            if homeless.is_empty() {
                return BTreeSet::new();
            }
            let mut progress = false;
            for id in &homeless {
                if self.is_fixed.contains(id) || self.disk.place.contains_key(id) {
                    continue;
                }
                let Some((parent, name)) = self.sides.local_place(*id) else {
                    continue;
                };
                if parent != NodeId::ROOT && !self.disk.place.contains_key(&parent) {
                    continue;
                }
                let want = self.merged.vault.get(id);
                if self.is_free(parent, &name) {
                    self.put(*id, (parent, name));
                    self.fill();
                } else if want
                    .is_some_and(|want| want.kind != Kind::Directory && want.source != Source::Disk)
                    && !self.merged.clashing.contains(id)
                {
                    self.disk.evicted.insert(*id);
                } else {
                    return BTreeSet::from([*id]);
                }
                progress = true;
            }
            if !progress {
                return homeless
                    .into_iter()
                    .filter(|id| !self.is_fixed.contains(id))
                    .collect();
            }
        }
    }
}
