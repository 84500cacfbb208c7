//! A little world in memory: disks with inodes, a log, and an engine that carries plans out as `Plan` says.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by several test binaries"
)]

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::{Body, ContentHash, Kind, Name, Node, NodeId, OpHash, TreePath};
use syncagent_sync::plan::{Content, Op, Plan, Step};
use syncagent_sync::scan::{Fingerprint, Observed, Scan};
use syncagent_sync::{
    Ancestor, AncestorNode, Change, Input, LastOp, LogTree, Part, Placed, Placement, Policy,
    Survey, Utc, Wider, World, focus, identify, reconcile,
};

pub const NOW: Utc = Utc {
    year: 2026,
    month: 1,
    day: 2,
    hour: 3,
    minute: 4,
    second: 5,
};

pub fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Content is a number; some share a length.
pub fn hash(content: u32) -> ContentHash {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&content.to_be_bytes());
    ContentHash(bytes)
}

pub fn content_of(hash: &ContentHash) -> u32 {
    u32::from_be_bytes(hash.0[..4].try_into().unwrap())
}

pub fn size(content: u32) -> u64 {
    1 + u64::from(content % 3)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    File {
        content: u32,
        exec: bool,
    },
    Directory(BTreeMap<Name, u64>),
    Link(String),
    /// Something that is not synchronised.
    Special,
}

#[derive(Debug, Clone)]
pub struct Inode {
    pub thing: Thing,
    pub mtime: i64,
    pub ctime: i64,
}

/// What people see: paths and what is there.
pub type Picture = BTreeMap<TreePath, String>;

#[derive(Debug, Clone)]
pub struct MemDisk {
    pub inodes: BTreeMap<u64, Inode>,
    pub clock: i64,
    pub incomplete: BTreeSet<TreePath>,
    /// Whether this system has no numbers to show.
    pub inodes_hidden: bool,
}

const ROOT: u64 = 1;

impl MemDisk {
    pub fn new() -> Self {
        let root = Inode {
            thing: Thing::Directory(BTreeMap::new()),
            mtime: 0,
            ctime: 0,
        };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            clock: 1000,
            incomplete: BTreeSet::new(),
            inodes_hidden: false,
        }
    }

    fn tick(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    pub fn find(&self, path: &TreePath) -> Option<u64> {
        path.components()
            .try_fold(ROOT, |at, part| match &self.inodes[&at].thing {
                Thing::Directory(entries) => entries.get(part).copied(),
                _ => None,
            })
    }

    pub fn thing(&self, path: &TreePath) -> Option<&Thing> {
        self.find(path).map(|inode| &self.inodes[&inode].thing)
    }

    fn entries(&mut self, directory: &TreePath) -> &mut BTreeMap<Name, u64> {
        let inode = self
            .find(directory)
            .unwrap_or_else(|| panic!("no directory {directory}"));
        match &mut self.inodes.get_mut(&inode).unwrap().thing {
            Thing::Directory(entries) => entries,
            other => panic!("{directory} is {other:?}"),
        }
    }

    fn link(&mut self, path: &TreePath, inode: u64) {
        let old = self
            .entries(&path.parent().unwrap())
            .insert(path.name().unwrap(), inode);
        assert_eq!(old, None, "{path} is taken");
    }

    fn unlink(&mut self, path: &TreePath) -> u64 {
        let inode = self
            .entries(&path.parent().unwrap())
            .remove(&path.name().unwrap());
        inode.unwrap_or_else(|| panic!("nothing at {path}"))
    }

    fn drop_unused(&mut self, inode: u64) {
        let used = |i: &Inode| matches!(&i.thing, Thing::Directory(entries) if entries.values().any(|e| *e == inode));
        if !self.inodes.values().any(used)
            && let Some(Inode {
                thing: Thing::Directory(entries),
                ..
            }) = self.inodes.remove(&inode)
        {
            entries.into_values().for_each(|e| self.drop_unused(e));
        }
    }

    /// Numbers are handed out again, as real systems do.
    pub fn create(&mut self, path: &TreePath, thing: Thing, mtime: Option<i64>) {
        let now = self.tick();
        let inode = (ROOT + 1..).find(|n| !self.inodes.contains_key(n)).unwrap();
        self.inodes.insert(
            inode,
            Inode {
                thing,
                mtime: mtime.unwrap_or(now),
                ctime: now,
            },
        );
        self.link(path, inode);
    }

    /// Rename, replacing a file at `to`.
    pub fn rename(&mut self, from: &TreePath, to: &TreePath) {
        assert!(!to.is_within(from), "{from} into itself, {to}");
        if self.find(to).is_some() {
            assert!(
                !matches!(self.thing(to), Some(Thing::Directory(_))),
                "{to} is a directory"
            );
            let old = self.unlink(to);
            let inode = self.unlink(from);
            self.link(to, inode);
            self.drop_unused(old);
        } else {
            let inode = self.unlink(from);
            self.link(to, inode);
        }
        let now = self.tick();
        let inode = self.find(to).unwrap();
        self.inodes.get_mut(&inode).unwrap().ctime = now;
    }

    /// Gives other numbers to what `these` says: it was copied to another disk, or this one does not keep them.
    pub fn renumber(&mut self, these: impl Fn(&Thing) -> bool) {
        let most = self.inodes.keys().copied().max().unwrap_or(ROOT);
        let old = std::mem::take(&mut self.inodes);
        let renumbered = |number: &u64| *number != ROOT && these(&old[number].thing);
        let changed: BTreeSet<u64> = old.keys().copied().filter(renumbered).collect();
        let number = |old: u64| {
            if changed.contains(&old) {
                old + most
            } else {
                old
            }
        };
        for (inode, mut what) in old {
            if let Thing::Directory(entries) = &mut what.thing {
                entries
                    .values_mut()
                    .for_each(|entry| *entry = number(*entry));
            }
            self.inodes.insert(number(inode), what);
        }
    }

    pub fn exchange(&mut self, a: &TreePath, b: &TreePath) {
        assert!(
            !a.is_within(b) && !b.is_within(a),
            "{a} cannot change places with {b}"
        );
        let (first, second) = (self.unlink(a), self.unlink(b));
        self.link(a, second);
        self.link(b, first);
        let now = self.tick();
        for inode in [first, second] {
            self.inodes.get_mut(&inode).unwrap().ctime = now;
        }
    }

    pub fn remove(&mut self, path: &TreePath) {
        let inode = self.unlink(path);
        self.drop_unused(inode);
    }

    pub fn write(&mut self, path: &TreePath, content: u32) {
        let now = self.tick();
        let inode = self.find(path).unwrap();
        let inode = self.inodes.get_mut(&inode).unwrap();
        if let Thing::File { content: old, .. } = &mut inode.thing {
            *old = content;
            inode.mtime = now;
            inode.ctime = now;
        }
    }

    pub fn set_meta(&mut self, path: &TreePath, exec: Option<bool>, mtime: Option<i64>) {
        let now = self.tick();
        let inode = self.find(path).unwrap();
        let inode = self.inodes.get_mut(&inode).unwrap();
        if let (Thing::File { exec: old, .. }, Some(exec)) = (&mut inode.thing, exec) {
            *old = exec;
        }
        inode.mtime = mtime.unwrap_or(inode.mtime);
        inode.ctime = now;
    }

    pub fn fingerprint(&self, path: &TreePath) -> Fingerprint {
        let number = self.find(path).unwrap();
        let inode = &self.inodes[&number];
        let size = match &inode.thing {
            Thing::File { content, .. } => size(*content),
            Thing::Link(target) => target.len() as u64,
            _ => 0,
        };
        Fingerprint {
            size,
            mtime_ns: inode.mtime,
            ctime_ns: inode.ctime,
            inode: if self.inodes_hidden { 0 } else { number },
        }
    }

    pub fn paths(&self) -> Vec<TreePath> {
        let mut out = Vec::new();
        self.walk(&TreePath::ROOT, ROOT, &mut |path, _| out.push(path.clone()));
        out
    }

    fn walk(&self, at: &TreePath, inode: u64, visit: &mut dyn FnMut(&TreePath, u64)) {
        if let Thing::Directory(entries) = &self.inodes[&inode].thing {
            for (name, child) in entries {
                let path = at.join(name);
                visit(&path, *child);
                self.walk(&path, *child, visit);
            }
        }
    }

    pub fn scan(&self) -> Scan {
        let mut scan = Scan {
            root_complete: !self.incomplete.contains(&TreePath::ROOT),
            ..Scan::default()
        };
        self.scan_into(&TreePath::ROOT, ROOT, &mut scan);
        scan
    }

    fn scan_into(&self, at: &TreePath, inode: u64, scan: &mut Scan) {
        let Thing::Directory(entries) = &self.inodes[&inode].thing else {
            return;
        };
        if self.incomplete.contains(at) {
            return;
        }
        for (name, child) in entries {
            let path = at.join(name);
            let seen = match &self.inodes[child].thing {
                Thing::File { exec, .. } => Observed::File {
                    fingerprint: self.fingerprint(&path),
                    exec: *exec,
                    racy: false,
                },
                Thing::Link(target) => Observed::Symlink {
                    fingerprint: self.fingerprint(&path),
                    target: target.clone(),
                },
                Thing::Special => Observed::Unknown,
                Thing::Directory(inside) => Observed::Directory {
                    inode: if self.inodes_hidden { 0 } else { *child },
                    complete: !self.incomplete.contains(&path),
                    holds_skipped: inside
                        .values()
                        .any(|i| self.inodes[i].thing == Thing::Special),
                },
            };
            scan.entries.insert(path.clone(), seen);
            self.scan_into(&path, *child, scan);
        }
    }

    pub fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        self.walk(&TreePath::ROOT, ROOT, &mut |path, inode| {
            let text = match &self.inodes[&inode].thing {
                Thing::File { content, exec } => {
                    format!("{content}{}", if *exec { "x" } else { "" })
                }
                Thing::Directory(_) => "/".to_owned(),
                Thing::Link(target) => format!("->{target}"),
                Thing::Special => return,
            };
            picture.insert(path.clone(), text);
        });
        picture
    }

    pub fn contents(&self) -> BTreeSet<u32> {
        let contents = self.inodes.values().filter_map(|inode| match inode.thing {
            Thing::File { content, .. } => Some(content),
            _ => None,
        });
        contents.collect()
    }
}

#[derive(Debug, Clone, Default)]
pub struct Server {
    pub log: LogTree,
    pub ever: BTreeSet<u32>,
    /// Every version of every file.
    pub versions: BTreeMap<NodeId, Vec<Body>>,
    ops: u64,
}

impl Server {
    pub fn commit(&mut self, changes: Vec<(NodeId, LastOp)>) -> BTreeMap<NodeId, OpHash> {
        let mut hashes = BTreeMap::new();
        let mut list = Vec::new();
        for (node, op) in changes {
            self.ops += 1;
            let mut op_hash = OpHash([0; 32]);
            op_hash.0[..8].copy_from_slice(&self.ops.to_be_bytes());
            if let Some(put) = op.node() {
                if let Body::File { hash, .. } = &put.body {
                    self.ever.insert(content_of(hash));
                }
                let versions = self.versions.entry(node).or_default();
                versions.push(put.body.clone());
            }
            hashes.insert(node, op_hash);
            list.push(Change { node, op, op_hash });
        }
        self.log.apply(self.log.head() + 1, list);
        hashes
    }

    pub fn picture(&self) -> Picture {
        let tree = self.log.placed().tree;
        let text = |id| match &tree.get(id).unwrap().body {
            Body::File { hash, exec, .. } => {
                format!("{}{}", content_of(hash), if *exec { "x" } else { "" })
            }
            Body::Directory => "/".to_owned(),
            Body::Symlink { target } => format!("->{target}"),
        };
        tree.walk(NodeId::ROOT)
            .into_iter()
            .map(|(path, id)| (path, text(id)))
            .collect()
    }
}

#[derive(Debug, Clone)]
pub struct Machine {
    pub disk: MemDisk,
    pub ancestor: Ancestor,
    pub pending: BTreeMap<TreePath, NodeId>,
    pub policy: Policy,
    pub ids: u64,
    /// What was found and placed when it last decided, and where that differed.
    scan: Scan,
    placed: Placed,
    placed_n: u64,
    survey: Survey,
}

/// Where a pass is cut off, as by a crash: after so many steps and commits.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub after: usize,
    /// Whether the rows of what was completed were still written.
    pub rows: bool,
}

impl Machine {
    pub fn new(number: u64) -> Self {
        Self {
            // Clocks that never show the same time on two machines.
            disk: MemDisk {
                clock: number as i64 * 1_000_000_000,
                ..MemDisk::new()
            },
            ancestor: Ancestor::default(),
            pending: BTreeMap::new(),
            policy: Policy {
                machine: format!("m{number}"),
                now: NOW,
                placement: Placement::UNIX,
                unavailable: BTreeSet::new(),
                not_here: BTreeSet::new(),
            },
            ids: number << 32,
            scan: Scan::default(),
            placed: Placed::default(),
            placed_n: 0,
            survey: Survey::default(),
        }
    }

    /// Decides about everything, and asserts that a decision about what is in focus alone is the same.
    pub fn decide(&mut self, server: &Server) -> (Plan, syncagent_sync::Identified) {
        let start = self.ids;
        let (plan, found) = self.decide_about(server, None);
        let end = std::mem::replace(&mut self.ids, start);
        let mut wider = Wider::default();
        self.follow(server);
        let (part, focused) = loop {
            let world = World {
                ancestor: &self.ancestor,
                scan: &self.scan,
                log: &server.log,
                remote: &self.placed,
            };
            let part = focus(&world, &self.survey, &wider, usize::MAX).unwrap();
            self.ids = start;
            let (plan, _) = self.decide_about(server, Some(&part));
            if !wider.reach(&part, &plan) {
                break (part, plan);
            }
        };
        assert!(
            focused == plan,
            "of everything: {plan:#?}\nof what is in focus: {focused:#?}\n{part:#?}"
        );
        self.ids = end;
        (plan, found)
    }

    /// Takes in what changed on disk and in the log, thing by thing, as an engine does. The survey asserts by itself
    /// that it comes to what a survey of everything would.
    fn follow(&mut self, server: &Server) {
        let now = self.disk.scan();
        let gone: Vec<TreePath> = self.scan.entries.keys().cloned().collect();
        for path in gone.iter().filter(|path| !now.entries.contains_key(path)) {
            self.scan.entries.remove(path);
        }
        for (path, seen) in &now.entries {
            if self.scan.entries.get(path) != Some(seen) {
                self.scan.entries.insert(path.clone(), seen.clone());
            }
        }
        self.scan.root_complete = now.root_complete;
        self.scan.no_exec_bit = now.no_exec_bit;
        let entries = server.log.iter();
        let changed = entries.filter(|(_, entry)| entry.n > self.placed_n);
        let changed = changed.map(|(id, _)| id).collect();
        self.placed.follow(&server.log, &changed);
        self.placed_n = server.log.head();
        assert_eq!(self.placed, server.log.placed());
        self.survey.follow(
            &mut self.ancestor,
            &mut self.scan,
            &server.log,
            &mut self.placed,
        );
    }

    fn decide_about(
        &mut self,
        server: &Server,
        part: Option<&Part>,
    ) -> (Plan, syncagent_sync::Identified) {
        let scan = match part {
            Some(part) => part.scan.clone(),
            None => self.disk.scan(),
        };
        let ancestor = part.map_or(&self.ancestor, |part| &part.ancestor);
        let mut hashes = BTreeMap::new();
        let disk = &self.disk;
        let read = |path: &TreePath| match disk.thing(path) {
            Some(Thing::File { content, .. }) => (disk.fingerprint(path), hash(*content)),
            other => panic!("asked to read {path}, which is {other:?}"),
        };
        let remote = match part {
            Some(part) => part.remote.clone(),
            None => server.log.placed(),
        };
        let mut rounds = 0;
        let start = self.ids;
        loop {
            rounds += 1;
            assert!(rounds < 10, "asks for hashes for ever");
            self.ids = start;
            let mut ids = self.ids;
            let mut new_id = || {
                ids += 1;
                // Scattered, so that the order of ids is not the order of time.
                let mixed = (ids.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ (ids >> 32);
                let mut id = [1; 16];
                id[..8].copy_from_slice(&mixed.to_be_bytes());
                NodeId(id)
            };
            let found = identify(ancestor, &scan, &self.pending, &hashes, &mut new_id);
            if !found.needs_hash.is_empty() {
                hashes.extend(
                    found
                        .needs_hash
                        .iter()
                        .map(|path| (path.clone(), read(path))),
                );
                continue;
            }
            let input = Input {
                ancestor,
                local: &found.local,
                log: &server.log,
                remote: &remote,
                history: &server.versions,
                policy: &self.policy,
            };
            let plan = reconcile(&input, &mut new_id);
            if !plan.needs_hash.is_empty() {
                hashes.extend(
                    plan.needs_hash
                        .iter()
                        .map(|path| (path.clone(), read(path))),
                );
                continue;
            }
            self.ids = ids;
            return (plan, found);
        }
    }

    pub fn sync(&mut self, server: &mut Server, cut: Option<Cut>) -> Plan {
        let (plan, found) = self.decide(server);
        self.carry_out(server, &plan, &found.new_ids, cut);
        plan
    }

    pub fn carry_out(
        &mut self,
        server: &mut Server,
        plan: &Plan,
        new_ids: &BTreeMap<TreePath, NodeId>,
        cut: Option<Cut>,
    ) {
        self.pending = new_ids.clone();
        for id in &plan.forget {
            self.ancestor.remove(*id);
        }
        for id in &plan.agreed {
            let record = &plan.records[id];
            let (node, op_hash) = (record.node.clone(), record.op_hash.unwrap());
            let at = found_path(self, plan, *id).unwrap_or(record.path.clone());
            self.write_row(*id, node, op_hash, &at);
        }
        for (id, parent) in &plan.reparented {
            let row = self.ancestor.get(*id).unwrap().in_directory(*parent);
            self.ancestor.insert(*id, row);
        }
        let mut budget = cut.map_or(usize::MAX, |cut| cut.after);
        let mut unfinished = BTreeSet::new();
        let start = self.disk.picture();
        let mut states = vec![start.clone()];
        for step in &plan.steps {
            if budget == 0 {
                unfinished.extend(nodes_of(step));
                continue;
            }
            budget -= 1;
            self.step(server, step);
            states.push(self.disk.picture());
        }
        // A name in the root that is in use before and after is in use all the time.
        let end = states.last().unwrap().clone();
        for name in start
            .keys()
            .filter(|p| p.components().count() == 1 && end.contains_key(*p))
        {
            assert!(
                states.iter().all(|state| state.contains_key(name)),
                "{name} was gone for a while:\n{}",
                show(plan)
            );
        }
        let mut sent = BTreeMap::new();
        for group in &plan.ops {
            if budget == 0 {
                unfinished.extend(group.0.iter().map(Op::node));
                continue;
            }
            budget -= 1;
            let changes = group.0.iter().map(|op| self.seal(server, op)).collect();
            let hashes = server.commit(changes);
            let placed = server.log.placed();
            for op in &group.0 {
                match op {
                    Op::Put(put) => {
                        assert!(
                            placed.tree.contains(put.node),
                            "not placed by its own commit: {put:?}\n{}",
                            show(plan)
                        );
                    }
                    Op::Trash { node } => drop(self.ancestor.remove(*node)),
                }
            }
            sent.extend(hashes);
        }
        if cut.is_some_and(|cut| !cut.rows) {
            return;
        }
        for (id, record) in &plan.records {
            if unfinished.contains(id) || plan.agreed.contains(id) {
                continue;
            }
            let mut node = record.node.clone();
            let op_hash = record.op_hash.unwrap_or_else(|| sent[id]);
            if record.op_hash.is_none()
                && let Some(LastOp::Put(put)) = server.log.get(*id).map(|entry| &entry.op)
            {
                node.body = put.body.clone();
            }
            self.write_row(*id, node, op_hash, &record.path);
        }
    }

    fn write_row(&mut self, id: NodeId, node: Node, op_hash: OpHash, at: &TreePath) {
        let print = self.disk.fingerprint(at);
        let directory = node.body == Body::Directory;
        let (fingerprint, inode) = if directory {
            (None, print.inode)
        } else {
            (Some(print), 0)
        };
        self.ancestor.insert(
            id,
            AncestorNode {
                node,
                op_hash,
                fingerprint,
                inode,
                not_here: false,
            },
        );
        self.pending.retain(|_, pending| *pending != id);
    }

    fn step(&mut self, server: &Server, step: &Step) {
        let disk = &mut self.disk;
        match step {
            Step::MakeDir { node, path } => {
                self.pending.insert(path.clone(), *node);
                disk.create(path, Thing::Directory(BTreeMap::new()), None);
            }
            Step::Fetch {
                node,
                path,
                replaces,
                aside,
                exec,
                mtime_ns,
            } => {
                let entry = server.log.get(*node);
                let Some(Node {
                    body: Body::File { hash, .. },
                    ..
                }) = entry.and_then(|entry| entry.op.node())
                else {
                    panic!("{step:?} fetches what is no file");
                };
                let thing = Thing::File {
                    content: content_of(hash),
                    exec: *exec,
                };
                put_in_place(
                    disk,
                    &mut self.pending,
                    *node,
                    path,
                    *replaces,
                    aside.as_ref(),
                    thing,
                    Some(*mtime_ns),
                );
            }
            Step::Link {
                node,
                path,
                target,
                replaces,
                aside,
            } => {
                let thing = Thing::Link(target.clone());
                put_in_place(
                    disk,
                    &mut self.pending,
                    *node,
                    path,
                    *replaces,
                    aside.as_ref(),
                    thing,
                    None,
                );
            }
            Step::SetMeta {
                path,
                exec,
                mtime_ns,
                ..
            } => disk.set_meta(path, Some(*exec), Some(*mtime_ns)),
            Step::Move {
                from,
                to,
                exchange_with: None,
                ..
            } => {
                assert!(disk.find(to).is_none(), "{to} is taken");
                disk.rename(from, to);
            }
            Step::Move {
                from,
                to,
                exchange_with: Some(_),
                ..
            } => disk.exchange(from, to),
            Step::Remove { path, kind, .. } => {
                match (disk.thing(path), kind) {
                    (Some(Thing::Directory(entries)), Kind::Directory) => {
                        assert!(entries.is_empty(), "{path} not empty")
                    }
                    (Some(Thing::File { .. }), Kind::File)
                    | (Some(Thing::Link(_)), Kind::Symlink) => {}
                    (thing, kind) => panic!("{path} is {thing:?}, not {kind:?}"),
                }
                disk.remove(path);
            }
        }
        if let Some(gone) = step.removes() {
            self.ancestor.remove(gone);
        }
    }

    fn seal(&self, server: &Server, op: &Op) -> (NodeId, LastOp) {
        let put = match op {
            Op::Put(put) => put,
            Op::Trash { node } => return (*node, LastOp::Trashed),
        };
        let body = match &put.content {
            Content::Directory => Body::Directory,
            Content::Symlink { target } => Body::Symlink {
                target: target.clone(),
            },
            Content::FromDisk { path } => match self.disk.thing(path) {
                Some(Thing::File { content, .. }) => Body::File {
                    hash: hash(*content),
                    size: size(*content),
                    exec: put.exec,
                },
                other => panic!("{put:?} sends {other:?}"),
            },
            Content::Keep => match server.log.get(put.node).and_then(|entry| entry.op.node()) {
                Some(Node {
                    body: Body::File { hash, size, .. },
                    ..
                }) => Body::File {
                    hash: *hash,
                    size: *size,
                    exec: put.exec,
                },
                other => panic!("{put:?} keeps {other:?}"),
            },
        };
        let node = Node {
            parent: put.parent,
            name: put.name.clone(),
            mtime_ns: put.mtime_ns,
            body,
        };
        (put.node, LastOp::Put(node.into()))
    }
}

/// Where an agreed node stands before the steps.
fn found_path(machine: &Machine, plan: &Plan, id: NodeId) -> Option<TreePath> {
    // Undo the moves of directories above it.
    let mut path = plan.records.get(&id)?.path.clone();
    for step in plan.steps.iter().rev() {
        if let Step::Move {
            from,
            to,
            exchange_with,
            ..
        } = step
        {
            if let Some(back) = path.rebase(to, from) {
                path = back;
            } else if exchange_with.is_some()
                && let Some(back) = path.rebase(from, to)
            {
                path = back;
            }
        }
    }
    machine.disk.find(&path).map(|_| path)
}

fn nodes_of(step: &Step) -> Vec<NodeId> {
    let mut nodes = vec![step.node()];
    match step {
        Step::Move {
            exchange_with: Some(other),
            ..
        } => nodes.push(*other),
        Step::Fetch {
            aside: Some(aside), ..
        }
        | Step::Link {
            aside: Some(aside), ..
        } => nodes.push(aside.node),
        _ => {}
    }
    nodes
}

#[expect(clippy::too_many_arguments, reason = "one step's fields")]
fn put_in_place(
    disk: &mut MemDisk,
    pending: &mut BTreeMap<TreePath, NodeId>,
    node: NodeId,
    path: &TreePath,
    replaces: Option<NodeId>,
    aside: Option<&syncagent_sync::Aside>,
    thing: Thing,
    mtime: Option<i64>,
) {
    assert_eq!(
        disk.find(path).is_some(),
        replaces.is_some(),
        "{path}: {replaces:?}"
    );
    if let Some(aside) = aside {
        assert!(
            replaces.is_some() && disk.find(&aside.path).is_none(),
            "{} is taken",
            aside.path
        );
        let inode = disk.find(path).unwrap();
        disk.link(&aside.path, inode);
        let now = disk.tick();
        disk.inodes.get_mut(&inode).unwrap().ctime = now;
        pending.insert(aside.path.clone(), aside.node);
    }
    if replaces.is_none() {
        pending.insert(path.clone(), node);
    } else {
        let old = disk.unlink(path);
        assert!(
            !matches!(disk.inodes[&old].thing, Thing::Directory(_)),
            "{path} is a directory"
        );
        disk.drop_unused(old);
    }
    disk.create(path, thing, mtime);
}

/// A plan, a line per step and op.
pub fn show(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| format!("  {step:?}\n"));
    let groups = plan.ops.iter().map(|group| format!("  {:?}\n", group.0));
    steps
        .chain(["  --\n".to_owned()])
        .chain(groups)
        .chain([format!(
            "  forget {:?} agreed {:?} reparented {:?} skipped {:?}\n",
            plan.forget, plan.agreed, plan.reparented, plan.skipped
        )])
        .collect()
}
