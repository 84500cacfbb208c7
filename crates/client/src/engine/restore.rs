//! Brings back what was: a version of a file, or a thing from the trash. Moves no content.
//!
//! A restore is a PUT of an old state: the chunks are still there. What stands in the old place is never
//! overwritten without being told so, and stays a version when it is.

use serde::{Deserialize, Serialize};
use syncagent_protocol::commit::MAX_OPS;
use syncagent_protocol::{Body, Code, Name, NodeId, TreePath};
use syncagent_sync::{LastOp, restored_name};
use syncagent_vault::op::{Draft, Put, PutBody};

use super::Engine;
use crate::error::ClientError;
use crate::index::{OpKind, Version};
use crate::remote::Posted;

/// What is to be brought back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    /// A path, or a node id of 32 hexadecimal digits.
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
    /// Position of the version.
    pub version: u64,
    /// Position of the commit that brought it back.
    pub n: u64,
}

/// What a restore comes to.
pub(super) struct Planned {
    drafts: Vec<Draft>,
    node: NodeId,
    /// Position of the version.
    pub(super) version: u64,
    /// Where it will be.
    pub(super) path: TreePath,
    /// Directories that are put again for it.
    pub(super) made: Vec<TreePath>,
    /// What makes room for it.
    pub(super) trashed: Vec<TreePath>,
}

impl Engine {
    /// Brings back a version or a thing from the trash, in one commit together with the directories it needs.
    pub async fn restore(&mut self, restore: &Restore) -> Result<Restored, ClientError> {
        for _ in 0..super::MAX_ROUNDS {
            self.pull().await?;
            self.post_own_affairs().await?;
            let Planned {
                drafts,
                node,
                version,
                ..
            } = self.plan_restore(restore)?;
            let sealed = self.seal(drafts, |_| Vec::new())?;
            match self.post_order(&sealed).await? {
                Posted::Accepted => {
                    let path = self.placed.tree.path_of(node).unwrap_or_default();
                    return Ok(Restored {
                        path: path.as_str().to_owned(),
                        version,
                        n: self.head.n,
                    });
                }
                Posted::Conflict(_) => {}
                Posted::Missing(_) => {
                    return Err(not_found(
                        &restore.what,
                        "its content is no longer on the server",
                    ));
                }
            }
        }
        Err(ClientError::Busy(
            "other machines are writing all the time: try again".into(),
        ))
    }

    pub(super) fn plan_restore(&self, restore: &Restore) -> Result<Planned, ClientError> {
        let (node, version) = self.find_version(restore)?;
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
                    path: TreePath::parse(&restore.what).unwrap_or_default(),
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
        Ok(Planned {
            drafts,
            node,
            version: version.n,
            path,
            made,
            trashed,
        })
    }

    /// The version meant: of a living file by position, of a thing in the trash its last one. A name may look like an id:
    /// what is at a path, or was, goes before what has that id.
    fn find_version(&self, restore: &Restore) -> Result<(NodeId, Version), ClientError> {
        let by_id = restore.what.parse::<NodeId>().ok();
        let by_path = TreePath::parse(&restore.what)
            .ok()
            .and_then(|path| self.placed.tree.at(&path));
        let version_of = |node, n| -> Result<Option<Version>, ClientError> {
            let versions = self.index.versions(node)?;
            Ok(versions.into_iter().find(|version| version.n == n))
        };
        // What the path is, then what it was, whatever has it now, then the id.
        if let (Some(node), Some(n)) = (by_path, restore.version)
            && let Some(version) = version_of(node, n)?
        {
            return Ok((node, version));
        }
        let mut of_id = None;
        for (node, trashed_n, version) in self.index.trash()? {
            let is_path = self.trashed_path(node, &version) == restore.what;
            if !is_path && by_id != Some(node) {
                continue;
            }
            let found = match restore.version {
                Some(n) if n != trashed_n => version_of(node, n)?,
                _ => Some(version),
            };
            match found {
                Some(version) if is_path => return Ok((node, version)),
                found => of_id = of_id.or(found.map(|version| (node, version))),
            }
        }
        if let (Some(node), Some(n), None) = (by_id, restore.version, &of_id) {
            of_id = version_of(node, n)?.map(|version| (node, version));
        }
        let why = match by_path.or(by_id).and(restore.version) {
            Some(_) => "it has no such version; `syncagent versions` lists them",
            None => "it is neither in the trash nor has it a version that was named with --version",
        };
        of_id.ok_or_else(|| not_found(&restore.what, why))
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

fn parse_put(node: NodeId, version: &Version) -> Result<Put, ClientError> {
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
