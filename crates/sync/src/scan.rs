//! What a look at the disk found: plain facts, no judgement.
//!
//! A [`Scan`] is filled by the client's folder code and read by [`mod@crate::identify`] alone.

use std::collections::BTreeMap;

use syncagent_protocol::{Body, Code, TreePath};

use crate::ancestor::AncestorNode;

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
    pub entries: BTreeMap<TreePath, Observed>,
    /// Whether the root directory itself was read in full.
    pub root_complete: bool,
    /// Whether files here have no executable bit: then what entries say of it means nothing.
    pub no_exec_bit: bool,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
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
