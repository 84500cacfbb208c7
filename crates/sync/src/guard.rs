//! The brake: a pass that would delete or replace much is held until somebody says yes, and a root that
//! is not the one we know is never taken for a deletion.

use serde::Serialize;
use syncagent_protocol::{Kind, NodeId, TreePath};

use crate::plan::{Content, Op, Plan, Step};
use crate::tree::Placed;

/// From when on a pass is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Held if more than this share of the files would go, in percent ...
    pub percent: u64,
    /// ... of at least this many.
    pub of_at_least: u64,
    /// Held if more files than this would go, however many there are.
    pub files: u64,
    /// An empty root is taken for emptied by accident if at least this many files were known.
    pub emptied_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            percent: 25,
            of_at_least: 100,
            files: 500,
            emptied_from: 10,
        }
    }
}

/// Which side would lose something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Files on this disk, because of what the vault says.
    OnDisk,
    /// Files in the vault, because of what this disk says.
    InVault,
}

/// What would happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It would go.
    Deleted,
    /// Its content would be another.
    Replaced,
}

/// One file that would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Which.
    pub node: NodeId,
    /// Where it stands on the side that would lose it.
    pub path: TreePath,
    /// What would happen to it.
    pub change: Change,
}

/// A pass that waits for a yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Which side would lose something.
    pub direction: Direction,
    /// What exactly.
    pub affected: Vec<Affected>,
    /// Files on that side.
    pub files: u64,
}

/// Whether the plan does more than passes without a question. Each side is counted for itself.
pub fn check(plan: &Plan, remote: &Placed, files_on_disk: u64, limits: &Limits) -> Vec<Held> {
    let is_dir = |kind| kind == Kind::Directory;
    let lost_in_vault = lost_in_vault(plan, remote);
    // They are many to count, and nearly never of interest.
    let files_in_vault = match lost_in_vault.len() {
        0 => 0,
        _ => {
            let nodes = remote.tree.iter();
            nodes.filter(|(_, node)| !is_dir(node.body.kind())).count() as u64
        }
    };
    [
        Held {
            direction: Direction::OnDisk,
            affected: lost_on_disk(plan),
            files: files_on_disk,
        },
        Held {
            direction: Direction::InVault,
            affected: lost_in_vault,
            files: files_in_vault,
        },
    ]
    .into_iter()
    .filter(|held| limits.exceeded(held.affected.len() as u64, held.files))
    .collect()
}

impl Limits {
    fn exceeded(&self, affected: u64, files: u64) -> bool {
        affected > self.files
            || (files >= self.of_at_least && affected * 100 > files * self.percent)
    }
}

fn lost_on_disk(plan: &Plan) -> Vec<Affected> {
    let lost = |step: &Step| {
        let (node, path, change) = match step {
            Step::Remove { node, path, kind } if *kind != Kind::Directory => {
                (node, path, Change::Deleted)
            }
            Step::Fetch {
                path,
                replaces: Some(old),
                aside: None,
                ..
            }
            | Step::Link {
                path,
                replaces: Some(old),
                aside: None,
                ..
            } => {
                let change = if *old == step.node() {
                    Change::Replaced
                } else {
                    Change::Deleted
                };
                (old, path, change)
            }
            _ => return None,
        };
        Some(Affected {
            node: *node,
            path: path.clone(),
            change,
        })
    };
    plan.steps.iter().filter_map(lost).collect()
}

fn lost_in_vault(plan: &Plan, remote: &Placed) -> Vec<Affected> {
    let lost = |op: &Op| {
        let node = op.node();
        let before = remote
            .tree
            .get(node)
            .filter(|node| node.body.kind() != Kind::Directory)?;
        let change = match op {
            Op::Trash { .. } => Change::Deleted,
            Op::Put(put) => match (&put.content, &before.body) {
                (Content::FromDisk { .. }, _) => Change::Replaced,
                (
                    Content::Symlink { target },
                    syncagent_protocol::Body::Symlink { target: old },
                ) if target != old => Change::Replaced,
                _ => return None,
            },
        };
        Some(Affected {
            node,
            path: remote.tree.path_of(node)?,
            change,
        })
    };
    plan.all_ops().filter_map(lost).collect()
}

/// What is known of the folder's root from earlier passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootKnown {
    /// Identifies the volume; 0 if unusable.
    pub volume: u64,
    /// Inode of the root; 0 if unusable.
    pub inode: u64,
    /// Files that stood below it.
    pub files: u64,
}

/// What stands where the root should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFound {
    /// Nothing, or no directory.
    Missing,
    /// A directory.
    Directory {
        /// Identifies the volume; 0 if unusable.
        volume: u64,
        /// Inode; 0 if unusable.
        inode: u64,
        /// Whether nothing (of ours) is in it.
        empty: bool,
        /// Whether it holds this folder's own mark; none if no mark is kept.
        marked: Option<bool>,
    },
}

/// Whether what is missing below the root may be taken for deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootState {
    /// It is the root we know.
    Fine,
    /// It is not there.
    Missing,
    /// It is there, and everything in it is gone.
    Emptied,
    /// Another directory stands in its place.
    Replaced,
    /// Another volume is mounted there, or ours no longer is.
    OtherVolume,
}

/// Compares the root with what is known of it. A mark decides over numbers that a reboot may change.
pub fn root_state(known: Option<&RootKnown>, found: &RootFound, limits: &Limits) -> RootState {
    let RootFound::Directory {
        volume,
        inode,
        empty,
        marked,
    } = *found
    else {
        return RootState::Missing;
    };
    let Some(known) = known else {
        return RootState::Fine;
    };
    let differs = |a: u64, b: u64| a != 0 && b != 0 && a != b;
    if marked != Some(true) {
        if differs(volume, known.volume) {
            return RootState::OtherVolume;
        }
        if differs(inode, known.inode) || (marked == Some(false) && known.files > 0) {
            return RootState::Replaced;
        }
    }
    if empty && known.files >= limits.emptied_from {
        RootState::Emptied
    } else {
        RootState::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limits = Limits::default();
        for (affected, files, held) in [
            (99, 99, false),
            (25, 100, false),
            (26, 100, true),
            (500, 1_000_000, false),
            (501, 1_000_000, true),
            (0, 0, false),
        ] {
            assert_eq!(
                limits.exceeded(affected, files),
                held,
                "{affected} of {files}"
            );
        }
    }

    #[test]
    fn what_counts() {
        let id = |n| NodeId([n; 16]);
        let path = |text: &str| TreePath::parse(text).unwrap();
        let fetch = |n, replaces, aside| Step::Fetch {
            node: id(n),
            path: path("a"),
            replaces,
            aside,
            exec: false,
            mtime_ns: 0,
        };
        let aside = Some(crate::plan::Aside {
            path: path("b"),
            node: id(9),
        });
        let plan = Plan {
            steps: vec![
                fetch(1, None, None),
                fetch(2, Some(id(2)), None),
                fetch(3, Some(id(4)), None),
                fetch(5, Some(id(5)), aside),
                Step::Remove {
                    node: id(6),
                    path: path("c"),
                    kind: Kind::File,
                },
                Step::Remove {
                    node: id(7),
                    path: path("d"),
                    kind: Kind::Directory,
                },
            ],
            ..Plan::default()
        };
        let lost: Vec<_> = lost_on_disk(&plan)
            .into_iter()
            .map(|a| (a.node, a.change))
            .collect();
        assert_eq!(
            lost,
            [
                (id(2), Change::Replaced),
                (id(4), Change::Deleted),
                (id(6), Change::Deleted)
            ]
        );
    }

    #[test]
    fn roots() {
        let known = RootKnown {
            volume: 1,
            inode: 2,
            files: 20,
        };
        let dir = |volume, inode, empty, marked| RootFound::Directory {
            volume,
            inode,
            empty,
            marked,
        };
        for (found, want) in [
            (RootFound::Missing, RootState::Missing),
            (dir(1, 2, false, None), RootState::Fine),
            (dir(1, 2, true, None), RootState::Emptied),
            (dir(3, 2, false, None), RootState::OtherVolume),
            (dir(1, 3, false, None), RootState::Replaced),
            (dir(1, 2, false, Some(false)), RootState::Replaced),
            (dir(3, 4, false, Some(true)), RootState::Fine),
            (dir(3, 4, true, Some(true)), RootState::Emptied),
            (dir(0, 0, false, None), RootState::Fine),
        ] {
            assert_eq!(
                root_state(Some(&known), &found, &Limits::default()),
                want,
                "{found:?}"
            );
        }
        let few = RootKnown { files: 2, ..known };
        assert_eq!(
            root_state(Some(&few), &dir(1, 2, true, None), &Limits::default()),
            RootState::Fine
        );
        assert_eq!(
            root_state(None, &dir(1, 2, true, None), &Limits::default()),
            RootState::Fine
        );
    }
}
