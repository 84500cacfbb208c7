//! Seals what this machine has to say and posts it.
//!
//! A file is flushed, then read once, consistently; one that changes meanwhile is left for the next pass, and never
//! marked as sent. Chunks are durable on the server before the commit that names them is posted. Somebody else was
//! first (409): everything is decided and sealed anew.
//!
//! Flushed first, because a store through a mapping to a page that waits to be written back moves no time: only from
//! the flush on does the fingerprint tell of each. It is also what the commit says of this disk, so what was written
//! since the scan, and is read all the same, is flushed once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use syncagent_protocol::commit::MAX_OPS;
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{Body, ChunkId, Code, Name, NodeId, OpHash, TreePath};
use syncagent_sync::plan::Content as PlanContent;
use syncagent_sync::scan::{Fingerprint, Observed};
use syncagent_sync::{Group, LastOp, Local, LocalState, LogEntry, Op, Plan, Put as PlanPut};
use syncagent_vault::chunk::{Entry, Scope, Sealed};
use syncagent_vault::chunker::Class;
use syncagent_vault::commit::SealedCommit;
use syncagent_vault::op::{Draft, File, Put, PutBody};

use super::apply::Applied;
use super::rows::{Mark, row};
use super::{Engine, Outcome, number_of};
use crate::error::ClientError;
use crate::folder::read::{ReadError, Reading, StableRead, open_stable};
use crate::index::SealedRow;
use crate::remote::Posted;
use crate::transfer::encode_leaves;
use crate::transfer::seal::{Recipe, SealError, SealedContent, Sealing};
use crate::transfer::upload::Uploader;

/// Bytes of ops in a commit during a first import.
const COMMIT_LEN: usize = 4 * 1024 * 1024;
/// Files up to this size are sealed many at a time.
const SMALL_LEN: u64 = 1024 * 1024;
/// Below this a file has too few chunks for their ids to matter, and files are too many to look for alike ones.
const MIN_ALIKE_LEN: u64 = 16 * 1024 * 1024;
/// Files of one size whose chunks are remembered while another of that size is sent.
const MAX_ALIKE: usize = 4;
/// Content of small files sealed at one time.
const SMALL_BATCH_LEN: u64 = 8 * 1024 * 1024;
/// An acknowledged chunk no commit names is collected after a day; believed for half of that.
const ACKNOWLEDGED_MS: u64 = 12 * 3_600_000;

/// A file whose content is sealed.
struct Ready {
    path: TreePath,
    content: SealedContent,
    reading: Reading,
    /// Whether what was read is newer than the plan, and so than the flush: it may be sent, but not trusted to still be
    /// there.
    is_newer: bool,
    class: Class,
    scope: Scope,
}

/// One op that is ready, and what its node's row becomes once it stands.
struct Pending {
    node: NodeId,
    draft: Draft,
    mark: Option<Mark>,
    body: Option<Body>,
    mtime_ns: Option<i64>,
    leaves: Option<Vec<Entry>>,
}

/// How a file is to be sealed, and which of its chunks the server has.
struct Sealable {
    node: NodeId,
    path: TreePath,
    recipe: Recipe,
    known: HashSet<ChunkId>,
    size: u64,
    /// What the plan was made of.
    scanned: Option<(Fingerprint, bool)>,
}

impl Sealable {
    /// Another file than the plan is about, or the same with another bit, is planned anew. Newer content of the same
    /// file may be sent, but it has to be looked at again: the next plan must not see what was there before.
    fn compare(
        &self,
        reading: Reading,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<(), SealFailure> {
        let Some((scanned, exec)) = self.scanned else {
            return Ok(());
        };
        if scanned != reading.fingerprint {
            touched.insert(self.path.clone());
        }
        let emptied = reading.fingerprint.size == 0 && !self.recipe.inline;
        // An empty file stands in its op; as a list of no chunks nobody could read it.
        if emptied || scanned.inode != reading.fingerprint.inode || exec != reading.exec {
            return Err(SealFailure::Changed);
        }
        Ok(())
    }
}

type SealResult = Result<(SealedContent, Reading, Vec<Sealed>), SealFailure>;

enum SealFailure {
    Changed,
    Read(Code, String),
    Vault(syncagent_vault::VaultError),
}

impl Engine {
    /// Sends the ops of a plan. Whether anything was posted, or must be decided anew.
    pub(super) async fn send(
        &mut self,
        plan: &Plan,
        local: &Local,
        applied: &Applied,
        outcome: &mut Outcome,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<bool, ClientError> {
        let files: Vec<u64> = plan
            .all_ops()
            .filter_map(from_disk)
            .map(|put| self.scanned_len(put))
            .collect();
        self.progress(|progress| {
            progress.files_total += files.len() as u64;
            progress.bytes_total += files.iter().sum::<u64>();
        });
        let mut sent = false;
        // Nodes whose ops wait for a later pass; whatever needs one of them waits with it.
        let mut waiting = applied.failed.clone();
        let is_unsure = self.is_unsure();
        let trashed = plan.all_ops().filter(|op| matches!(op, Op::Trash { .. }));
        // What has another name now and cannot be read is known by its number.
        let is_there = |node: &NodeId| {
            let row = { self.ancestor.get(*node) }
                .filter(|row| !matches!(row.node.body, Body::Directory));
            row.map(number_of)
                .is_some_and(|number| number != 0 && self.unread_numbers.contains(&number))
        };
        let trashed = trashed.map(Op::node);
        waiting.extend(trashed.filter(|node| is_unsure || is_there(node)));
        let with_content = self.with_content(plan, local, &mut waiting);
        let mut groups = with_content.as_ref().map_or(&*plan.ops, Vec::as_slice);
        while !groups.is_empty() {
            let mut ops = 0;
            let count = groups.iter().take_while(|group| {
                let fits = ops == 0 || ops + group.0.len() <= self.batch;
                ops += group.0.len();
                fits
            });
            let (now, after) = groups.split_at(count.count().max(1));
            groups = after;
            match self
                .send_batch(plan, now, local, applied, &mut waiting, outcome, touched)
                .await?
            {
                Batch::Posted => {
                    sent = true;
                    self.batch = (self.batch * 2).min(MAX_OPS);
                }
                Batch::Nothing => {}
                Batch::Again => {
                    self.batch = (self.batch / 2).max(1);
                    return Ok(true);
                }
            }
        }
        Ok(sent)
    }

    /// The ops of a plan, if the server lacks content that they would keep: it is sent from this disk, or its node waits.
    fn with_content(
        &mut self,
        plan: &Plan,
        local: &Local,
        waiting: &mut BTreeSet<NodeId>,
    ) -> Option<Vec<Group>> {
        if self.lacking.is_empty() {
            return None;
        }
        let mut groups = plan.ops.clone();
        for op in groups.iter_mut().flat_map(|group| &mut group.0) {
            let Op::Put(put) = op else { continue };
            let is_lacking = self.lacking.contains(&put.node);
            if !is_lacking || !matches!(put.content, PlanContent::Keep) {
                continue;
            }
            let path = { plan.records.get(&put.node) }.map(|record| record.path.clone());
            match path.clone().filter(|_| self.is_here(put.node, local)) {
                Some(path) => put.content = PlanContent::FromDisk { path },
                None => {
                    waiting.insert(put.node);
                    let why = "the server has lost its content, and this machine does not have it, so its new name or place waits: run `syncagent recover` on a machine that has the file";
                    self.fail(&path.unwrap_or_default(), Code::Chunk, &why);
                }
            }
        }
        Some(groups)
    }

    /// Whether the file here has the content that the vault has.
    fn is_here(&self, node: NodeId, local: &Local) -> bool {
        let hash_of = |body: &Body| match body {
            Body::File { hash, .. } => Some(*hash),
            _ => None,
        };
        let here = match local.nodes.get(&node).map(|node| &node.state) {
            Some(LocalState::Same) => self.ancestor.get(node).map(|row| &row.node.body),
            Some(LocalState::File { hash, .. }) => {
                let vault = self.placed.tree.get(node).map(|node| &node.body);
                return hash.is_some() && vault.and_then(hash_of) == *hash;
            }
            _ => None,
        };
        let vault = self.placed.tree.get(node).map(|node| &node.body);
        here.is_some() && here.and_then(hash_of) == vault.and_then(hash_of)
    }

    /// Which nodes of a commit would keep content of which the server lacks `chunks`.
    async fn note_lacking(
        &mut self,
        plan: &Plan,
        sealed: &SealedCommit,
        chunks: &[ChunkId],
    ) -> Result<(), ClientError> {
        let nodes: BTreeSet<NodeId> = sealed.ops.iter().map(|(node, _)| *node).collect();
        let kept = plan.all_ops().filter_map(|op| match op {
            Op::Put(put) if matches!(put.content, PlanContent::Keep) => Some(put.node),
            _ => None,
        });
        for node in kept.filter(|node| nodes.contains(node)) {
            let last = self.log.get(node).map(|entry| entry.op_hash);
            let manifest = last.map(|op_hash| self.manifest_of(node, op_hash));
            let Some(manifest) = manifest.transpose()?.flatten() else {
                continue;
            };
            let refs = manifest.refs();
            // What lies below lists is asked for file by file.
            let is_lacking = refs.iter().any(|id| chunks.contains(id))
                || manifest.level > 0 && !self.remote.missing(refs).await?.is_empty();
            if is_lacking {
                self.lacking.insert(node);
            }
        }
        Ok(())
    }

    /// Whether a group needs an op that is not sent in this pass: its directory, a name that would become free, or what
    /// shall leave a directory before it ends. Sent alone, it would hang nowhere, or leave something so.
    fn must_wait(&self, group: &Group, waiting: &BTreeSet<NodeId>) -> bool {
        let tree = &self.placed.tree;
        group.0.iter().any(|op| {
            let leaves = match op {
                Op::Trash { node } => tree.children(*node).any(|(_, id)| waiting.contains(&id)),
                Op::Put(_) => false,
            };
            let needs = match op {
                Op::Put(put) => {
                    let holder = tree
                        .child(put.parent, &put.name)
                        .filter(|holder| *holder != put.node);
                    let parent = Some(put.parent).filter(|parent| !tree.contains(*parent));
                    [holder, parent]
                }
                Op::Trash { .. } => [None, None],
            };
            leaves
                || waiting.contains(&op.node())
                || needs
                    .into_iter()
                    .flatten()
                    .any(|node| waiting.contains(&node))
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one batch of one loop; each argument is that loop's state"
    )]
    async fn send_batch(
        &mut self,
        plan: &Plan,
        groups: &[Group],
        local: &Local,
        applied: &Applied,
        waiting: &mut BTreeSet<NodeId>,
        outcome: &mut Outcome,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<Batch, ClientError> {
        let mut sendable = Vec::with_capacity(groups.len());
        for group in groups {
            if self.must_wait(group, waiting) {
                waiting.extend(group.0.iter().map(Op::node));
            } else {
                sendable.push(group);
            }
        }
        // Before the flush: what is written from here on is fresh, or has another fingerprint.
        let now_ns = now_ns(self.now_ms());
        let nodes = sendable.iter().flat_map(|group| &group.0);
        let nodes: Vec<NodeId> = nodes.map(Op::node).collect();
        waiting.extend(self.make_durable(plan, local, nodes.into_iter())?);
        let mut groups = sendable;
        groups.retain(|group| {
            let waits = self.must_wait(group, waiting);
            if waits {
                waiting.extend(group.0.iter().map(Op::node));
            }
            !waits
        });
        let mut uploader = Uploader::new(Arc::clone(&self.remote));
        let mut ready = self
            .seal_files(&groups, local, applied, &mut uploader, touched, now_ns)
            .await?;
        uploader.flush().await?;
        self.note_acknowledged(&mut uploader)?;
        outcome.bytes_sent += uploader.bytes();
        waiting.extend(self.flush_newer(&ready)?);

        let mut drafted = Vec::with_capacity(groups.len());
        for group in groups {
            let drafts = match self.must_wait(group, waiting) {
                true => None,
                false => self.drafts(group, plan, &mut ready, local, applied)?,
            };
            match drafts {
                Some(pending) => drafted.push((group, pending)),
                None => waiting.extend(group.0.iter().map(Op::node)),
            }
        }

        let mut commits: Vec<Vec<Pending>> = vec![Vec::new()];
        let mut len = 0;
        for (group, pending) in drafted {
            if self.must_wait(group, waiting) {
                waiting.extend(group.0.iter().map(Op::node));
                continue;
            }
            let group_len: usize = pending.iter().map(|op| op.draft.sealed_len()).sum();
            let ops = commits.last().map_or(0, Vec::len);
            if ops > 0 && (len + group_len > COMMIT_LEN || ops + pending.len() > MAX_OPS) {
                commits.push(Vec::new());
                len = 0;
            }
            len += group_len;
            if let Some(last) = commits.last_mut() {
                last.extend(pending);
            }
        }
        let mut posted = Batch::Nothing;
        for commit in commits.into_iter().filter(|commit| !commit.is_empty()) {
            match self.commit(plan, commit, outcome).await? {
                Batch::Again => return Ok(Batch::Again),
                other => posted = other,
            }
        }
        Ok(posted)
    }

    /// Flushes files that were written to between the scan and their reading. Returns the nodes of those that refuse it.
    fn flush_newer(
        &mut self,
        ready: &BTreeMap<NodeId, Ready>,
    ) -> Result<BTreeSet<NodeId>, ClientError> {
        let newer = ready.iter().filter(|(_, file)| file.is_newer);
        let newer: BTreeMap<TreePath, NodeId> = newer
            .map(|(node, file)| (file.path.clone(), *node))
            .collect();
        let paths: Vec<TreePath> = newer.keys().cloned().collect();
        let refused = self.flush(&paths, &BTreeSet::new())?;
        Ok({ refused.iter() }
            .filter_map(|path| newer.get(path).copied())
            .collect())
    }

    /// Posts one commit, which leaves the rows of its nodes once it stands.
    async fn commit(
        &mut self,
        plan: &Plan,
        ops: Vec<Pending>,
        outcome: &mut Outcome,
    ) -> Result<Batch, ClientError> {
        let mut drafts = Vec::with_capacity(ops.len());
        let mut after = Vec::with_capacity(ops.len());
        for op in ops {
            drafts.push(op.draft);
            after.push((op.node, op.mark, op.body, op.mtime_ns, op.leaves));
        }
        let mut files = 0;
        let mut leaves_of = Vec::new();
        let sealed = self.seal(drafts, |sealed| {
            let hashes: BTreeMap<NodeId, OpHash> = sealed.ops.iter().copied().collect();
            let mut rows = Vec::with_capacity(after.len());
            for (node, mark, body, mtime_ns, leaves) in after {
                let (Some(op_hash), Some(mark)) = (hashes.get(&node), mark) else {
                    rows.push(SealedRow {
                        node,
                        row: None,
                        settled: None,
                    });
                    continue;
                };
                let Some(record) = plan.records.get(&node) else {
                    continue;
                };
                let mut row = row(record, *op_hash, mark);
                if let Some(body) = body {
                    files += 1;
                    row.node.body = body;
                }
                if let Some(mtime_ns) = mtime_ns {
                    row.node.mtime_ns = mtime_ns;
                }
                leaves_of.extend(leaves.map(|leaves| (node, *op_hash, leaves)));
                rows.push(SealedRow {
                    node,
                    row: Some(row),
                    settled: Some(record.path.clone()),
                });
            }
            rows
        })?;
        point(Point::CommitSealed);
        match self.post(&sealed).await? {
            Posted::Accepted => point(Point::CommitTaken),
            Posted::Conflict(_) => return Ok(Batch::Again),
            Posted::Missing(chunks) => {
                self.server_lost(&chunks)?;
                self.index.give_up_sealed(sealed.hash)?;
                self.note_lacking(plan, &sealed, &chunks).await?;
                return Ok(Batch::Again);
            }
        }
        for (node, op_hash, leaves) in leaves_of {
            self.index
                .set_leaves(node, op_hash, &encode_leaves(&leaves))?;
        }
        outcome.sent += files;
        self.progress(|progress| progress.files_done += files);
        self.index.forget_acknowledged(None)?;
        self.lost.clear();
        Ok(Batch::Posted)
    }

    /// The ops of a group; none if one of its files could not be read: then the whole group waits.
    fn drafts(
        &mut self,
        group: &Group,
        plan: &Plan,
        ready: &mut BTreeMap<NodeId, Ready>,
        local: &Local,
        applied: &Applied,
    ) -> Result<Option<Vec<Pending>>, ClientError> {
        let mut out = Vec::with_capacity(group.0.len());
        for op in &group.0 {
            let pending = match op {
                Op::Trash { node } => Pending {
                    node: *node,
                    draft: Draft::trash(*node),
                    mark: None,
                    body: None,
                    mtime_ns: None,
                    leaves: None,
                },
                Op::Put(put) => match self.draft_put(put, plan, ready, local, applied)? {
                    Some(pending) => pending,
                    None => return Ok(None),
                },
            };
            out.push(pending);
        }
        Ok(Some(out))
    }

    fn draft_put(
        &mut self,
        planned: &PlanPut,
        plan: &Plan,
        ready: &mut BTreeMap<NodeId, Ready>,
        local: &Local,
        applied: &Applied,
    ) -> Result<Option<Pending>, ClientError> {
        let node = planned.node;
        let scanned = || {
            applied.marks.get(&node).copied().unwrap_or_else(|| {
                plan.records
                    .get(&node)
                    .map_or(Mark::Inode(0), |record| self.mark_of(node, local, record))
            })
        };
        let mut mtime_ns = planned.mtime_ns;
        let (body, mark, leaves, new_body) = match &planned.content {
            PlanContent::Directory => {
                // Informative only: when the vault first heard of it.
                mtime_ns = if mtime_ns == 0 {
                    now_ns(self.now_ms())
                } else {
                    mtime_ns
                };
                (PutBody::Directory, scanned(), None, None)
            }
            PlanContent::Symlink { target } => (
                PutBody::Symlink {
                    target: target.clone(),
                },
                scanned(),
                None,
                None,
            ),
            PlanContent::Keep => {
                let last = self.log.get(node).map(|entry| entry.op_hash);
                let put = last
                    .map(|op_hash| self.index.put(node, op_hash))
                    .transpose()?
                    .flatten();
                let Some(put) = put else { return Ok(None) };
                let mut body = put.body;
                if let PutBody::File(file) = &mut body {
                    file.exec = planned.exec;
                }
                (body, scanned(), None, None)
            }
            PlanContent::FromDisk { .. } => {
                let Some(Ready {
                    content,
                    reading,
                    is_newer,
                    class,
                    scope,
                    ..
                }) = ready.remove(&node)
                else {
                    return Ok(None);
                };
                mtime_ns = reading.fingerprint.mtime_ns;
                let new_body = Body::File {
                    hash: content.hash,
                    size: content.size,
                    exec: planned.exec,
                };
                let body = PutBody::File(File {
                    size: content.size,
                    exec: planned.exec,
                    hash: content.hash,
                    scope: (scope != Scope::from(node)).then_some(scope),
                    class,
                    content: content.content,
                });
                let mark = Mark::new(
                    (!reading.racy && !is_newer).then_some(reading.fingerprint),
                    reading.fingerprint.inode,
                );
                (body, mark, content.leaves, Some(new_body))
            }
        };
        let put = Put {
            parent: planned.parent,
            name: planned.name.clone(),
            mtime_ns,
            body,
            based_on: planned.based_on,
            conflict_of: match planned.conflict_of {
                None => self.unresolved(node, &planned.name)?,
                lost => lost,
            },
        };
        let draft = Draft::put(node, &put)?;
        let told = new_body.is_some() || matches!(planned.content, PlanContent::Directory);
        let mtime_ns = told.then_some(mtime_ns);
        Ok(Some(Pending {
            node,
            draft,
            mark: Some(mark),
            body: new_body,
            mtime_ns,
            leaves,
        }))
    }

    /// What a conflict copy lost against, as long as it bears the same name: an edit resolves nothing, a new name does.
    fn unresolved(
        &self,
        node: NodeId,
        name: &Name,
    ) -> Result<Option<(NodeId, OpHash)>, ClientError> {
        let placed = |entry: &&LogEntry| matches!(entry.op, LastOp::Put(_));
        let Some(entry) = self.log.get(node).filter(placed) else {
            return Ok(None);
        };
        let last = self.index.put(node, entry.op_hash)?;
        Ok(last
            .filter(|last| last.name == *name)
            .and_then(|last| last.conflict_of))
    }

    /// Reads and seals the files of a batch; what is new of them goes to the server on the way.
    async fn seal_files(
        &mut self,
        groups: &[&Group],
        local: &Local,
        applied: &Applied,
        uploader: &mut Uploader,
        touched: &mut BTreeSet<TreePath>,
        now_ns: i64,
    ) -> Result<BTreeMap<NodeId, Ready>, ClientError> {
        let mut small: Vec<Sealable> = Vec::new();
        let mut small_len = 0;
        let mut ready = BTreeMap::new();
        let ops: Vec<&PlanPut> = groups
            .iter()
            .flat_map(|group| &group.0)
            .filter_map(from_disk)
            .collect();
        for put in ops {
            let sealable = self.sealable(put, local, applied)?;
            if sealable.size > SMALL_LEN {
                self.seal_large(sealable, uploader, &mut ready, touched, now_ns)
                    .await?;
                continue;
            }
            small_len += sealable.size;
            small.push(sealable);
            if small_len >= SMALL_BATCH_LEN {
                small_len = 0;
                self.seal_small(
                    std::mem::take(&mut small),
                    uploader,
                    &mut ready,
                    touched,
                    now_ns,
                )
                .await?;
            }
        }
        self.seal_small(small, uploader, &mut ready, touched, now_ns)
            .await?;
        Ok(ready)
    }

    pub(super) fn scanned_len(&self, put: &PlanPut) -> u64 {
        let PlanContent::FromDisk { path } = &put.content else {
            return 0;
        };
        self.scanned_len_at(path)
    }

    pub(super) fn scanned_len_at(&self, path: &TreePath) -> u64 {
        match self.scan.as_ref().and_then(|scan| scan.entries.get(path)) {
            Some(Observed::File { fingerprint, .. }) => fingerprint.size,
            _ => 0,
        }
    }

    fn sealable(
        &self,
        put: &PlanPut,
        local: &Local,
        applied: &Applied,
    ) -> Result<Sealable, ClientError> {
        let PlanContent::FromDisk { path } = &put.content else {
            return Err(ClientError::State("a file without a path".into()));
        };
        let scanned = self.planned_for(put.node, path, local, applied);
        let size = scanned.map_or(0, |(print, _)| print.size);
        // A copy that SyncAgent made itself keeps scope and class of its origin, and so shares its chunks.
        let origin = match put.conflict_of {
            Some((node, op_hash)) => self.index.put(node, op_hash)?.map(|origin| (node, origin)),
            None => None,
        };
        let base = put
            .based_on
            .map(|op_hash| self.index.put(put.node, op_hash))
            .transpose()?
            .flatten();
        let class_of = |put: &Put| match &put.body {
            PutBody::File(file) => Some(file.class),
            _ => None,
        };
        let before = base
            .as_ref()
            .and_then(class_of)
            .or_else(|| origin.as_ref().and_then(|(_, put)| class_of(put)));
        let own = self.genesis.scope().unwrap_or(Scope::from(put.node));
        let scope = match (&base, &origin) {
            (Some(base), _) => base.scope(put.node),
            (None, Some((node, origin))) => origin.scope(*node),
            (None, None) => own,
        };
        let mut known = HashSet::new();
        let versions = put
            .based_on
            .map(|op_hash| (put.node, op_hash))
            .into_iter()
            .chain(put.conflict_of)
            .chain(self.alike(size));
        for (node, op_hash) in versions {
            // Its lists as well as its data: most of them are the same again.
            let lists = self.manifest_of(node, op_hash)?;
            known.extend(
                { lists.iter() }.flat_map(|lists| lists.entries.iter().map(|list| list.id)),
            );
            let leaves = self.leaves_of(node, op_hash)?;
            known.extend({ leaves.iter() }.flatten().map(|(id, _)| *id));
        }
        known.retain(|id| !self.lost.contains(id));
        let recipe = Recipe {
            class: Class::of(size, before),
            scope,
            codec: self.genesis.codec(),
            inline: Draft::fits_inline(size, &put.name),
        };
        Ok(Sealable {
            node: put.node,
            path: path.clone(),
            recipe,
            known,
            size,
            scanned,
        })
    }

    /// Versions whose chunks a large file of `size` bytes may well be made of, where chunks are the vault's: asking the
    /// server for each would cost 32 bytes a chunk. If it has lost one, it refuses the commit and says which.
    pub(super) fn alike(&self, size: u64) -> Vec<(NodeId, OpHash)> {
        if !self.genesis.dedup_vault || size < MIN_ALIKE_LEN {
            return Vec::new();
        }
        let files = self.placed.tree.iter().filter(
            |(_, node)| matches!(node.body, Body::File { size: other, .. } if other == size),
        );
        let versions = files.filter_map(|(id, _)| Some((id, self.log.get(id)?.op_hash)));
        versions.take(MAX_ALIKE).collect()
    }

    async fn seal_small(
        &mut self,
        files: Vec<Sealable>,
        uploader: &mut Uploader,
        ready: &mut BTreeMap<NodeId, Ready>,
        touched: &mut BTreeSet<TreePath>,
        now_ns: i64,
    ) -> Result<(), ClientError> {
        if files.is_empty() {
            return Ok(());
        }
        let (disk, keys, work) = (
            Arc::clone(self.folder.disk()),
            Arc::clone(&self.keys),
            self.work,
        );
        let sealed = self.work.run(move || {
            work.map(files, |file| {
                let result = open_stable(&*disk, &file.path, None)
                    .map_err(read_failure)
                    .and_then(|source| seal_whole(source, file.recipe, &keys, now_ns));
                (file, result)
            })
        });
        for (file, result) in sealed.await {
            match result.and_then(|sealed| file.compare(sealed.1, touched).map(|()| sealed)) {
                Ok((content, reading, chunks)) => {
                    self.upload(&chunks, &file.known, uploader).await?;
                    self.progress(|progress| progress.bytes_done += content.size);
                    ready.insert(file.node, ready_of(&file, content, reading));
                }
                Err(failure) => self.seal_failed(&file.path, failure, touched)?,
            }
        }
        Ok(())
    }

    async fn seal_large(
        &mut self,
        file: Sealable,
        uploader: &mut Uploader,
        ready: &mut BTreeMap<NodeId, Ready>,
        touched: &mut BTreeSet<TreePath>,
        now_ns: i64,
    ) -> Result<(), ClientError> {
        let source = match open_stable(&**self.folder.disk(), &file.path, None) {
            Ok(source) => source,
            Err(error) => return self.seal_failed(&file.path, read_failure(error), touched),
        };
        let work = self.work;
        let mut sealing = Sealing::new(source, file.recipe);
        loop {
            let keys = Arc::clone(&self.keys);
            let (returned, chunks) = work
                .run(move || {
                    let chunks = sealing.next_chunks(&keys, work);
                    (sealing, chunks)
                })
                .await;
            sealing = returned;
            match chunks {
                Ok(chunks) if chunks.is_empty() => break,
                Ok(chunks) => {
                    self.upload(&chunks, &file.known, uploader).await?;
                    let len: u64 = chunks.iter().map(|chunk| chunk.entry.len).sum();
                    self.progress(|progress| progress.bytes_done += len);
                }
                Err(error) => return self.seal_failed(&file.path, seal_failure(error), touched),
            }
        }
        let finished = sealing.finish(&self.keys).map_err(seal_failure);
        let finished = finished.and_then(|(source, content, lists)| {
            let reading = source.finish(now_ns).map_err(read_failure)?;
            file.compare(reading, touched)?;
            Ok((content, reading, lists))
        });
        match finished {
            Ok((content, reading, lists)) => {
                self.upload(&lists, &file.known, uploader).await?;
                ready.insert(file.node, ready_of(&file, content, reading));
                Ok(())
            }
            Err(failure) => self.seal_failed(&file.path, failure, touched),
        }
    }

    /// Sends those chunks that the server does not have.
    pub(super) async fn upload(
        &mut self,
        chunks: &[Sealed],
        known: &HashSet<ChunkId>,
        uploader: &mut Uploader,
    ) -> Result<(), ClientError> {
        let since_ms = self.now_ms().saturating_sub(ACKNOWLEDGED_MS);
        let mut fresh = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if !known.contains(&chunk.entry.id)
                && !self.index.is_acknowledged(chunk.entry.id, since_ms)?
            {
                fresh.push(chunk);
            }
        }
        if self.genesis.dedup_vault && !fresh.is_empty() {
            // Any file of the vault may have brought the same content; only the server knows.
            let missing = self
                .remote
                .missing(fresh.iter().map(|chunk| chunk.entry.id).collect())
                .await?;
            let missing: HashSet<ChunkId> = missing.into_iter().collect();
            // What a commit was refused for is sent, whatever is said here.
            let lost = &self.lost;
            fresh.retain(|chunk| {
                missing.contains(&chunk.entry.id) || lost.contains(&chunk.entry.id)
            });
        }
        for chunk in fresh {
            uploader.add(chunk).await?;
            // At once: what is not noted is sent again by whoever goes on after a crash.
            self.note_acknowledged(uploader)?;
        }
        Ok(())
    }

    fn note_acknowledged(&mut self, uploader: &mut Uploader) -> Result<(), ClientError> {
        let chunks = uploader.take_acknowledged();
        if chunks.is_empty() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        self.index.acknowledge(&chunks, now_ms)?;
        point(Point::PackNoted);
        Ok(())
    }

    fn seal_failed(
        &mut self,
        path: &TreePath,
        failure: SealFailure,
        touched: &mut BTreeSet<TreePath>,
    ) -> Result<(), ClientError> {
        match failure {
            SealFailure::Changed => {
                touched.insert(path.clone());
            }
            SealFailure::Read(code, message) => self.fail(path, code, &message),
            SealFailure::Vault(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What came of one batch of ops.
enum Batch {
    Posted,
    Nothing,
    /// Somebody else was first, or the server lacks chunks: decide anew.
    Again,
}

fn from_disk(op: &Op) -> Option<&PlanPut> {
    match op {
        Op::Put(put) if matches!(put.content, PlanContent::FromDisk { .. }) => Some(put),
        _ => None,
    }
}

fn ready_of(file: &Sealable, content: SealedContent, reading: Reading) -> Ready {
    let scanned = file.scanned.map(|(print, _)| print);
    Ready {
        path: file.path.clone(),
        content,
        reading,
        is_newer: scanned != Some(reading.fingerprint),
        class: file.recipe.class,
        scope: file.recipe.scope,
    }
}

fn now_ns(now_ms: u64) -> i64 {
    i64::try_from(now_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
}

fn read_failure(error: ReadError) -> SealFailure {
    match error {
        ReadError::Changed { .. } => SealFailure::Changed,
        error => SealFailure::Read(Code::Read, error.to_string()),
    }
}

fn seal_failure(error: SealError<io::Error>) -> SealFailure {
    match error {
        SealError::Vault(error) => SealFailure::Vault(error),
        SealError::Read(error) => match error.downcast::<ReadError>() {
            Ok(error) => read_failure(error),
            Err(error) => SealFailure::Read(Code::Read, error.to_string()),
        },
    }
}

/// A small file in one go.
fn seal_whole(
    source: StableRead,
    recipe: Recipe,
    keys: &syncagent_vault::keys::Keys,
    now_ns: i64,
) -> SealResult {
    let mut sealing = Sealing::new(source, recipe);
    let inline = sealing.inline().map_err(seal_failure)?;
    let (source, content, chunks) = match inline {
        Some(bytes) => {
            let (source, content) = sealing.finish_inline(bytes);
            (source, content, Vec::new())
        }
        None => {
            let mut chunks = Vec::new();
            loop {
                // Files run side by side already; their chunks need not.
                let more = sealing
                    .next_chunks(keys, crate::work::Work::Inline)
                    .map_err(seal_failure)?;
                if more.is_empty() {
                    break;
                }
                chunks.extend(more);
            }
            let (source, content, lists) = sealing.finish(keys).map_err(seal_failure)?;
            chunks.extend(lists);
            (source, content, chunks)
        }
    };
    let reading = source.finish(now_ns).map_err(read_failure)?;
    Ok((content, reading, chunks))
}
