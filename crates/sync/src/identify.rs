//! Which node is where on disk: matches a scan with the ancestor.
//!
//! Names alone would turn every rename into a deletion and a new file; inode numbers alone would be fooled by
//! editors that save by replacing, and by systems that hand out a number again. So:
//!
//! 1. Directories, from the root down: the inode of a known one (if something known is still in it), else the path.
//! 2. Files: an inode that belongs to another known file, untouched but gone from its place, shows a move even
//!    onto the name of a known one (swaps, chains, `mv b a`). Else the path: a new inode under an old name is
//!    the same file, saved. Else the inode. Else the content, where the size already fits.
//! 3. What is left on disk is new. What is left in the ancestor is deleted, if the directory it hung in was seen
//!    in full, and unknown if not.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Body, ContentHash, Kind, Name, NodeId, TreePath};

use crate::ancestor::{Ancestor, AncestorNode};
use crate::local::{Local, LocalNode, LocalState};
use crate::scan::{Fingerprint, Observed, Scan};

/// A scan whose entries were told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identified {
    /// What is on disk, node by node.
    pub local: Local,
    /// Files that may be a vanished one under another name: read them and call again. Until then they
    /// count as new.
    pub needs_hash: Vec<TreePath>,
    /// The ids given to new things, by path: keep them (as `pending_ids`) until the node has a row.
    pub new_ids: BTreeMap<TreePath, NodeId>,
}

/// Tells apart what a scan found.
///
/// `pending_ids` are the ids that paths without a row were given before: by an earlier call, or by the steps
/// of a plan. `hashes` are contents read since, each with the fingerprint the file had.
pub fn identify(
    ancestor: &Ancestor,
    scan: &Scan,
    pending_ids: &BTreeMap<TreePath, NodeId>,
    hashes: &BTreeMap<TreePath, (Fingerprint, ContentHash)>,
    new_id: &mut dyn FnMut() -> NodeId,
) -> Identified {
    let mut matcher = Matcher {
        ancestor,
        scan,
        pending_ids,
        hashes,
        new_id,
        entry_of: BTreeMap::from([(NodeId::ROOT, &ROOT)]),
        node_at: BTreeMap::from([(&ROOT, NodeId::ROOT)]),
        used: BTreeSet::new(),
        out: Identified::default(),
    };
    matcher.directories();
    matcher.files();
    matcher.by_content();
    matcher.new_things();
    matcher.unseen();
    matcher.finish()
}

static ROOT: TreePath = TreePath::ROOT;

struct Matcher<'a> {
    ancestor: &'a Ancestor,
    scan: &'a Scan,
    pending_ids: &'a BTreeMap<TreePath, NodeId>,
    hashes: &'a BTreeMap<TreePath, (Fingerprint, ContentHash)>,
    new_id: &'a mut dyn FnMut() -> NodeId,
    entry_of: BTreeMap<NodeId, &'a TreePath>,
    node_at: BTreeMap<&'a TreePath, NodeId>,
    used: BTreeSet<NodeId>,
    out: Identified,
}

impl<'a> Matcher<'a> {
    fn bind(&mut self, node: NodeId, path: &'a TreePath) {
        self.entry_of.insert(node, path);
        self.node_at.insert(path, node);
    }

    fn is_free(&self, node: NodeId) -> bool {
        !self.entry_of.contains_key(&node)
    }

    /// The id for something that is no known node.
    fn fresh(&mut self, path: &TreePath) -> NodeId {
        let pending = self.pending_ids.get(path).copied();
        let id = match pending
            .filter(|id| self.ancestor.get(*id).is_none() && !self.used.contains(id))
        {
            Some(id) => id,
            None => (self.new_id)(),
        };
        self.used.insert(id);
        self.out.new_ids.insert(path.clone(), id);
        id
    }

    /// Where a path hangs, if the directory is a node already.
    fn place(&self, path: &TreePath) -> Option<(NodeId, Name)> {
        let parent = self.node_at.get(&path.parent()?)?;
        Some((*parent, path.name()?))
    }

    fn directories(&mut self) {
        let mut by_inode: BTreeMap<u64, &'a TreePath> = BTreeMap::new();
        for (path, seen) in &self.scan.entries {
            if let Observed::Directory { inode, .. } = seen
                && *inode != 0
            {
                by_inode.entry(*inode).or_insert(path);
            }
        }
        for (path, seen) in &self.scan.entries {
            let Observed::Directory { inode, .. } = seen else {
                continue;
            };
            let by_path = self.place(path).and_then(|(parent, name)| {
                let rows = self.ancestor.at(parent, &name);
                // Of several rows that were left behind, the one that had this number.
                rows.filter(|id| self.is_free(*id) && self.is_known(*id, Kind::Directory))
                    .min_by_key(|id| {
                        self.ancestor
                            .here(*id)
                            .is_none_or(|row| row.inode != *inode)
                    })
            });
            // Its own number at its own place settles it, whoever else had that number once.
            let settled = by_path.filter(|id| {
                *inode != 0 && self.ancestor.here(*id).map(|row| row.inode) == Some(*inode)
            });
            // Somebody else's number here means that it was renamed to here; ours elsewhere, that it is there now.
            let moved_here = self.ancestor.with_inode(true, *inode).find(|id| {
                self.is_free(*id) && (Some(*id) == by_path || self.is_moved_directory(*id, path))
            });
            let stays = by_path.filter(|id| {
                let number = self.ancestor.here(*id).map_or(0, |row| row.inode);
                match by_inode.get(&number) {
                    Some(elsewhere) if number != *inode => !self.is_moved_directory(*id, elsewhere),
                    _ => true,
                }
            });
            let node = match settled.or(moved_here).or(stays) {
                Some(id) => Some(id),
                None if *inode == 0 => self.directory_like(path),
                None => None,
            };
            let node = match node {
                Some(id) => id,
                None => self.fresh(path),
            };
            self.bind(node, path);
        }
    }

    fn is_known(&self, id: NodeId, kind: Kind) -> bool {
        self.ancestor
            .here(id)
            .is_some_and(|row| row.node.body.kind() == kind)
    }

    /// Whether the directory at `path`, whose number is that of `id`, is `id` and not one that was given its
    /// number after it was removed: something of what it held is still there.
    fn is_moved_directory(&self, id: NodeId, path: &TreePath) -> bool {
        self.ancestor.children(id).any(|(name, child)| {
            let seen = self.scan.entries.get(&path.join(name));
            seen.zip(self.ancestor.here(child))
                .is_some_and(|(seen, row)| looks_alike(seen, row))
        })
    }

    /// Where numbers are unusable: the vanished directory most of whose content is here, untouched.
    fn directory_like(&self, path: &TreePath) -> Option<NodeId> {
        let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
        let inside = self
            .scan
            .entries
            .range(path.clone()..)
            .skip(1)
            .take_while(|(p, _)| p.is_within(path));
        let inside: Vec<_> = inside
            .filter(|(p, _)| p.parent().as_ref() == Some(path))
            .collect();
        if inside.is_empty() {
            return None;
        }
        for (id, row) in self.ancestor.iter() {
            if row.not_here
                || row.node.body.kind() != Kind::Directory
                || !self.is_free(id)
                || row.inode != 0
            {
                continue;
            }
            let parent = self.entry_of.get(&row.node.parent);
            if parent
                .is_some_and(|parent| self.scan.entries.contains_key(&parent.join(&row.node.name)))
            {
                continue;
            }
            let held: BTreeMap<_, _> = self.ancestor.children(id).collect();
            let alike = inside.iter().filter(|(p, seen)| {
                let child = p.name().and_then(|name| held.get(&name).copied());
                child
                    .and_then(|child| self.ancestor.here(child))
                    .is_some_and(|row| looks_alike(seen, row))
            });
            let alike = alike.count();
            if alike * 2 > held.len() {
                votes.insert(id, alike);
            }
        }
        let most = votes.values().max().copied()?;
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(id, _)| id)
    }

    fn files(&mut self) {
        let entries: Vec<(&'a TreePath, Kind, Fingerprint)> = self
            .scan
            .entries
            .iter()
            .filter_map(|(path, seen)| file_like(seen).map(|(k, f)| (path, k, f)))
            .collect();
        let mut expected: BTreeMap<&TreePath, Vec<NodeId>> = BTreeMap::new();
        for (path, kind, _) in &entries {
            if let Some((parent, name)) = self.place(path) {
                let rows = self
                    .ancestor
                    .at(parent, &name)
                    .filter(|id| self.is_known(*id, *kind));
                let rows: Vec<NodeId> = rows.collect();
                if !rows.is_empty() {
                    expected.insert(path, rows);
                }
            }
        }
        // First what was renamed onto a known name, unless the number there is the one it always had, ...
        let ancestor = self.ancestor;
        let number = |id: &NodeId| ancestor.here(*id).map_or(0, AncestorNode::number);
        let displaced: Vec<_> = entries
            .iter()
            .filter(|(path, _, print)| {
                expected
                    .get(path)
                    .is_some_and(|rows| rows.iter().all(|id| number(id) != print.inode))
            })
            .collect();
        for (path, kind, print) in displaced {
            if let Some(owner) = self.moved_file(*kind, *print) {
                self.bind(owner, path);
            }
        }
        // ... then what is where it was, ...
        for (path, _, print) in &entries {
            if self.node_at.contains_key(path) {
                continue;
            }
            let rows: &[NodeId] = expected.get(path).map_or(&[], Vec::as_slice);
            let best = rows
                .iter()
                .filter(|id| self.is_free(**id))
                .min_by_key(|id| number(id) != print.inode);
            if let Some(id) = best.copied() {
                self.bind(id, path);
            }
        }
        // ... then what was renamed to a new name.
        for (path, kind, print) in &entries {
            if !self.node_at.contains_key(path)
                && let Some(owner) = self.moved_file(*kind, *print)
            {
                self.bind(owner, path);
            }
        }
    }

    /// The known file that this one is, going by its number alone: untouched and no longer where it was.
    fn moved_file(&self, kind: Kind, print: Fingerprint) -> Option<NodeId> {
        let owners = self.ancestor.with_inode(false, print.inode);
        let mut owners = owners.filter(|id| self.is_free(*id) && self.is_known(*id, kind));
        owners.find(|id| {
            let Some(row) = self.ancestor.here(*id) else {
                return false;
            };
            let untouched = row
                .fingerprint
                .is_some_and(|old| (old.size, old.mtime_ns) == (print.size, print.mtime_ns));
            let still_there = self.entry_of.get(&row.node.parent).is_some_and(|parent| {
                let seen = self
                    .scan
                    .entries
                    .get(&parent.join(&row.node.name))
                    .and_then(file_like);
                seen.is_some_and(|(_, there)| there.inode == print.inode)
            });
            untouched && !still_there
        })
    }

    fn by_content(&mut self) {
        let mut vanished: BTreeMap<u64, BTreeMap<ContentHash, Vec<NodeId>>> = BTreeMap::new();
        for (id, row) in self.ancestor.iter() {
            if let Body::File { hash, size, .. } = &row.node.body
                && *size > 0
                && !row.not_here
                && self.is_free(id)
                && self.is_absent(id)
            {
                vanished
                    .entry(*size)
                    .or_default()
                    .entry(*hash)
                    .or_default()
                    .push(id);
            }
        }
        if vanished.is_empty() {
            return;
        }
        for (path, seen) in &self.scan.entries {
            let Observed::File { fingerprint, .. } = seen else {
                continue;
            };
            if self.node_at.contains_key(path) {
                continue;
            }
            let Some(by_hash) = vanished.get_mut(&fingerprint.size) else {
                continue;
            };
            match self.hash_of(path, *fingerprint) {
                None => self.out.needs_hash.push(path.clone()),
                Some(hash) => {
                    if let Some(ids) = by_hash.get_mut(&hash)
                        && !ids.is_empty()
                    {
                        let name = path.name();
                        let same_name = |id: &NodeId| {
                            self.ancestor.here(*id).map(|r| &r.node.name) == name.as_ref()
                        };
                        let at = ids.iter().position(same_name).unwrap_or(0);
                        let id = ids.remove(at);
                        self.bind(id, path);
                    }
                }
            }
        }
    }

    fn hash_of(&self, path: &TreePath, fingerprint: Fingerprint) -> Option<ContentHash> {
        self.hashes
            .get(path)
            .filter(|(read, _)| *read == fingerprint)
            .map(|(_, hash)| *hash)
    }

    fn new_things(&mut self) {
        for (path, seen) in &self.scan.entries {
            if !self.node_at.contains_key(path) && file_like(seen).is_some() {
                let id = self.fresh(path);
                self.bind(id, path);
            }
        }
    }

    /// Whether it is certain that the node is not where it was.
    fn is_absent(&self, id: NodeId) -> bool {
        let mut at = id;
        // Rows need not form a tree.
        for _ in 0..=self.ancestor.len() {
            let Some(row) = self.ancestor.here(at) else {
                return true;
            };
            match self.entry_of.get(&row.node.parent) {
                Some(path) => {
                    return match self.scan.entries.get(&path.join(&row.node.name)) {
                        Some(Observed::Unknown) => false,
                        // Something else has its name.
                        Some(_) => true,
                        None if path.is_root() => self.scan.root_complete,
                        None => {
                            matches!(
                                self.scan.entries.get(path),
                                Some(Observed::Directory { complete: true, .. })
                            )
                        }
                    };
                }
                None => at = row.node.parent,
            }
        }
        true
    }

    /// Known nodes that were neither found nor proven absent.
    fn unseen(&mut self) {
        for (id, row) in self.ancestor.iter() {
            if !row.not_here && self.is_free(id) && !self.is_absent(id) {
                let node = &row.node;
                let place = LocalNode {
                    parent: node.parent,
                    name: node.name.clone(),
                    state: LocalState::Unknown,
                };
                self.out.local.nodes.insert(id, place);
            }
        }
    }

    fn finish(mut self) -> Identified {
        self.out.local.root_incomplete = !self.scan.root_complete;
        let found = std::mem::take(&mut self.node_at);
        self.node_at = found.clone();
        for (path, id) in found {
            let Some((parent, name)) = self.place(path) else {
                continue;
            };
            let Some(seen) = self.scan.entries.get(path) else {
                continue;
            };
            let state = self.state(id, path, seen);
            self.out.local.nodes.insert(
                id,
                LocalNode {
                    parent,
                    name,
                    state,
                },
            );
        }
        let taken: BTreeSet<_> = self
            .out
            .local
            .nodes
            .values()
            .map(|node| (node.parent, node.name.clone()))
            .collect();
        for (path, seen) in &self.scan.entries {
            if *seen == Observed::Unknown
                && let Some(place) = self.place(path)
                && !taken.contains(&place)
            {
                self.out.local.occupied.insert(place);
            }
        }
        self.out
    }

    fn state(&self, id: NodeId, path: &TreePath, seen: &Observed) -> LocalState {
        let row = self.ancestor.here(id);
        match seen {
            Observed::File { .. } | Observed::Symlink { .. }
                if row.is_some_and(|row| self.scan.is_untouched(seen, row)) =>
            {
                LocalState::Same
            }
            Observed::File {
                fingerprint, exec, ..
            } => LocalState::File {
                // Of the bit alone the content is known.
                hash: match row.map(|row| (&row.node.body, row.fingerprint)) {
                    Some((Body::File { hash, .. }, Some(agreed))) if agreed == *fingerprint => {
                        Some(*hash)
                    }
                    _ => self.hash_of(path, *fingerprint),
                },
                size: fingerprint.size,
                exec: *exec,
                mtime_ns: fingerprint.mtime_ns,
                fingerprint: *fingerprint,
            },
            Observed::Symlink {
                fingerprint,
                target,
            } => LocalState::Symlink {
                target: target.clone(),
                fingerprint: *fingerprint,
            },
            Observed::Directory {
                inode,
                complete,
                holds_skipped,
            } => LocalState::Directory {
                inode: *inode,
                holds_skipped: *holds_skipped || !*complete,
                complete: *complete,
            },
            Observed::Unknown => LocalState::Unknown,
        }
    }
}

fn file_like(seen: &Observed) -> Option<(Kind, Fingerprint)> {
    match seen {
        Observed::File { fingerprint, .. } => Some((Kind::File, *fingerprint)),
        Observed::Symlink { fingerprint, .. } => Some((Kind::Symlink, *fingerprint)),
        Observed::Directory { .. } | Observed::Unknown => None,
    }
}

/// Same kind and, for directories, same number, for files and links, same size and time; where the row's looks are not
/// trusted, those of the agreed version and the number. A number alone proves nothing: it may have been handed out again.
fn looks_alike(seen: &Observed, row: &AncestorNode) -> bool {
    if let Observed::Directory { inode, .. } = seen {
        return row.node.body == Body::Directory && row.inode == *inode;
    }
    let agreed_len = match &row.node.body {
        Body::File { size, .. } => *size,
        Body::Symlink { target } => target.len() as u64,
        Body::Directory => return false,
    };
    file_like(seen).is_some_and(|(kind, print)| {
        let looks = match row.fingerprint {
            Some(old) => (old.size, old.mtime_ns) == (print.size, print.mtime_ns),
            None => {
                print.inode != 0
                    && (print.inode, print.size, print.mtime_ns)
                        == (row.inode, agreed_len, row.node.mtime_ns)
            }
        };
        kind == row.node.body.kind() && looks
    })
}
