//! The three trees, lined up: every node has one id on all sides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncagent_protocol::{Body, ContentHash, Name, Node, NodeId, OpHash, TreePath};

use super::{Input, Place, Policy};
use crate::ancestor::AncestorNode;
use crate::conflict::conflict_name;
use crate::local::{LocalNode, LocalState};
use crate::tree::{LastOp, LogTree, Tree, path_to};

/// Whether two contents are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Equal {
    Yes,
    No,
    /// The file must be read first.
    Ask,
}

/// A local thing that gave up its node, because what the vault says of that cannot be merged with it.
#[derive(Debug, Clone)]
pub(super) struct Renamed {
    /// The node it was.
    pub(super) was: NodeId,
    /// The name it takes.
    pub(super) name: Name,
}

pub(super) struct Sides<'a> {
    pub(super) input: Input<'a>,
    pub(super) policy: &'a Policy,
    pub(super) tree: &'a Tree,
    pub(super) log: &'a LogTree,
    /// What is on disk, under the ids it shall have.
    pub(super) local: BTreeMap<NodeId, LocalNode>,
    /// Places taken by things that are no nodes, under the same ids.
    pub(super) occupied: BTreeSet<Place>,
    /// Rows that no longer mean anything.
    pub(super) forget: BTreeSet<NodeId>,
    /// Copies of what the vault no longer places.
    pub(super) renamed: BTreeMap<NodeId, Renamed>,
    /// What the vault has under another id: that, by the id it had here.
    adopted: BTreeMap<NodeId, NodeId>,
    /// Nodes whose content decides how the trees line up.
    pub(super) needs_hash: Vec<NodeId>,
    /// Names in use on disk, by directory, in the form this file system compares.
    names: BTreeMap<NodeId, BTreeSet<String>>,
    /// Places that unplaced nodes would take, with the smallest id that would.
    pub(super) claims: BTreeMap<Place, NodeId>,
}

impl<'a> Sides<'a> {
    pub(super) fn line_up(input: &Input<'a>, new_id: &mut dyn FnMut() -> NodeId) -> Self {
        let mut sides = Self {
            input: *input,
            policy: input.policy,
            tree: &input.remote.tree,
            log: input.log,
            local: input.local.nodes.clone(),
            occupied: input.local.occupied.clone(),
            forget: BTreeSet::new(),
            renamed: BTreeMap::new(),
            adopted: BTreeMap::new(),
            needs_hash: Vec::new(),
            names: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        sides.note_names();
        sides.drop_unknown_rows();
        sides.note_claims();
        sides.part_from_the_vault(new_id);
        sides.adopt();
        sides.note_names();
        sides
    }

    /// The row of a node on this disk.
    pub(super) fn base(&self, id: NodeId) -> Option<&'a AncestorNode> {
        self.input
            .ancestor
            .here(id)
            .filter(|_| !self.forget.contains(&id))
    }

    /// Where a row says that its node hangs; a directory that goes by another id now is meant by that.
    pub(super) fn base_place<'r>(&self, row: &'r AncestorNode) -> (NodeId, &'r Name) {
        let parent = self.adopted.get(&row.node.parent);
        (parent.copied().unwrap_or(row.node.parent), &row.node.name)
    }

    pub(super) fn remote(&self, id: NodeId) -> Option<&'a Node> {
        self.tree.get(id)
    }

    pub(super) fn remote_op(&self, id: NodeId) -> Option<OpHash> {
        self.log.get(id).map(|entry| entry.op_hash)
    }

    pub(super) fn is_unplaced(&self, id: NodeId) -> bool {
        self.input.remote.unplaced.contains_key(&id)
    }

    pub(super) fn local_path(&self, id: NodeId) -> Option<TreePath> {
        path_to(id, |id| {
            { self.local.get(&id) }.map(|here| (here.parent, &here.name))
        })
    }

    pub(super) fn local_place(&self, id: NodeId) -> Option<Place> {
        self.local
            .get(&id)
            .map(|here| (here.parent, here.name.clone()))
    }

    /// Whether a local thing holds what `body` says; the exec bit does not count.
    pub(super) fn holds(&self, id: NodeId, here: &LocalNode, body: &Body) -> Equal {
        let yes = |equal| if equal { Equal::Yes } else { Equal::No };
        match (&here.state, body) {
            (LocalState::Same, body) => yes(self
                .base(id)
                .is_some_and(|row| same_content(&row.node.body, body))),
            (LocalState::File { size, .. }, Body::File { size: other, .. }) if size != other => {
                Equal::No
            }
            (
                LocalState::File {
                    hash: Some(hash), ..
                },
                Body::File { hash: other, .. },
            ) => yes(hash == other),
            (LocalState::File { hash: None, .. }, Body::File { .. }) => Equal::Ask,
            (LocalState::Symlink { target, .. }, Body::Symlink { target: other }) => {
                yes(target == other)
            }
            (LocalState::Directory { .. }, Body::Directory) => Equal::Yes,
            _ => Equal::No,
        }
    }

    /// Whether a local thing that has no row is an earlier version of `node`: then nobody changed it.
    pub(super) fn is_earlier(&self, node: NodeId, here: &LocalNode) -> Equal {
        self.is_any(node, here, &self.input.history.versions(node))
    }

    fn is_any(&self, node: NodeId, here: &LocalNode, versions: &[Body]) -> Equal {
        let mut equal = Equal::No;
        for version in versions {
            match self.holds(node, here, version) {
                Equal::Yes => return Equal::Yes,
                Equal::Ask => equal = Equal::Ask,
                Equal::No => {}
            }
        }
        equal
    }

    /// Whether a local thing is a later version of `node` than its row says, though not the last: the row is from before.
    /// An earlier one is a change: somebody went back to it.
    pub(super) fn is_later(&self, node: NodeId, here: &LocalNode, row: &AncestorNode) -> Equal {
        let versions = self.input.history.versions(node);
        let of_row = { versions.iter() }.rposition(|body| same_content(body, &row.node.body));
        match of_row {
            Some(at) => self.is_any(node, here, &versions[at + 1..]),
            None => Equal::No,
        }
    }

    /// Whether it is an earlier version where the vault has deleted `node`: what was fetched, or sent, and then deleted by another machine before
    /// a row was written. What the vault never had is a person's.
    pub(super) fn is_of_the_deleted(&self, node: NodeId, here: &LocalNode) -> Equal {
        match self.log.get(node).map(|entry| &entry.op) {
            Some(LastOp::Trashed | LastOp::Purged) => self.is_earlier(node, here),
            _ => Equal::No,
        }
    }

    /// Whether a local thing is of another kind than `body`.
    fn is_other_kind(&self, id: NodeId, here: &LocalNode, body: &Body) -> bool {
        let kind = here.state.kind().or_else(|| match here.state {
            LocalState::Same => self.base(id).map(|row| row.node.body.kind()),
            _ => None,
        });
        kind.is_some_and(|kind| kind != body.kind())
    }

    /// Whether the vault's node `id` is, or was until it was deleted, of another kind than the local thing: a node
    /// never changes its kind, so the thing only has an id that an interrupted commit gave to what stood there before.
    fn was_another_kind(&self, id: NodeId, here: &LocalNode) -> bool {
        match (self.remote(id), self.log.get(id)) {
            (Some(node), _) => self.is_other_kind(id, here, &node.body),
            (None, Some(_)) if self.base(id).is_none() => {
                let mut versions = self.input.history.versions(id).into_iter();
                versions.any(|body| self.is_other_kind(id, here, &body))
            }
            _ => false,
        }
    }

    /// The content of a local thing, as far as it is known: an unread file has a hash of zeros.
    pub(super) fn local_body(&self, id: NodeId, exec: bool) -> Body {
        match self.local.get(&id).map(|here| &here.state) {
            Some(LocalState::File { hash, size, .. }) => Body::File {
                hash: hash.unwrap_or(ContentHash([0; 32])),
                size: *size,
                exec,
            },
            Some(LocalState::Symlink { target, .. }) => Body::Symlink {
                target: target.clone(),
            },
            Some(LocalState::Directory { .. }) => Body::Directory,
            Some(LocalState::Same | LocalState::Unknown) | None => {
                let body = self
                    .base(id)
                    .map_or(Body::Directory, |row| row.node.body.clone());
                with_exec(body, exec)
            }
        }
    }

    /// The exec bit of a local file; none where there is none to speak of.
    pub(super) fn local_exec(&self, id: NodeId) -> Option<bool> {
        let here = self.local.get(&id)?;
        match &here.state {
            LocalState::File { exec, .. } if self.policy.placement.exec_bit => Some(*exec),
            LocalState::File { .. } | LocalState::Same => {
                self.base(id).map(|row| exec_of(&row.node.body))
            }
            _ => None,
        }
    }

    /// The time of a local file or link as the vault would know it: a file system may round what it was told,
    /// so a file that was not touched has the time its row says.
    pub(super) fn local_mtime(&self, id: NodeId) -> i64 {
        let row = self.base(id);
        let print = match self.local.get(&id).map(|here| &here.state) {
            Some(
                LocalState::File { fingerprint, .. } | LocalState::Symlink { fingerprint, .. },
            ) => Some(fingerprint),
            _ => None,
        };
        match (print, row) {
            (Some(print), Some(row))
                if row
                    .fingerprint
                    .is_some_and(|old| old.mtime_ns == print.mtime_ns) =>
            {
                row.node.mtime_ns
            }
            (Some(print), _) => print.mtime_ns,
            (None, row) => row.map_or(0, |row| row.node.mtime_ns),
        }
    }

    /// A conflict name in `parent` that is free on every side and that `also` does not know.
    pub(super) fn free_name(
        &self,
        parent: NodeId,
        name: &Name,
        also: impl Fn(&Name) -> bool,
    ) -> Name {
        let key = |name: &Name| self.policy.placement.key(name);
        let taken = self.names.get(&parent);
        conflict_name(name, self.policy.now, &self.policy.machine, |candidate| {
            taken.is_some_and(|taken| taken.contains(&key(candidate)))
                || self.tree.child(parent, candidate).is_some()
                || self.claims.contains_key(&(parent, candidate.clone()))
                || also(candidate)
        })
    }

    /// A row that names a node the log never did proves nothing: what it stands for counts as new.
    fn drop_unknown_rows(&mut self) {
        let unknown = self
            .input
            .ancestor
            .iter()
            .filter(|(id, _)| self.log.get(*id).is_none());
        self.forget = unknown.map(|(id, _)| id).collect();
        for id in &self.forget {
            // Its content is known from the row alone.
            let (Some(here), Some(row)) = (self.local.get_mut(id), self.input.ancestor.get(*id))
            else {
                continue;
            };
            if here.state == LocalState::Same {
                here.state = state_from(row);
            }
        }
    }

    fn note_names(&mut self) {
        let here = self.local.values().map(|here| (here.parent, &here.name));
        let occupied = self.occupied.iter().map(|(parent, name)| (*parent, name));
        let mut names: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
        for (parent, name) in here.chain(occupied) {
            names
                .entry(parent)
                .or_default()
                .insert(self.policy.placement.key(name));
        }
        self.names = names;
    }

    fn note_claims(&mut self) {
        for id in self.input.remote.unplaced.keys() {
            if let Some(LastOp::Put(node)) = self.log.get(*id).map(|entry| &entry.op) {
                // Ids come in order, so the first is the smallest.
                self.claims
                    .entry((node.parent, node.name.clone()))
                    .or_insert(*id);
            }
        }
    }

    /// Local changes to nodes that the vault does not place or cannot read go on as nodes of their own.
    fn part_from_the_vault(&mut self, new_id: &mut dyn FnMut() -> NodeId) {
        let mut parting = Vec::new();
        for (id, here) in &self.local {
            if here.state == LocalState::Unknown {
                continue;
            }
            if self.is_unplaced(*id) {
                match self.base(*id) {
                    // An id that a lost row or an interrupted commit left behind.
                    None => parting.push((*id, false)),
                    Some(row) => match self.holds(*id, here, &row.node.body) {
                        Equal::Yes
                            if self
                                .local_exec(*id)
                                .is_none_or(|exec| exec == exec_of(&row.node.body)) => {}
                        Equal::Yes | Equal::No => parting.push((*id, true)),
                        Equal::Ask => self.needs_hash.push(*id),
                    },
                }
            } else if self.was_another_kind(*id, here) {
                parting.push((*id, false));
            }
        }
        for (was, renamed) in parting {
            let Some(mut here) = self.local.remove(&was) else {
                continue;
            };
            if let (LocalState::Same, Some(row)) = (&here.state, self.base(was)) {
                here.state = state_from(row);
            }
            let id = new_id();
            if renamed {
                let name = self.free_name(here.parent, &here.name, |_| false);
                let key = self.policy.placement.key(&name);
                self.names.entry(here.parent).or_default().insert(key);
                self.renamed.insert(id, Renamed { was, name });
            }
            self.local.insert(id, here);
            for other in self.local.values_mut().filter(|other| other.parent == was) {
                other.parent = id;
            }
            self.occupied = std::mem::take(&mut self.occupied)
                .into_iter()
                .map(|(parent, name)| (if parent == was { id } else { parent }, name))
                .collect();
            if self.input.ancestor.get(was).is_some() {
                self.forget.insert(was);
            }
        }
    }

    /// What is new on disk and stands where the vault has the same, or had it, or a directory too, is the vault's node.
    /// So is what the vault deleted and has anew: two machines may tell one rename apart in two ways. What hangs in such
    /// a directory did not move by that ([`Sides::base_place`]): what was deleted with the old one stays deleted.
    fn adopt(&mut self) {
        let mut children: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for (id, here) in &self.local {
            children.entry(here.parent).or_default().push(*id);
        }
        let mut queue = VecDeque::from([(NodeId::ROOT, NodeId::ROOT)]);
        while let Some((scanned, directory)) = queue.pop_front() {
            for id in children.get(&scanned).cloned().unwrap_or_default() {
                let mut became = id;
                if let Some(twin) = self.twin(id, directory)
                    && let Some(mut here) = self.local.remove(&id)
                {
                    if let (LocalState::Same, Some(row)) = (&here.state, self.base(id)) {
                        here.state = state_from(row);
                    }
                    self.local.insert(twin, here);
                    became = twin;
                    self.adopted.insert(id, twin);
                }
                if let Some(here) = self.local.get_mut(&became) {
                    here.parent = directory;
                }
                queue.push_back((id, became));
            }
        }
        self.occupied = std::mem::take(&mut self.occupied)
            .into_iter()
            .map(|(parent, name)| {
                let became = self.adopted.get(&parent).copied();
                (became.unwrap_or(parent), name)
            })
            .collect();
    }

    fn twin(&mut self, id: NodeId, directory: NodeId) -> Option<NodeId> {
        let here = self.local.get(&id)?;
        if self.remote(id).is_some() || self.is_unplaced(id) || self.renamed.contains_key(&id) {
            return None;
        }
        let is_known = self.base(id).is_some();
        let twin = self
            .tree
            .child(directory, &here.name)
            .filter(|twin| !self.local.contains_key(twin))?;
        let body = &self.remote(twin)?.body;
        let same = match self.holds(id, here, body) {
            Equal::No if !is_known && !self.is_other_kind(id, here, body) => {
                self.is_earlier(twin, here)
            }
            same => same,
        };
        match same {
            Equal::Yes => Some(twin),
            Equal::No => None,
            Equal::Ask => {
                self.needs_hash.push(id);
                None
            }
        }
    }
}

/// What a scan would have found of an untouched file or link, had it known no row.
fn state_from(row: &AncestorNode) -> LocalState {
    let fingerprint = row.fingerprint.unwrap_or_default();
    match &row.node.body {
        Body::File { hash, size, exec } => LocalState::File {
            hash: Some(*hash),
            size: *size,
            exec: *exec,
            mtime_ns: fingerprint.mtime_ns,
            fingerprint,
        },
        Body::Symlink { target } => LocalState::Symlink {
            target: target.clone(),
            fingerprint,
        },
        Body::Directory => LocalState::Directory {
            inode: row.inode,
            holds_skipped: false,
            complete: true,
        },
    }
}

pub(super) fn same_content(a: &Body, b: &Body) -> bool {
    match (a, b) {
        (
            Body::File { hash, size, .. },
            Body::File {
                hash: other,
                size: len,
                ..
            },
        ) => hash == other && size == len,
        (a, b) => a == b,
    }
}

pub(super) fn exec_of(body: &Body) -> bool {
    matches!(body, Body::File { exec: true, .. })
}

pub(super) fn with_exec(body: Body, exec: bool) -> Body {
    match body {
        Body::File { hash, size, .. } => Body::File { hash, size, exec },
        body => body,
    }
}
