//! Puts the files that a plan wants together, from what this disk holds already and what the vault has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use syncagent_protocol::{Body, ChunkId, Code, ContentHash, NodeId, OpHash, TreePath};
use syncagent_sync::scan::{Fingerprint, Observed};
use syncagent_sync::{LastOp, Local, LocalState, Plan, Step};
use syncagent_vault::chunk::Entry;
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{Content, File, PutBody};

use super::Engine;
use super::apply::Applied;
use crate::error::ClientError;
use crate::folder::apply::Staged;
use crate::transfer::decode_leaves;
use crate::transfer::download::{Downloader, Job, Lists, Source};

/// Below this a local copy saves nothing over a chunk in a pack.
const MIN_COPY_LEN: u64 = 16 * 1024;

impl Engine {
    pub(super) fn fetch_len(&self, step: &Step) -> u64 {
        match step {
            Step::Fetch { node, .. } => match self.placed.tree.get(*node).map(|node| &node.body) {
                Some(Body::File { size, .. }) => *size,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Whether the last look found the file of this fingerprint at `path`.
    fn stands(&self, path: &TreePath, fingerprint: Fingerprint) -> bool {
        let found = self.scan.as_ref().and_then(|scan| scan.entries.get(path));
        matches!(found, Some(Observed::File { fingerprint: seen, .. }) if *seen == fingerprint)
    }

    /// The content of a file as it stands on this disk, if that is known: its row vouches for it, or it was just read
    /// because its row is too fresh to do so.
    fn content_here(&self, id: NodeId, local: &Local) -> Option<(ContentHash, Fingerprint)> {
        match local.nodes.get(&id)?.state {
            LocalState::Same => {
                let row = self.ancestor.get(id)?;
                match row.node.body {
                    Body::File { hash, .. } => Some((hash, row.fingerprint?)),
                    _ => None,
                }
            }
            LocalState::File {
                hash: Some(hash),
                fingerprint,
                ..
            } => Some((hash, fingerprint)),
            _ => None,
        }
    }

    /// Content that stands on this disk unchanged, for the files a plan wants that are worth a look.
    pub(super) fn local_contents(
        &self,
        plan: &Plan,
        local: &Local,
    ) -> HashMap<ContentHash, Source> {
        let mut wanted: HashMap<ContentHash, ()> = HashMap::new();
        for step in &plan.steps {
            if let Step::Fetch { node, .. } = step
                && let Some(Body::File { hash, size, .. }) =
                    self.placed.tree.get(*node).map(|node| &node.body)
                && *size >= MIN_COPY_LEN
            {
                wanted.insert(*hash, ());
            }
        }
        let mut found = HashMap::new();
        if wanted.is_empty() {
            return found;
        }
        // What is not in focus stands as its row says; what is may have been read just now.
        let rows = self.ancestor.iter().filter_map(|(id, row)| {
            let Body::File { hash, .. } = row.node.body else {
                return None;
            };
            let fingerprint = row.fingerprint.filter(|_| wanted.contains_key(&hash))?;
            let path = self.ancestor_path(id)?;
            let stands = self.stands(&path, fingerprint);
            stands.then_some((path, hash, fingerprint))
        });
        let read = local.nodes.keys().filter_map(|id| {
            let (hash, fingerprint) = self.content_here(*id, local)?;
            Some((local.path_of(*id)?, hash, fingerprint))
        });
        for (path, hash, fingerprint) in rows.chain(read) {
            if wanted.contains_key(&hash) {
                found.insert(
                    hash,
                    Source {
                        path,
                        fingerprint,
                        leaves: None,
                    },
                );
            }
        }
        found
    }

    /// Puts the files of a batch together, complete but not yet visible.
    pub(super) async fn stage(
        &mut self,
        batch: &[Step],
        local: &Local,
        copies: &HashMap<ContentHash, Source>,
        applied: &mut Applied,
    ) -> Result<BTreeMap<NodeId, Staged>, ClientError> {
        let mut jobs = Vec::new();
        let mut paths = BTreeMap::new();
        for step in batch {
            let Step::Fetch {
                node,
                path,
                replaces,
                exec,
                mtime_ns,
                ..
            } = step
            else {
                continue;
            };
            paths.insert(*node, path.clone());
            match self.job(*node, *replaces, *exec, *mtime_ns, local, copies)? {
                Some(job) => jobs.push(job),
                None => {
                    applied.failed.insert(*node);
                    self.unfetchable(
                        *node,
                        path,
                        Code::Chunk,
                        &"the log no longer holds its content",
                    );
                }
            }
        }
        let downloader = Downloader {
            folder: Arc::clone(&self.folder),
            remote: Arc::clone(&self.remote),
            keys: Arc::clone(&self.keys),
            work: self.work,
        };
        let mut staged = BTreeMap::new();
        for (node, result) in downloader.stage(jobs).await? {
            match result {
                Ok(done) => {
                    if let (Some(leaves), Some(entry)) = (done.leaves, self.log.get(node)) {
                        self.index.set_leaves(
                            node,
                            entry.op_hash,
                            &crate::transfer::encode_leaves(&leaves),
                        )?;
                    }
                    staged.insert(node, done.staged);
                }
                Err(error) => {
                    applied.failed.insert(node);
                    if let Some(path) = paths.get(&node) {
                        match error.code() {
                            Code::Chunk => self.unfetchable(node, path, Code::Chunk, &error),
                            code => self.fail(path, code, &error),
                        }
                    }
                }
            }
        }
        Ok(staged)
    }

    fn unfetchable(
        &mut self,
        node: NodeId,
        path: &TreePath,
        code: Code,
        why: &dyn std::fmt::Display,
    ) {
        tracing::warn!(%path, %code, %why, "content cannot be fetched");
        let error = super::FileError {
            path: path.as_str().to_owned(),
            code,
            message: why.to_string(),
        };
        self.unavailable.insert(node, error);
    }

    fn job(
        &self,
        node: NodeId,
        replaces: Option<NodeId>,
        exec: bool,
        mtime_ns: i64,
        local: &Local,
        copies: &HashMap<ContentHash, Source>,
    ) -> Result<Option<Job>, ClientError> {
        let Some(entry) = self
            .log
            .get(node)
            .filter(|entry| matches!(entry.op, LastOp::Put(_)))
        else {
            return Ok(None);
        };
        let Some(put) = self.index.put(node, entry.op_hash)? else {
            return Ok(None);
        };
        let scope = put.scope(node);
        let PutBody::File(file) = put.body else {
            return Ok(None);
        };
        let lists = match &file.content {
            Content::Chunks(manifest) if manifest.level > 0 => {
                let here = [Some(node), replaces].into_iter().flatten();
                let here = here.filter_map(|id| Some((id, self.ancestor.get(id)?.op_hash)));
                let versions = [(node, entry.op_hash)].into_iter().chain(here);
                self.known_lists(manifest, versions.chain(self.alike(file.size)))?
            }
            _ => Lists::new(),
        };
        let mut sources: Vec<Source> = copies.get(&file.hash).cloned().into_iter().collect();
        if let Some(id) = replaces.filter(|_| file.size >= MIN_COPY_LEN && sources.is_empty()) {
            sources.extend(self.old_version(id, local)?);
        }
        Ok(Some(Job {
            node,
            file,
            scope,
            exec,
            mtime_ns,
            lists,
            sources,
        }))
    }

    /// The data chunks below the lists of `manifest` that one of `versions` holds too, and whose data chunks were kept.
    /// A small change leaves all lists but one as they were, and what is in them need not be fetched again.
    fn known_lists(
        &self,
        manifest: &Manifest,
        versions: impl IntoIterator<Item = (NodeId, OpHash)>,
    ) -> Result<Lists, ClientError> {
        let mut wanted: HashSet<ChunkId> = manifest.entries.iter().map(|entry| entry.id).collect();
        let mut lists = Lists::new();
        for (node, op_hash) in versions {
            if wanted.is_empty() {
                break;
            }
            let Some(other) = self.manifest_of(node, op_hash)? else {
                continue;
            };
            let shares = |entry: &Entry| wanted.contains(&entry.id);
            if other.level != manifest.level || !other.entries.iter().any(shares) {
                continue;
            }
            let Some(bytes) = self.index.leaves(node, op_hash)? else {
                continue;
            };
            let mut leaves = decode_leaves(&bytes).into_iter();
            for list in &other.entries {
                let Some(below) = below(list, &mut leaves) else {
                    break;
                };
                if wanted.remove(&list.id) {
                    lists.insert(list.id, below);
                }
            }
        }
        Ok(lists)
    }

    /// The version of a node that stands on this disk, by its chunks.
    fn old_version(&self, node: NodeId, local: &Local) -> Result<Option<Source>, ClientError> {
        let (Some(row), Some(path)) = (self.ancestor.get(node), local.path_of(node)) else {
            return Ok(None);
        };
        let Some((hash, fingerprint)) = self.content_here(node, local) else {
            return Ok(None);
        };
        if !matches!(row.node.body, Body::File { hash: agreed, .. } if agreed == hash) {
            return Ok(None);
        }
        let leaves = self.leaves_of(node, row.op_hash)?;
        Ok(leaves.map(|leaves| Source {
            path,
            fingerprint,
            leaves: Some(Arc::new(leaves)),
        }))
    }

    /// The manifest of a version that is in chunks, if the log still holds it.
    pub(super) fn manifest_of(
        &self,
        node: NodeId,
        op_hash: OpHash,
    ) -> Result<Option<Manifest>, ClientError> {
        let put = self.index.put(node, op_hash)?;
        Ok(put.and_then(|put| match put.body {
            PutBody::File(File {
                content: Content::Chunks(manifest),
                ..
            }) => Some(manifest),
            _ => None,
        }))
    }

    /// The data chunks of a version with their lengths, as far as this machine knows them.
    pub(super) fn leaves_of(
        &self,
        node: NodeId,
        op_hash: OpHash,
    ) -> Result<Option<Vec<(ChunkId, u64)>>, ClientError> {
        let Some(manifest) = self.manifest_of(node, op_hash)? else {
            return Ok(None);
        };
        if manifest.level == 0 {
            return Ok(Some(
                manifest
                    .entries
                    .iter()
                    .map(|entry| (entry.id, entry.len))
                    .collect(),
            ));
        }
        let kept = self.index.leaves(node, op_hash)?;
        Ok(kept.map(|bytes| {
            decode_leaves(&bytes)
                .iter()
                .map(|entry| (entry.id, entry.len))
                .collect()
        }))
    }
}

/// The next of `leaves`, as many as make up `list`; none if they do not add up to it.
fn below(list: &Entry, leaves: &mut impl Iterator<Item = Entry>) -> Option<Vec<Entry>> {
    let (mut below, mut len) = (Vec::new(), 0_u64);
    while len < list.len {
        let leaf = leaves.next()?;
        len = len.checked_add(leaf.len)?;
        below.push(leaf);
    }
    (len == list.len).then_some(below)
}
