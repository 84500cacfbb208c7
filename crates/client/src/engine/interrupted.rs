//! What a pass was about to do, for when it does not come to its end.
//!
//! A step is done on the disk first, and its row is written once that lasts. Where something comes between, what stands
//! there would be taken for what a person did: a version that the vault has left behind by then would be a conflict or come
//! back, a name on the way would be a rename. So the index notes before each batch what it brings, and what is found done
//! gets its row before anything is decided.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Body, Node, NodeId, OpHash, TreePath};
use syncagent_sync::scan::{Fingerprint, Observed};
use syncagent_sync::{AncestorNode, LastOp, Plan, Step};
use syncagent_vault::op::Put;

use super::{Engine, file_error, inode, number_of};
use crate::error::ClientError;
use crate::folder::apply::{Expect, Staged};
use crate::index::{Intended, OwnMoves, Version};

/// How many directories that moved may lie one in the other.
const TURNS: usize = 64;

/// How something looks that was found where a batch was to bring it.
struct Seen {
    /// If it may be trusted.
    print: Option<Fingerprint>,
    number: u64,
    exec: bool,
    mtime_ns: i64,
}

impl Seen {
    fn file(print: Fingerprint, exec: bool, is_racy: bool) -> Self {
        Self {
            print: (!is_racy).then_some(print),
            number: print.inode,
            exec,
            mtime_ns: print.mtime_ns,
        }
    }
}

fn is_same_content(a: &Body, b: &Body) -> bool {
    match (a, b) {
        (Body::File { hash: a, .. }, Body::File { hash: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

/// The row of what was seen. It vouches for the time that it says, or that the file is known to have had then: another one
/// is what somebody has set since.
fn row_of(node: Node, op_hash: OpHash, seen: &Seen, known_ns: Option<i64>) -> AncestorNode {
    let is_its_time = !matches!(node.body, Body::File { .. })
        || is_time_here(node.mtime_ns, seen.mtime_ns)
        || known_ns == Some(seen.mtime_ns);
    let fingerprint = seen.print.filter(|_| is_its_time);
    AncestorNode {
        node,
        op_hash,
        fingerprint,
        inode: if fingerprint.is_some() {
            0
        } else {
            seen.number
        },
        not_here: false,
    }
}

/// Whether a file that was given the first time has the second one: some disks keep seconds only, FAT two of them, NTFS a tenth
/// of a microsecond.
fn is_time_here(told_ns: i64, seen_ns: i64) -> bool {
    let kept = [1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000];
    { kept.iter() }.any(|grain| told_ns - told_ns.rem_euclid(*grain) == seen_ns)
}

impl Engine {
    /// What steps bring: for each node the version of the vault that they were planned for, and its place on this disk.
    pub(super) fn intend<'a>(
        &self,
        plan: &Plan,
        steps: impl Iterator<Item = &'a Step>,
        staged: &BTreeMap<NodeId, Staged>,
    ) -> Vec<Intended> {
        let mut nodes = BTreeSet::new();
        for step in steps {
            for node in step.removes().into_iter().chain(step.other()) {
                nodes.insert(node);
            }
            nodes.insert(step.node());
        }
        let intended = nodes.into_iter().filter_map(|node| {
            let entry = self.log.get(node)?;
            let place = match (&entry.op, plan.records.get(&node)) {
                (LastOp::Put(told), Some(record)) => {
                    let place = (record.node.parent, record.node.name.clone());
                    // A place that is yet to be sent is a person's.
                    let is_told =
                        record.op_hash.is_some() || place == (told.parent, told.name.clone());
                    Some(is_told.then_some(place)?)
                }
                (LastOp::Trashed | LastOp::Purged, None) => None,
                _ => return None,
            };
            Some(Intended {
                node,
                version: entry.op_hash,
                place,
                fetched: staged.get(&node).map(Staged::inode),
                leaving: None,
            })
        });
        intended.collect()
    }

    /// What the vault has elsewhere, where this disk cannot put it now, has to make room for something else. Its row goes
    /// before it does, or its absence might be taken for a deletion; so this is all that tells what it is, if it is not let go
    /// after all.
    pub(super) fn note_who_leaves(&mut self, plan: &Plan) -> Result<(), ClientError> {
        let forget: BTreeSet<NodeId> = plan.forget.iter().copied().collect();
        let leaving = plan.steps.iter().filter_map(Step::removes);
        let leaving = leaving.filter(|id| forget.contains(id)).filter_map(|node| {
            let row = self.ancestor.get(node)?;
            let number = number_of(row);
            let is_kept = matches!(self.log.get(node)?.op, LastOp::Put(_));
            (is_kept && number != 0).then(|| Intended {
                node,
                version: row.op_hash,
                place: Some((row.node.parent, row.node.name.clone())),
                fetched: None,
                leaving: Some(number),
            })
        });
        let leaving: Vec<Intended> = leaving.collect();
        if !leaving.is_empty() {
            self.intended.retain(|old| !forget.contains(&old.node));
            self.intended.extend(leaving);
            self.index.prepare([], [], &self.intended)?;
        }
        Ok(())
    }

    /// Writes the rows of what a batch did, and with them which of what it was to bring is still to come. The rest would
    /// one day vouch for what a person made there anew.
    pub(super) fn finish(
        &mut self,
        rows: Vec<(NodeId, Option<AncestorNode>)>,
        settled: Vec<TreePath>,
    ) -> Result<(), ClientError> {
        let written: BTreeMap<NodeId, Option<&AncestorNode>> = rows
            .iter()
            .map(|(node, row)| (*node, row.as_ref()))
            .collect();
        let is_left = |intended: &&Intended| match written.get(&intended.node) {
            // What had to leave has left.
            Some(None) => false,
            row => self.is_unfinished(intended, row.copied()),
        };
        let left: Vec<Intended> = self.intended.iter().filter(is_left).cloned().collect();
        let mut moves = self.own_moves.clone();
        moves.retain(|_, (node, _)| !written.contains_key(node));
        self.index.finish(&rows, &settled, (&left, &moves))?;
        (self.intended, self.own_moves) = (left, moves);
        self.remember(rows, &settled);
        Ok(())
    }

    /// Whether a batch did not come to the end of something; `written` is its row, if that is another one than before.
    pub(super) fn is_unfinished(
        &self,
        intended: &Intended,
        written: Option<Option<&AncestorNode>>,
    ) -> bool {
        let row = written.unwrap_or_else(|| self.ancestor.get(intended.node));
        match intended.place {
            Some(_) if intended.leaving.is_some() => row.is_none(),
            Some(_) => row.is_none_or(|row| row.op_hash != intended.version),
            None => row.is_some(),
        }
    }

    /// Gives its row to what an interrupted batch had done.
    pub(super) fn take_in_interrupted(&mut self) -> Result<(), ClientError> {
        // What moved is known by its number, before anything has to be read; but for what moved into a new directory.
        self.take_in_own_moves()?;
        let unread = self.take_in(self.intended.clone())?;
        // Once only: what is not as it was to be is a person's, also after the next start.
        if unread != self.intended {
            self.index.prepare([], [], &unread)?;
            self.intended = unread;
        }
        self.take_in_own_moves()?;
        let unseen = { self.own_moves.iter() }.filter(|(path, _)| self.is_unseen(path));
        let unseen: OwnMoves = unseen.map(|(path, told)| (path.clone(), *told)).collect();
        if unseen != self.own_moves {
            self.index.set_own_moves(&unseen)?;
            self.own_moves = unseen;
        }
        Ok(())
    }

    /// Whether nobody can say now what stands at `path`.
    fn is_unseen(&self, path: &TreePath) -> bool {
        let Some(scan) = &self.scan else {
            return true;
        };
        if let Some(seen) = scan.entries.get(path) {
            return *seen == Observed::Unknown;
        }
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            match scan.entries.get(&directory) {
                Some(Observed::Directory { complete, .. }) => return !complete,
                Some(seen) => return *seen == Observed::Unknown,
                None => above = directory.parent(),
            }
        }
        !scan.root_complete
    }

    /// What stands where a batch was to bring it, as it was to be, is what was agreed on: a directory before what is in it.
    /// Returns what nobody can say anything of now.
    fn take_in(&mut self, mut left: Vec<Intended>) -> Result<Vec<Intended>, ClientError> {
        left.retain(|intended| self.is_unfinished(intended, None));
        let standing = self.standing(&left);
        let (leaving, mut left): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|intended| intended.leaving.is_some());
        let mut unread = Vec::new();
        while !left.is_empty() {
            self.read_what_is_left(&left)?;
            let (mut rows, mut dirs) = (Vec::new(), BTreeSet::new());
            // Files, and of which node each is.
            let (mut files, mut of) = (Vec::new(), Vec::new());
            let mut later = Vec::new();
            for intended in &left {
                let Some((parent, name)) = &intended.place else {
                    match self.ancestor_path(intended.node) {
                        Some(path) if self.is_unseen(&path) => unread.push(intended.clone()),
                        Some(path) if self.is_removed(intended, &path, &standing)? => {
                            rows.push((intended.node, None));
                        }
                        _ => later.push(intended.clone()),
                    }
                    continue;
                };
                let Some(dir) = self.ancestor_path(*parent) else {
                    later.push(intended.clone());
                    continue;
                };
                let path = dir.join(name);
                let row = self.found(intended, &path)?;
                // What cannot be read now may be what was brought.
                if row.is_none() && self.is_unseen(&path) {
                    unread.push(intended.clone());
                } else if row.is_none() {
                    // Its directory may get another place in this turn.
                    later.push(intended.clone());
                }
                if let Some(row) = row {
                    if matches!(row.node.body, Body::File { .. }) {
                        files.push(path.clone());
                        of.push(intended.node);
                    }
                    dirs.extend(path.parent());
                    let was = self.ancestor_path(intended.node);
                    dirs.extend(was.and_then(|was| was.parent()));
                    rows.push((intended.node, Some(row)));
                }
            }
            let refused = self.flush(&files, &dirs)?;
            if let Some(scan) = &mut self.scan {
                // Nothing is decided about it as long as no row may say that it lasts.
                let unknown = refused.iter().map(|path| (path.clone(), Observed::Unknown));
                scan.entries.extend(unknown);
            }
            if !refused.is_empty() {
                let refused = { files.iter().zip(&of) }.filter(|(path, _)| refused.contains(path));
                let refused: BTreeSet<NodeId> = refused.map(|(_, node)| *node).collect();
                rows.retain(|(node, _)| !refused.contains(node));
                unread.extend(
                    { left.iter() }
                        .filter(|old| refused.contains(&old.node))
                        .cloned(),
                );
            }
            let is_over = rows.is_empty();
            self.record(rows, Vec::new())?;
            if is_over {
                break;
            }
            left = later;
        }
        for intended in leaving {
            if self.is_still_here(&intended, &standing)? {
                unread.push(intended);
            }
        }
        Ok(unread)
    }

    /// Where things stand that have the numbers of what was to go.
    fn standing(&self, left: &[Intended]) -> BTreeMap<u64, Vec<TreePath>> {
        let numbers = left.iter().filter_map(|intended| match intended.place {
            Some(_) => intended.leaving,
            None => self.ancestor.get(intended.node).map(number_of),
        });
        let numbers: BTreeSet<u64> = numbers.filter(|number| *number != 0).collect();
        let mut standing: BTreeMap<u64, Vec<TreePath>> = BTreeMap::new();
        let entries = self.scan.iter().flat_map(|scan| &scan.entries);
        for (path, seen) in entries.filter(|_| !numbers.is_empty()) {
            let number = inode(seen);
            if numbers.contains(&number) {
                standing.entry(number).or_default().push(path.clone());
            }
        }
        standing
    }

    /// Reads what may have been brought, many at once.
    fn read_what_is_left(&mut self, left: &[Intended]) -> Result<(), ClientError> {
        let Some(scan) = &self.scan else {
            return Ok(());
        };
        let paths = left.iter().filter_map(|intended| {
            let (parent, name) = intended.place.as_ref()?;
            let path = self.ancestor_path(*parent)?.join(name);
            let (Some(Observed::File { fingerprint, .. }), LastOp::Put(told)) =
                (scan.entries.get(&path), &self.log.get(intended.node)?.op)
            else {
                return None;
            };
            let Body::File { size, .. } = told.body else {
                return None;
            };
            let known = self.hashes.get(&path);
            let is_due = size == fingerprint.size && known.is_none_or(|(of, _)| of != fingerprint);
            is_due.then_some(path)
        });
        let paths: Vec<TreePath> = paths.collect();
        if paths.len() > 1 {
            self.hash_files(&paths)?;
        }
        Ok(())
    }

    /// Gives what had to leave, and is still here, its row again, under whichever name it has by now. Says whether nobody
    /// knows if it is.
    fn is_still_here(
        &mut self,
        intended: &Intended,
        standing: &BTreeMap<u64, Vec<TreePath>>,
    ) -> Result<bool, ClientError> {
        let (Some(scan), Some(number)) = (&self.scan, intended.leaving) else {
            return Ok(true);
        };
        let was = intended.place.as_ref();
        let was = was.and_then(|(parent, name)| Some(self.ancestor_path(*parent)?.join(name)));
        let found = standing.get(&number);
        let found = found.and_then(|paths| {
            let at_home = paths.iter().find(|path| Some(*path) == was.as_ref());
            at_home.or(paths.first()).cloned()
        });
        let Some(path) = found else {
            return Ok(!scan.root_complete || !self.unreadable_now().is_empty());
        };
        let mut versions = self.index.versions(intended.node)?.into_iter();
        let version = versions.find(|version| version.op_hash == intended.version);
        let put = version.and_then(|version| version.put);
        let directory = path.parent().map(|parent| self.ancestor.at_path(&parent));
        let is_other = self.ancestor.with_inode(false, number).next().is_some();
        let (Some(put), Some([parent]), Some(name), false) =
            (put, directory.as_deref(), path.name(), is_other)
        else {
            return Ok(false);
        };
        let Ok(put) = Put::parse(&put, intended.node) else {
            return Ok(false);
        };
        let mut node = put.node();
        (node.parent, node.name) = (*parent, name);
        let Some(seen) = self.seen_as(&path, &node.body)? else {
            return Ok(!self.unreadable_now().is_empty());
        };
        // A number that was handed out again to something else of the same content, such as none.
        if !is_time_here(node.mtime_ns, seen.mtime_ns) && !matches!(node.body, Body::Symlink { .. })
        {
            return Ok(false);
        }
        let dirs = [Some(path), was].into_iter().flatten();
        let dirs = dirs.filter_map(|path| path.parent()).collect();
        self.flush(&[], &dirs)?;
        let row = row_of(node, intended.version, &seen, None);
        self.record(vec![(intended.node, Some(row))], Vec::new())?;
        Ok(false)
    }

    /// The row of what stands at `path`, if it is what was to be brought there.
    fn found(
        &mut self,
        intended: &Intended,
        path: &TreePath,
    ) -> Result<Option<AncestorNode>, ClientError> {
        let entries = self.scan.as_ref().map(|scan| &scan.entries);
        let is_there = entries.is_some_and(|entries| entries.contains_key(path));
        let Some((parent, name)) = intended.place.clone().filter(|_| is_there) else {
            return Ok(None);
        };
        let Some(put) = self.newer(intended)?.and_then(|version| version.put) else {
            return Ok(None);
        };
        let Ok(put) = Put::parse(&put, intended.node) else {
            return Ok(None);
        };
        let mut told = put.node();
        (told.parent, told.name) = (parent, name);
        let Some(seen) = self.seen_as(path, &told.body)? else {
            return Ok(None);
        };
        // What has a row is the thing of that row, however much it looks like what was brought.
        let is_directory = matches!(told.body, Body::Directory);
        let mut known = self.ancestor.with_inode(is_directory, seen.number);
        let is_other = known.any(|known| known != intended.node);
        let is_it = match intended.fetched {
            // What has gone since may have had that number before.
            Some(inode) => inode == seen.number,
            None => !is_other,
        };
        if !is_it || seen.number == 0 {
            return Ok(None);
        }
        let base = self.ancestor.get(intended.node);
        // Where the content is as it was, the file must be, too: another one of this content may have taken its place.
        let kept = base.filter(|base| is_same_content(&base.node.body, &told.body));
        let number = kept.map(number_of);
        if intended.fetched.is_none() && number.is_some_and(|number| number != seen.number) {
            return Ok(None);
        }
        let mut version = intended.version;
        // What is fetched comes with its bit and its time. Otherwise they may not be set yet.
        if intended.fetched.is_none()
            && let Body::File { exec, .. } = &mut told.body
        {
            let exec_here = if self.placement.exec_bit {
                seen.exec
            } else {
                *exec
            };
            match kept {
                _ if (*exec, told.mtime_ns) == (exec_here, seen.mtime_ns) => {}
                Some(base) => {
                    told.mtime_ns = base.node.mtime_ns;
                    told.body = base.node.body.clone();
                    version = base.op_hash;
                }
                // A bit that somebody set is compared with the one before.
                None => {
                    let exec_before = match base.map(|base| &base.node.body) {
                        Some(Body::File { exec, .. }) => *exec,
                        _ => exec_here,
                    };
                    (*exec, told.mtime_ns) = (exec_before, seen.mtime_ns);
                }
            }
        }
        let base = base.filter(|base| base.node.mtime_ns == told.mtime_ns);
        let known_ns = base.and_then(|base| base.fingerprint.map(|print| print.mtime_ns));
        Ok(Some(row_of(told, version, &seen, known_ns)))
    }

    /// How what stands at `path` looks, if it holds what `body` says; the executable bit does not count.
    fn seen_as(&mut self, path: &TreePath, body: &Body) -> Result<Option<Seen>, ClientError> {
        let Some(seen) = { self.scan.as_ref() }.and_then(|scan| scan.entries.get(path)) else {
            return Ok(None);
        };
        let seen = match (seen, body) {
            (Observed::Directory { inode, .. }, Body::Directory) => Some(Seen {
                print: None,
                number: *inode,
                exec: false,
                mtime_ns: 0,
            }),
            (
                Observed::Symlink {
                    target,
                    fingerprint,
                },
                Body::Symlink { target: told },
            ) if target == told => Some(Seen::file(*fingerprint, false, false)),
            (
                Observed::File {
                    fingerprint,
                    exec,
                    racy,
                },
                Body::File { hash, size, .. },
            ) if fingerprint.size == *size => {
                let (print, seen) = (*fingerprint, Seen::file(*fingerprint, *exec, *racy));
                if self.hashes.get(path).is_none_or(|(of, _)| *of != print) {
                    self.hash_files(std::slice::from_ref(path))?;
                }
                (self.hashes.get(path) == Some(&(print, *hash))).then_some(seen)
            }
            _ => None,
        };
        Ok(seen)
    }

    /// What a batch was to bring, if the row is of an earlier version.
    fn newer(&self, intended: &Intended) -> Result<Option<Version>, ClientError> {
        let versions = self.index.versions(intended.node)?;
        let position = |of: OpHash| {
            let found = versions.iter().find(|version| version.op_hash == of);
            found.map(|version| version.n)
        };
        let base = self.ancestor.get(intended.node).map(|row| row.op_hash);
        let is_newer = match (position(intended.version), base) {
            (Some(n), Some(base)) => position(base).is_some_and(|base_n| base_n < n),
            (n, None) => n.is_some(),
            (None, _) => false,
        };
        let mut versions = versions.into_iter().filter(|_| is_newer);
        Ok(versions.find(|version| version.op_hash == intended.version))
    }

    /// Whether what was to be removed is gone from `path`. If it is in the trash still, that comes out by itself; but somebody
    /// may have taken it out again, and then its absence must not be sent. If it is here under another name, it is.
    fn is_removed(
        &self,
        intended: &Intended,
        path: &TreePath,
        standing: &BTreeMap<u64, Vec<TreePath>>,
    ) -> Result<bool, ClientError> {
        let node = intended.node;
        let last = self.log.get(node).map(|entry| entry.op_hash);
        let (Some(row), Some(scan)) = (self.ancestor.get(node), &self.scan) else {
            return Ok(false);
        };
        if last == Some(intended.version) || scan.entries.contains_key(path) {
            return Ok(false);
        }
        // A number alone is handed out again.
        let is_it = |path: &TreePath| match (scan.entries.get(path), &row.node.body) {
            (Some(Observed::Directory { .. }), Body::Directory)
            | (Some(Observed::Symlink { .. }), Body::Symlink { .. }) => true,
            (Some(Observed::File { fingerprint, .. }), Body::File { size, .. }) => {
                let was = row.fingerprint;
                fingerprint.size == *size
                    && was.is_none_or(|was| was.mtime_ns == fingerprint.mtime_ns)
            }
            _ => false,
        };
        let paths = standing.get(&number_of(row));
        let is_elsewhere = paths.is_some_and(|paths| paths.iter().any(is_it));
        Ok(!is_elsewhere && self.newer(intended)?.is_some())
    }

    /// Before a step moves something that no person moved: a crash must not make a person's rename of it.
    pub(super) fn remember_moves(
        &mut self,
        batch: &[Step],
        with_ops: &BTreeSet<NodeId>,
    ) -> Result<(), ClientError> {
        // What an earlier batch moved may not have its row yet.
        let nodes = batch
            .iter()
            .flat_map(|step| step.other().into_iter().chain([step.node()]));
        let nodes: BTreeSet<NodeId> = nodes.collect();
        let mut moves = self.own_moves.clone();
        moves.retain(|_, (node, _)| !nodes.contains(node));
        for step in batch {
            let Step::Move {
                node,
                from,
                to,
                exchange_with,
            } = step
            else {
                continue;
            };
            let both = [Some((to, *node)), exchange_with.map(|other| (from, other))];
            for (path, id) in both.into_iter().flatten() {
                // What goes where the vault has it is no rename of a person's, whatever else is sent of it.
                let is_the_vaults = || self.placed.tree.path_of(id).as_ref() == Some(path);
                if (!with_ops.contains(&id) || is_the_vaults())
                    && let Some(row) = self.ancestor.get(id)
                {
                    moves.insert(path.clone(), (id, row.op_hash));
                }
            }
        }
        if moves != self.own_moves {
            self.index.set_own_moves(&moves)?;
            self.own_moves = moves;
        }
        Ok(())
    }

    /// What the last batch moved to another name before it was interrupted has that name in its row from now on. What moved
    /// into a directory that moved has its turn after that one.
    fn take_in_own_moves(&mut self) -> Result<(), ClientError> {
        for _ in 0..=self.own_moves.len().min(TURNS) {
            let (mut rows, mut dirs) = (Vec::new(), BTreeSet::new());
            for (path, (id, base)) in &self.own_moves {
                if let Some((row, was)) = self.moved(path, *id, *base) {
                    dirs.extend(path.parent());
                    dirs.extend(was.parent());
                    rows.push((*id, Some(row)));
                }
            }
            if rows.is_empty() {
                break;
            }
            self.flush(&[], &dirs)?;
            self.record(rows, Vec::new())?;
        }
        Ok(())
    }

    /// The row of what was moved to `path`, and where it was.
    fn moved(&self, path: &TreePath, id: NodeId, base: OpHash) -> Option<(AncestorNode, TreePath)> {
        let (row, was) = (self.ancestor.get(id)?, self.ancestor_path(id)?);
        // A row that was written since says more: whoever moves it there again is a person.
        if row.op_hash != base || was == *path {
            return None;
        }
        let entries = &self.scan.as_ref()?.entries;
        let seen = entries.get(path)?;
        let is_of_its_kind = matches!(
            (seen, &row.node.body),
            (Observed::Directory { .. }, Body::Directory)
                | (Observed::Symlink { .. }, Body::Symlink { .. })
                | (Observed::File { .. }, Body::File { .. })
        );
        let is_it = match (number_of(row), seen, &row.node.body) {
            // On a disk without numbers.
            (0, Observed::File { fingerprint, .. }, Body::File { size, .. }) => {
                fingerprint.size == *size && !entries.contains_key(&was)
            }
            (0, ..) => !entries.contains_key(&was),
            (number, ..) => inode(seen) == number,
        };
        let [parent] = self.ancestor.at_path(&path.parent()?)[..] else {
            return None;
        };
        let mut row = row.clone();
        (row.node.parent, row.node.name) = (parent, path.name()?);
        (is_of_its_kind && is_it).then_some((row, was))
    }

    /// Takes away what was fetched under a free name and is of no use any more.
    pub(super) fn remove_leftovers(&mut self) -> Result<(), ClientError> {
        // What has a row at that path is the file of that row, not what was to take its place.
        let is_stray = |path: &TreePath, id: NodeId| {
            self.ancestor_path(id).is_some_and(|was| was != *path)
                && !self.ancestor.knows(path)
                && self.placed.tree.path_of(id).as_ref() != Some(path)
        };
        let leftovers: Vec<(TreePath, NodeId)> = self
            .pending_ids
            .iter()
            .filter(|(path, id)| is_stray(path, **id))
            .map(|(path, id)| (path.clone(), *id))
            .collect();
        for (path, id) in leftovers {
            self.remove_leftover(&path, id)?;
        }
        Ok(())
    }

    /// A file that was fetched under a free name, to be exchanged into its place. If it is still what the vault has,
    /// and its node stands elsewhere, it is of no use.
    fn remove_leftover(&mut self, path: &TreePath, id: NodeId) -> Result<(), ClientError> {
        let entries = self.scan.as_ref().map(|scan| &scan.entries);
        // Its own file, not another that has its name by now.
        let at_home = || {
            let print = self.ancestor.get(id)?.fingerprint?;
            match entries?.get(&self.ancestor_path(id)?)? {
                Observed::File { fingerprint, .. } => Some(fingerprint.inode == print.inode),
                _ => None,
            }
        };
        let at_home = at_home().unwrap_or(false);
        let found = entries.and_then(|entries| entries.get(path));
        let (Some(Observed::File { fingerprint, .. }), true) = (found, at_home) else {
            return Ok(());
        };
        let fingerprint = *fingerprint;
        let Some(LastOp::Put(node)) = self.log.get(id).map(|entry| &entry.op) else {
            return Ok(());
        };
        let Body::File { hash, size, .. } = node.body else {
            return Ok(());
        };
        if size != fingerprint.size {
            return Ok(());
        }
        self.hash_files(std::slice::from_ref(path))?;
        if self.hashes.get(path) == Some(&(fingerprint, hash))
            && self.folder.remove(path, &Expect::File(fingerprint)).is_ok()
        {
            self.folder
                .settle()
                .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
            if let Some(scan) = &mut self.scan {
                scan.entries.remove(path);
            }
            self.record(Vec::new(), vec![path.clone()])?;
        }
        Ok(())
    }
}
