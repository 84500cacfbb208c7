//! The rows of the ancestor: what they say, and when they may say it.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Body, Kind, NodeId, OpHash, TreePath};
use syncagent_sync::scan::{Fingerprint, Observed};
use syncagent_sync::{AncestorNode, Local, LocalState, Plan, Record};

use super::{Engine, file_error};
use crate::error::ClientError;

/// What the disk says of a node after its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// A file or link that looks like this for as long as nobody touches it.
    Print(Fingerprint),
    /// The number of a directory, or of a file or link whose looks must not be trusted; 0 if not even that is known.
    Inode(u64),
}

impl Mark {
    pub(super) fn new(trusted: Option<Fingerprint>, inode: u64) -> Self {
        trusted.map_or(Self::Inode(inode), Self::Print)
    }
}

impl Engine {
    /// Writes what is agreed without a change on either side, and drops what must go first. What hangs in a directory
    /// that goes by another id follows it in the same transaction.
    pub(super) fn write_rows(&mut self, plan: &Plan, local: &Local) -> Result<(), ClientError> {
        let mut rows: Vec<(NodeId, Option<AncestorNode>)> =
            plan.forget.iter().map(|id| (*id, None)).collect();
        let mut settled = Vec::new();
        let is_found = |id: &&NodeId| {
            local
                .nodes
                .get(*id)
                .is_none_or(|node| !matches!(node.state, LocalState::Same | LocalState::Unknown))
        };
        let unflushed = self.make_durable(
            plan,
            local,
            plan.agreed
                .iter()
                .filter(is_found)
                .chain(&plan.forget)
                .copied(),
        )?;
        self.note_who_leaves(plan)?;
        for id in plan.agreed.iter().filter(|id| !unflushed.contains(id)) {
            let Some(record) = plan.records.get(id) else {
                continue;
            };
            let Some(op_hash) = record.op_hash else {
                continue;
            };
            let mark = self.mark_of(*id, local, record);
            rows.push((*id, Some(row(record, op_hash, mark))));
            settled.push(record.path.clone());
        }
        rows.extend(plan.reparented.iter().filter_map(|(id, parent)| {
            let row = self.ancestor.get(*id)?;
            Some((*id, Some(row.in_directory(*parent))))
        }));
        self.record(rows, settled)
    }

    /// What other programs did lasts before the index or the log says that it is so. Else a power cut could take a
    /// file back whose row stays, and its absence would be sent as a deletion. Returns the nodes whose files refuse it.
    pub(super) fn make_durable(
        &mut self,
        plan: &Plan,
        local: &Local,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Result<BTreeSet<NodeId>, ClientError> {
        let (mut files, mut dirs) = (BTreeMap::new(), BTreeSet::new());
        for id in nodes {
            let record = plan.records.get(&id);
            // One that was new on disk and is the vault's stands in `local` under the id it had until now.
            let is_file = match local.nodes.get(&id) {
                Some(node) => matches!(node.state, LocalState::File { .. }),
                None => record.is_some_and(|record| record.node.body.kind() == Kind::File),
            };
            let path = record.map(|record| record.path.clone());
            let places = [path.clone(), local.path_of(id), self.ancestor_path(id)];
            dirs.extend(places.iter().flatten().filter_map(TreePath::parent));
            files.extend(path.filter(|_| is_file).map(|path| (path, id)));
        }
        let paths: Vec<TreePath> = files.keys().cloned().collect();
        let refused = self.flush(&paths, &dirs)?;
        Ok({ refused.iter() }
            .filter_map(|path| files.get(path).copied())
            .collect())
    }

    /// Makes durable what stands there. Files that refuse it fail, and are returned: no row may say that they last.
    pub(super) fn flush(
        &mut self,
        files: &[TreePath],
        dirs: &BTreeSet<TreePath>,
    ) -> Result<BTreeSet<TreePath>, ClientError> {
        let refused = { self.folder.sync_found(files, dirs) }
            .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
        for (path, error) in &refused {
            self.fail(path, error.code(), error);
        }
        Ok(refused.into_iter().map(|(path, _)| path).collect())
    }

    /// Where disk and vault last agreed that a node hangs.
    pub(super) fn ancestor_path(&self, node: NodeId) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            let row = self
                .ancestor
                .get(at)
                .filter(|_| names.len() < self.ancestor.len())?;
            names.push(row.node.name.clone());
            at = row.node.parent;
        }
        Some(
            names
                .iter()
                .rev()
                .fold(TreePath::ROOT, |path, name| path.join(name)),
        )
    }

    /// Writes rows to the index and to memory; the ids of what now has a row are no longer pending.
    pub(super) fn record(
        &mut self,
        rows: Vec<(NodeId, Option<AncestorNode>)>,
        settled: Vec<TreePath>,
    ) -> Result<(), ClientError> {
        self.index.record(&rows, &settled)?;
        self.remember(rows, &settled);
        Ok(())
    }

    /// Takes rows that the index holds into memory.
    pub(super) fn remember(
        &mut self,
        rows: Vec<(NodeId, Option<AncestorNode>)>,
        settled: &[TreePath],
    ) {
        for path in settled {
            self.pending_ids.remove(path);
            self.hashes.remove(path);
        }
        // An id under a path that its node has left since would one day be taken for that node.
        let known: BTreeSet<NodeId> = rows
            .iter()
            .filter(|(_, row)| row.is_some())
            .map(|(id, _)| *id)
            .collect();
        if !known.is_empty() {
            self.pending_ids.retain(|_, id| !known.contains(id));
        }
        for (id, row) in rows {
            match row {
                Some(row) => self.ancestor.insert(id, row),
                None => {
                    self.ancestor.remove(id);
                }
            }
        }
    }

    /// What the scan said of a node that no step has touched.
    pub(super) fn mark_of(&self, id: NodeId, local: &Local, record: &Record) -> Mark {
        let before = self.ancestor.get(id);
        let kept = || match before {
            Some(row) => Mark::new(row.fingerprint, row.inode),
            None => self.mark_found(record),
        };
        let Some(node) = local.nodes.get(&id) else {
            return kept();
        };
        match &node.state {
            LocalState::Same | LocalState::Unknown => kept(),
            LocalState::Directory { inode, .. } => Mark::Inode(*inode),
            LocalState::Symlink { fingerprint, .. } => Mark::Print(*fingerprint),
            LocalState::File { fingerprint, .. } => {
                let path = local.path_of(id);
                let path = path.as_ref().unwrap_or(&record.path);
                let scan = self.scan.as_ref();
                let scanned = scan.and_then(|scan| scan.entries.get(path));
                let trusted = matches!(scanned, Some(Observed::File { racy: false, .. }));
                Mark::new(trusted.then_some(*fingerprint), fingerprint.inode)
            }
        }
    }

    /// The same for what was new on disk and turned out to be a node of the vault, if it is what the plan saw.
    fn mark_found(&self, record: &Record) -> Mark {
        let scan = self.scan.as_ref();
        match (
            scan.and_then(|scan| scan.entries.get(&record.path)),
            &record.node.body,
        ) {
            (
                Some(Observed::File {
                    fingerprint, racy, ..
                }),
                Body::File { hash, size, .. },
            ) => {
                let is_it = fingerprint.size == *size
                    && (*size == 0
                        || self.hashes.get(&record.path) == Some(&(*fingerprint, *hash)));
                Mark::new((is_it && !racy).then_some(*fingerprint), fingerprint.inode)
            }
            (
                Some(Observed::Symlink {
                    fingerprint,
                    target,
                }),
                Body::Symlink { target: agreed },
            ) => Mark::new(
                (target == agreed).then_some(*fingerprint),
                fingerprint.inode,
            ),
            (Some(Observed::Directory { inode, .. }), Body::Directory) => Mark::Inode(*inode),
            _ => Mark::Inode(0),
        }
    }
}

/// The ancestor row that a record becomes.
pub(super) fn row(record: &Record, op_hash: OpHash, mark: Mark) -> AncestorNode {
    let (fingerprint, inode) = match mark {
        Mark::Print(print) => (Some(print), 0),
        Mark::Inode(inode) => (None, inode),
    };
    AncestorNode {
        node: record.node.clone(),
        op_hash,
        fingerprint,
        inode,
        not_here: false,
    }
}
