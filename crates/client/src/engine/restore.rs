//! Brings back what was: a version of a file, or a thing from the trash. Moves no content.
//!
//! A restore is a PUT of an old state: the chunks are still there. What stands in the old place is never
//! overwritten without being told so, and stays a version when it is. A directory comes back from the trash with all that
//! lies there below it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncagent_protocol::commit::MAX_OPS;
use syncagent_protocol::{Body, Code, Name, NodeId, TreePath};
use syncagent_sync::{LastOp, restored_name};
use syncagent_vault::op::{Draft, Put, PutBody};

use super::Engine;
use super::below::{Below, Left};
use crate::error::ClientError;
use crate::index::{OpKind, Version};
use crate::remote::Posted;

/// A commit is not made longer than this, unless one thing alone is.
const COMMIT_LEN: usize = 4 * 1024 * 1024;
const GONE: &str = "its content is no longer on the server";

/// What is to be brought back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    /// A path, or a node id of 32 hexadecimal digits. A directory may end in a slash.
    pub what: String,
    /// Position of the version; none: the last one before the trash.
    pub version: Option<u64>,
    /// What to do if something stands in the place.
    pub occupied: Occupied,
}

/// What to do if something stands in the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occupied {
    /// Say so and do nothing.
    Refuse,
    /// Bring it back under another name.
    KeepBoth,
    /// Put the present one into the trash; it stays in the history.
    Replace,
}

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Where it is now.
    pub path: String,
    /// Where it was until now, if it lived under another path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Position of the version.
    pub version: u64,
    /// Position of the commit that brought it back, or the last of it.
    pub n: u64,
    /// Of a directory from the trash: how many things came back that were in it.
    #[serde(default)]
    pub below: u64,
    /// What was in it and stays in the trash.
    #[serde(default)]
    pub left: Vec<Left>,
    /// How many things stay there because something of the same name was deleted after them.
    #[serde(default)]
    pub older: u64,
}

/// What a restore comes to.
pub(super) struct Planned {
    drafts: Vec<Draft>,
    node: NodeId,
    /// Position of the version.
    pub(super) version: u64,
    /// Where it will be.
    pub(super) path: TreePath,
    /// Where it is, if it lives under another path.
    pub(super) from: Option<TreePath>,
    /// Directories that are put again for it.
    pub(super) made: Vec<TreePath>,
    /// What makes room for it.
    pub(super) trashed: Vec<TreePath>,
    /// What comes back with it.
    pub(super) below: Below,
}

impl Planned {
    /// The next commit, and how much of what is below is in it.
    fn next_commit(&mut self) -> Result<(Vec<Draft>, usize), ClientError> {
        let mut drafts = std::mem::take(&mut self.drafts);
        let mut len: usize = drafts.iter().map(Draft::sealed_len).sum();
        let mut n = 0;
        for back in &self.below.back {
            let draft = Draft::put(back.node, &back.put)?;
            len += draft.sealed_len();
            if !drafts.is_empty() && (drafts.len() >= MAX_OPS || len > COMMIT_LEN) {
                break;
            }
            drafts.push(draft);
            n += 1;
        }
        Ok((drafts, n))
    }
}

impl Engine {
    /// Brings back a version or a thing from the trash, in one commit together with the directories it needs. A directory
    /// from the trash brings what was in it: in the same commit, and in further ones if it is more than one can hold.
    pub async fn restore(&mut self, restore: &Restore) -> Result<Restored, ClientError> {
        let mut restored: Option<(NodeId, Restored)> = None;
        // What was told of already, or cannot come back.
        let (mut not, mut lost) = (BTreeSet::new(), Vec::new());
        let mut refused = 0;
        while refused < super::MAX_ROUNDS {
            self.pull().await?;
            self.post_own_affairs().await?;
            let mut planned = match &restored {
                None => self.plan_restore(restore, &not)?,
                Some((node, _)) if !self.is_living_directory(*node) => {
                    return Err(ClientError::Busy(
                        "another machine has deleted the directory again while it was restored: it is in the trash with all that was in it".into(),
                    ));
                }
                Some((node, _)) => self.plan_rest(*node, restore.occupied, &not)?,
            };
            let (drafts, n) = planned.next_commit()?;
            let all = planned.below.back.len();
            let posted = match drafts.is_empty() {
                true => Posted::Accepted,
                false => {
                    let sealed = self.seal(drafts, |_| Vec::new())?;
                    self.post_order(&sealed).await?
                }
            };
            match posted {
                Posted::Accepted => {
                    refused = 0;
                    let path = self.placed.tree.path_of(planned.node).unwrap_or_default();
                    let (_, restored) = restored.get_or_insert_with(|| {
                        let restored = Restored {
                            path: path.as_str().to_owned(),
                            from: planned.from.map(|from| from.as_str().to_owned()),
                            version: planned.version,
                            n: 0,
                            below: 0,
                            left: Vec::new(),
                            older: 0,
                        };
                        (planned.node, restored)
                    });
                    restored.n = self.head.n;
                    restored.below += n as u64;
                    restored.older += planned.below.older.len() as u64;
                    not.extend(planned.below.older);
                    for (node, left) in planned.below.left {
                        not.insert(node);
                        restored.left.push(left);
                    }
                    if n == all {
                        restored.left.append(&mut lost);
                        restored.left.sort_by(|a, b| a.path.cmp(&b.path));
                        return Ok(restored.clone());
                    }
                }
                Posted::Conflict(_) => refused += 1,
                Posted::Missing(chunks) => {
                    let chunks: BTreeSet<_> = chunks.into_iter().collect();
                    let before = lost.len();
                    for back in &planned.below.back[..n] {
                        let refs = back.put.refs();
                        // What lies below lists is asked for file by file.
                        let is_lacking = refs.iter().any(|chunk| chunks.contains(chunk))
                            || back.put.has_lists() && !self.remote.missing(refs).await?.is_empty();
                        if is_lacking {
                            not.insert(back.node);
                            lost.push(Left {
                                path: back.path.as_str().to_owned(),
                                code: Code::Missing,
                                message: GONE.into(),
                            });
                        }
                    }
                    if lost.len() == before {
                        // What came back before is back.
                        return match restored {
                            Some((_, mut restored)) => {
                                restored.left.append(&mut lost);
                                restored.left.push(Left {
                                    path: restore.what.clone(),
                                    code: Code::Missing,
                                    message: GONE.into(),
                                });
                                Ok(restored)
                            }
                            None => Err(not_found(&restore.what, GONE)),
                        };
                    }
                }
            }
        }
        Err(ClientError::Busy(
            "other machines are writing all the time: try again".into(),
        ))
    }

    pub(super) fn plan_restore(
        &self,
        restore: &Restore,
        not: &BTreeSet<NodeId>,
    ) -> Result<Planned, ClientError> {
        let what = restore.what.trim_end_matches('/');
        let (node, version) = match self.find_version(what, restore.version) {
            Ok(found) => found,
            // The directory is there again, and there is more of what was in it.
            Err(error) => return self.plan_more(what, restore, not)?.ok_or(error),
        };
        let mut put = parse_put(node, &version)?;
        let (mut drafts, mut made) = (Vec::new(), Vec::new());
        let (parent, above) = self.bring_parents(put.parent, &mut drafts, &mut made)?;
        let mut trashed = Vec::new();
        let occupant = self
            .placed
            .tree
            .child(parent, &put.name)
            .filter(|present| *present != node);
        match (occupant, restore.occupied) {
            (None, _) => {}
            (Some(_), Occupied::Refuse) => {
                return Err(ClientError::File {
                    path: TreePath::parse(what).unwrap_or_default(),
                    code: Code::Conflict,
                    message: "something else stands in its place: --keep-both brings it back under another name, --replace puts the present one into the trash".into(),
                });
            }
            (Some(_), Occupied::KeepBoth) => {
                let taken = |name: &Name| self.placed.tree.child(parent, name).is_some();
                put.name = restored_name(&put.name, super::utc(&*self.clock), taken);
            }
            (Some(present), Occupied::Replace) => {
                trashed.push(above.join(&put.name));
                drafts.extend(self.trash_tree(present));
            }
        }
        let path = above.join(&put.name);
        put.parent = parent;
        put.based_on = self.log.get(node).map(|entry| entry.op_hash);
        drafts.push(Draft::put(node, &put)?);
        if drafts.len() > MAX_OPS {
            return Err(ClientError::File {
                path: trashed.first().unwrap_or(&path).clone(),
                code: Code::Conflict,
                message: "it holds more than one commit can put into the trash: move it away or delete it first, or bring back the other beside it with --keep-both".into(),
            });
        }
        let below = match (&put.body, restore.version) {
            (PutBody::Directory, None) => self.below(node, &path, restore.occupied, not)?,
            _ => Below::default(),
        };
        let from = self.placed.tree.path_of(node).filter(|from| *from != path);
        Ok(Planned {
            drafts,
            node,
            version: version.n,
            path,
            from,
            made,
            trashed,
            below,
        })
    }

    /// What is in the trash of a directory that lives; none if that is nothing.
    fn plan_more(
        &self,
        what: &str,
        restore: &Restore,
        not: &BTreeSet<NodeId>,
    ) -> Result<Option<Planned>, ClientError> {
        let by_path = TreePath::parse(what).ok();
        let by_path = by_path.and_then(|path| self.placed.tree.at(&path));
        let node = by_path.or_else(|| what.parse().ok());
        let Some(node) = node.filter(|_| restore.version.is_none()) else {
            return Ok(None);
        };
        if self.placed.tree.get(node).map(|found| &found.body) != Some(&Body::Directory) {
            return Ok(None);
        }
        let planned = self.plan_rest(node, restore.occupied, not)?;
        let Below { back, left, .. } = &planned.below;
        Ok((!back.is_empty() || !left.is_empty()).then_some(planned))
    }

    /// What is still to come back into a directory that lives.
    fn plan_rest(
        &self,
        node: NodeId,
        occupied: Occupied,
        not: &BTreeSet<NodeId>,
    ) -> Result<Planned, ClientError> {
        let path = self.placed.tree.path_of(node).unwrap_or_default();
        let versions = self.index.versions(node)?;
        Ok(Planned {
            drafts: Vec::new(),
            node,
            version: versions.first().map_or(0, |version| version.n),
            below: self.below(node, &path, occupied, not)?,
            path,
            from: None,
            made: Vec::new(),
            trashed: Vec::new(),
        })
    }

    /// The version meant: of a living file by position, of a thing in the trash its last one. A name may look like an id:
    /// what is at a path, or was, goes before what has that id.
    fn find_version(
        &self,
        what: &str,
        wanted: Option<u64>,
    ) -> Result<(NodeId, Version), ClientError> {
        let by_id = what.parse::<NodeId>().ok();
        let by_path = TreePath::parse(what)
            .ok()
            .and_then(|path| self.placed.tree.at(&path));
        let version_of = |node, n| -> Result<Option<Version>, ClientError> {
            let versions = self.index.versions(node)?;
            Ok(versions.into_iter().find(|version| version.n == n))
        };
        // What the path is, then what it was, whatever has it now, then the id.
        if let (Some(node), Some(n)) = (by_path, wanted)
            && let Some(version) = version_of(node, n)?
        {
            return Ok((node, version));
        }
        let mut of_id = None;
        for (node, trashed_n, version) in self.index.trash()? {
            let is_path = self.trashed_path(node, &version) == what;
            if !is_path && by_id != Some(node) {
                continue;
            }
            let found = match wanted {
                Some(n) if n != trashed_n => version_of(node, n)?,
                _ => Some(version),
            };
            match found {
                Some(version) if is_path => return Ok((node, version)),
                found => of_id = of_id.or(found.map(|version| (node, version))),
            }
        }
        if let (Some(node), Some(n), None) = (by_id, wanted, &of_id) {
            of_id = version_of(node, n)?.map(|version| (node, version));
        }
        let why = match by_path.or(by_id).and(wanted) {
            Some(_) => "it has no such version; `syncagent versions` lists them",
            None => "it is neither in the trash nor has it a version that was named with --version",
        };
        of_id.ok_or_else(|| not_found(what, why))
    }

    /// Where a thing in the trash was.
    pub fn trashed_path(&self, node: NodeId, version: &Version) -> String {
        let Ok(put) = parse_put(node, version) else {
            return node.to_string();
        };
        let mut names = vec![put.name.as_str().to_owned()];
        let mut parent = put.parent;
        // A chain longer than any real one is a loop in the history.
        for _ in 0..1000 {
            if parent == NodeId::ROOT {
                break;
            }
            if let Some(path) = self.placed.tree.path_of(parent) {
                names.push(path.as_str().to_owned());
                break;
            }
            let Some(above) = self.last_put(parent) else {
                break;
            };
            names.push(above.name.as_str().to_owned());
            parent = above.parent;
        }
        names.reverse();
        names.join("/")
    }

    fn last_put(&self, node: NodeId) -> Option<Put> {
        let versions = self.index.versions(node).ok()?;
        versions
            .iter()
            .find_map(|version| parse_put(node, version).ok())
    }

    /// The directory to hang it in, and its path. Missing ones are put again (`made`), unless a living one of the same
    /// path is there.
    fn bring_parents(
        &self,
        wanted: NodeId,
        drafts: &mut Vec<Draft>,
        made: &mut Vec<TreePath>,
    ) -> Result<(NodeId, TreePath), ClientError> {
        let path_of = |node| self.placed.tree.path_of(node).unwrap_or_default();
        // Somebody may have made a file of it since.
        let is_directory = |node: NodeId| {
            let found = self.placed.tree.get(node);
            node == NodeId::ROOT || found.is_some_and(|found| found.body == Body::Directory)
        };
        if is_directory(wanted) {
            return Ok((wanted, path_of(wanted)));
        }
        let mut chain = Vec::new();
        let mut at = wanted;
        while !is_directory(at) && chain.len() < 1000 {
            match self.last_put(at) {
                Some(put) if matches!(put.body, PutBody::Directory) => {
                    let above = put.parent;
                    chain.push((at, put));
                    at = above;
                }
                // Nothing is known of it: at worst it goes into the root.
                _ => {
                    at = NodeId::ROOT;
                    break;
                }
            }
        }
        if !is_directory(at) {
            // Deeper than one commit reaches.
            chain.clear();
            at = NodeId::ROOT;
        }
        let mut parent = at;
        let mut path = path_of(at);
        let mut alive = true;
        for (node, mut put) in chain.into_iter().rev() {
            let present = self.placed.tree.child(parent, &put.name).filter(|_| alive);
            if let Some(present) = present
                && let Some(LastOp::Put(found)) = self.log.get(present).map(|entry| &entry.op)
                && found.body == Body::Directory
            {
                parent = present;
                path = path.join(&put.name);
                continue;
            }
            if present.is_some() {
                let tree = &self.placed.tree;
                put.name = restored_name(&put.name, super::utc(&*self.clock), |name| {
                    tree.child(parent, name).is_some()
                });
            }
            alive = false;
            put.parent = parent;
            drafts.push(Draft::put(node, &put)?);
            parent = node;
            path = path.join(&put.name);
            made.push(path.clone());
        }
        Ok((parent, path))
    }

    fn trash_tree(&self, node: NodeId) -> Vec<Draft> {
        let below = self
            .placed
            .tree
            .walk(node)
            .into_iter()
            .map(|(_, id)| Draft::trash(id));
        std::iter::once(Draft::trash(node)).chain(below).collect()
    }
}

pub(super) fn parse_put(node: NodeId, version: &Version) -> Result<Put, ClientError> {
    match (&version.put, version.kind) {
        (Some(bytes), OpKind::Put) => Ok(Put::parse(bytes, node)?),
        _ => Err(not_found(
            &node.to_string(),
            "the server no longer keeps that version",
        )),
    }
}

fn not_found(what: &str, why: &str) -> ClientError {
    ClientError::File {
        path: TreePath::parse(what).unwrap_or_default(),
        code: Code::NotFound,
        message: why.to_owned(),
    }
}
