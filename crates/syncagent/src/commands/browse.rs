//! `ls`, `versions` and `trash list`: what this machine has verified, read from its index. No key, no server.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use syncagent_client::index::{Index, OpKind};
use syncagent_protocol::name::shown;
use syncagent_protocol::{Body, Kind, MachineId, Node, NodeId, TreePath};
use syncagent_sync::Tree;
use syncagent_vault::op::Put;

use super::ignore::in_folder;
use crate::context::{Context, not_registered};
use crate::failure::{Failure, Result};
use crate::output::text;

/// The index of this machine; an error if it never synchronised.
pub(super) fn open_index(context: &Context) -> Result<Index> {
    let home = context.home()?;
    context.vault(&home)?;
    match home.state_path().exists() {
        true => Ok(Index::open(&home.state_path())?),
        false => Err(Failure::setup(
            "nothing was synchronised yet: run `syncagent sync` first",
        )),
    }
}

/// A path as the vault has it: of a whole path, what comes after the folder's.
pub(super) fn in_vault(context: &Context, path: &str) -> Result<String> {
    if !Path::new(path).is_absolute() {
        return Ok(path.to_owned());
    }
    let folder = context
        .config(&context.home()?)?
        .folder
        .ok_or_else(not_registered)?;
    let path = in_folder(context, &folder, path.as_ref())?;
    Ok(path.as_str().to_owned())
}

/// What hangs at a path that a person typed.
pub(super) fn find(tree: &Tree, path: &str) -> Result<(TreePath, NodeId)> {
    let parsed = TreePath::parse(path)
        .map_err(|error| Failure::usage(format!("'{path}' is no path in the vault: {error}")))?;
    match tree.at(&parsed) {
        Some(node) => Ok((parsed, node)),
        None => Err(Failure::not_found(format!(
            "there is no {parsed} in the vault: `syncagent ls` shows what there is"
        ))),
    }
}

#[derive(Serialize)]
struct Entry {
    path: TreePath,
    id: NodeId,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    modified: String,
    mtime_ns: i64,
}

impl Entry {
    fn new(path: TreePath, id: NodeId, node: &Node) -> Self {
        let (size, exec, target) = match &node.body {
            Body::File { size, exec, .. } => (Some(*size), Some(*exec), None),
            Body::Directory => (None, None, None),
            Body::Symlink { target } => (None, None, Some(target.clone())),
        };
        let modified = text::rfc3339(ms(node.mtime_ns));
        Self {
            path,
            id,
            kind: kind_word(node.body.kind()),
            size,
            exec,
            target,
            modified,
            mtime_ns: node.mtime_ns,
        }
    }

    fn row(&self) -> Vec<String> {
        let size = self.size.map_or_else(String::new, text::size);
        let path = match (self.kind, &self.target) {
            ("directory", _) => format!("{}/", self.path),
            (_, Some(target)) => format!("{} -> {}", self.path, target.escape_debug()),
            _ => self.path.to_string(),
        };
        vec![text::time(ms(self.mtime_ns)), size, path]
    }
}

fn ms(ns: i64) -> u64 {
    u64::try_from(ns / 1_000_000).unwrap_or(0)
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
    }
}

pub(super) fn ls(context: &Context, path: &str, recursive: bool) -> Result {
    #[derive(Serialize)]
    struct Answer {
        head: u64,
        entries: Vec<Entry>,
        /// Nodes that hang nowhere, by id.
        unplaced: Vec<NodeId>,
    }
    let index = open_index(context)?;
    let (log, _) = index.load()?;
    let placed = log.placed();
    let (path, node) = find(&placed.tree, &in_vault(context, path)?)?;
    let entry = |(path, id): (TreePath, NodeId)| Some(Entry::new(path, id, placed.tree.get(id)?));
    let is_directory = node == NodeId::ROOT
        || placed
            .tree
            .get(node)
            .is_some_and(|node| node.body.kind() == Kind::Directory);
    let entries: Vec<Entry> = match (is_directory, recursive) {
        (false, _) => entry((path, node)).into_iter().collect(),
        (true, true) => placed
            .tree
            .walk(node)
            .into_iter()
            .filter_map(entry)
            .collect(),
        (true, false) => placed
            .tree
            .children(node)
            .filter_map(|(name, id)| entry((path.join(name), id)))
            .collect(),
    };
    let answer = Answer {
        head: log.head(),
        entries,
        unplaced: placed.unplaced.into_keys().collect(),
    };
    context.output.result(&answer, || {
        text::table(&answer.entries.iter().map(Entry::row).collect::<Vec<_>>())
    })?;
    if !answer.unplaced.is_empty() {
        let n = text::count(answer.unplaced.len() as u64, "thing");
        context.output.remark(&format!(
            "{n} in the vault cannot be placed; `syncagent status` says why."
        ));
    }
    Ok(())
}

/// Names of machines by id.
pub(super) fn machine_names(index: &Index) -> Result<BTreeMap<MachineId, String>> {
    Ok(index
        .machines()?
        .into_iter()
        .map(|machine| (machine.id, shown(&machine.add.name, 255)))
        .collect())
}

pub(super) fn name_of(names: &BTreeMap<MachineId, String>, id: MachineId) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

pub(super) fn versions(context: &Context, path: &str) -> Result {
    #[derive(Serialize)]
    struct Row {
        /// What `restore --version` takes: the position in the vault's history.
        version: u64,
        action: &'static str,
        path: Option<String>,
        size: Option<u64>,
        machine: String,
        time: String,
        time_ms: u64,
        /// Whether it can be brought back.
        available: bool,
    }
    #[derive(Serialize)]
    struct Answer {
        path: TreePath,
        id: NodeId,
        versions: Vec<Row>,
    }
    let index = open_index(context)?;
    let (log, _) = index.load()?;
    let (path, id) = find(&log.placed().tree, &in_vault(context, path)?)?;
    let names = machine_names(&index)?;
    let mut versions = Vec::new();
    for version in index.versions(id)? {
        let put = version
            .put
            .as_deref()
            .and_then(|bytes| Put::parse(bytes, id).ok());
        let node = put.map(|put| put.node());
        versions.push(Row {
            version: version.n,
            action: match version.kind {
                OpKind::Put => "put",
                OpKind::Trash => "trash",
                OpKind::Purge => "purge",
                OpKind::Unreadable => "unreadable",
            },
            path: node
                .as_ref()
                .map(|node| last_path(&index, node))
                .transpose()?
                .map(|path| path.as_str().to_owned()),
            size: node.as_ref().and_then(|node| match node.body {
                Body::File { size, .. } => Some(size),
                _ => None,
            }),
            machine: name_of(&names, version.machine),
            time: text::rfc3339(version.time_ms),
            time_ms: version.time_ms,
            available: node.is_some(),
        });
    }
    let answer = Answer { path, id, versions };
    context.output.result(&answer, || {
        let mut rows = vec![
            ["VERSION", "TIME", "MACHINE", "SIZE", "PATH"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(answer.versions.iter().map(|row| {
            let path = row
                .path
                .as_deref()
                .map_or_else(|| format!("({})", row.action), text::shown);
            let size = row.size.map_or_else(String::new, text::size);
            vec![
                row.version.to_string(),
                text::time(row.time_ms),
                row.machine.clone(),
                size,
                path,
            ]
        }));
        text::table(&rows)
    })
}

/// Where a node hung by the last word on each of its parents, deleted ones included.
fn last_path(index: &Index, node: &Node) -> Result<TreePath> {
    let mut names = vec![node.name.clone()];
    let mut parent = node.parent;
    // Deeper than any path that can be written, or a circle.
    for _ in 0..4096 {
        if parent == NodeId::ROOT {
            break;
        }
        let versions = index.versions(parent)?;
        let put = versions
            .iter()
            .find_map(|version| Put::parse(version.put.as_deref()?, parent).ok());
        let Some(put) = put else { break };
        names.push(put.name.clone());
        parent = put.parent;
    }
    Ok(names
        .iter()
        .rev()
        .fold(TreePath::ROOT, |path, name| path.join(name)))
}

/// Something in the trash.
#[derive(Serialize)]
pub(super) struct Trashed {
    pub(super) path: TreePath,
    pub(super) id: NodeId,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    machine: String,
    deleted: String,
    deleted_ms: u64,
    /// Position of the commit that deleted it.
    n: u64,
}

/// What is in the trash, newest first.
pub(super) fn trashed(index: &Index) -> Result<Vec<Trashed>> {
    let names = machine_names(index)?;
    let mut rows = Vec::new();
    for (id, n, version) in index.trash()? {
        let Some(put) = version
            .put
            .as_deref()
            .and_then(|bytes| Put::parse(bytes, id).ok())
        else {
            continue;
        };
        let node = put.node();
        rows.push(Trashed {
            path: last_path(index, &node)?,
            id,
            kind: kind_word(node.body.kind()),
            size: match node.body {
                Body::File { size, .. } => Some(size),
                _ => None,
            },
            machine: name_of(&names, version.machine),
            deleted: text::rfc3339(version.time_ms),
            deleted_ms: version.time_ms,
            n,
        });
    }
    Ok(rows)
}

pub(super) fn trash(context: &Context) -> Result {
    #[derive(Serialize)]
    struct Answer {
        trash: Vec<Trashed>,
    }
    let answer = Answer {
        trash: trashed(&open_index(context)?)?,
    };
    context
        .output
        .result(&answer, || match answer.trash.is_empty() {
            true => "the trash is empty".to_owned(),
            false => {
                let rows = answer.trash.iter().map(|row| {
                    let size = row.size.map_or_else(String::new, text::size);
                    let slash = if row.kind == "directory" { "/" } else { "" };
                    vec![
                        text::time(row.deleted_ms),
                        row.machine.clone(),
                        size,
                        format!("{}{slash}", row.path),
                    ]
                });
                text::table(&rows.collect::<Vec<_>>())
            }
        })
}
