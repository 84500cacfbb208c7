//! Carries out the steps of a plan on this disk.
//!
//! Order of durability: content is staged and flushed, then renamed into place, then the directories are
//! flushed, then the index says so. A step that finds something else than was planned for is given up; what
//! stands there is looked at again and decided anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{Body, ContentHash, Kind, NodeId, TreePath};
use syncagent_sync::scan::{Fingerprint, Observed};
use syncagent_sync::{Aside, Local, LocalState, Plan, Step};

use super::rows::{Mark, row};
use super::{Engine, Outcome, file_error};
use crate::error::ClientError;
use crate::folder::apply::{ApplyError, Expect, Folder, Staged};
use crate::folder::disk::{At, EntryKind, ErrorKind, Stat};
use crate::folder::scan::grain_ns;
use crate::index::SetAside;
use crate::transfer::download::Source;

/// Bytes of content staged before they are placed.
const BATCH_LEN: u64 = 64 * 1024 * 1024;
/// Files staged before they are placed.
const BATCH_FILES: usize = 1024;
/// What came of the steps.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Steps done, or given up because something moved: reasons to look again.
    pub(super) done: usize,
    /// Nodes whose steps failed: nothing is sent or recorded for them.
    pub(super) failed: BTreeSet<NodeId>,
    /// What now stands where.
    pub(super) marks: BTreeMap<NodeId, Mark>,
    /// What the disk said right after a node's step, to be trusted or not: what its next step is checked against.
    seen: BTreeMap<NodeId, Fingerprint>,
    /// Where something else stands than the plan has there by now, or nothing: what would be put into it would hang in
    /// another directory.
    not_so: BTreeSet<TreePath>,
}

impl Applied {
    /// A step was not done: nothing may be sent or recorded of any node that it was to place.
    fn fail(&mut self, step: &Step) {
        self.failed.insert(step.node());
        match step {
            Step::MakeDir { path, .. } => {
                self.not_so.insert(path.clone());
            }
            Step::Fetch {
                aside: Some(aside), ..
            }
            | Step::Link {
                aside: Some(aside), ..
            } => {
                self.failed.insert(aside.node);
            }
            Step::Move {
                from,
                to,
                exchange_with,
                ..
            } => {
                self.not_so.insert(to.clone());
                if let Some(other) = exchange_with {
                    self.failed.insert(*other);
                    self.not_so.insert(from.clone());
                }
            }
            _ => {}
        }
    }

    /// Whether a step leads into a directory that is not the one meant.
    fn leads_astray(&self, path: &TreePath) -> bool {
        let mut at = Some(path.clone()).filter(|_| !self.not_so.is_empty());
        while let Some(here) = at {
            if self.not_so.contains(&here) {
                return true;
            }
            at = here.parent();
        }
        false
    }
}

/// The steps of a plan, and what is asked of each.
struct Whole<'a> {
    plan: &'a Plan,
    local: &'a Local,
    /// Nodes of which something is to be sent as well: they have their rows with that.
    with_ops: BTreeSet<NodeId>,
    /// Content that is on this disk already.
    copies: HashMap<ContentHash, Source>,
    /// Which step is the last one that brings a node somewhere.
    last: HashMap<NodeId, usize>,
}

/// What a step left behind.
struct Left {
    mark: Mark,
    seen: Fingerprint,
    /// The same of the node that it changed places with.
    other: Option<(NodeId, Fingerprint)>,
}

/// What a step expects to find.
struct Stood {
    print: Fingerprint,
    /// Of a link.
    target: Option<String>,
}

impl Stood {
    fn file(print: Fingerprint) -> Self {
        Self {
            print,
            target: None,
        }
    }

    fn directory(inode: u64) -> Self {
        Self::file(Fingerprint {
            inode,
            ..Fingerprint::default()
        })
    }
}

impl Left {
    fn file(mark: Mark, seen: Fingerprint) -> Self {
        Self {
            mark,
            seen,
            other: None,
        }
    }

    fn directory(inode: u64) -> Self {
        Self::file(
            Mark::Inode(inode),
            Fingerprint {
                inode,
                ..Fingerprint::default()
            },
        )
    }
}

impl Engine {
    /// Does the steps of a plan, in order, in batches.
    pub(super) async fn apply(
        &mut self,
        plan: &Plan,
        local: &Local,
        outcome: &mut Outcome,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<Applied, ClientError> {
        let mut applied = Applied::default();
        let fetches = { plan.steps.iter() }.filter(|step| matches!(step, Step::Fetch { .. }));
        let fetches = fetches.count() as u64;
        let bytes: u64 = plan.steps.iter().map(|step| self.fetch_len(step)).sum();
        self.progress(|progress| {
            progress.files_total += fetches;
            progress.bytes_total += bytes;
        });
        let whole = Whole {
            plan,
            local,
            with_ops: plan.all_ops().map(syncagent_sync::Op::node).collect(),
            copies: self.local_contents(plan, local),
            last: { plan.steps.iter().enumerate() }
                .flat_map(|(at, step)| {
                    let nodes = step.other().into_iter().chain([step.node()]);
                    nodes.map(move |node| (node, at))
                })
                .collect(),
        };
        let mut done = 0;
        while done < plan.steps.len() {
            let (mut len, mut files) = (0, 0);
            let count = plan.steps[done..].iter().take_while(|step| {
                let fits = len < BATCH_LEN && files < BATCH_FILES;
                len += self.fetch_len(step);
                files += usize::from(matches!(step, Step::Fetch { .. }));
                fits
            });
            let end = done + count.count().max(1);
            self.apply_batch(&whole, done..end, &mut applied, outcome, touched)
                .await?;
            done = end;
        }
        Ok(applied)
    }

    async fn apply_batch(
        &mut self,
        whole: &Whole<'_>,
        range: Range<usize>,
        applied: &mut Applied,
        outcome: &mut Outcome,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<(), ClientError> {
        let Whole { plan, local, .. } = *whole;
        let batch = &plan.steps[range.clone()];
        let mut staged = self.stage(batch, local, &whole.copies, applied).await?;
        self.prepare(plan, batch, &staged, applied)?;
        point(Point::IdsNoted);
        self.remember_moves(batch, &whole.with_ops)?;
        let folder = Arc::clone(&self.folder);
        let flushed: Vec<&Staged> = staged.values().collect();
        folder
            .sync_staged(&flushed)
            .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
        drop(flushed);
        point(Point::BatchFlushed);
        for step in batch {
            let node = step.node();
            if applied.failed.contains(&node) {
                applied.fail(step);
                continue;
            }
            touched.extend(paths_of(step));
            let path = main_path(step);
            if applied.leads_astray(path) {
                applied.fail(step);
                continue;
            }
            // Only what fetches takes it: the same node may be moved first.
            let content = match step {
                Step::Fetch { .. } => staged.remove(&node),
                _ => None,
            };
            match self.do_step(&folder, step, local, applied, content) {
                Ok(left) => {
                    applied.done += 1;
                    if let Some(Left { mark, seen, other }) = left {
                        applied.marks.insert(node, mark);
                        applied.seen.insert(node, seen);
                        applied.seen.extend(other);
                    }
                    self.note_done(step, plan, outcome)?;
                }
                Err(error) => {
                    applied.fail(step);
                    match error {
                        // Somebody was at it: looked at again in the next round.
                        ApplyError::Changed { .. } => applied.done += 1,
                        error => self.fail(path, error.code(), &error),
                    }
                }
            }
        }
        let unflushed = self.settle(touched)?;
        let steps = whole.plan.steps[range.clone()].iter();
        for step in steps.filter(|step| unflushed.contains(main_path(step))) {
            applied.fail(step);
        }
        self.record_steps(whole, range, applied)
    }

    /// Makes what was changed durable and lets the old files go. Says of which files it could not.
    pub(super) fn settle(
        &mut self,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<BTreeSet<TreePath>, ClientError> {
        let settled = self
            .folder
            .settle()
            .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
        for rescued in settled.rescued {
            self.notice(format!(
                "a file that was being changed was kept as {}",
                rescued.to
            ));
            touched.insert(rescued.to);
        }
        for (path, error) in settled.held.iter().chain(&settled.unflushed) {
            self.fail(path, error.code(), error);
        }
        Ok({ settled.unflushed.into_iter() }
            .map(|(path, _)| path)
            .collect())
    }

    /// Rows of nodes that are done once their steps are.
    fn record_steps(
        &mut self,
        whole: &Whole<'_>,
        range: Range<usize>,
        applied: &Applied,
    ) -> Result<(), ClientError> {
        let mut rows = Vec::new();
        let mut settled = Vec::new();
        for step in &whole.plan.steps[range.clone()] {
            let node = step.node();
            if applied.failed.contains(&node) {
                continue;
            }
            rows.extend(step.removes().map(|gone| (gone, None)));
            if let Step::Remove { path, .. } = step {
                settled.push(path.clone());
                continue;
            }
            // What was fetched under a free name has no row before it is in its place.
            let is_over = whole
                .last
                .get(&node)
                .is_none_or(|last| range.contains(last));
            if whole.with_ops.contains(&node) || !is_over {
                continue;
            }
            if let (Some(record), Some(mark)) =
                (whole.plan.records.get(&node), applied.marks.get(&node))
                && let Some(op_hash) = record.op_hash
            {
                rows.push((node, Some(row(record, op_hash, *mark))));
                settled.push(record.path.clone());
            }
        }
        self.finish(rows, settled)
    }

    fn note_done(
        &mut self,
        step: &Step,
        plan: &Plan,
        outcome: &mut Outcome,
    ) -> Result<(), ClientError> {
        match step {
            Step::Fetch { .. } | Step::Link { .. } => {
                outcome.fetched += 1;
                let len = self.fetch_len(step);
                self.progress(|progress| {
                    progress.files_done += 1;
                    progress.bytes_done += len;
                });
            }
            Step::Remove { .. } => outcome.removed += 1,
            _ => {}
        }
        let moved = set_aside(step);
        if !moved.is_empty() {
            for made in { plan.conflicts.iter() }.filter(|made| moved.contains(&made.copy)) {
                // Its version, machine and time are logged once a commit says them.
                tracing::info!(path = %made.path, copy = %made.copy_path, "both sides changed it; both are kept");
                outcome.conflicts.push(made.clone());
            }
        }
        Ok(())
    }

    /// Before a step makes something: a crash must not make a stranger of it, nor an ordinary file of a conflict copy.
    fn prepare(
        &mut self,
        plan: &Plan,
        batch: &[Step],
        staged: &BTreeMap<NodeId, Staged>,
        applied: &Applied,
    ) -> Result<(), ClientError> {
        let mut ids = Vec::new();
        let able = |step: &&Step| !applied.failed.contains(&step.node());
        for step in batch.iter().filter(able) {
            match step {
                Step::MakeDir { node, path } => ids.push((path.clone(), *node)),
                Step::Fetch {
                    node, path, aside, ..
                }
                | Step::Link {
                    node, path, aside, ..
                } => {
                    ids.push((path.clone(), *node));
                    ids.extend(aside.as_ref().map(|aside| (aside.path.clone(), aside.node)));
                }
                _ => {}
            }
        }
        let moved: BTreeSet<NodeId> = { batch.iter().filter(able) }.flat_map(set_aside).collect();
        let conflicts = { plan.conflicts.iter() }.filter(|conflict| moved.contains(&conflict.copy));
        let copies = conflicts.filter_map(|conflict| {
            let record = plan.records.get(&conflict.copy)?;
            Some(SetAside {
                parent: record.node.parent,
                name: record.node.name.clone(),
                against: (conflict.node, conflict.remote_version?),
                base: conflict.ancestor_version,
            })
        });
        let mut intended = self.intend(plan, batch.iter().filter(able), staged);
        // What the batch before could not do is not done yet.
        let new: BTreeSet<NodeId> = intended.iter().map(|new| new.node).collect();
        let before = self.intended.iter();
        let before = before.filter(|old| !new.contains(&old.node) && self.is_unfinished(old, None));
        intended.extend(before.cloned());
        let ids_noted = ids.iter().map(|(path, id)| (path, id));
        self.index.prepare(ids_noted, copies, &intended)?;
        self.pending_ids.extend(ids);
        self.intended = intended;
        Ok(())
    }

    /// Ids that were given to what is nowhere any more: a file that was removed before it was sent.
    pub(super) fn forget_vanished(&mut self) -> Result<(), ClientError> {
        let Some(scan) = &self.scan else {
            return Ok(());
        };
        if !scan.root_complete || !self.unreadable.is_empty() {
            return Ok(());
        }
        let paths = self.pending_ids.keys();
        let vanished: Vec<TreePath> = paths
            .filter(|path| !scan.entries.contains_key(path))
            .cloned()
            .collect();
        // So are copies that somebody removed, or that could not be made.
        let is_nowhere = |copy: &SetAside| {
            let directory = match copy.parent {
                NodeId::ROOT => Some(TreePath::ROOT),
                parent => self.ancestor_path(parent),
            };
            match directory {
                Some(directory) => !scan.entries.contains_key(&directory.join(&copy.name)),
                None => self.pending_ids.values().all(|id| *id != copy.parent),
            }
        };
        let mut unmade = self.index.set_aside()?;
        unmade.retain(is_nowhere);
        self.index.forget_set_aside(&unmade)?;
        self.record(Vec::new(), vanished)
    }

    fn do_step(
        &self,
        folder: &Folder,
        step: &Step,
        local: &Local,
        applied: &Applied,
        staged: Option<Staged>,
    ) -> Result<Option<Left>, ApplyError> {
        match step {
            Step::MakeDir { path, .. } => Ok(Some(Left::directory(folder.make_dir(path)?))),
            Step::Fetch {
                path,
                replaces,
                aside,
                mtime_ns,
                ..
            } => {
                let Some(mut staged) = staged else {
                    return Err(ApplyError::Changed { path: path.clone() });
                };
                let expect = self.expect(*replaces, path, local, applied)?;
                let placed = folder.place(
                    &mut staged,
                    path,
                    &expect,
                    aside.as_ref().map(|aside| &aside.path),
                )?;
                let mark = self.trust(placed.fingerprint, *mtime_ns);
                let mut left = Left::file(mark, placed.fingerprint);
                left.other = put_aside(folder, aside.as_ref(), &expect);
                Ok(Some(left))
            }
            Step::Link {
                node,
                path,
                target,
                replaces,
                aside,
            } => {
                let mtime_ns = self.placed.tree.get(*node).map_or(0, |node| node.mtime_ns);
                let expect = self.expect(*replaces, path, local, applied)?;
                let aside_path = aside.as_ref().map(|aside| &aside.path);
                let placed = folder.place_link(target, mtime_ns, path, &expect, aside_path)?;
                let mark = Mark::Print(placed.fingerprint);
                let mut left = Left::file(mark, placed.fingerprint);
                left.other = put_aside(folder, aside.as_ref(), &expect);
                Ok(Some(left))
            }
            Step::SetMeta {
                node,
                path,
                exec,
                mtime_ns,
            } => {
                let Some(stood) = self.stood(*node, path, local, applied) else {
                    return Err(ApplyError::Changed { path: path.clone() });
                };
                let print = folder.set_meta(path, stood.print, Some(*exec), Some(*mtime_ns))?;
                Ok(Some(Left::file(self.trust(print, *mtime_ns), print)))
            }
            Step::Move {
                node,
                from,
                to,
                exchange_with,
            } => {
                let disk = folder.disk();
                let before = self.stood(*node, from, local, applied);
                let stat = match disk.stat(At::Tree(from)) {
                    Err(error) if error.kind == ErrorKind::NotFound => {
                        return Err(ApplyError::Changed { path: from.clone() });
                    }
                    stat => stat?,
                };
                let before = before.map(|stood| stood.print);
                let inode = before.map_or(0, |print| print.inode);
                let mut left_other = None;
                match exchange_with {
                    Some(other) => {
                        let print = self
                            .stood(*other, to, local, applied)
                            .map(|stood| stood.print);
                        let stat = disk.stat(At::Tree(to)).ok();
                        folder.swap_nodes(from, to, inode, print.map_or(0, |print| print.inode))?;
                        let now = disk.stat(At::Tree(from))?;
                        let seen = print
                            .zip(stat)
                            .map(|(print, stat)| seen_again(print, &stat, &now));
                        left_other = seen.map(|(seen, _)| (*other, seen));
                    }
                    None => folder.move_node(from, to, inode)?,
                }
                let now = disk.stat(At::Tree(to))?;
                let mut left = match before {
                    _ if now.kind == EntryKind::Directory => Left::directory(now.inode),
                    Some(before) => {
                        let (seen, unchanged) = seen_again(before, &stat, &now);
                        let trusted =
                            unchanged && !matches!(applied.marks.get(node), Some(Mark::Inode(_)));
                        Left::file(Mark::new(trusted.then_some(seen), seen.inode), seen)
                    }
                    None => Left::file(Mark::Inode(now.inode), now.fingerprint()),
                };
                left.other = left_other;
                Ok(Some(left))
            }
            Step::Remove { node, path, kind } => {
                match kind {
                    Kind::Directory => folder.remove_dir(path)?,
                    _ => folder.remove(path, &self.expect(Some(*node), path, local, applied)?)?,
                }
                Ok(None)
            }
        }
    }

    /// A write after the placement shows in the fingerprint, unless the content's own time is this very moment.
    fn trust(&self, print: Fingerprint, mtime_ns: i64) -> Mark {
        let now_ns = i64::try_from(self.now_ms())
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000);
        let fresh = now_ns.abs_diff(mtime_ns) <= grain_ns(mtime_ns).unsigned_abs();
        Mark::new((!fresh).then_some(print), print.inode)
    }

    /// What the plan was made against.
    fn expect(
        &self,
        node: Option<NodeId>,
        path: &TreePath,
        local: &Local,
        applied: &Applied,
    ) -> Result<Expect, ApplyError> {
        let Some(node) = node else {
            return Ok(Expect::Absent);
        };
        match self.stood(node, path, local, applied) {
            Some(Stood {
                target: Some(target),
                ..
            }) => Ok(Expect::Link { target }),
            Some(Stood { print, .. }) => Ok(Expect::File(print)),
            None => Err(ApplyError::Changed { path: path.clone() }),
        }
    }

    /// The file that a PUT of `node` from `path` was planned for, and its executable bit.
    pub(super) fn planned_for(
        &self,
        node: NodeId,
        path: &TreePath,
        local: &Local,
        applied: &Applied,
    ) -> Option<(Fingerprint, bool)> {
        let exec = match local.nodes.get(&node).map(|node| &node.state) {
            Some(LocalState::File { exec, .. }) => *exec,
            Some(LocalState::Same) => match self.ancestor.get(node)?.node.body {
                Body::File { exec, .. } => exec,
                _ => return None,
            },
            Some(_) => return None,
            None => match self.scan.as_ref()?.entries.get(path)? {
                Observed::File { exec, .. } => *exec,
                _ => return None,
            },
        };
        let stood = self.stood(node, path, local, applied)?;
        Some((stood.print, exec))
    }

    /// What stands at `path` for `node`: as its last step left it, as the scan told it apart, or, if the plan gave
    /// it a new id, as the scan found it there.
    fn stood(
        &self,
        node: NodeId,
        path: &TreePath,
        local: &Local,
        applied: &Applied,
    ) -> Option<Stood> {
        let link = |body: Option<&Body>| match body {
            Some(Body::Symlink { target }) => Some(target.clone()),
            _ => None,
        };
        if let Some(print) = applied.seen.get(&node) {
            let target = link(self.placed.tree.get(node).map(|node| &node.body));
            return Some(Stood {
                print: *print,
                target,
            });
        }
        match local.nodes.get(&node).map(|node| &node.state) {
            Some(LocalState::File { fingerprint, .. }) => Some(Stood::file(*fingerprint)),
            Some(LocalState::Symlink {
                target,
                fingerprint,
            }) => Some(Stood {
                print: *fingerprint,
                target: Some(target.clone()),
            }),
            Some(LocalState::Directory { inode, .. }) => Some(Stood::directory(*inode)),
            Some(LocalState::Same) => {
                let row = self.ancestor.get(node)?;
                Some(Stood {
                    print: row.fingerprint?,
                    target: link(Some(&row.node.body)),
                })
            }
            Some(LocalState::Unknown) => None,
            None => match self.scan.as_ref()?.entries.get(path)? {
                Observed::File { fingerprint, .. } => Some(Stood::file(*fingerprint)),
                Observed::Symlink {
                    fingerprint,
                    target,
                } => Some(Stood {
                    print: *fingerprint,
                    target: Some(target.clone()),
                }),
                Observed::Directory { inode, .. } => Some(Stood::directory(*inode)),
                Observed::Unknown => None,
            },
        }
    }
}

/// What a step may make room with: what it links to another name, moves, or exchanges with what it moves.
fn set_aside(step: &Step) -> Vec<NodeId> {
    match step {
        Step::Fetch { aside, .. } | Step::Link { aside, .. } => {
            aside.iter().map(|aside| aside.node).collect()
        }
        Step::Move {
            node,
            exchange_with,
            ..
        } => exchange_with.iter().chain([node]).copied().collect(),
        _ => Vec::new(),
    }
}

/// What a conflict copy is to be checked against: it is the same file, but for the inode's own time.
fn put_aside(
    folder: &Folder,
    aside: Option<&Aside>,
    expect: &Expect,
) -> Option<(NodeId, Fingerprint)> {
    let (aside, Expect::File(print)) = (aside?, expect) else {
        return None;
    };
    let now = folder.disk().stat(At::Tree(&aside.path)).ok()?;
    let now = now.fingerprint();
    let same = (now.size, now.mtime_ns, now.inode) == (print.size, print.mtime_ns, print.inode);
    same.then_some((aside.node, now))
}

/// What a thing that was `planned` is to be checked against after a rename made `now` of `stat`; and whether it was
/// what was planned. A write that kept length and mtime shows in the inode's own time, which the rename itself moves.
fn seen_again(planned: Fingerprint, stat: &Stat, now: &Stat) -> (Fingerprint, bool) {
    let (stat, now) = (stat.fingerprint(), now.fingerprint());
    let unchanged = stat == planned
        && (stat.size, stat.mtime_ns, stat.inode) == (now.size, now.mtime_ns, now.inode);
    (if unchanged { now } else { planned }, unchanged)
}

fn main_path(step: &Step) -> &TreePath {
    match step {
        Step::MakeDir { path, .. }
        | Step::Fetch { path, .. }
        | Step::Link { path, .. }
        | Step::SetMeta { path, .. }
        | Step::Remove { path, .. } => path,
        Step::Move { to, .. } => to,
    }
}

fn paths_of(step: &Step) -> Vec<TreePath> {
    match step {
        Step::Move { from, to, .. } => vec![from.clone(), to.clone()],
        Step::Fetch { path, aside, .. } | Step::Link { path, aside, .. } => {
            let mut paths = vec![path.clone()];
            paths.extend(aside.as_ref().map(|aside| aside.path.clone()));
            paths
        }
        step => vec![main_path(step).clone()],
    }
}
