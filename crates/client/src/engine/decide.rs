//! Decides, and reads the files that a decision needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use syncagent_protocol::{Body, Code, ContentHash, Name, NodeId, TreePath};
use syncagent_sync::scan::Observed;
use syncagent_sync::{
    Input, Local, LocalState, Op, Plan, Policy, Wider, World, focus, identify, reconcile,
};
use syncagent_vault::random;

use super::{Engine, inode, number_of, utc};
use crate::error::ClientError;
use crate::folder::disk::Disk;
use crate::folder::read::{Reading, open_stable};
use crate::index::{Index, SetAside};

/// What shall be done, and what it was decided about.
pub(super) struct Decision {
    /// What is on disk, of the part of the world that was in focus.
    pub(super) local: Local,
    pub(super) plan: Plan,
    /// What is known and nowhere to be seen.
    pub(super) missing: Vec<NodeId>,
}

/// The earlier versions that the log told of.
struct Versions<'a>(&'a Index);

impl std::fmt::Debug for Versions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Versions")
    }
}

impl syncagent_sync::History for Versions<'_> {
    fn versions(&self, node: NodeId) -> Vec<Body> {
        self.0.contents(node).unwrap_or_else(|error| {
            // Unknown versions make a conflict copy where none was needed: nothing is lost.
            tracing::warn!(%error, "cannot read the history of a file");
            Vec::new()
        })
    }
}

impl Engine {
    /// Decides, reading the files that a decision needs.
    pub(super) fn decide(&mut self) -> Result<Decision, ClientError> {
        let mut wider = Wider::default();
        loop {
            let scan = self.scan.get_or_insert_default();
            let random = Arc::clone(&self.random);
            let mut new_id = move || NodeId(random::bytes(&*random));
            let most = self.ancestor.len() / 4 * 3;
            self.survey
                .follow(&mut self.ancestor, scan, &self.log, &mut self.placed);
            let world = World {
                ancestor: &self.ancestor,
                scan,
                log: &self.log,
                remote: &self.placed,
            };
            let part = focus(&world, &self.survey, &wider, most);
            let (ancestor, scan, remote) = match &part {
                Some(part) => (&part.ancestor, &part.scan, &part.remote),
                None => (&self.ancestor, &*scan, &self.placed),
            };
            let identified = identify(ancestor, scan, &self.pending_ids, &self.hashes, &mut new_id);
            if !identified.needs_hash.is_empty() {
                self.hash_files(&identified.needs_hash)?;
                continue;
            }
            let fresh: Vec<_> = identified
                .new_ids
                .iter()
                .filter(|(path, id)| self.pending_ids.get(*path) != Some(*id))
                .collect();
            self.index.add_pending_ids(fresh.iter().copied())?;
            self.pending_ids.extend(
                identified
                    .new_ids
                    .iter()
                    .map(|(path, id)| (path.clone(), *id)),
            );
            let local = identified.local;
            let doubtful = self.doubtful(&local);
            if !doubtful.is_empty() {
                self.hash_files(&doubtful)?;
                continue;
            }
            let policy = Policy {
                machine: self.name.clone(),
                now: utc(&*self.clock),
                placement: self.placement,
                unavailable: self.unavailable.keys().copied().collect(),
                not_here: BTreeSet::new(),
            };
            let input = Input {
                ancestor,
                local: &local,
                log: &self.log,
                remote,
                history: &Versions(&self.index),
                policy: &policy,
            };
            let mut plan = reconcile(&input, &mut new_id);
            if !plan.needs_hash.is_empty() {
                self.hash_files(&plan.needs_hash)?;
                continue;
            }
            if part.as_ref().is_some_and(|part| wider.reach(part, &plan)) {
                continue;
            }
            self.recall_set_aside(&mut plan)?;
            let is_missing = |id: NodeId| !local.nodes.contains_key(&id);
            let missing = { ancestor.iter() }
                .filter(|(id, row)| !row.not_here && is_missing(*id))
                .map(|(id, _)| id)
                .collect();
            return Ok(Decision {
                local,
                plan,
                missing,
            });
        }
    }

    /// A conflict copy that was made here and not sent, since something came between, is still one.
    fn recall_set_aside(&self, plan: &mut Plan) -> Result<(), ClientError> {
        let noted = self.index.set_aside()?;
        if noted.is_empty() {
            return Ok(());
        }
        let noted: BTreeMap<(NodeId, &Name), &SetAside> = { noted.iter() }
            .map(|copy| ((copy.parent, &copy.name), copy))
            .collect();
        for op in plan.ops.iter_mut().flat_map(|group| &mut group.0) {
            let Op::Put(put) = op else { continue };
            let Some(copy) = noted.get(&(put.parent, &put.name)) else {
                continue;
            };
            let last = { self.log.get(put.node) }.and_then(|entry| entry.op.node());
            let is_told =
                last.is_some_and(|last| (last.parent, &last.name) == (put.parent, &put.name));
            // It may also have been put in the place of what it lost against.
            if put.conflict_of.is_some() || is_told || copy.against.0 == put.node {
                continue;
            }
            put.conflict_of = Some(copy.against);
            if last.is_none() {
                put.based_on = copy.base;
            }
        }
        Ok(())
    }

    /// Files touched without a visible change (or too fresh to trust): cheaper to read than to send.
    fn doubtful(&self, local: &Local) -> Vec<TreePath> {
        let mut paths = Vec::new();
        for (id, node) in &local.nodes {
            let LocalState::File {
                hash: None,
                size,
                mtime_ns,
                ..
            } = node.state
            else {
                continue;
            };
            let Some(row) = self.ancestor.get(*id) else {
                continue;
            };
            let same_look = row.node.mtime_ns == mtime_ns
                && matches!(&row.node.body, syncagent_protocol::Body::File { size: before, .. } if *before == size);
            if same_look && let Some(path) = local.path_of(*id) {
                paths.push(path);
            }
        }
        paths
    }

    /// Reads files for their content hash. One that cannot be read is unknown from here on, not changed.
    ///
    /// They are flushed first: a store through a mapping to a page that waits to be written back moves no time, so a
    /// fingerprint vouches for content only if that was durable before it was read.
    pub(super) fn hash_files(&mut self, paths: &[TreePath]) -> Result<(), ClientError> {
        let disk = Arc::clone(self.folder.disk());
        let now_ns = i64::try_from(self.clock.now_ms())
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000);
        let refused = self.flush(paths, &BTreeSet::new())?;
        for path in &refused {
            self.is_unread(path);
        }
        let paths = paths.iter().filter(|path| !refused.contains(path)).cloned();
        let results = self.work.map(paths.collect(), |path| {
            let result = hash_file(&*disk, &path, now_ns);
            (path, result)
        });
        for (path, result) in results {
            match result {
                Ok((reading, hash)) => {
                    let scanned = self
                        .scan
                        .as_mut()
                        .and_then(|scan| scan.entries.get_mut(&path));
                    // All of it: the fingerprint alone would vouch for a bit that was set since the scan.
                    if let Some(seen @ Observed::File { .. }) = scanned {
                        *seen = Observed::File {
                            fingerprint: reading.fingerprint,
                            exec: reading.exec,
                            racy: reading.racy,
                        };
                    }
                    self.hashes.insert(path, (reading.fingerprint, hash));
                }
                Err(error) => {
                    self.is_unread(&path);
                    self.fail(&path, Code::Read, &error);
                }
            }
        }
        Ok(())
    }

    /// What stands at `path` is unknown until the next look.
    fn is_unread(&mut self, path: &TreePath) {
        if let Some(scan) = &mut self.scan {
            let seen = scan.entries.get(path).map(inode);
            // In its own place, it says nothing of a second name that has gone.
            let mut rows =
                { self.ancestor.at_path(path).into_iter() }.filter_map(|id| self.ancestor.get(id));
            let is_at_home = rows.any(|row| Some(number_of(row)) == seen);
            self.unread_numbers.extend(seen.filter(|_| !is_at_home));
            scan.entries.insert(path.clone(), Observed::Unknown);
        }
    }
}

pub(super) fn hash_file(
    disk: &dyn Disk,
    path: &TreePath,
    now_ns: i64,
) -> Result<(Reading, ContentHash), crate::folder::read::ReadError> {
    let mut file = open_stable(disk, path, None)?;
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buf)? {
            0 => break,
            n => hasher.update(&buf[..n]),
        };
    }
    let reading = file.finish(now_ns)?;
    Ok((reading, ContentHash(*hasher.finalize().as_bytes())))
}
