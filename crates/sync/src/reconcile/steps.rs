//! From what this disk holds to what it shall hold, step by step.
//!
//! Top-down through the wanted tree, so that whatever is put in place has its directory in place already; what
//! stands in the way is exchanged, never removed first, so that a name that is in use before and after is in
//! use all the time. What is left over is removed last, bottom-up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncagent_protocol::{Body, Kind, Name, NodeId, TreePath};

use super::Place;
use super::disk::Disk;
use super::merge::{Merged, Source, Want};
use super::sides::Sides;
use crate::conflict::free_name;
use crate::plan::{Aside, Step};

pub(super) fn steps(sides: &Sides<'_>, merged: &Merged, disk: &Disk) -> Vec<Step> {
    let mut walk = Walk::new(sides, merged, disk);
    walk.arrange();
    walk.remove_the_rest();
    walk.steps
}

struct Walk<'a> {
    sides: &'a Sides<'a>,
    merged: &'a Merged,
    disk: &'a Disk,
    /// Where things stand after the steps so far ...
    place: BTreeMap<NodeId, Place>,
    /// ... and what stands there, with names in the form this file system compares.
    at: BTreeMap<NodeId, BTreeMap<String, NodeId>>,
    copies: BTreeSet<NodeId>,
    /// What shall stand where, names as above.
    wanted_at: BTreeMap<(NodeId, String), NodeId>,
    made: BTreeSet<NodeId>,
    steps: Vec<Step>,
}

impl<'a> Walk<'a> {
    fn new(sides: &'a Sides<'a>, merged: &'a Merged, disk: &'a Disk) -> Self {
        let mut walk = Self {
            sides,
            merged,
            disk,
            place: BTreeMap::new(),
            at: BTreeMap::new(),
            copies: merged.copies.values().copied().collect(),
            wanted_at: BTreeMap::new(),
            made: BTreeSet::new(),
            steps: Vec::new(),
        };
        for (id, (parent, name)) in &disk.place {
            walk.wanted_at.insert((*parent, walk.key(name)), *id);
        }
        for (id, here) in &sides.local {
            walk.put(*id, (here.parent, here.name.clone()));
        }
        walk
    }

    fn key(&self, name: &Name) -> String {
        self.sides.policy.placement.key(name)
    }

    fn take(&mut self, id: NodeId) {
        if let Some((parent, name)) = self.place.remove(&id) {
            let key = self.key(&name);
            if let Some(names) = self.at.get_mut(&parent)
                && names.get(&key) == Some(&id)
            {
                names.remove(&key);
            }
        }
    }

    fn put(&mut self, id: NodeId, place: Place) {
        self.take(id);
        let key = self.key(&place.1);
        self.at.entry(place.0).or_default().insert(key, id);
        self.place.insert(id, place);
    }

    fn standing_at(&self, place: &Place) -> Option<NodeId> {
        self.at.get(&place.0)?.get(&self.key(&place.1)).copied()
    }

    fn path(&self, place: &Place) -> TreePath {
        let mut names = vec![&place.1];
        let mut at = place.0;
        while let Some((parent, name)) = self.place.get(&at) {
            names.push(name);
            at = *parent;
        }
        names
            .into_iter()
            .rev()
            .fold(TreePath::ROOT, |path, name| path.join(name))
    }

    fn is_within(&self, id: NodeId, directory: NodeId) -> bool {
        let mut at = id;
        while let Some((parent, _)) = self.place.get(&at) {
            if *parent == directory {
                return true;
            }
            at = *parent;
        }
        false
    }

    fn kind_here(&self, id: NodeId) -> Kind {
        self.sides.local_body(id, false).kind()
    }

    /// Whether a directory, and every one above it, is where it shall be.
    fn is_in_place(&self, directory: NodeId) -> bool {
        let mut at = directory;
        while at != NodeId::ROOT {
            match (self.place.get(&at), self.disk.place.get(&at)) {
                (Some(here), Some(wanted)) if here == wanted => at = here.0,
                _ => return false,
            }
        }
        true
    }

    fn arrange(&mut self) {
        let mut children: BTreeMap<NodeId, BTreeMap<&Name, NodeId>> = BTreeMap::new();
        for (id, (parent, name)) in &self.disk.place {
            children.entry(*parent).or_default().insert(name, *id);
        }
        let mut queue = VecDeque::from([NodeId::ROOT]);
        while let Some(directory) = queue.pop_front() {
            for (name, id) in children.remove(&directory).unwrap_or_default() {
                // A copy is made when the file it is of makes room.
                if !self.copies.contains(&id) {
                    self.bring(id, (directory, name.clone()));
                }
                queue.push_back(id);
            }
        }
    }

    fn bring(&mut self, id: NodeId, target: Place) {
        let here = self.place.get(&id).cloned();
        let want = self.merged.vault.get(&id);
        match &here {
            Some(here) if *here == target => {}
            Some(_) => {
                self.let_in(id);
                if self.place.get(&id) != Some(&target) {
                    self.move_to(id, &target);
                }
            }
            None => {
                if let Some(want) = want {
                    self.make(id, want, &target);
                }
            }
        }
        if here.is_some()
            && !self.made.contains(&id)
            && !self.merged.still.contains(&id)
            && let Some(want) = want
        {
            self.update(id, want, &target);
        }
    }

    /// Before something leaves its place, whatever shall stand there comes in: the name stays in use.
    fn let_in(&mut self, id: NodeId) {
        // Each round something reaches its final place.
        while let Some(place) = self.place.get(&id).cloned() {
            if !self.is_in_place(place.0) {
                return;
            }
            let next = self.wanted_at.get(&(place.0, self.key(&place.1))).copied();
            let Some(next) = next.filter(|next| *next != id && !self.copies.contains(next)) else {
                return;
            };
            let Some(target) = self.disk.place.get(&next).cloned() else {
                return;
            };
            if self.place.contains_key(&next) {
                self.move_to(next, &target);
            } else if let Some(want) = self.merged.vault.get(&next) {
                self.make(next, want, &target);
            } else {
                return;
            }
        }
    }

    fn move_to(&mut self, id: NodeId, target: &Place) {
        let occupant = self.standing_at(target).filter(|other| *other != id);
        if let Some(other) = occupant {
            if self.is_within(id, other) {
                // A directory cannot change places with something inside it.
                let spare = self.spare(target);
                self.step_move(id, spare, None);
            }
            self.step_move(id, target.clone(), Some(other));
        } else {
            self.step_move(id, target.clone(), None);
        }
    }

    fn step_move(&mut self, id: NodeId, to: Place, exchange_with: Option<NodeId>) {
        let Some(from) = self.place.get(&id).cloned() else {
            return;
        };
        let step = Step::Move {
            node: id,
            from: self.path(&from),
            to: self.path(&to),
            exchange_with,
        };
        self.take(id);
        if let Some(other) = exchange_with {
            self.put(other, from);
        }
        self.put(id, to);
        self.steps.push(step);
    }

    /// A free name beside `target`, for something that is on its way.
    fn spare(&self, target: &Place) -> Place {
        let names = self.at.get(&target.0);
        let occupied = &self.sides.occupied;
        let wanted: BTreeSet<&Place> = self.disk.place.values().collect();
        let name = free_name(&target.1, "moving", |name| {
            let place = (target.0, name.clone());
            names.is_some_and(|names| names.contains_key(&self.key(name)))
                || occupied.contains(&place)
                || wanted.contains(&place)
        });
        (target.0, name)
    }

    /// Where `id` shall stand, if nothing stands there and its directory is in place.
    fn open_place(&self, id: NodeId) -> Option<Place> {
        let place = self.disk.place.get(&id)?;
        (self.is_in_place(place.0) && self.standing_at(place).is_none()).then(|| place.clone())
    }

    fn make(&mut self, id: NodeId, want: &Want, target: &Place) {
        let Some(other) = self.standing_at(target) else {
            return self.step_make(id, want, target, None, None);
        };
        if want.kind != Kind::Directory && self.kind_here(other) != Kind::Directory {
            if !self.disk.place.contains_key(&other) {
                return self.step_make(id, want, target, Some(other), None);
            }
            if let Some(open) = self.open_place(other) {
                let aside = Aside {
                    path: self.path(&open),
                    node: other,
                };
                self.put(other, open);
                return self.step_make(id, want, target, Some(other), Some(aside));
            }
        }
        let first = self.open_place(other).unwrap_or_else(|| self.spare(target));
        self.step_make(id, want, &first, None, None);
        self.step_move(id, target.clone(), Some(other));
    }

    fn step_make(
        &mut self,
        node: NodeId,
        want: &Want,
        place: &Place,
        replaces: Option<NodeId>,
        aside: Option<Aside>,
    ) {
        let path = self.path(place);
        if let Some(old) = replaces
            && aside.is_none()
            && old != node
        {
            self.take(old);
        }
        let step = match want.kind {
            Kind::Directory => Step::MakeDir { node, path },
            Kind::File => Step::Fetch {
                node,
                path,
                replaces,
                aside,
                exec: want.exec,
                mtime_ns: want.mtime_ns,
            },
            Kind::Symlink => {
                let target = match self.sides.remote(node).map(|node| &node.body) {
                    Some(Body::Symlink { target }) => target.clone(),
                    _ => return,
                };
                Step::Link {
                    node,
                    path,
                    target,
                    replaces,
                    aside,
                }
            }
        };
        self.made.insert(node);
        self.put(node, place.clone());
        self.steps.push(step);
    }

    /// Brings content and meta of something that is in place up to date.
    fn update(&mut self, id: NodeId, want: &Want, target: &Place) {
        if want.kind == Kind::Directory {
            return;
        }
        if want.source == Source::Vault {
            let copy = self.merged.copies.get(&id).copied();
            let aside = copy.and_then(|copy| {
                let place = self.disk.place.get(&copy)?.clone();
                let aside = Aside {
                    path: self.path(&place),
                    node: copy,
                };
                self.put(copy, place);
                Some(aside)
            });
            return self.step_make(id, want, target, Some(id), aside);
        }
        let exec_differs = self
            .sides
            .local_exec(id)
            .is_some_and(|exec| exec != want.exec);
        let exec_differs = exec_differs && self.sides.policy.placement.exec_bit;
        if want.kind == Kind::File && (exec_differs || self.sides.local_mtime(id) != want.mtime_ns)
        {
            let (exec, mtime_ns) = (want.exec, want.mtime_ns);
            self.steps.push(Step::SetMeta {
                node: id,
                path: self.path(target),
                exec,
                mtime_ns,
            });
        }
    }

    fn remove_the_rest(&mut self) {
        let rest = self
            .place
            .iter()
            .filter(|(id, _)| !self.disk.place.contains_key(id));
        let mut rest: Vec<(TreePath, NodeId)> =
            rest.map(|(id, place)| (self.path(place), *id)).collect();
        // A directory sorts before its content, so backwards its content goes first.
        rest.sort_by(|a, b| b.cmp(a));
        for (path, node) in rest {
            self.take(node);
            self.steps.push(Step::Remove {
                node,
                path,
                kind: self.kind_here(node),
            });
        }
    }
}
