//! The brake: a pass that would delete or replace much is held until somebody says yes.

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
    /// Held if this disk has none left of at least this many files in the vault: it may have been emptied by accident.
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
            affected: by_path(lost_on_disk(plan)),
            files: files_on_disk,
        },
        Held {
            direction: Direction::InVault,
            affected: by_path(lost_in_vault),
            files: files_in_vault,
        },
    ]
    .into_iter()
    .filter(|held| limits.hold(held))
    .collect()
}

impl Limits {
    fn hold(&self, held: &Held) -> bool {
        let affected = held.affected.len() as u64;
        let is_emptied = held.direction == Direction::InVault
            && affected == held.files
            && affected >= self.emptied_from
            && held.affected.iter().all(|a| a.change == Change::Deleted);
        is_emptied || self.exceeded(affected, held.files)
    }

    fn exceeded(&self, affected: u64, files: u64) -> bool {
        affected > self.files
            || (files >= self.of_at_least && affected * 100 > files * self.percent)
    }
}

/// In the order in which people look for them.
fn by_path(mut affected: Vec<Affected>) -> Vec<Affected> {
    affected.sort_by(|a, b| a.path.cmp(&b.path));
    affected
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
    fn what_waits_is_listed_by_path() {
        let remove = |(n, path): (u8, &str)| Step::Remove {
            node: NodeId([n; 16]),
            path: TreePath::parse(path).unwrap(),
            kind: Kind::File,
        };
        let plan = Plan {
            steps: [(1, "d/b"), (2, "d.txt"), (3, "a")].map(remove).into(),
            ..Plan::default()
        };
        let limits = Limits {
            files: 0,
            ..Limits::default()
        };
        let held = check(&plan, &Placed::default(), 3, &limits);
        let paths: Vec<_> = { held[0].affected.iter() }
            .map(|affected| affected.path.as_str())
            .collect();
        assert_eq!(paths, ["a", "d/b", "d.txt"]);
    }

    #[test]
    fn emptied() {
        let held = |direction, deleted: u64, replaced: u64, files| Held {
            direction,
            affected: (0..deleted + replaced)
                .map(|n| Affected {
                    node: NodeId([u8::try_from(n).unwrap(); 16]),
                    path: TreePath::parse(&n.to_string()).unwrap(),
                    change: match n < deleted {
                        true => Change::Deleted,
                        false => Change::Replaced,
                    },
                })
                .collect(),
            files,
        };
        let limits = Limits::default();
        for (direction, deleted, replaced, files, wanted) in [
            (Direction::InVault, 10, 0, 10, true),
            (Direction::InVault, 9, 0, 9, false),
            (Direction::InVault, 10, 0, 11, false),
            (Direction::InVault, 9, 1, 10, false),
            // Somebody said yes to that where it was done.
            (Direction::OnDisk, 10, 0, 10, false),
        ] {
            let held = held(direction, deleted, replaced, files);
            assert_eq!(limits.hold(&held), wanted, "{held:?}");
        }
    }
}
