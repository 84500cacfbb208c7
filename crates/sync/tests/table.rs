//! The decision, row by row.
//!
//! A tree is a line: `d1@b/ f1@b/a=1 l1@c>t` is directory d1 at `b`, file f1 at `b/a` with content 1 and link l1
//! at `c` to `t`. `~` in a name stands for the conflict part. `f1!` is a node whose last PUT cannot be read.
//! `n1`, `n2` are ids made while deciding.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Body, ContentHash, Name, Node, NodeId, OpHash, TreePath};
use syncagent_sync::plan::{Content, Op, Plan, Step};
use syncagent_sync::scan::{Fingerprint, Observed, Scan};
use syncagent_sync::{
    Ancestor, AncestorNode, Change, Input, LastOp, Local, LocalNode, LocalState, LogTree,
    Placement, Policy, Utc, identify, reconcile,
};

const NOW: Utc = Utc {
    year: 2026,
    month: 1,
    day: 2,
    hour: 3,
    minute: 4,
    second: 5,
};
const LONG: &str = ".conflict-20260102-030405-me";

fn id(text: &str) -> NodeId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(text.as_bytes());
    NodeId(bytes)
}

fn short(id: NodeId) -> String {
    String::from_utf8(id.0[..2].to_vec()).unwrap()
}

fn hash(content: &str) -> ContentHash {
    let mut bytes = [0; 32];
    bytes[..content.len()].copy_from_slice(content.as_bytes());
    ContentHash(bytes)
}

fn op_hash(id: NodeId, n: u8) -> OpHash {
    let mut bytes = [n; 32];
    bytes[..16].copy_from_slice(&id.0);
    OpHash(bytes)
}

/// id, path, body; none: unreadable.
type Item = (NodeId, TreePath, Option<Body>);

/// `+` after a directory: it holds something that is skipped. `x` after a content: exec. `?`: unknown.
fn parse(line: &str) -> Vec<Item> {
    let item = |word: &str| {
        let word = word.replace('~', LONG);
        if let Some(node) = word.strip_suffix('!') {
            return (id(node), TreePath::ROOT, None);
        }
        let (node, rest) = word.split_once('@').unwrap();
        let rest = rest.trim_end_matches(['+', '?']);
        let (path, body) = if let Some((path, target)) = rest.split_once('>') {
            (
                path,
                Body::Symlink {
                    target: target.to_owned(),
                },
            )
        } else if let Some((path, content)) = rest.split_once('=') {
            let plain = content.trim_end_matches('x');
            (
                path,
                Body::File {
                    hash: hash(plain),
                    size: 1,
                    exec: plain != content,
                },
            )
        } else {
            (rest.trim_end_matches('/'), Body::Directory)
        };
        (id(node), TreePath::parse(path).unwrap(), Some(body))
    };
    line.split_whitespace().map(item).collect()
}

fn show(path: &TreePath, node: NodeId, body: &Body) -> String {
    let path = path.as_str().replace(LONG, "~");
    let node = short(node);
    match body {
        Body::File { hash, exec, .. } => {
            let text = String::from_utf8(hash.0.iter().copied().take_while(|b| *b != 0).collect())
                .unwrap();
            format!("{node}@{path}={text}{}", if *exec { "x" } else { "" })
        }
        Body::Directory => format!("{node}@{path}/"),
        Body::Symlink { target } => format!("{node}@{path}>{target}"),
    }
}

fn place(items: &[Item], path: &TreePath) -> (NodeId, Name) {
    let parent = path.parent().unwrap();
    let parent = items
        .iter()
        .find(|(_, p, body)| *p == parent && body.is_some())
        .map_or(NodeId::ROOT, |(id, ..)| *id);
    (parent, path.name().unwrap())
}

fn node(items: &[Item], path: &TreePath, body: &Body) -> Node {
    let (parent, name) = place(items, path);
    Node {
        parent,
        name,
        mtime_ns: 5,
        body: body.clone(),
    }
}

struct Case {
    ancestor: Ancestor,
    local: Local,
    log: LogTree,
    history: BTreeMap<NodeId, Vec<Body>>,
    policy: Policy,
    disk: BTreeMap<TreePath, (NodeId, Body)>,
}

impl Case {
    fn new(ancestor: &str, local: &str, remote: &str) -> Self {
        let (was, here, there) = (parse(ancestor), parse(local), parse(remote));
        let mut log = LogTree::default();
        let put = |items: &[Item], n: u8, (id, path, body): &Item| Change {
            node: *id,
            op: body.as_ref().map_or(LastOp::Unreadable, |body| {
                LastOp::Put(node(items, path, body).into())
            }),
            op_hash: op_hash(*id, n),
        };
        log.apply(1, was.iter().map(|item| put(&was, 1, item)));
        let mut changes: Vec<Change> = there
            .iter()
            .filter(|item| {
                !was.contains(item) || { place(&was, &item.1) != place(&there, &item.1) }
            })
            .map(|item| put(&there, 2, item))
            .collect();
        let gone = was
            .iter()
            .filter(|(id, ..)| !there.iter().any(|(other, ..)| other == id));
        changes.extend(gone.map(|(id, ..)| Change {
            node: *id,
            op: LastOp::Trashed,
            op_hash: op_hash(*id, 2),
        }));
        log.apply(2, changes);

        let print = Fingerprint {
            size: 1,
            mtime_ns: 5,
            ctime_ns: 5,
            inode: 0,
        };
        let row = |(id, path, body): &Item| {
            let row = AncestorNode {
                node: node(&was, path, body.as_ref().unwrap()),
                op_hash: op_hash(*id, 1),
                fingerprint: (*body != Some(Body::Directory)).then_some(print),
                inode: 0,
                not_here: false,
            };
            (*id, row)
        };
        let mut nodes = BTreeMap::new();
        for ((id, path, body), word) in here.iter().zip(local.split_whitespace()) {
            let known = was.iter().find(|(other, ..)| other == id);
            let state = match body.as_ref().unwrap() {
                _ if word.ends_with('?') => LocalState::Unknown,
                Body::Directory => LocalState::Directory {
                    inode: 0,
                    holds_skipped: word.ends_with('+'),
                    complete: true,
                },
                _ if known.is_some_and(|(.., old)| old == body) => LocalState::Same,
                Body::File { hash, size, exec } => LocalState::File {
                    hash: Some(*hash),
                    size: *size,
                    exec: *exec,
                    mtime_ns: 5,
                    fingerprint: print,
                },
                Body::Symlink { target } => LocalState::Symlink {
                    target: target.clone(),
                    fingerprint: print,
                },
            };
            let (parent, name) = place(&here, path);
            nodes.insert(
                *id,
                LocalNode {
                    parent,
                    name,
                    state,
                },
            );
        }
        Self {
            ancestor: was.iter().map(row).collect(),
            local: Local {
                nodes,
                occupied: BTreeSet::new(),
                root_incomplete: false,
            },
            log,
            history: BTreeMap::new(),
            policy: Policy {
                machine: "me".to_owned(),
                now: NOW,
                placement: Placement::UNIX,
                unavailable: BTreeSet::new(),
                not_here: BTreeSet::new(),
            },
            disk: here
                .into_iter()
                .map(|(id, path, body)| (path, (id, body.unwrap())))
                .collect(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn plan(&self) -> Plan {
        let mut made = 0;
        let mut new_id = || {
            made += 1;
            id(&format!("n{made}"))
        };
        let remote = self.log.placed();
        let Self {
            ancestor,
            local,
            log,
            history,
            policy,
            ..
        } = self;
        reconcile(
            &Input {
                ancestor,
                local,
                log,
                remote: &remote,
                history,
                policy,
            },
            &mut new_id,
        )
    }

    /// Carries the plan out, and compares what disk and vault hold then.
    fn leads_to(mut self, disk: &str, vault: &str) -> Plan {
        let plan = self.plan();
        assert_eq!(plan.needs_hash, []);
        let start = self.disk.clone();
        let mut kept: BTreeSet<&TreePath> = start.keys().collect();
        let mut stays = kept.clone();
        for step in &plan.steps {
            self.step(step);
            kept.retain(|path| self.disk.contains_key(path));
            stays.retain(|path| {
                self.disk
                    .get(path)
                    .is_some_and(|(id, _)| *id == start[path].0)
            });
        }
        // A name in a directory that stays, in use before and after, is in use all the time.
        for path in start.keys().filter(|path| self.disk.contains_key(path)) {
            let mut above =
                std::iter::successors(path.parent(), TreePath::parent).filter(|p| !p.is_root());
            assert!(
                kept.contains(path) || !above.all(|p| stays.contains(&p)),
                "{path} was gone for a while: {plan:#?}"
            );
        }
        // What was new on both sides, or ended and was made anew, is one node from now on.
        let mut became = BTreeMap::new();
        for (id, record) in &plan.records {
            if let Some((here, _)) = self
                .disk
                .get_mut(&record.path)
                .filter(|(here, _)| short(*here).starts_with('x') || plan.forget.contains(here))
            {
                became.insert(*here, *id);
                *here = *id;
            }
        }
        // A row that is written before the steps says what is so without them.
        let node = |id: &NodeId| became.get(id).copied().unwrap_or(*id);
        let places = start.iter().map(|(path, (id, body))| {
            let parent = path.parent().unwrap();
            let parent = start.get(&parent).map_or(NodeId::ROOT, |(id, _)| node(id));
            (node(id), (parent, path.name().unwrap(), body.clone()))
        });
        let places: BTreeMap<_, _> = places.collect();
        for id in &plan.agreed {
            let row = &plan.records[id].node;
            let is_exec = matches!(row.body, Body::File { exec: true, .. });
            let mut here = places[id].clone();
            if let Body::File { exec, .. } = &mut here.2
                && !self.policy.placement.exec_bit
            {
                *exec = is_exec;
            }
            assert_eq!(
                here,
                (row.parent, row.name.clone(), row.body.clone()),
                "the row of {id:?} is still to come: {plan:#?}"
            );
        }
        for (n, group) in plan.ops.iter().enumerate() {
            let changes: Vec<Change> = group.0.iter().map(|op| self.change(op)).collect();
            self.log.apply(3 + n as u64, changes);
            for op in &group.0 {
                if let Op::Put(put) = op {
                    assert!(
                        self.log.placed().tree.contains(put.node),
                        "{put:?} hangs nowhere"
                    );
                }
            }
        }
        let tree = self.log.placed().tree;
        let listing = tree
            .walk(NodeId::ROOT)
            .into_iter()
            .map(|(path, id)| show(&path, id, &tree.get(id).unwrap().body));
        let here = self
            .disk
            .iter()
            .map(|(path, (id, body))| show(path, *id, body));
        let sorted = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            (here.collect(), listing.collect()),
            (sorted(disk), sorted(vault)),
            "{plan:#?}"
        );
        plan
    }

    fn becomes(self, tree: &str) -> Plan {
        self.leads_to(tree, tree)
    }

    /// What is found when only the rows of a plan that may be written at once were written: no step was done, no op
    /// stands. Then everything was looked at anew.
    fn interrupted(mut self) -> Self {
        let plan = self.plan();
        assert_eq!(plan.needs_hash, []);
        let print = |mtime_ns| Fingerprint {
            size: 1,
            mtime_ns,
            ctime_ns: mtime_ns,
            inode: 0,
        };
        let mut scan = Scan {
            root_complete: true,
            ..Scan::default()
        };
        let mut hashes = BTreeMap::new();
        for (path, (id, body)) in &self.disk {
            let row = self.ancestor.get(*id);
            let fingerprint = print(match row.is_some_and(|row| row.node.body == *body) {
                true => 5,
                false => 6,
            });
            let seen = match body {
                Body::Directory => Observed::Directory {
                    inode: 0,
                    holds_skipped: false,
                    complete: true,
                },
                Body::File { hash, exec, .. } => {
                    hashes.insert(path.clone(), (fingerprint, *hash));
                    Observed::File {
                        fingerprint,
                        exec: *exec,
                        racy: false,
                    }
                }
                Body::Symlink { target } => Observed::Symlink {
                    fingerprint,
                    target: target.clone(),
                },
            };
            scan.entries.insert(path.clone(), seen);
        }
        for id in &plan.forget {
            self.ancestor.remove(*id);
        }
        for id in &plan.agreed {
            let record = &plan.records[id];
            let directory = record.node.body == Body::Directory;
            let row = AncestorNode {
                node: record.node.clone(),
                op_hash: record.op_hash.unwrap(),
                fingerprint: (!directory).then_some(print(5)),
                inode: 0,
                not_here: false,
            };
            self.ancestor.insert(*id, row);
        }
        for (id, parent) in &plan.reparented {
            let row = self.ancestor.get(*id).unwrap().in_directory(*parent);
            self.ancestor.insert(*id, row);
        }
        let mut made = 0;
        let mut new_id = || {
            made += 1;
            id(&format!("x{made}"))
        };
        let pending = BTreeMap::new();
        let found = identify(&self.ancestor, &scan, &pending, &hashes, &mut new_id);
        assert_eq!(found.needs_hash, []);
        self.local = found.local;
        for node in self.local.nodes.keys() {
            let path = self.local.path_of(*node).unwrap();
            self.disk.get_mut(&path).unwrap().0 = *node;
        }
        self
    }

    fn remote_body(&self, node: NodeId) -> Body {
        match self.log.get(node).map(|entry| &entry.op) {
            Some(LastOp::Put(node)) => node.body.clone(),
            other => panic!("{node:?} is {other:?}"),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::MakeDir { node, path } => {
                assert!(
                    self.disk
                        .insert(path.clone(), (*node, Body::Directory))
                        .is_none()
                );
            }
            Step::Fetch {
                node,
                path,
                replaces,
                aside,
                ..
            }
            | Step::Link {
                node,
                path,
                replaces,
                aside,
                ..
            } => {
                let old = self.disk.remove(path);
                // What was new on disk and is the vault's goes by the vault's id from there on.
                let is_new =
                    |id: &NodeId| self.ancestor.get(*id).is_none() && self.log.get(*id).is_none();
                let stood = old.as_ref().map(|(id, _)| *id);
                let found = stood.is_some_and(|id| is_new(&id)) && *replaces == Some(*node);
                assert!(found || stood == *replaces, "{stood:?}: {step:?}");
                if let Some(aside) = aside {
                    assert!(
                        self.disk
                            .insert(aside.path.clone(), (aside.node, old.unwrap().1))
                            .is_none()
                    );
                }
                let body = match (self.remote_body(*node), step) {
                    (Body::File { hash, size, .. }, Step::Fetch { exec, .. }) => Body::File {
                        hash,
                        size,
                        exec: *exec,
                    },
                    (body, _) => body,
                };
                self.disk.insert(path.clone(), (*node, body));
            }
            Step::SetMeta { path, exec, .. } => {
                if let Some((_, Body::File { exec: old, .. })) = self.disk.get_mut(path) {
                    *old = *exec;
                }
            }
            Step::Move {
                from,
                to,
                exchange_with,
                ..
            } => {
                assert_eq!(
                    self.disk.get(to).map(|(id, _)| *id),
                    *exchange_with,
                    "{step:?}"
                );
                let disk = std::mem::take(&mut self.disk);
                let rename = |path: TreePath| {
                    path.rebase(from, to)
                        .or_else(|| path.rebase(to, from))
                        .unwrap_or(path)
                };
                self.disk = disk
                    .into_iter()
                    .map(|(path, thing)| (rename(path), thing))
                    .collect();
            }
            Step::Remove { node, path, .. } => {
                assert_eq!(self.disk.remove(path).map(|(id, _)| id), Some(*node));
                assert!(
                    !self.disk.keys().any(|below| below.is_within(path)),
                    "{path} is not empty"
                );
            }
        }
    }

    fn change(&self, op: &Op) -> Change {
        let node = op.node();
        let last = match op {
            Op::Trash { .. } => LastOp::Trashed,
            Op::Put(put) => {
                let body = match &put.content {
                    Content::Directory => Body::Directory,
                    Content::Symlink { target } => Body::Symlink {
                        target: target.clone(),
                    },
                    Content::Keep => self.remote_body(node),
                    Content::FromDisk { path } => self.disk[path].1.clone(),
                };
                let body = match body {
                    Body::File { hash, size, .. } => Body::File {
                        hash,
                        size,
                        exec: put.exec,
                    },
                    body => body,
                };
                let node = Node {
                    parent: put.parent,
                    name: put.name.clone(),
                    mtime_ns: put.mtime_ns,
                    body,
                };
                LastOp::Put(node.into())
            }
        };
        Change {
            node,
            op: last,
            op_hash: op_hash(node, 3),
        }
    }
}

fn case(ancestor: &str, local: &str, remote: &str) -> Case {
    Case::new(ancestor, local, remote)
}

/// What one side did to f1: same, changed, moved, both, deleted. Full, so every cell is there mirrored too.
const CELLS: [(&str, [&str; 5]); 5] = [
    //        same          changed                 moved         both                         deleted
    ("same", ["f1@a=1", "f1@a=3", "f1@r/a=1", "f1@r/a=3", ""]),
    (
        "changed",
        [
            "f1@a=2",
            "f1@a=3 n1@a~=2",
            "f1@r/a=2",
            "f1@r/a=3 n1@r/a~=2",
            "f1@a=2",
        ],
    ),
    (
        "moved",
        ["f1@l/a=1", "f1@l/a=3", "f1@r/a=1", "f1@r/a=3", "f1@l/a=1"],
    ),
    (
        "both",
        [
            "f1@l/a=2",
            "f1@l/a=3 n1@l/a~=2",
            "f1@r/a=2",
            "f1@r/a=3 n1@r/a~=2",
            "f1@l/a=2",
        ],
    ),
    ("deleted", ["", "f1@a=3", "f1@r/a=1", "f1@r/a=3", ""]),
];

#[test]
fn every_cell_for_files_and_links() {
    let side = |what: usize, directory: &str, content: &str| match what {
        0 => "f1@a=1".to_owned(),
        1 => format!("f1@a={content}"),
        2 => format!("f1@{directory}/a=1"),
        3 => format!("f1@{directory}/a={content}"),
        _ => String::new(),
    };
    for link in [false, true] {
        let form = |line: &str| {
            if link {
                line.replace('=', ">")
            } else {
                line.to_owned()
            }
        };
        for (l, (what, row)) in CELLS.iter().enumerate() {
            for (r, want) in row.iter().enumerate() {
                println!("{what} here, {} there, link: {link}", CELLS[r].0);
                let tree = |own: &str| form(&format!("dl@l/ dr@r/ {own}"));
                let plan = case(
                    &tree("f1@a=1"),
                    &tree(&side(l, "l", "2")),
                    &tree(&side(r, "r", "3")),
                )
                .becomes(&tree(want));
                assert_eq!(plan.conflicts.len(), usize::from(want.contains('~')));
            }
        }
    }
}

#[test]
fn every_cell_for_directories() {
    let side = |what: usize, directory: &str| match what {
        0 => "d1@a/ f1@a/x=1".to_owned(),
        1 => format!("d1@{directory}/a/ f1@{directory}/a/x=1"),
        _ => String::new(),
    };
    // A directory that was moved here and deleted there stays; what was in it and not touched goes.
    let cells = [
        ["d1@a/ f1@a/x=1", "d1@r/a/ f1@r/a/x=1", ""],
        ["d1@l/a/ f1@l/a/x=1", "d1@r/a/ f1@r/a/x=1", "d1@l/a/"],
        ["", "d1@r/a/", ""],
    ];
    for (l, row) in cells.iter().enumerate() {
        for (r, want) in row.iter().enumerate() {
            let tree = |own: &str| format!("dl@l/ dr@r/ {own}");
            case(
                &tree(&side(0, "")),
                &tree(&side(l, "l")),
                &tree(&side(r, "r")),
            )
            .becomes(&tree(want));
        }
    }
}

/// The versions of one node, as words of one letter say them: `=1`, `>target`, `/`.
fn had(node: &str, versions: &[&str]) -> BTreeMap<NodeId, Vec<Body>> {
    let body = |version: &&str| parse(&format!("{node}@a{version}"))[0].2.clone().unwrap();
    BTreeMap::from([(id(node), versions.iter().map(body).collect())])
}

#[test]
fn what_was_deleted_before_it_had_a_row_stays_deleted() {
    // Fetched, or sent with the answer lost, and deleted elsewhere before the index knew of it. The id is known still.
    for (local, deleted, versions, want) in [
        ("f1@a=1", "f1", ["=1", "=2"].as_slice(), ""),
        ("f1@a=2x", "f1", &["=1", "=2"], ""),
        ("l1@a>t", "l1", &[">t"], ""),
        ("d1@d/", "d1", &["/"], ""),
        // What the vault never had is a person's, and so is the directory that it lies in.
        ("f1@a=3", "f1", &["=1", "=2"], "f1@a=3"),
        ("l1@a>u", "l1", &[">t"], "l1@a>u"),
        ("d1@d/ x1@d/b=2", "d1", &["/"], "d1@d/ x1@d/b=2"),
        ("f1@a=1", "f1", &[], "f1@a=1"),
        // Something of another kind took its name since: a node never changes its kind.
        ("x1@a=1", "x1", &["/"], "n1@a=1"),
        ("x1@a/", "x1", &["=1"], "n1@a/"),
        ("x1@a>t", "x1", &["=1"], "n1@a>t"),
    ] {
        let plan = case("", local, "")
            .with(|case| {
                let change = Change {
                    node: id(deleted),
                    op: LastOp::Trashed,
                    op_hash: op_hash(id(deleted), 3),
                };
                case.log.apply(3, vec![change]);
                case.history = had(deleted, versions);
            })
            .becomes(want);
        assert_eq!(plan.conflicts, [], "{local}");
    }
    // Where there is a row, that alone says what the thing is.
    case("f1@a=1", "f1@a=1", "")
        .with(|case| case.history = had("f1", &["/", "=1"]))
        .becomes("");
}

#[test]
fn a_later_version_than_its_row_says_is_no_change() {
    // An index that was put back beside a folder that was not.
    for (row, local, remote, want) in [
        ("f1@a=1", "f1@a=2", "f1@a=3", "f1@a=3"),
        ("f1@a=1", "f1@a=2", "", ""),
        ("l1@a>1", "l1@a>2", "l1@a>3", "l1@a>3"),
        // A new name is a touch, whatever it is the name of.
        ("f1@a=1", "f1@b=2", "", "f1@b=2"),
    ] {
        let plan = case(row, local, remote)
            .with(|case| {
                let of_links = had("l1", &[">1", ">2", ">3"]);
                case.history = had("f1", &["=1", "=2", "=3"]);
                case.history.extend(of_links);
            })
            .becomes(want);
        assert_eq!(plan.conflicts, [], "{local}");
    }
    // What it never was is a change, and so is what it was before, or was again since.
    for (row, local, versions) in [
        ("f1@a=1", "f1@a=9", &["=1", "=2"][..]),
        ("f1@a=2", "f1@a=1", &["=1", "=2"]),
        ("f1@a=1", "f1@a=2", &["=1", "=2", "=1"]),
    ] {
        case(row, local, "")
            .with(|case| case.history = had("f1", versions))
            .becomes(local);
    }
}

#[test]
fn an_earlier_version_without_a_row_is_no_change() {
    // A folder whose index was lost, or that was copied here by hand, while other machines went on.
    for (local, remote, want) in [
        ("x1@a=1", "f1@a=3", "f1@a=3"),
        ("x1@d/ x2@d/a=2", "d1@d/ f1@d/a=3", "d1@d/ f1@d/a=3"),
        // The node's own id may be known still, from before the crash that lost the row.
        ("f1@a=1", "f1@a=3", "f1@a=3"),
    ] {
        let plan = case("", local, remote)
            .with(|case| case.history = had("f1", &["=1", "=2", "=3"]))
            .becomes(want);
        assert_eq!(plan.conflicts, []);
    }
    let plan = case("", "x1@a>1", "l1@a>3")
        .with(|case| case.history = had("l1", &[">1", ">2", ">3"]))
        .becomes("l1@a>3");
    assert_eq!(plan.conflicts, []);
    // Anything else at that name is a person's.
    let plan = case("", "x1@a=4", "f1@a=3")
        .with(|case| case.history = had("f1", &["=1", "=2", "=3"]))
        .plan();
    assert_eq!(plan.conflicts.len(), 1);
    // So is what is of another kind, whatever the vault says that the node once was.
    let plan = |versions| {
        let case = case("", "x1@a/", "f1@a=3");
        case.with(|case| case.history = had("f1", versions)).plan()
    };
    assert_eq!(plan(&["/", "=3"]), plan(&["=3"]));
    // With a row it is: somebody went back to what was before.
    let plan = case("f1@a=2", "f1@a=1", "f1@a=3")
        .with(|case| case.history = had("f1", &["=1", "=2", "=3"]))
        .plan();
    assert_eq!(plan.conflicts.len(), 1);
}

#[test]
fn equal_changes_are_no_conflict() {
    for (ancestor, local, remote, want) in [
        ("f1@a=1", "f1@a=2", "f1@a=2", "f1@a=2"),
        ("f1@a=1", "f1@b=2", "f1@b=2", "f1@b=2"),
        ("l1@a>1", "l1@a>2", "l1@a>2", "l1@a>2"),
        ("", "x1@a=1", "f1@a=1", "f1@a=1"),
        ("", "x1@a>1", "l1@a>1", "l1@a>1"),
        (
            "",
            "x1@d/ x2@d/a=1 x3@d/b=2",
            "d1@d/ f1@d/a=1 f2@d/c=3",
            "d1@d/ f1@d/a=1 x3@d/b=2 f2@d/c=3",
        ),
        ("f1@a=1", "f1@a=1x", "f1@a=1x", "f1@a=1x"),
        // The same renames, of which one machine could tell what they were and the other could not.
        (
            "d1@d/ d2@d/b/",
            "d1@a/ d2@a/b/",
            "d9@a/ d8@a/b/",
            "d9@a/ d8@a/b/",
        ),
    ] {
        let plan = case(ancestor, local, remote).becomes(want);
        assert_eq!(plan.conflicts, []);
    }
}

#[test]
fn what_was_deleted_elsewhere_and_made_again_as_it_is_here_is_no_conflict() {
    for (was, local, vault) in [
        ("f1@a=1", "f1@a=2", "f2@a=2"),
        ("f1@a=1", "f1@c=1", "f2@c=1"),
        ("l1@a>1", "l1@a>2", "l2@a>2"),
        // Nobody touched it here: nothing is to be done.
        ("f1@a=1", "f1@a=1", "f2@a=1"),
        ("l1@a>1", "l1@a>1", "l2@a>1"),
    ] {
        let plan = case(was, local, vault).becomes(vault);
        assert!(plan.is_idle() && plan.conflicts.is_empty(), "{plan:#?}");
        assert_eq!(plan.forget, [parse(was)[0].0]);
        assert_eq!(plan.agreed, [parse(vault)[0].0]);
    }
    // Here it is another one.
    for (local, vault, want) in [
        ("f1@a=2", "f2@a=3", "f2@a=3 f1@a~=2"),
        ("f1@a=1", "f2@a=3", "f2@a=3"),
        ("f1@a=2", "l2@a>2", "l2@a>2 f1@a~=2"),
        // It lives elsewhere.
        ("f1@c=1", "f1@a=1 f2@c=1", "f2@c=1 f1@c~=1"),
    ] {
        case("f1@a=1", local, vault).becomes(want);
    }
    // What a person made of it is news, though the other one held the same once.
    let plan = case("f1@a=1", "f1@a=2", "f2@a=3")
        .with(|case| case.history = had("f2", &["=2", "=3"]))
        .becomes("f2@a=3 f1@a~=2");
    assert_eq!(plan.conflicts.len(), 1);
    // What was deleted with a directory stays so when another one has its name.
    case("d1@d/ f1@d/a=1", "d1@d/ f1@d/a=1", "d2@d/").becomes("d2@d/");
}

#[test]
fn a_directory_made_again_elsewhere_as_it_is_here_is_the_one_here() {
    let was = "d1@d/ d2@d/b/ f1@d/x=1 f2@d/b/y=2";
    let moved = "d1@a/ d2@a/b/ f1@a/x=1 f2@a/b/y=2";
    // Both machines did the same, and there no directory was known again: some of what was in them, all, or nothing.
    for (local, remote) in [
        (moved, "d9@a/ d8@a/b/ f9@a/x=1 f8@a/b/y=2"),
        (moved, "d9@a/ d8@a/b/ f1@a/x=1 f8@a/b/y=2"),
        (moved, "d9@a/ d8@a/b/ f1@a/x=1 f2@a/b/y=2"),
        (moved, "d9@a/ d2@a/b/ f1@a/x=1 f2@a/b/y=2"),
        (was, "d9@d/ d8@d/b/ f9@d/x=1 f8@d/b/y=2"),
        (was, "d9@d/ d8@d/b/ f1@d/x=1 f2@d/b/y=2"),
    ] {
        let plan = case(was, local, remote).becomes(remote);
        assert!(plan.is_idle() && plan.conflicts.is_empty(), "{plan:#?}");
        assert!(plan.forget.contains(&id("d1")), "{plan:#?}");
        if local == was {
            continue;
        }
        // And the other way round: what is known there is new here.
        let names = [("d9", "x9"), ("d8", "x8"), ("f9", "x7"), ("f8", "x6")];
        let new = |line: String, (old, new): (&str, &str)| line.replace(old, new);
        let fresh = names.into_iter().fold(remote.to_owned(), new);
        let plan = case(was, &fresh, local).becomes(local);
        assert!(plan.is_idle() && plan.conflicts.is_empty(), "{plan:#?}");
    }
    // What else one of them did to what is in it arrives as it does in any other directory.
    for (local, remote, want) in [
        // Deleted there, here, there although it was edited here, here although it was edited there.
        ("f1@a/x=1 f2@a/b/y=2", "f9@a/x=1", "f9@a/x=1"),
        ("f1@a/x=1", "f1@a/x=1 f2@a/b/y=2", "f1@a/x=1"),
        ("f1@a/x=1 f2@a/b/y=3", "f9@a/x=1", "f9@a/x=1 f2@a/b/y=3"),
        ("f1@a/x=1", "f1@a/x=1 f2@a/b/y=3", "f1@a/x=1 f2@a/b/y=3"),
        // Edited here, there.
        (
            "f1@a/x=1 f2@a/b/y=3",
            "f9@a/x=1 f2@a/b/y=2",
            "f9@a/x=1 f2@a/b/y=3",
        ),
        (
            "f1@a/x=1 f2@a/b/y=2",
            "f9@a/x=1 f2@a/b/y=3",
            "f9@a/x=1 f2@a/b/y=3",
        ),
        // Renamed here, there, here into another one, there into another one.
        (
            "f1@a/x=1 f2@a/b/z=2",
            "f1@a/x=1 f2@a/b/y=2",
            "f1@a/x=1 f2@a/b/z=2",
        ),
        (
            "f1@a/x=1 f2@a/b/y=2",
            "f1@a/x=1 f2@a/b/z=2",
            "f1@a/x=1 f2@a/b/z=2",
        ),
        (
            "f1@a/b/x=1 f2@a/b/y=2",
            "f1@a/x=1 f2@a/b/y=2",
            "f1@a/b/x=1 f2@a/b/y=2",
        ),
        ("f1@a/x=1 f2@a/b/y=2", "f1@a/x=1 f2@y=2", "f1@a/x=1 f2@y=2"),
        // Added on both sides.
        (
            "f1@a/x=1 x1@a/n=5 f2@a/b/y=2 x2@a/b/k=7",
            "f9@a/x=1 f7@a/m=6 f2@a/b/y=2 f6@a/b/k=7",
            "f9@a/x=1 f7@a/m=6 x1@a/n=5 f2@a/b/y=2 f6@a/b/k=7",
        ),
        // The executable bit.
        (
            "f1@a/x=1x f2@a/b/y=2",
            "f1@a/x=1 f2@a/b/y=2x",
            "f1@a/x=1x f2@a/b/y=2x",
        ),
    ] {
        let here = format!("d1@a/ d2@a/b/ {local}");
        let there = |rest: &str| format!("d9@a/ d8@a/b/ {rest}");
        println!("{here} here, {} there", there(remote));
        let plan = case(was, &here, &there(remote)).becomes(&there(want));
        assert_eq!(plan.conflicts, []);
    }
    let plan = case("d1@d/ f1@d/x=1", "d1@a/ f1@a/x=2", "d9@a/ f1@a/x=3")
        .becomes("d9@a/ f1@a/x=3 n1@a/x~=2");
    assert_eq!(plan.conflicts.len(), 1);
    // A directory that left it there, and one that the vault moved meanwhile with what is new in it.
    let there = "d9@a/ d2@c/ f1@a/x=1 f2@c/y=2";
    assert_eq!(case(was, moved, there).becomes(there).conflicts, []);
    let plan = case("d1@d/ d3@e/", "d1@e/a/ d3@e/", "d9@z/a/ d3@z/").becomes("d9@z/a/ d3@z/");
    assert_eq!((plan.conflicts.len(), plan.steps.len()), (0, 1));
    // Each kept another one of two, and gave it the same name: what was deleted with either stays so, an edit lives.
    let two = "d1@d/ f1@d/x=1 d9@e/ f9@e/y=2";
    for (local, remote, want) in [
        ("d1@a/ f1@a/x=1", "d9@a/ f9@a/y=2", "d9@a/"),
        ("d1@a/ f1@a/x=5", "d9@a/ f9@a/y=2", "d9@a/ f1@a/x=5"),
        ("d1@a/ f1@a/x=1", "d9@a/ f9@a/y=6", "d9@a/ f9@a/y=6"),
    ] {
        assert_eq!(case(two, local, remote).becomes(want).conflicts, []);
    }
    // An edit finds the directory that is there now.
    case("d1@d/ f1@d/x=1", "d1@d/ f1@d/x=2", "d9@d/ f9@d/y=3").becomes("d9@d/ f1@d/x=2 f9@d/y=3");
    // One that the vault still has is not taken for another; nor is what is no directory.
    for (local, remote, want) in [
        ("d1@a/", "d1@d/ d9@a/", "d9@a/ d1@a~/"),
        ("d1@a/", "f9@a=1", "f9@a=1 d1@a~/"),
    ] {
        let plan = case("d1@d/", local, remote).becomes(want);
        assert_eq!(plan.conflicts.len(), 1);
    }
}

#[test]
fn what_is_left_alone_in_a_directory_that_was_made_again_keeps_its_row() {
    // Unknown, unreadable in the vault, or a directory that is gone there and holds something that is skipped.
    for (was, local, remote, disk, vault) in [
        (
            "d1@d/ f1@d/x=1",
            "d1@a/ f1@a/x=1?",
            "d9@a/ f1@a/x=3",
            "d9@a/ f1@a/x=1",
            "d9@a/ f1@a/x=3",
        ),
        (
            "d1@d/ f1@d/x=1",
            "d1@a/ f1@a/x=1",
            "d9@a/ f1!",
            "d9@a/ f1@a/x=1",
            "d9@a/",
        ),
        (
            "d1@d/ f1@d/e/",
            "d1@d/ f1@d/e/+",
            "d9@d/",
            "d9@d/ f1@d/e/",
            "d9@d/",
        ),
    ] {
        let plan = case(was, local, remote).leads_to(disk, vault);
        assert!(plan.is_idle(), "{plan:#?}");
        assert_eq!(plan.forget, [id("d1")]);
        assert_eq!(plan.reparented, BTreeMap::from([(id("f1"), id("d9"))]));
        assert!(!plan.records.contains_key(&id("f1")));
    }
    // Its name is needed.
    let plan = case("d1@d/ f1@d/x=1", "d1@a/ f1@a/x=1", "d9@a/ f1! f2@a/x=2")
        .leads_to("d9@a/ f2@a/x=2 f1@a/x~=1", "d9@a/ f2@a/x=2");
    let row = &plan.records[&id("f1")].node;
    let name = Name::parse(&format!("x{LONG}")).unwrap();
    assert_eq!((row.parent, &row.name), (id("d9"), &name));
}

#[test]
fn what_is_still_to_be_done_in_a_directory_that_was_made_again_is_done_after_an_interruption() {
    for (was, here, there, want) in [
        // Edited, deleted, renamed, moved out; made executable and in a directory that goes by another id too.
        (
            "d1@d/ f1@d/x=1",
            "d1@d/ f1@d/x=2",
            "d9@d/ f1@d/x=1",
            "d9@d/ f1@d/x=2",
        ),
        ("d1@d/ f1@d/x=1", "d1@d/", "d9@d/ f1@d/x=1", "d9@d/"),
        (
            "d1@d/ f1@d/x=1",
            "d1@d/ f1@d/y=1",
            "d9@d/ f1@d/x=1",
            "d9@d/ f1@d/y=1",
        ),
        (
            "d1@d/ f1@d/x=1",
            "d1@d/ f1@y=1",
            "d9@d/ f1@d/x=1",
            "d9@d/ f1@y=1",
        ),
        (
            "d1@d/ d2@d/b/ f1@d/b/x=1",
            "d1@d/ d2@d/b/ f1@d/b/x=1x",
            "d9@d/ d8@d/b/ f1@d/b/x=1",
            "d9@d/ d8@d/b/ f1@d/b/x=1x",
        ),
    ] {
        println!("{here} here, {there} there");
        let plan = case(was, here, there).interrupted().becomes(want);
        let sent = plan.all_ops().map(Op::node).collect::<Vec<_>>();
        assert!(plan.steps.is_empty() && sent == [id("f1")], "{plan:#?}");
        assert_eq!(plan.conflicts, []);
    }
    // Nor is what the vault alone did taken for something of here.
    for (there, want) in [
        ("d9@d/ f1@d/x=2", "d9@d/ f1@d/x=2"),
        ("d9@d/ f1@d/y=1", "d9@d/ f1@d/y=1"),
        ("d9@d/ f1@y=1", "d9@d/ f1@y=1"),
        ("d9@d/", "d9@d/"),
    ] {
        let was = "d1@d/ f1@d/x=1";
        let plan = case(was, was, there).interrupted().becomes(want);
        assert!(
            plan.ops.is_empty() && plan.conflicts.is_empty(),
            "{plan:#?}"
        );
    }
}

#[test]
fn a_node_that_is_of_another_kind_in_the_vault_is_another_one() {
    // No machine says such a thing. What is here is kept, changed or not.
    for (local, content) in [("f1@a=1", "1"), ("f1@a=2", "2")] {
        let plan = case("f1@a=1", local, "f1@a/ f2@a/b=3").with(|case| {
            let (_, path, body) = parse(local).remove(0);
            case.disk = BTreeMap::from([(path, (id("n1"), body.unwrap()))]);
        });
        let plan = plan.becomes(&format!("f1@a/ f2@a/b=3 n1@a~={content}"));
        assert_eq!(plan.forget, [id("f1")]);
    }
}

#[test]
fn only_what_its_size_does_not_tell_apart_is_read() {
    let unread = |length| {
        case("f1@a=1", "f1@a=2", "f1@a=3").with(|case| {
            if let LocalState::File { hash, size, .. } =
                &mut case.local.nodes.get_mut(&id("f1")).unwrap().state
            {
                (*hash, *size) = (None, length);
            }
        })
    };
    let read = unread(1).plan();
    assert_eq!(read.needs_hash, [TreePath::parse("a").unwrap()]);
    assert!(read.steps.is_empty() && read.ops.is_empty() && read.records.is_empty());
    let told = unread(2).plan();
    assert_eq!((told.needs_hash.len(), told.conflicts.len()), (0, 1));
}

#[test]
fn two_nodes_under_one_name() {
    for (ancestor, local, remote, want) in [
        ("", "x1@a=2", "f1@a=3", "f1@a=3 x1@a~=2"),
        ("", "x1@a.t=2", "f1@a.t=3", "f1@a.t=3 x1@a~.t=2"),
        ("", "x1@a/ x2@a/b=1", "f1@a=3", "f1@a=3 x1@a~/ x2@a~/b=1"),
        ("", "x1@a=2", "d1@a/ f1@a/b=3", "d1@a/ f1@a/b=3 x1@a~=2"),
        ("", "x1@a=2", "l1@a>t", "l1@a>t x1@a~=2"),
        (
            "f1@a=1 f2@b=2",
            "f1@c=1 f2@b=2",
            "f1@a=1 f2@c=2",
            "f2@c=2 f1@c~=1",
        ),
        ("f1@a=1", "f1@c=1", "f1@a=1 f2@c=2", "f2@c=2 f1@c~=1"),
        ("f1@a=1", "f1@a=1 x1@c=2", "f1@c=1", "f1@c=1 x1@c~=2"),
        (
            "f1@a=1",
            "x1@a/ x2@a/b=2",
            "f1@a=3",
            "f1@a=3 x1@a~/ x2@a~/b=2",
        ),
        ("d1@a/ d2@b/", "d1@c/ d2@b/", "d1@a/ d2@c/", "d2@c/ d1@c~/"),
    ] {
        let plan = case(ancestor, local, remote).becomes(want);
        assert_eq!(plan.conflicts.len(), 1);
    }
}

#[test]
fn directories_live_as_long_as_what_is_in_them() {
    let was = "d1@d/ d2@d/e/ f1@d/e/a=1";
    for (local, remote, want) in [
        (
            "d1@d/ d2@d/e/ f1@d/e/a=1 x1@d/e/b=2",
            "",
            "d1@d/ d2@d/e/ x1@d/e/b=2",
        ),
        (
            "",
            "d1@d/ d2@d/e/ f1@d/e/a=1 f2@d/e/b=2",
            "d1@d/ d2@d/e/ f2@d/e/b=2",
        ),
        ("d1@d/ d2@d/e/ f1@d/e/a=2", "", "d1@d/ d2@d/e/ f1@d/e/a=2"),
        ("", "d1@d/ d2@d/e/ f1@d/e/a=2", "d1@d/ d2@d/e/ f1@d/e/a=2"),
        ("f1@a=1", "", "f1@a=1"),
        ("", "f1@a=1", "f1@a=1"),
        ("d1@d/ d2@d/e/ f1@d/e/a=1", "f1@a=1", "f1@a=1"),
        ("d1@d/ d2@d/e/ f1@d/e/a=1", "", ""),
        ("", "d1@d/ d2@d/e/ f1@d/e/a=1", ""),
        // A file takes the name of the directory it was in.
        ("f1@d=1", "d1@d/ d2@d/e/ f1@d/e/a=1", "f1@d=1"),
        ("d1@d/ d2@d/e/ f1@d/e/a=1", "f1@d=1", "f1@d=1"),
        // Turned inside out.
        (
            "d2@d/ d1@d/e/ f1@d/a=1",
            "d1@d/ d2@d/e/ f1@d/e/a=1",
            "d2@d/ d1@d/e/ f1@d/a=1",
        ),
        (
            "d1@d/ d2@d/e/ f1@d/e/a=1",
            "d2@d/ d1@d/e/ f1@d/a=1",
            "d2@d/ d1@d/e/ f1@d/a=1",
        ),
    ] {
        case(was, local, remote).becomes(want);
    }
}

#[test]
fn crossed_moves_of_directories() {
    let was = "d1@a/ d2@b/ f1@a/x=1";
    for (local, remote, want) in [
        (
            "d2@b/ d1@b/a/ f1@b/a/x=1",
            "d1@a/ d2@a/b/ f1@a/x=1",
            "d1@a/ d2@a/b/ f1@a/x=1",
        ),
        (
            "d1@a/ d2@a/b/ f1@a/x=1",
            "d2@b/ d1@b/a/ f1@b/a/x=1",
            "d2@b/ d1@b/a/ f1@b/a/x=1",
        ),
    ] {
        case(was, local, remote).becomes(want);
    }
}

#[test]
fn swaps_and_circles_of_names_are_one_commit() {
    for (was, now) in [
        ("f1@a=1 f2@b=2", "f1@b=1 f2@a=2"),
        ("f1@a=1 f2@b=2 f3@c=3", "f1@b=1 f2@c=2 f3@a=3"),
        ("d1@a/ f1@a/x=1 d2@b/", "d1@b/ f1@b/x=1 d2@a/"),
        ("d1@a/ f1@a/x=1 f2@b=2", "d1@b/ f1@b/x=1 f2@a=2"),
        ("d1@a/ d2@a/b/", "d2@a/ d1@a/b/"),
    ] {
        let sent = case(was, now, was).becomes(now);
        assert_eq!(sent.ops.len(), 1, "{:?}", sent.ops);
        let plan = case(was, was, now).becomes(now);
        assert!(
            plan.ops.is_empty()
                && !plan
                    .steps
                    .iter()
                    .any(|step| matches!(step, Step::Fetch { .. }))
        );
    }
    // A chain needs no common commit, only the right order.
    let chain = case("f1@a=1 f2@b=2", "f1@b=1 f2@c=2", "f1@a=1 f2@b=2").becomes("f1@b=1 f2@c=2");
    assert_eq!(
        chain
            .ops
            .iter()
            .map(|group| group.0[0].node())
            .collect::<Vec<_>>(),
        [id("f2"), id("f1")]
    );
}

#[test]
fn what_moved_elsewhere_moves_here() {
    for (was, now) in [
        // Out of a directory that moves too, and another one takes its name there, or the one above does.
        ("d1@d/ f1@d/a=1 f2@b=2", "f1@c=1 d1@z/ f2@z/a=2"),
        ("d1@d/ d2@d/e/ f1@d/e/a=1", "f1@b=1 d2@z/ d1@z/a/"),
        // Away, and another one takes its name.
        ("f1@b=1 f2@c=2", "f1@a=1 f2@b=2"),
        ("d1@d/ f1@d/b=1 f2@d/c=2", "d1@d/ f1@d/a=1 f2@d/b=2"),
    ] {
        let plan = case(was, was, now).becomes(now);
        assert!(
            plan.steps
                .iter()
                .all(|step| matches!(step, Step::Move { .. })),
            "{plan:#?}"
        );
    }
}

#[test]
fn what_is_on_its_way_takes_a_free_name() {
    // A directory cannot change places with one in it.
    let (was, now) = ("d1@a/ d2@a/b/", "d2@a/ d1@a/b/");
    let plan = case(was, was, now).becomes(now);
    assert!(format!("{:?}", plan.steps).contains("\"a.moving\""));
    // That name is one of a file that is about to go, or to come, or of something that is not synchronised.
    let goes = format!("{was} f9@a.moving=9");
    case(&goes, &goes, now).becomes(now);
    let comes = format!("{now} f9@a.moving=9");
    case(was, was, &comes).becomes(&comes);
    let skipped = case(was, was, now).with(|case| {
        let (id, path, body) = parse("oo@a.moving=0").remove(0);
        case.local
            .occupied
            .insert((NodeId::ROOT, path.name().unwrap()));
        case.disk.insert(path, (id, body.unwrap()));
    });
    skipped.leads_to(&format!("{now} oo@a.moving=0"), now);
}

#[test]
fn what_makes_room_goes_straight_to_its_place() {
    // A file is linked there before it is replaced; a directory changes places with what comes.
    for (was, now, steps) in [
        ("f1@a=1", "f1@b=1 f2@a=2", 1),
        ("d1@a/", "d1@b/ f2@a=2", 2),
        ("f1@a=1", "f1@b=1 d2@a/", 2),
        ("d1@a/", "d1@b/ d2@a/", 2),
    ] {
        let plan = case(was, was, now).becomes(now);
        assert_eq!(plan.steps.len(), steps, "{plan:#?}");
    }
    // Not while its directory is not there yet.
    for (was, now) in [
        ("f1@a=1", "d1@b/ f1@b/a=1 f2@a=2"),
        ("d1@d/ f1@a=1", "d1@z/ f1@z/a=1 f2@a=2"),
        ("d3@a/", "d1@b/ d3@b/a/ f2@a=2"),
    ] {
        case(was, was, now).becomes(now);
    }
}

#[test]
fn case_only_renames() {
    let folded = |case: Case| case.with(|case| case.policy.placement.case_insensitive = true);
    folded(case("f1@a=1", "f1@A=1", "f1@a=1")).becomes("f1@A=1");
    folded(case("f1@a=1", "f1@a=1", "f1@A=1")).becomes("f1@A=1");
    folded(case("d1@a/ f1@a/x=1", "d1@a/ f1@a/x=1", "d1@A/ f1@A/x=1")).becomes("d1@A/ f1@A/x=1");
}

#[test]
fn what_this_disk_cannot_hold_stays_in_the_vault() {
    let folded = |case: Case| case.with(|case| case.policy.placement = Placement::WINDOWS);
    // A twin by case, a forbidden name: shown, and in nobody's way.
    let plan = folded(case(
        "f1@a=1",
        "f1@a=1",
        "f1@a=1 f2@A=2 d1@x:/ f3@x:/y=3 f4@b=4",
    ))
    .leads_to("f1@a=1 f4@b=4", "f1@a=1 f2@A=2 d1@x:/ f3@x:/y=3 f4@b=4");
    assert_eq!(
        plan.skipped
            .iter()
            .map(|s| s.path.as_str())
            .collect::<Vec<_>>(),
        ["A", "x:"]
    );
    // What was here keeps its path while that is free, and its content goes on.
    let plan = folded(case("f1@a=1", "f1@a=1", "f1@a:=1")).leads_to("f1@a=1", "f1@a:=1");
    assert!(plan.is_idle());
    folded(case("f1@a=1", "f1@a=1", "f1@a:=3")).leads_to("f1@a=3", "f1@a:=3");
    folded(case("f1@a=1", "f1@a=2", "f1@a:=1")).leads_to("f1@a=2", "f1@a:=2");
    let was = "d1@d/ f1@d/a=1";
    let plan =
        folded(case(was, was, "d1@d:/ f1@d:/a=3")).leads_to("d1@d/ f1@d/a=3", "d1@d:/ f1@d:/a=3");
    assert_eq!(plan.forget, []);
    // So does the directory that it is in, though the vault has that no longer.
    folded(case(was, was, "f1@a:=1")).leads_to(was, "f1@a:=1");
    // If the path is needed, it makes room, its row first.
    let plan =
        folded(case("f1@a=1", "f1@a=1", "f1@a:=1 f2@a=2")).leads_to("f2@a=2", "f1@a:=1 f2@a=2");
    assert_eq!(plan.forget, [id("f1")]);
    folded(case(was, was, "d1@d/ f1@d/a:=1 f2@d/a=2"))
        .leads_to("d1@d/ f2@d/a=2", "d1@d/ f1@d/a:=1 f2@d/a=2");
    // Unless only this disk has its content.
    folded(case("f1@a=1", "f1@a=2", "f1@a:=1 f2@a=2")).leads_to("f1@a=2", "f1@a:=2 f2@a=2");
    // Links where none can be made.
    folded(case("", "", "l1@l>t")).leads_to("", "l1@l>t");
}

#[test]
fn a_conflict_that_has_no_place_here_waits() {
    // The vault's version has a name that this disk refuses, or the copy would have one that is too long.
    let windows =
        case("f1@a=1", "f1@a=2", "f1@a:=3").with(|case| case.policy.placement = Placement::WINDOWS);
    let short_names =
        case("f1@a=1", "f1@a=2", "f1@a=3").with(|case| case.policy.placement.max_name_len = 10);
    for (case, vault) in [(windows, "f1@a:=3"), (short_names, "f1@a=3")] {
        let plan = case.leads_to("f1@a=2", vault);
        assert!(plan.is_idle() && plan.conflicts.is_empty(), "{plan:#?}");
        assert!(
            plan.records.is_empty() && plan.forget.is_empty(),
            "{plan:#?}"
        );
    }
}

#[test]
fn unreadable_and_unplaced_nodes_are_left_alone() {
    let plan = case("f1@a=1", "f1@a=1", "f1!").leads_to("f1@a=1", "");
    assert!(plan.is_idle() && plan.forget.is_empty() && plan.skipped.len() == 1);
    let plan = case("f1@a=1", "", "f1!").leads_to("", "");
    assert!(plan.is_idle() && plan.forget.is_empty());
    let plan = case("f1@a=1", "f1@b=1", "f1!").leads_to("f1@b=1", "");
    assert!(plan.is_idle());
    // Changed here: goes on as a copy.
    let plan = case("f1@a=1", "f1@a=2", "f1!")
        .with(|case| {
            case.disk = BTreeMap::from([(
                TreePath::parse("a").unwrap(),
                (id("n1"), parse("f1@a=2")[0].2.clone().unwrap()),
            )])
        })
        .becomes("n1@a~=2");
    assert_eq!(
        (plan.forget.as_slice(), plan.conflicts.len()),
        ([id("f1")].as_slice(), 1)
    );
    // An exec bit is a change too.
    let copy = case("f1@a=1", "f1@a=1x", "f1!").plan();
    assert_eq!(
        (copy.forget.as_slice(), copy.conflicts.len()),
        ([id("f1")].as_slice(), 1)
    );
    // Its path belongs to another now.
    case("f1@a=1", "f1@a=1", "f1! f2@a=2").leads_to("f2@a=2 f1@a~=1", "f2@a=2");
    // Even where that holds the same: once it can be read again, its absence would be a deletion.
    case("f1@a=1", "f1@a=1", "f1! f2@a=1").leads_to("f2@a=1 f1@a~=1", "f2@a=1");
    // Its row says where it stands then.
    let moved = case("d1@d/ f1@a=1", "d1@d/ f1@d/a=1", "d1@d/ f1! f2@d/a=2");
    let plan = moved.leads_to("d1@d/ f2@d/a=2 f1@d/a~=1", "d1@d/ f2@d/a=2");
    let row = &plan.records[&id("f1")].node;
    let name = Name::parse(&format!("a{LONG}")).unwrap();
    assert_eq!((row.parent, &row.name), (id("d1"), &name));
    // A directory that hangs nowhere: what is in it waits, old and new.
    let plan = case("d1@d/ f1@d/a=1", "d1@d/ f1@d/a=2 x1@d/b=3", "d1! f1@zz/a=1");
    let plan = plan.with(|case| {
        // f1 still hangs in d1.
        let node = Node {
            parent: id("d1"),
            name: Name::parse("a").unwrap(),
            mtime_ns: 5,
            body: parse("f1@a=1")[0].2.clone().unwrap(),
        };
        case.log.apply(
            2,
            [Change {
                node: id("f1"),
                op: LastOp::Put(node.into()),
                op_hash: op_hash(id("f1"), 1),
            }],
        );
    });
    let plan = plan.plan();
    assert!(plan.all_ops().next().is_none(), "{plan:#?}");
    // What has a version of use is told with it.
    let [of_d1, of_f1, ..] = &plan.skipped[..] else {
        panic!("{plan:#?}");
    };
    let todo = format!("restore {} --version 2` places it again", id("f1"));
    assert!(
        of_f1.code.is_none() && of_f1.detail.ends_with(&todo),
        "{of_f1:?}"
    );
    let todo = format!("restore {} --version N`", id("d1"));
    assert!(
        of_d1.code.is_some() && of_d1.detail.ends_with(&todo),
        "{of_d1:?}"
    );
}

#[test]
fn names_claimed_by_unplaced_nodes() {
    // It gets the name, or pushes a newcomer with a larger id off it, as soon as f1 leaves it.
    let make = |unplaced: &str, local: &str| {
        case("f1@a=1", local, "f1@a=1").with(|case| {
            let node = Node {
                parent: NodeId::ROOT,
                name: Name::parse("a").unwrap(),
                mtime_ns: 5,
                body: Body::Directory,
            };
            case.log.apply(
                2,
                [Change {
                    node: id(unplaced),
                    op: LastOp::Put(node.into()),
                    op_hash: op_hash(id(unplaced), 1),
                }],
            );
        })
    };
    assert_eq!(make("zz", "f1@a=1").log.placed().unplaced.len(), 1);
    // People know it by its name, and restore it by its id.
    let told = make("zz", "f1@a=1").plan().skipped;
    assert_eq!(told[0].path, format!("a ({})", id("zz")));
    make("zz", "f1@b=1").leads_to("f1@b=1", "f1@b=1 zz@a/");
    make("f2", "f1@b=1 x1@a=5").leads_to("f1@b=1 x1@a~=5", "f1@b=1 f2@a/ x1@a~=5");
    // With a smaller id the newcomer has it.
    make("zz", "f1@b=1 x1@a=5").becomes("f1@b=1 x1@a=5");
}

#[test]
fn a_conflict_name_is_free_on_every_side() {
    let long = || Name::parse(&format!("a{LONG}")).unwrap();
    // Something that is not synchronised has it.
    case("f1@a=1", "f1@a=2", "f1@a=3")
        .with(|case| case.local.occupied.extend([(NodeId::ROOT, long())]))
        .becomes("f1@a=3 n1@a~-2=2");
    // Two take one at once.
    case("f1@a=1", "f1@a=2 x1@c=5", "f1@c=3").becomes("f1@c=3 x1@c~=5 n1@c~-2=2");
    // It is that of a file which comes back with its directory: this one would hang nowhere.
    let was = "d1@d/ f1@d/a=1";
    let orphans = case(was, "d1@d/ f1@d/a=2", "").with(|case| {
        let put = |node: &str, name: Name, body: &str| Change {
            node: id(node),
            op: LastOp::Put(
                Node {
                    parent: id("d1"),
                    name,
                    mtime_ns: 5,
                    body: parse(body)[0].2.clone().unwrap(),
                }
                .into(),
            ),
            op_hash: op_hash(id(node), 2),
        };
        let a = Name::parse("a").unwrap();
        let changes = [put("f1", a, "f1@a=1"), put("f9", long(), "f9@a=9")];
        case.log.apply(2, changes);
        let here = parse("d1@d/ n1@d/a=2");
        let here = here
            .into_iter()
            .map(|(id, path, body)| (path, (id, body.unwrap())));
        case.disk = here.collect();
    });
    orphans.leads_to("d1@d/ n1@d/a~-2=2", "d1@d/ f1@d/a=1 f9@d/a~=9 n1@d/a~-2=2");
}

#[test]
fn unknown_things_are_neither_changed_nor_deleted() {
    for (local, remote, disk, vault) in [
        ("f1@a=1?", "f1@a=1", "f1@a=1", "f1@a=1"),
        ("f1@a=1?", "f1@a=3", "f1@a=1", "f1@a=3"),
        ("f1@a=1?", "", "f1@a=1", ""),
        ("f1@a=1?", "f1@b=1", "f1@a=1", "f1@b=1"),
        ("f1@a=1?", "f1@b=1 f2@a=2", "f1@a=1", "f1@b=1 f2@a=2"),
    ] {
        case("f1@a=1", local, remote).leads_to(disk, vault);
    }
}

#[test]
fn a_directory_that_holds_skipped_things_stays_on_disk() {
    let was = "d1@d/ f1@d/a=1";
    let plan = case(was, "d1@d/+ f1@d/a=1", "").leads_to("d1@d/", "");
    assert!(plan.forget.is_empty());
    let again = case("d1@d/", "d1@d/+", "").leads_to("d1@d/", "");
    assert!(again.is_idle() && again.records.is_empty() && again.forget.is_empty());
    // It goes where the vault has it.
    case("d1@d/", "d1@d/+", "d1@e/").becomes("d1@e/");
    // Sent again when something appears in it.
    case("d1@d/", "d1@d/+ x1@d/b=2", "").becomes("d1@d/ x1@d/b=2");
}

#[test]
fn not_here_is_not_deleted() {
    let away = |case: Case| case.with(|case| case.policy.not_here.extend([id("f1")]));
    away(case("d1@d/ f1@d/a=1", "d1@d/", "d1@d/ f1@d/a=1")).leads_to("d1@d/", "d1@d/ f1@d/a=1");
    away(case("d1@d/ f1@d/a=1", "d1@d/", "d1@d/ f1@d/a=3")).leads_to("d1@d/", "d1@d/ f1@d/a=3");
    // The directory it hangs in lives.
    away(case("d1@d/ f1@d/a=1", "", "d1@d/ f1@d/a=1")).leads_to("d1@d/", "d1@d/ f1@d/a=1");
}

#[test]
fn what_cannot_be_fetched_leaves_the_local_side_alone() {
    let lost = |case: Case| case.with(|case| case.policy.unavailable.extend([id("f1")]));
    for (local, remote, disk) in [
        ("f1@a=1", "f1@a=3", "f1@a=1"),
        ("f1@a=2", "f1@a=3", "f1@a=2"),
        ("", "f1@a=3", ""),
        ("f1@a=1", "f1@b=3", "f1@a=1"),
    ] {
        let plan = lost(case("f1@a=1", local, remote)).leads_to(disk, remote);
        assert!(plan.is_idle());
    }
    // What need not be fetched goes on.
    lost(case("f1@a=1", "f1@a=2", "f1@b=1")).becomes("f1@b=2");
}

#[test]
fn without_an_ancestor_nothing_goes() {
    let plan = case(
        "",
        "x1@a=1 x2@b=2 x3@d/ x4@d/c=3",
        "f1@a=1 f2@b=9 d1@d/ f3@d/e=5",
    );
    let plan = plan.becomes("f1@a=1 f2@b=9 x2@b~=2 d1@d/ x4@d/c=3 f3@d/e=5");
    assert!(plan.steps.iter().all(|step| step.removes().is_none()));
    // A row for a node that the log never named proves nothing.
    let orphan = case("f1@a=1", "f1@a=1", "").with(|case| case.log = LogTree::default());
    orphan.becomes("f1@a=1");
}

#[test]
fn what_is_new_is_sent_in_the_order_of_paths() {
    let plan = case("", "x1@c=1 x2@b/ x3@b/z=3 x4@a=2 x5@b/y=5", "").plan();
    let order: Vec<_> = plan.all_ops().map(|op| short(op.node())).collect();
    assert_eq!(order, ["x4", "x2", "x5", "x3", "x1"]);
}

#[test]
fn rows_say_what_both_sides_hold() {
    // What is sent, as it is here.
    let plan = case("f1@a=1", "f1@a=2", "f1@a=1").plan();
    let sent = &plan.records[&id("f1")];
    assert_eq!(sent.node.body, parse("f1@a=2")[0].2.clone().unwrap());
    assert_eq!(sent.op_hash, None);
    // Nothing differs: nothing is written.
    let same = || case("f1@a=1", "f1@a=1", "f1@a=1");
    assert!(same().plan().records.is_empty());
    // It was read and is what it was: it need not be read again.
    let read = same().with(|case| {
        let fingerprint = case.ancestor.get(id("f1")).unwrap().fingerprint.unwrap();
        case.local.nodes.get_mut(&id("f1")).unwrap().state = LocalState::File {
            hash: Some(hash("1")),
            size: 1,
            exec: false,
            mtime_ns: 5,
            fingerprint: Fingerprint {
                ctime_ns: 6,
                ..fingerprint
            },
        };
    });
    // Another machine said the same once more: what is sent next is based on that.
    let said_again = same().with(|case| {
        let LastOp::Put(node) = case.log.get(id("f1")).unwrap().op.clone() else {
            panic!("f1 is put");
        };
        let change = Change {
            node: id("f1"),
            op: LastOp::Put(node),
            op_hash: op_hash(id("f1"), 2),
        };
        case.log.apply(2, [change]);
    });
    for (case, n) in [(read, 1), (said_again, 2)] {
        let plan = case.plan();
        assert!(plan.is_idle() && plan.steps.is_empty());
        assert_eq!(plan.agreed, [id("f1")]);
        assert_eq!(plan.records[&id("f1")].op_hash, Some(op_hash(id("f1"), n)));
    }
}

#[test]
fn exec_bit_and_time() {
    for (local, remote, want) in [
        ("f1@a=1x", "f1@a=1", "f1@a=1x"),
        ("f1@a=1", "f1@a=1x", "f1@a=1x"),
        ("f1@a=1x", "f1@a=3", "f1@a=3x"),
        ("f1@a=2", "f1@a=1x", "f1@a=2x"),
        ("f1@a=1x", "", "f1@a=1x"),
        ("", "f1@a=1x", "f1@a=1x"),
    ] {
        let plan = case("f1@a=1", local, remote).becomes(want);
        assert_eq!(plan.conflicts, []);
    }
    let touched = |remote: &str| {
        case("f1@a=1", "f1@a=1", remote).with(|case| {
            let state = LocalState::File {
                hash: Some(hash("1")),
                size: 1,
                exec: false,
                mtime_ns: 9,
                fingerprint: Fingerprint {
                    size: 1,
                    mtime_ns: 9,
                    ctime_ns: 9,
                    inode: 0,
                },
            };
            case.local.nodes.get_mut(&id("f1")).unwrap().state = state;
        })
    };
    // A new time alone is sent, beats nothing and makes no conflict.
    assert_eq!(touched("f1@a=1").becomes("f1@a=1").ops.len(), 1);
    assert_eq!(touched("f1@a=3").becomes("f1@a=3").ops.len(), 0);
    assert_eq!(touched("").becomes("").ops.len(), 0);
    // A file system may round what it is told: what it shows is no new time until it shows another one.
    let rounded = case("f1@a=1", "f1@a=1", "f1@a=1").with(|case| {
        let mut row = case.ancestor.get(id("f1")).unwrap().clone();
        let was = Fingerprint {
            mtime_ns: 4,
            ..row.fingerprint.unwrap()
        };
        row.fingerprint = Some(was);
        case.ancestor.insert(id("f1"), row);
        case.local.nodes.get_mut(&id("f1")).unwrap().state = LocalState::File {
            hash: Some(hash("1")),
            size: 1,
            exec: false,
            mtime_ns: 4,
            fingerprint: Fingerprint { ctime_ns: 6, ..was },
        };
    });
    assert!(rounded.plan().is_idle());
}

#[test]
fn where_there_is_no_exec_bit_it_is_what_the_vault_says() {
    let without = |case: Case| case.with(|case| case.policy.placement.exec_bit = false);
    // What such a disk shows says nothing, even of a file that was changed.
    without(case("f1@a=1x", "f1@a=2", "f1@a=1x")).leads_to("f1@a=2", "f1@a=2x");
    without(case("f1@a=1", "f1@a=2x", "f1@a=1")).leads_to("f1@a=2x", "f1@a=2");
    // And it is not told.
    let plan = without(case("f1@a=1", "f1@a=1", "f1@a=1x")).leads_to("f1@a=1", "f1@a=1x");
    assert_eq!(plan.steps, []);
    assert_eq!(plan.agreed, [id("f1")]);
}

#[test]
fn clocks_decide_nothing() {
    let rows = [
        ("f1@a=1", "f1@a=2", "f1@a=3", "f1@a=3 n1@a~=2"),
        ("f1@a=1", "f1@a=2", "f1@a=2", "f1@a=2"),
        ("f1@a=1", "f1@a=1", "f1@a=3", "f1@a=3"),
        ("f1@a=1", "f1@a=2", "", "f1@a=2"),
        ("f1@a=1", "f1@a=1", "", ""),
        ("", "x1@a=2", "f1@a=3", "f1@a=3 x1@a~=2"),
    ];
    for (ancestor, local, remote, want) in rows {
        // Long before, at, and long after what the vault says.
        for time in [i64::MIN, 0, 5, 6, i64::MAX] {
            println!("{ancestor}: {local} here at {time}, {remote} there");
            let plan = case(ancestor, local, remote).with(|case| {
                for node in case.local.nodes.values_mut() {
                    if node.state == LocalState::Same {
                        node.state = LocalState::File {
                            hash: Some(hash("1")),
                            size: 1,
                            exec: false,
                            mtime_ns: 0,
                            fingerprint: Fingerprint {
                                size: 1,
                                ..Fingerprint::default()
                            },
                        };
                    }
                    if let LocalState::File {
                        mtime_ns,
                        fingerprint,
                        ..
                    } = &mut node.state
                    {
                        (*mtime_ns, fingerprint.mtime_ns) = (time, time);
                    }
                }
            });
            let plan = plan.becomes(want);
            assert_eq!(plan.conflicts.len(), usize::from(want.contains('~')));
        }
    }
}

#[test]
fn nothing_is_put_where_the_name_may_be_taken() {
    // Something that is not synchronised stands in a directory that turns out to be the vault's.
    let skipped = case("", "x1@d/", "d1@d/ f1@d/a=1").with(|case| {
        let place = (id("x1"), Name::parse("a").unwrap());
        case.local.occupied.insert(place);
    });
    skipped.leads_to("d1@d/", "d1@d/ f1@d/a=1");
    // The same where an interrupted commit left it the id of what now hangs nowhere.
    let skipped = case("", "x1@d/", "x1! d2@d/ f1@d/a=1").with(|case| {
        let place = (id("x1"), Name::parse("a").unwrap());
        case.local.occupied.insert(place);
    });
    skipped.leads_to("d2@d/", "d2@d/ f1@d/a=1");
    // There a conflict copy does not take its name.
    let skipped = case("", "x1@d/ x2@d/a=1", "d1@d/ f1@d/a=2").with(|case| {
        let (id_there, path, body) = parse("oo@d/a~=0").remove(0);
        let place = (id("x1"), path.name().unwrap());
        case.local.occupied.insert(place);
        case.disk.insert(path, (id_there, body.unwrap()));
    });
    let plan = skipped.plan();
    assert_eq!(plan.conflicts.len(), 1);
    let taken = TreePath::parse(&format!("d/a{LONG}")).unwrap();
    let mut given = plan.records.values().map(|record| &record.path);
    assert!(given.all(|path| *path != taken), "{plan:#?}");
    // A directory that was not seen in full.
    let unseen = case("d1@d/", "d1@d/", "d1@d/ f1@d/a=1").with(|case| {
        let state = LocalState::Directory {
            inode: 0,
            holds_skipped: true,
            complete: false,
        };
        case.local.nodes.get_mut(&id("d1")).unwrap().state = state;
    });
    unseen.leads_to("d1@d/", "d1@d/ f1@d/a=1");
    // The same of the root; what is deeper is seen.
    let blind = |case: Case| case.with(|case| case.local.root_incomplete = true);
    blind(case("", "", "f1@a=1")).leads_to("", "f1@a=1");
    let below = "d1@d/ d2@d/e/ f1@d/e/a=1";
    blind(case("d1@d/", "d1@d/", below)).becomes(below);
    // What stands in it already stays there, and is brought up to date.
    let half_seen = |remote: &str| {
        case("d1@d/ f1@d/a=1", "d1@d/ f1@d/a=1", remote).with(|case| {
            let state = LocalState::Directory {
                inode: 0,
                holds_skipped: true,
                complete: false,
            };
            case.local.nodes.get_mut(&id("d1")).unwrap().state = state;
        })
    };
    let plan = half_seen("d1@d/ f1@d/a=3").becomes("d1@d/ f1@d/a=3");
    assert!(plan.skipped.is_empty());
    half_seen("d1@d/ f1@d/b=1").leads_to("d1@d/ f1@d/a=1", "d1@d/ f1@d/b=1");
    // A directory that cannot be looked at.
    case("d1@d/", "d1@d/?", "d1@d/ f1@d/a=1").leads_to("d1@d/", "d1@d/ f1@d/a=1");
    // Unplaced and unknown: it does not give way.
    case("f1@a=1", "f1@a=1?", "f1! f2@a=2").leads_to("f1@a=1", "f2@a=2");
}
