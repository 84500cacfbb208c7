//! Where a thing is that has left its place on disk, and where a thing was that is new there.
//!
//! The same signs as in `syncagent_sync::identify`, but for one thing at a time: its number on the disk with size and time,
//! else its content.

use std::collections::BTreeSet;

use syncagent_client::folder::disk::{At, Disk as _, EntryKind, NativeDisk, Stat};
use syncagent_protocol::{Body, NodeId, TreePath};
use syncagent_sync::AncestorNode;

use super::{World, content_is, content_of};

impl World<'_> {
    /// Where this known thing, which is not in its place, stands by now.
    pub(super) fn moved_to(&self, disk: &NativeDisk, node: NodeId) -> Option<TreePath> {
        let row = self.ancestor.get(node)?;
        let mut of_its_size = Vec::new();
        let mut dirs = vec![TreePath::ROOT];
        while let Some(dir) = dirs.pop() {
            let Ok(listing) = disk.list(&dir) else {
                continue;
            };
            for name in listing
                .entries
                .into_iter()
                .filter_map(|entry| entry.name.ok())
            {
                let path = dir.join(&name);
                let Ok(stat) = disk.stat(At::Tree(&path)) else {
                    continue;
                };
                if path.as_str() == ".syncagent" || stat.device != disk.root_device() {
                    continue;
                }
                if self.is_it(disk, node, row, &path, &stat)
                    && !self.is_another(&path, stat.inode)
                    && !self.is_ignored(&path, stat)
                {
                    return Some(path);
                }
                match stat.kind {
                    EntryKind::Directory => dirs.push(path),
                    EntryKind::File if !self.is_known(&path) && has_size(row, &stat) => {
                        of_its_size.push((path, stat));
                    }
                    _ => {}
                }
            }
        }
        let Body::File { hash, .. } = row.node.body else {
            return None;
        };
        let mut found = of_its_size.into_iter();
        let found = found
            .find(|(path, stat)| content_is(disk, path, hash.0) && !self.is_ignored(path, *stat));
        found.map(|(path, _)| path)
    }

    /// Which known thing this is, that stood elsewhere, and where.
    pub(super) fn moved_from(
        &self,
        disk: &NativeDisk,
        path: &TreePath,
        stat: &Stat,
    ) -> Option<TreePath> {
        let is_dir = stat.kind == EntryKind::Directory;
        let by_number = match stat.inode {
            0 => Vec::new(),
            inode => self.ancestor.with_inode(is_dir, inode).collect(),
        };
        for node in by_number {
            let stood_at = self.stood_at(node);
            if let (Some(row), Some(stood_at)) = (self.ancestor.get(node), stood_at)
                && stood_at != *path
                && self.is_it(disk, node, row, path, stat)
                && !self.still_stands(disk, row, &stood_at)
            {
                return Some(stood_at);
            }
        }
        if stat.kind != EntryKind::File || self.is_known(path) {
            return None;
        }
        let vanished = |node| {
            let stood_at = self.stood_at(node)?;
            disk.stat(At::Tree(&stood_at)).is_err().then_some(stood_at)
        };
        let of_its_size = self.ancestor.iter().filter(|(_, row)| has_size(row, stat));
        let of_its_size: Vec<_> = of_its_size
            .filter_map(|(node, row)| Some((row, vanished(node)?)))
            .collect();
        if of_its_size.is_empty() {
            return None;
        }
        let content = content_of(disk, path)?;
        let found = of_its_size
            .into_iter()
            .find(|(row, _)| matches!(row.node.body, Body::File { hash, .. } if hash.0 == content));
        found.map(|(_, stood_at)| stood_at)
    }

    /// Whether number, size and time are those of the known thing.
    fn is_it(
        &self,
        disk: &NativeDisk,
        node: NodeId,
        row: &AncestorNode,
        path: &TreePath,
        stat: &Stat,
    ) -> bool {
        let same_kind = matches!(
            (&row.node.body, stat.kind),
            (Body::File { .. }, EntryKind::File)
                | (Body::Directory, EntryKind::Directory)
                | (Body::Symlink { .. }, EntryKind::Symlink)
        );
        let number = row.fingerprint.map_or(row.inode, |print| print.inode);
        if !same_kind || number == 0 || number != stat.inode {
            return false;
        }
        match row.fingerprint {
            Some(print) => (print.size, print.mtime_ns) == (stat.size, stat.mtime_ns),
            None if stat.kind == EntryKind::Directory => self.holds_what_it_held(disk, node, path),
            None => true,
        }
    }

    /// Numbers are handed out again: a directory is known by what is still in it.
    fn holds_what_it_held(&self, disk: &NativeDisk, dir: NodeId, path: &TreePath) -> bool {
        let Ok(listing) = disk.list(path) else {
            return false;
        };
        let names = listing
            .entries
            .into_iter()
            .filter_map(|entry| entry.name.ok());
        let names: BTreeSet<_> = names.collect();
        let mut rows = self.ancestor.iter();
        rows.any(|(_, row)| row.node.parent == dir && names.contains(&row.node.name))
    }

    fn still_stands(&self, disk: &NativeDisk, row: &AncestorNode, stood_at: &TreePath) -> bool {
        let number = row.fingerprint.map_or(row.inode, |print| print.inode);
        disk.stat(At::Tree(stood_at))
            .is_ok_and(|stat| stat.inode == number)
    }

    /// Whether this is the thing that always stood here, a second name of the one in question.
    fn is_another(&self, path: &TreePath, inode: u64) -> bool {
        let mut rows =
            { self.ancestor.at_path(path).into_iter() }.filter_map(|id| self.ancestor.get(id));
        rows.any(|row| row.fingerprint.map_or(row.inode, |print| print.inode) == inode)
    }

    /// What a rule leaves out has gone, for everybody else.
    fn is_ignored(&self, path: &TreePath, stat: Stat) -> bool {
        matches!(self.ignored(path, Some(stat)), Ok(Some(_)))
    }

    fn is_known(&self, path: &TreePath) -> bool {
        self.placed.tree.at(path).is_some() || self.ancestor.knows(path)
    }
}

/// Empty files have nothing to be known by.
fn has_size(row: &AncestorNode, stat: &Stat) -> bool {
    matches!(row.node.body, Body::File { size, .. } if size == stat.size && size > 0)
}
