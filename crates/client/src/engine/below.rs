//! What comes back together with a directory: all that lies in the trash below it.
//!
//! Nothing is overwritten, and nothing that lives is moved: what has no free name stays in the trash, and is told of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use syncagent_protocol::{Body, Code, Name, NodeId, TreePath};
use syncagent_sync::{LastOp, restored_name};
use syncagent_vault::op::{Put, PutBody};

use super::restore::{Occupied, parse_put};
use super::{Engine, utc};
use crate::error::ClientError;

/// Something that was in a directory and stays in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Where it was.
    pub path: String,
    /// `E_CONFLICT`: something else has its name; `E_MISSING`: its content is gone.
    pub code: Code,
    /// Why, and what can be done.
    pub message: String,
}

/// Something that comes back.
pub(super) struct Back {
    pub(super) node: NodeId,
    pub(super) put: Put,
    pub(super) path: TreePath,
}

/// All that comes back with a directory, directories before what is in them.
#[derive(Default)]
pub(super) struct Below {
    pub(super) back: Vec<Back>,
    pub(super) left: Vec<(NodeId, Left)>,
    /// What stays because something of the same name was deleted after it, and comes back.
    pub(super) older: BTreeSet<NodeId>,
}

/// What lies in the trash, by the directory it was in; what was deleted last comes first.
type Trashed = BTreeMap<NodeId, Vec<(NodeId, Put)>>;

/// A directory whose content is to come back.
struct Pending {
    /// As it was called when its content went.
    was: NodeId,
    /// As it is called now: another one may have its place.
    is: NodeId,
    path: TreePath,
}

impl Engine {
    /// What comes back into `dir`, which hangs or will hang at `path`. Without what is in `not`.
    pub(super) fn below(
        &self,
        dir: NodeId,
        path: &TreePath,
        occupied: Occupied,
        not: &BTreeSet<NodeId>,
    ) -> Result<Below, ClientError> {
        let mut trashed = self.trashed()?;
        let held = self.names_held();
        let mut below = Below::default();
        // The names that come back, by the directory they come into.
        let mut given: BTreeMap<(NodeId, Name), (NodeId, bool)> = BTreeMap::new();
        let mut pending = vec![Pending {
            was: dir,
            is: dir,
            path: path.clone(),
        }];
        while let Some(Pending { was, is, path }) = pending.pop() {
            // What lives in it may lack something, too.
            if was == is {
                let living = self.placed.tree.children(is);
                let dirs = living.filter(|(_, child)| self.is_living_directory(*child));
                pending.extend(dirs.map(|(name, child)| Pending {
                    was: child,
                    is: child,
                    path: path.join(name),
                }));
            }
            // Taken out: a circle in the history ends here.
            for (node, mut put) in trashed.remove(&was).unwrap_or_default() {
                if not.contains(&node) {
                    continue;
                }
                let is_dir = matches!(put.body, PutBody::Directory);
                let wanted = path.join(&put.name);
                let into = |is| Pending {
                    was: node,
                    is,
                    path: wanted.clone(),
                };
                match given.get(&(is, put.name.clone())) {
                    Some((later, true)) if is_dir => {
                        pending.push(into(*later));
                        continue;
                    }
                    Some(_) => {
                        below.older.insert(node);
                        continue;
                    }
                    None => {}
                }
                let living = self.placed.tree.child(is, &put.name);
                if let Some(living) = living
                    && is_dir
                    && self.is_living_directory(living)
                {
                    pending.push(into(living));
                    continue;
                }
                let is_held = |name: &Name| held.contains(&(is, name.clone()));
                if living.is_some() || is_held(&put.name) {
                    if occupied != Occupied::KeepBoth {
                        let left = Left {
                            path: wanted.as_str().to_owned(),
                            code: Code::Conflict,
                            message: "something else has its name, so it stays in the trash: --keep-both brings it back under another name".into(),
                        };
                        below.left.push((node, left));
                        continue;
                    }
                    put.name = restored_name(&put.name, utc(&*self.clock), |name| {
                        self.placed.tree.child(is, name).is_some()
                            || is_held(name)
                            || given.contains_key(&(is, name.clone()))
                    });
                }
                let path = path.join(&put.name);
                given.insert((is, put.name.clone()), (node, is_dir));
                if is_dir {
                    pending.push(Pending {
                        was: node,
                        is: node,
                        path: path.clone(),
                    });
                }
                put.parent = is;
                put.based_on = self.log.get(node).map(|entry| entry.op_hash);
                below.back.push(Back { node, put, path });
            }
        }
        Ok(below)
    }

    pub(super) fn is_living_directory(&self, node: NodeId) -> bool {
        let found = self.placed.tree.get(node);
        found.is_some_and(|found| found.body == Body::Directory)
    }

    fn trashed(&self) -> Result<Trashed, ClientError> {
        let mut trashed = Trashed::new();
        for (node, _, version) in self.index.trash()? {
            // What cannot be read any more was nowhere.
            if let Ok(put) = parse_put(node, &version) {
                trashed.entry(put.parent).or_default().push((node, put));
            }
        }
        Ok(trashed)
    }

    /// Names that nodes without a place have: these come back by themselves once their directory does.
    fn names_held(&self) -> BTreeSet<(NodeId, Name)> {
        let nodes = self.placed.unplaced.keys();
        let named = nodes.filter_map(|node| match &self.log.get(*node)?.op {
            LastOp::Put(node) => Some((node.parent, node.name.clone())),
            _ => None,
        });
        named.collect()
    }
}
