//! What a look at the disk found: plain facts, no judgement.
//!
//! A [`Scan`] is filled by the client's folder code and read by [`mod@crate::identify`] alone.

use std::collections::BTreeMap;
use std::ops::{Bound, Deref};

use syncagent_protocol::{Body, Code, TreePath};

use crate::ancestor::AncestorNode;
use crate::touched::Touched;

/// What `stat` says of a file: equal fingerprints mean that the content was not looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint {
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of the inode, nanoseconds since 1970; 0 where a system has none.
    pub ctime_ns: i64,
    /// Identifies the file on its volume; 0 where a system has none.
    pub inode: u64,
}

/// One thing found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// A regular file. Its content is not read by a scan.
    File {
        /// What `stat` said.
        fingerprint: Fingerprint,
        /// Whether its owner may execute it.
        exec: bool,
        /// Set if the file was touched so shortly before the scan that a later write within the
        /// clock's grain could leave the same fingerprint: it may be sent, but not trusted as unchanged.
        racy: bool,
    },
    /// A directory.
    Directory {
        /// Inode number, to recognise it after a rename; 0 where a system has none.
        inode: u64,
        /// Whether every entry was seen. If not, what is missing below is unknown, not deleted.
        complete: bool,
        /// Whether something in it (directly) was left out: ignored, special, unplaceable.
        holds_skipped: bool,
    },
    /// A symbolic link, not followed.
    Symlink {
        /// What `stat` said of the link itself.
        fingerprint: Fingerprint,
        /// Where it points.
        target: String,
    },
    /// Something is there that is not synchronised or cannot be looked at. Whatever was there before
    /// is unknown, neither changed nor deleted; the same holds for everything below.
    Unknown,
}

/// Something that is not synchronised, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// The path, escaped for display where it is not valid text.
    pub path: String,
    /// A stable word: `ignored`, `special`, `not-utf8`, `unreadable`, `changing`, `unplaceable`, ...
    pub reason: &'static str,
    /// The error code, where the reason is a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// One sentence: what, and what to do.
    pub detail: String,
}

/// Everything found below the root, which itself is not listed.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// What was found, by path. Every entry's directory is listed too.
    pub entries: Entries,
    /// Whether the root directory itself was read in full.
    pub root_complete: bool,
    /// Whether files here have no executable bit: then what entries say of it means nothing.
    pub no_exec_bit: bool,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
}

/// What was found, by path. Knows in which directories it was changed since it was last followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    found: BTreeMap<TreePath, Observed>,
    touched: Touched<TreePath>,
}

impl Deref for Entries {
    type Target = BTreeMap<TreePath, Observed>;

    fn deref(&self) -> &Self::Target {
        &self.found
    }
}

impl Entries {
    /// Something was found.
    pub fn insert(&mut self, path: TreePath, seen: Observed) {
        self.note(&path);
        self.found.insert(path, seen);
    }

    /// It is there no longer, or of no concern.
    pub fn remove(&mut self, path: &TreePath) {
        self.note(path);
        self.found.remove(path);
    }

    /// What was found at a path, to be changed.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Observed> {
        self.note(path);
        self.found.get_mut(path)
    }

    fn note(&mut self, path: &TreePath) {
        self.touched.note(|| path.parent().unwrap_or_default());
    }

    pub(crate) fn take_touched(&mut self) -> Touched<TreePath> {
        self.touched.take()
    }

    /// `path` and what is below it.
    pub fn within<'a>(
        &'a self,
        path: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Observed)> {
        self.found
            .range(path..)
            .take_while(|(below, _)| below.is_within(path))
    }

    /// What is directly in `directory`, at the cost of what is directly in it.
    pub fn children<'a>(
        &'a self,
        directory: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Observed)> {
        let mut rest = self
            .found
            .range((Bound::Excluded(directory), Bound::Unbounded));
        std::iter::from_fn(move || {
            let (path, seen) = rest.next().filter(|(path, _)| path.is_within(directory))?;
            if let Observed::Directory { .. } | Observed::Unknown = seen {
                rest = self.found.range(path.past()..);
            }
            Some((path, seen))
        })
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = (&'a TreePath, &'a Observed);
    type IntoIter = std::collections::btree_map::Iter<'a, TreePath, Observed>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.iter()
    }
}

impl Extend<(TreePath, Observed)> for Entries {
    fn extend<I: IntoIterator<Item = (TreePath, Observed)>>(&mut self, entries: I) {
        for (path, seen) in entries {
            self.insert(path, seen);
        }
    }
}

/// Built in one go if they are sorted already.
impl FromIterator<(TreePath, Observed)> for Entries {
    fn from_iter<I: IntoIterator<Item = (TreePath, Observed)>>(entries: I) -> Self {
        Self {
            found: entries.into_iter().collect(),
            touched: Touched::All,
        }
    }
}

impl Scan {
    /// Whether an entry is, bit for bit, what the row says. Whether the row's fingerprint can be trusted was settled
    /// when it was written; the executable bit is looked at, because no time tells of it within the clock's grain.
    pub(crate) fn is_untouched(&self, seen: &Observed, row: &AncestorNode) -> bool {
        match (seen, &row.node.body) {
            (
                Observed::File {
                    fingerprint, exec, ..
                },
                Body::File { exec: agreed, .. },
            ) => row.fingerprint == Some(*fingerprint) && (self.no_exec_bit || exec == agreed),
            (Observed::Symlink { fingerprint, .. }, Body::Symlink { .. }) => {
                row.fingerprint == Some(*fingerprint)
            }
            (Observed::Directory { inode, .. }, Body::Directory) => row.inode == *inode,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_directly_in_a_directory() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        let directory = Observed::Directory {
            inode: 1,
            complete: true,
            holds_skipped: false,
        };
        let all = ["a", "a/b", "a/b/c", "a/b/c/d", "a/b.txt", "a/e", "a b", "f"];
        let entries: Entries = all
            .map(|text| (path(text), directory.clone()))
            .into_iter()
            .collect();
        for (dir, wanted) in [
            ("", vec!["a", "a b", "f"]),
            ("a", vec!["a/b", "a/b.txt", "a/e"]),
            ("a/b", vec!["a/b/c"]),
            ("f", vec![]),
        ] {
            let dir = path(dir);
            let found: Vec<&str> = entries
                .children(&dir)
                .map(|(path, _)| path.as_str())
                .collect();
            assert_eq!(found, wanted, "{dir}");
        }
    }
}
