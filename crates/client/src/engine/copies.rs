//! A home and a folder that were both put back from a backup.
//!
//! They may be of one moment, as in an image of a disk, or of two, as wherever files are copied one after the other while
//! somebody works. Of two moments, what the folder lacks was not deleted, and what is older in it was not changed. So each
//! row of the index has to be borne out by what stands in the folder before it says anything.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use syncagent_protocol::{Body, Code, ContentHash, NodeId, OpHash, TreePath};
use syncagent_sync::{AncestorNode, Local, LocalState};
use syncagent_vault::op::{Put, PutBody};

use super::decide::Decision;
use super::{COPIED, Engine, MAX_ROUNDS};
use crate::error::ClientError;
use crate::index::OpKind;

/// What rows are to become.
type Rows = BTreeMap<NodeId, Option<AncestorNode>>;

impl Engine {
    /// Before anything else is decided about a home and a folder that are both copies: what the rows say must stand in
    /// the folder. Where an earlier or later version stands, that one was agreed on. Where nothing does, nothing was.
    pub(super) async fn compare_copies(&mut self) -> Result<(), ClientError> {
        if self.index.meta(COPIED)?.is_none() {
            return Ok(());
        }
        self.check_root()?;
        self.pull().await?;
        self.look_everywhere()?;
        let mut differ = 0;
        for _ in 0..MAX_ROUNDS {
            let Decision { local, missing, .. } = self.decide()?;
            if local.root_incomplete {
                return Err(super::file_error(
                    &TreePath::ROOT,
                    Code::Read,
                    &"the folder cannot be listed; it is compared with what was agreed on once it can",
                ));
            }
            let unread: Vec<TreePath> = { local.nodes.iter() }
                .filter(|(id, node)| {
                    let is_unread = matches!(node.state, LocalState::File { hash: None, .. });
                    is_unread && self.ancestor.get(**id).is_some()
                })
                .filter_map(|(id, _)| local.path_of(*id))
                .collect();
            if !unread.is_empty() {
                self.hash_files(&unread)?;
                continue;
            }
            let rows = self.rows_not_borne_out(&local, missing)?;
            if rows.is_empty() {
                if differ > 0 {
                    self.notice(format!(
                        "this machine's home and its folder were put back from a backup, and are not of one moment: {differ} of the files and directories that it had agreed on were missing, or another version of them was there. None of them counts as deleted, and older versions are brought up to date. If you had deleted any of them, delete them again"
                    ));
                }
                // What this machine's last commits leave has been compared, or is of another moment as well.
                return self.index.end_copies(COPIED);
            }
            differ += rows.len();
            // An id that was meant for a path would make it known again.
            let meant = { self.pending_ids.iter() }
                .filter(|(_, id)| rows.contains_key(id))
                .map(|(path, _)| path.clone())
                .collect();
            self.record(rows.into_iter().collect(), meant)?;
        }
        Err(super::unfinished())
    }

    /// Rows that say something else than the folder, and what they become.
    fn rows_not_borne_out(&self, local: &Local, missing: Vec<NodeId>) -> Result<Rows, ClientError> {
        let mut rows = Rows::new();
        let mut dropped: BTreeSet<NodeId> = missing.into_iter().collect();
        // Of all nodes; read only where something differs.
        let mut ever: Option<HashSet<ContentHash>> = None;
        for (id, here) in &local.nodes {
            let Some(row) = { self.ancestor.get(*id) }.filter(|row| !row.not_here) else {
                continue;
            };
            let is_place = (here.parent, &here.name) == (row.node.parent, &row.node.name);
            let Some((body, mtime_ns, inode)) = found(&here.state, row) else {
                // What cannot be seen may be anything.
                dropped.insert(*id);
                continue;
            };
            let is_time = mtime_ns.is_none_or(|time| time == row.node.mtime_ns);
            if is_place && is_time && body == row.node.body {
                continue;
            }
            let versions = self.versions_of(*id)?;
            let of_version = |is_time: bool| {
                let is_it = |(put, _): &&(Put, OpHash)| {
                    let node = put.node();
                    (node.parent, &node.name) == (here.parent, &here.name)
                        && node.body == body
                        && !(is_time && mtime_ns.is_some_and(|time| time != node.mtime_ns))
                };
                versions.iter().flatten().find(is_it)
            };
            let version = match is_place && body == row.node.body {
                true => of_version(true),
                false => of_version(true).or_else(|| of_version(false)),
            };
            if let Some((put, op_hash)) = version {
                if *op_hash != row.op_hash {
                    let row = AncestorNode {
                        node: put.node(),
                        op_hash: *op_hash,
                        fingerprint: None,
                        inode,
                        not_here: false,
                    };
                    rows.insert(*id, Some(row));
                }
                continue;
            }
            let is_content = content(&body) == content(&row.node.body);
            let was_known = match (is_content, content(&body)) {
                (true, _) => false,
                // A version whose content is no longer kept may be this one.
                _ if versions.iter().any(Option::is_none) => true,
                (false, Some(hash)) => {
                    let all = match ever.take() {
                        Some(all) => all,
                        None => self.contents_ever()?,
                    };
                    let is_known = all.contains(&hash);
                    ever = Some(all);
                    is_known
                }
                (false, None) => {
                    { versions.iter().flatten() }.any(|(put, _)| put.node().body == body)
                }
            };
            // Whatever nobody has seen before is somebody's edit.
            if !is_place || was_known {
                dropped.insert(*id);
            }
        }
        // Nothing is agreed on what hangs in a directory that is not.
        for (id, row) in self.ancestor.iter().filter(|(_, row)| !row.not_here) {
            let to = rows.get(&id).and_then(Option::as_ref);
            let mut at = to.unwrap_or(row).node.parent;
            let mut left = self.ancestor.len();
            while at != NodeId::ROOT && left > 0 && !dropped.contains(&at) {
                left -= 1;
                at = match self.ancestor.get(at) {
                    Some(above) => above.node.parent,
                    None => NodeId::ROOT,
                };
            }
            if at != NodeId::ROOT {
                dropped.insert(id);
            }
        }
        rows.extend(dropped.into_iter().map(|id| (id, None)));
        Ok(rows)
    }

    /// The PUTs of a node, newest first; none in the place of what can no longer be read.
    fn versions_of(&self, node: NodeId) -> Result<Vec<Option<(Put, OpHash)>>, ClientError> {
        let versions = self.index.versions(node)?.into_iter();
        let puts = versions.filter(|version| version.kind == OpKind::Put);
        let parsed = puts.map(|version| {
            let put = Put::parse(&version.put?, node).ok()?;
            Some((put, version.op_hash))
        });
        Ok(parsed.collect())
    }

    /// What any file of the vault ever held.
    fn contents_ever(&self) -> Result<HashSet<ContentHash>, ClientError> {
        let puts = self.index.puts()?.into_iter();
        let hash =
            |(node, _, bytes): (NodeId, u64, Vec<u8>)| match Put::parse(&bytes, node).ok()?.body {
                PutBody::File(file) => Some(file.hash),
                PutBody::Directory | PutBody::Symlink { .. } => None,
            };
        Ok(puts.filter_map(hash).collect())
    }
}

/// What stands there: content, time where it has one that counts, number. None if that cannot be seen.
fn found(state: &LocalState, row: &AncestorNode) -> Option<(Body, Option<i64>, u64)> {
    Some(match state {
        LocalState::Same => (row.node.body.clone(), None, super::number_of(row)),
        LocalState::File {
            hash,
            size,
            exec,
            mtime_ns,
            fingerprint,
        } => {
            let body = Body::File {
                hash: (*hash)?,
                size: *size,
                exec: *exec,
            };
            (body, Some(*mtime_ns), fingerprint.inode)
        }
        LocalState::Directory { inode, .. } => (Body::Directory, None, *inode),
        LocalState::Symlink {
            target,
            fingerprint,
        } => {
            let body = Body::Symlink {
                target: target.clone(),
            };
            (body, None, fingerprint.inode)
        }
        LocalState::Unknown => return None,
    })
}

fn content(body: &Body) -> Option<ContentHash> {
    match body {
        Body::File { hash, .. } => Some(*hash),
        Body::Directory | Body::Symlink { .. } => None,
    }
}
