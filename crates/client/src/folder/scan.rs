//! Looks at the disk and fills a [`Scan`]: one `stat` an entry, no content is read.
//!
//! Absence is what deletions are made of, so a scan claims it only of one moment: after the walk every directory is
//! looked at once more, and one that changed meanwhile is listed again, until none of them did: then all listings hold at
//! the moment that last round began. A file renamed behind the scan's back is thus found under its new name instead of
//! being missed under both. A directory that does not hold still is marked incomplete; what is missing below it is
//! unknown.

use std::collections::{BTreeSet, HashSet};

use rayon::prelude::*;
use syncagent_protocol::{Code, TreePath};
use syncagent_sync::scan::{Observed, Scan, Skipped};

use super::disk::{At, Disk, DiskError, EntryKind, ErrorKind, Stat};

/// A file touched within this time before a scan is not trusted to be unchanged afterwards: file systems stamp
/// with the kernel's tick, 1 to 10 ms, so two writes can leave one stamp. Twice the coarsest tick.
const RACY_NS: i64 = 20_000_000;

/// The same for a stamp of whole seconds. It may be of a file system that keeps no more: ext4 with small inodes and HFS+
/// one second, FAT two.
const RACY_COARSE_NS: i64 = 2_000_000_000 + RACY_NS;

/// A stamp further ahead of the clock than this was set by hand and says nothing about the present.
const AHEAD_NS: i64 = 600_000_000_000;

/// How often directories that changed during the scan are listed again before they are called unsteady.
const ROUNDS: usize = 4;

/// What is not synchronised, by the user's rules.
pub trait IgnoreRules: Sync {
    /// The rule that leaves `path` out, worded for a person (`*.tmp in .syncignore`); `None` if it is kept.
    /// Called for a path only if it was `None` for every directory above.
    fn ignores(&self, path: &TreePath, is_dir: bool) -> Option<String>;
}

/// Rules that keep everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepAll;

impl IgnoreRules for KeepAll {
    fn ignores(&self, _path: &TreePath, _is_dir: bool) -> Option<String> {
        None
    }
}

/// A look at the disk at one time under one set of rules.
pub struct Look<'a> {
    /// The disk.
    pub disk: &'a dyn Disk,
    /// What to leave out.
    pub rules: &'a dyn IgnoreRules,
    /// Whether the ancestor has this path: if it is left out now, it is listed as [`Observed::Unknown`],
    /// so that leaving it out is not taken for a deletion.
    pub known: &'a (dyn Fn(&TreePath) -> bool + Sync),
    /// The clock, nanoseconds since 1970.
    pub now_ns: i64,
}

/// A directory to be listed, and where it goes.
struct Pending {
    path: TreePath,
    inode: u64,
}

/// A directory that was listed.
struct Listed {
    path: TreePath,
    /// Itself; `None` if it is gone.
    observed: Option<Observed>,
    /// As it was before it was listed; `None` if it could not be.
    stamp: Option<Stat>,
    /// Its entries, sorted by name.
    children: Vec<Child>,
    skipped: Vec<Skipped>,
}

struct Child {
    path: TreePath,
    what: What,
}

enum What {
    Leaf(Observed),
    /// To be listed; later the index of its listing.
    Directory {
        inode: u64,
    },
}

/// What one entry is.
struct Classified {
    what: Option<What>,
    skipped: Option<Skipped>,
}

/// A tree of listings, parents before children.
#[derive(Default)]
struct Walk {
    listed: Vec<Listed>,
    /// For each listing the listings of its sub-directories, in the order of its children.
    below: Vec<Vec<usize>>,
}

impl Look<'_> {
    /// Looks at everything.
    pub fn scan(&self) -> Scan {
        let mut scan = Scan {
            no_exec_bit: !self.disk.capabilities().exec,
            ..Scan::default()
        };
        let mut stamps = Vec::new();
        self.walk_into(&mut scan, &TreePath::ROOT, 0, &mut stamps);
        self.settle(&mut scan, stamps);
        scan.skipped.sort_by(|a, b| a.path.cmp(&b.path));
        scan
    }

    /// Looks again at `paths` and at everything below those that are directories.
    pub fn rescan(&self, scan: &mut Scan, paths: &BTreeSet<TreePath>) {
        if !scan.root_complete || paths.contains(&TreePath::ROOT) {
            *scan = self.scan();
            return;
        }
        let mut stamps = Vec::new();
        let mut parents = BTreeSet::new();
        let mut done: Option<TreePath> = None;
        for path in paths {
            let target = first_unlisted(scan, path);
            // Sorted: what is below a path comes directly after it.
            if done.as_ref().is_some_and(|done| target.is_within(done)) {
                continue;
            }
            let looked = self.look_again(scan, target, &mut stamps);
            if looked.is_root() {
                *scan = self.scan();
                return;
            }
            parents.extend(looked.parent());
            done = Some(looked);
        }
        self.settle(scan, stamps);
        recount_skipped(scan, parents);
        scan.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// Looks at `path`, or at the nearest directory above that still exists; returns which it was.
    fn look_again(
        &self,
        scan: &mut Scan,
        mut path: TreePath,
        stamps: &mut Vec<(TreePath, Stat)>,
    ) -> TreePath {
        loop {
            match self.disk.stat(At::Tree(&path)) {
                Ok(stat) => {
                    forget(scan, &path);
                    let Classified { what, skipped } = self.classify(&path, Ok(stat));
                    scan.skipped.extend(skipped);
                    match what {
                        Some(What::Leaf(observed)) => {
                            scan.entries.insert(path.clone(), observed);
                        }
                        Some(What::Directory { inode }) => {
                            self.walk_into(scan, &path, inode, stamps)
                        }
                        None => {}
                    }
                    return path;
                }
                Err(error) if is_absence(&error) => {
                    // Gone, but from where? Only a directory that is there proves that something is not in it.
                    let Some(parent) = path.parent() else {
                        return path;
                    };
                    match self.disk.stat(At::Tree(&parent)) {
                        Ok(stat) if stat.kind == EntryKind::Directory => {
                            forget(scan, &path);
                            return path;
                        }
                        _ => path = parent,
                    }
                }
                Err(error) => {
                    forget(scan, &path);
                    scan.entries.insert(path.clone(), Observed::Unknown);
                    scan.skipped.push(unreadable(path.to_string(), &error));
                    return path;
                }
            }
        }
    }

    /// Lists `top` and everything below and puts it into `scan`, which has nothing there yet.
    fn walk_into(
        &self,
        scan: &mut Scan,
        top: &TreePath,
        inode: u64,
        stamps: &mut Vec<(TreePath, Stat)>,
    ) {
        let walk = self.walk(Pending {
            path: top.clone(),
            inode,
        });
        for listed in &walk.listed {
            stamps.extend(listed.stamp.map(|stamp| (listed.path.clone(), stamp)));
        }
        let entries = walk.into_sorted(scan);
        if scan.entries.is_empty() {
            // Sorted already, so the map is built in one go.
            scan.entries = entries.into_iter().collect();
        } else {
            scan.entries.extend(entries);
        }
    }

    fn walk(&self, top: Pending) -> Walk {
        let mut walk = Walk::default();
        let mut level = vec![top];
        while !level.is_empty() {
            let first = walk.listed.len();
            if self.disk.capabilities().parallel && level.len() > 1 {
                walk.listed
                    .par_extend(level.par_iter().map(|pending| self.list(pending)));
            } else {
                walk.listed
                    .extend(level.iter().map(|pending| self.list(pending)));
            }
            level.clear();
            // The next level is listed right behind this one, in this order.
            let mut next = walk.listed.len();
            for listed in &walk.listed[first..] {
                let mut below = Vec::new();
                for child in &listed.children {
                    if let What::Directory { inode } = child.what {
                        level.push(Pending {
                            path: child.path.clone(),
                            inode,
                        });
                        below.push(next);
                        next += 1;
                    }
                }
                walk.below.push(below);
            }
        }
        walk
    }

    /// Lists one directory.
    fn list(&self, pending: &Pending) -> Listed {
        let path = pending.path.clone();
        let mut listed = Listed {
            path,
            observed: None,
            stamp: None,
            children: Vec::new(),
            skipped: Vec::new(),
        };
        let listing = match self.disk.list(&pending.path) {
            Ok(listing) => listing,
            Err(error) => {
                listed.observed = Some(match error.kind {
                    // It went or was replaced since its parent was listed: the parent changed and is listed again.
                    _ if is_absence(&error) => Observed::Unknown,
                    ErrorKind::OtherVolume => {
                        listed.skipped.push(mount(&pending.path));
                        Observed::Unknown
                    }
                    _ => {
                        listed
                            .skipped
                            .push(unreadable(pending.path.to_string(), &error));
                        Observed::Directory {
                            inode: pending.inode,
                            complete: false,
                            holds_skipped: false,
                        }
                    }
                });
                return listed;
            }
        };
        let mut holds_skipped = false;
        for entry in listing.entries {
            let skipped = match entry.name {
                Ok(name) => {
                    let path = pending.path.join(&name);
                    let Classified { what, skipped } = self.classify(&path, entry.stat);
                    listed
                        .children
                        .extend(what.map(|what| Child { path, what }));
                    skipped
                }
                Err(shown) => Some(Skipped {
                    path: shown_prefix(&pending.path) + &shown,
                    reason: "not-utf8",
                    code: None,
                    detail: "The name is not well-formed UTF-8. Rename it to have it synchronised."
                        .to_owned(),
                }),
            };
            holds_skipped |= skipped.is_some();
            listed.skipped.extend(skipped);
        }
        if let Some(error) = &listing.incomplete {
            listed
                .skipped
                .push(unreadable(pending.path.to_string(), error));
        }
        listed
            .children
            .sort_unstable_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        listed.stamp = Some(listing.dir);
        listed.observed = Some(Observed::Directory {
            inode: listing.dir.inode,
            complete: listing.incomplete.is_none(),
            holds_skipped,
        });
        listed
    }

    /// Says what one entry is.
    fn classify(&self, path: &TreePath, stat: Result<Stat, DiskError>) -> Classified {
        let leaf = |observed| Classified {
            what: Some(What::Leaf(observed)),
            skipped: None,
        };
        let unknown = |skipped| Classified {
            what: Some(What::Leaf(Observed::Unknown)),
            skipped: Some(skipped),
        };
        // Left out by its nature or a rule: of no concern, unless the ancestor has it.
        let left_out = |skipped| Classified {
            what: (self.known)(path).then_some(What::Leaf(Observed::Unknown)),
            skipped: Some(skipped),
        };
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Classified {
                    what: None,
                    skipped: None,
                };
            }
            Err(error) => return unknown(unreadable(path.to_string(), &error)),
        };
        if let Some(rule) = self.rules.ignores(path, stat.kind == EntryKind::Directory) {
            return left_out(Skipped {
                path: path.to_string(),
                reason: "ignored",
                code: None,
                detail: rule,
            });
        }
        if stat.device != self.disk.root_device() {
            return unknown(mount(path));
        }
        match stat.kind {
            EntryKind::Directory => Classified {
                what: Some(What::Directory { inode: stat.inode }),
                skipped: None,
            },
            EntryKind::File => leaf(Observed::File {
                fingerprint: stat.fingerprint(),
                exec: stat.exec(),
                racy: is_racy(&stat, self.now_ns),
            }),
            EntryKind::Symlink => match self.disk.read_link(At::Tree(path)) {
                Ok(target) => leaf(Observed::Symlink {
                    fingerprint: stat.fingerprint(),
                    target,
                }),
                Err(error) if error.kind == ErrorKind::NotFound => Classified {
                    what: None,
                    skipped: None,
                },
                Err(error) if error.kind == ErrorKind::NotUtf8 => left_out(Skipped {
                    path: path.to_string(),
                    reason: "not-utf8",
                    code: None,
                    detail: "The link's target is not well-formed UTF-8.".to_owned(),
                }),
                Err(error) => unknown(unreadable(path.to_string(), &error)),
            },
            EntryKind::Special => left_out(Skipped {
                path: path.to_string(),
                reason: "special",
                code: None,
                detail: "A socket, fifo or device is not synchronised.".to_owned(),
            }),
        }
    }

    /// Lists those directories again that changed since they were listed, and goes round all of them until none did.
    fn settle(&self, scan: &mut Scan, mut stamps: Vec<(TreePath, Stat)>) {
        for _ in 0..ROUNDS {
            let mut changed = self.changed(&stamps);
            if changed.is_empty() {
                return;
            }
            changed.retain(|path| path.is_root() || scan.entries.contains_key(path));
            let mut again = Vec::new();
            for path in changed {
                self.relist(scan, &path, &mut again);
            }
            // The others hold still so far, which has to be so in the last round as well.
            let is_again: HashSet<&TreePath> = again.iter().map(|(path, _)| path).collect();
            stamps.retain(|(path, _)| !is_again.contains(path) && is_listed(scan, path));
            stamps.extend(again);
        }
        let mut unsteady = self.changed(&stamps);
        unsteady.retain(|path| is_listed(scan, path));
        for path in unsteady {
            scan.skipped.push(Skipped {
                path: path.to_string(),
                reason: "changing",
                code: None,
                detail: "Its entries change faster than they can be listed; it is looked at again."
                    .to_owned(),
            });
            match scan.entries.get_mut(&path) {
                Some(Observed::Directory { complete, .. }) => *complete = false,
                _ if path.is_root() => scan.root_complete = false,
                _ => {}
            }
        }
    }

    fn changed(&self, stamps: &[(TreePath, Stat)]) -> BTreeSet<TreePath> {
        let differs = |(path, stamp): &&(TreePath, Stat)| {
            let same = |now: Stat| {
                (now.kind, now.inode, now.mtime_ns, now.ctime_ns)
                    == (stamp.kind, stamp.inode, stamp.mtime_ns, stamp.ctime_ns)
            };
            !self.disk.stat(At::Tree(path)).is_ok_and(same)
        };
        if self.disk.capabilities().parallel {
            stamps
                .par_iter()
                .filter(differs)
                .map(|(path, _)| path.clone())
                .collect()
        } else {
            stamps
                .iter()
                .filter(differs)
                .map(|(path, _)| path.clone())
                .collect()
        }
    }

    /// Lists one directory again; sub-directories that are still the same are left as they were found.
    fn relist(&self, scan: &mut Scan, path: &TreePath, stamps: &mut Vec<(TreePath, Stat)>) {
        let inode = match scan.entries.get(path) {
            Some(Observed::Directory { inode, .. }) => *inode,
            _ => 0,
        };
        let listed = self.list(&Pending {
            path: path.clone(),
            inode,
        });
        let Some(stamp) = listed.stamp else {
            // Gone or unreadable since: whoever holds it changed too, and decides.
            forget(scan, path);
            scan.skipped.extend(listed.skipped);
            scan.entries
                .extend(listed.observed.map(|observed| (path.clone(), observed)));
            let parent = path.parent().unwrap_or_default();
            // A stamp that fits nothing, so that the parent is listed in the next round whatever it looks like.
            stamps.push((
                parent,
                Stat {
                    inode: u64::MAX,
                    ..NO_STAT
                },
            ));
            return;
        };
        stamps.push((path.clone(), stamp));
        let mut kept = BTreeSet::new();
        for child in &listed.children {
            let same = match (&child.what, scan.entries.get(&child.path)) {
                (What::Directory { inode }, Some(Observed::Directory { inode: before, .. })) => {
                    inode == before
                }
                _ => false,
            };
            if same {
                kept.insert(child.path.clone());
            }
        }
        let before = scan.entries.children(path).map(|(child, _)| child);
        let before: Vec<TreePath> = before
            .filter(|child| !kept.contains(child))
            .cloned()
            .collect();
        for child in before {
            remove_below(scan, &child);
        }
        let shown: BTreeSet<String> = kept.iter().map(TreePath::to_string).collect();
        let own = path.to_string();
        let prefix = shown_prefix(path);
        // What was said of this directory and its entries, but for those that were not looked into again.
        scan.skipped.retain(|skipped| {
            skipped.path != own
                && (!skipped.path.starts_with(&prefix)
                    || shown
                        .iter()
                        .any(|kept| is_shown_within(&skipped.path, kept)))
        });
        scan.skipped.extend(listed.skipped);
        match listed.observed {
            Some(observed) if !path.is_root() => scan.entries.insert(path.clone(), observed),
            Some(Observed::Directory { complete, .. }) => scan.root_complete = complete,
            _ => {}
        }
        for child in listed.children {
            match child.what {
                What::Leaf(observed) => scan.entries.insert(child.path, observed),
                What::Directory { .. } if kept.contains(&child.path) => {}
                What::Directory { inode } => self.walk_into(scan, &child.path, inode, stamps),
            }
        }
    }
}

impl Walk {
    /// Everything found, in the order of paths; notes what was skipped, and the root, in `scan`.
    fn into_sorted(self, scan: &mut Scan) -> Vec<(TreePath, Observed)> {
        let Self { listed, below } = self;
        let mut entries = Vec::with_capacity(listed.iter().map(|dir| dir.children.len() + 1).sum());
        let mut dirs: Vec<Option<Listed>> = listed.into_iter().map(Some).collect();
        // Depth first with a stack of its own: a hostile tree may be deeper than the thread's.
        let mut stack = Vec::new();
        let mut open = |index: usize, entries: &mut Vec<(TreePath, Observed)>| {
            let dir = dirs.get_mut(index)?.take()?;
            scan.skipped.extend(dir.skipped);
            match dir.observed {
                Some(Observed::Directory { complete, .. }) if dir.path.is_root() => {
                    scan.root_complete = complete
                }
                Some(observed) if !dir.path.is_root() => entries.push((dir.path, observed)),
                _ => {}
            }
            Some((dir.children.into_iter(), below.get(index)?.iter()))
        };
        stack.extend(open(0, &mut entries));
        while let Some((children, below)) = stack.last_mut() {
            match children.next() {
                None => drop(stack.pop()),
                Some(Child {
                    path,
                    what: What::Leaf(observed),
                }) => entries.push((path, observed)),
                Some(Child {
                    what: What::Directory { .. },
                    ..
                }) => {
                    let next = below.next().and_then(|index| open(*index, &mut entries));
                    stack.extend(next);
                }
            }
        }
        entries
    }
}

const NO_STAT: Stat = Stat {
    kind: EntryKind::Directory,
    size: 0,
    mtime_ns: 0,
    ctime_ns: 0,
    inode: 0,
    device: 0,
    links: 0,
    mode: 0,
};

/// Whether a file may change once more without its fingerprint changing.
pub(super) fn is_racy(stat: &Stat, now_ns: i64) -> bool {
    let recent =
        |t: i64| t > now_ns.saturating_sub(grain_ns(t)) && t < now_ns.saturating_add(AHEAD_NS);
    recent(stat.mtime_ns) || recent(stat.ctime_ns)
}

/// Within which time of each other two writes may leave the same stamp as this one.
pub fn grain_ns(stamp_ns: i64) -> i64 {
    match stamp_ns % 1_000_000_000 {
        0 => RACY_COARSE_NS,
        _ => RACY_NS,
    }
}

/// Whether the scan has a listing of `path`.
fn is_listed(scan: &Scan, path: &TreePath) -> bool {
    path.is_root() || matches!(scan.entries.get(path), Some(Observed::Directory { .. }))
}

/// Whether the error says that the thing, or the way to it, is not there.
fn is_absence(error: &DiskError) -> bool {
    matches!(
        error.kind,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::Escapes
    )
}

/// `path`, or the highest directory above it that is not listed as one.
fn first_unlisted(scan: &Scan, path: &TreePath) -> TreePath {
    let mut target = path.clone();
    let mut at = path.clone();
    while let Some(parent) = at.parent().filter(|parent| !parent.is_root()) {
        if matches!(scan.entries.get(&parent), Some(Observed::Directory { .. })) {
            // And so are all above it. To ask each of them took minutes in a tree of a thousand levels.
            break;
        }
        target = parent.clone();
        at = parent;
    }
    target
}

/// Removes everything that is known of `path` and what is below.
fn forget(scan: &mut Scan, path: &TreePath) {
    remove_below(scan, path);
    let shown = path.to_string();
    scan.skipped
        .retain(|skipped| !is_shown_within(&skipped.path, &shown));
}

fn remove_below(scan: &mut Scan, path: &TreePath) {
    let doomed = scan.entries.within(path).map(|(below, _)| below.clone());
    let doomed: Vec<TreePath> = doomed.collect();
    for path in doomed {
        scan.entries.remove(&path);
    }
}

fn is_shown_within(shown: &str, dir: &str) -> bool {
    shown
        .strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn shown_prefix(dir: &TreePath) -> String {
    if dir.is_root() {
        String::new()
    } else {
        format!("{dir}/")
    }
}

/// Sets `holds_skipped` of `dirs` by what is in the list of skipped things.
fn recount_skipped(scan: &mut Scan, dirs: BTreeSet<TreePath>) {
    let holding: BTreeSet<&str> = scan
        .skipped
        .iter()
        .map(|skipped| skipped.path.rsplit_once('/').map_or("", |(dir, _)| dir))
        .collect();
    for dir in dirs {
        let holds = holding.contains(dir.to_string().as_str());
        if let Some(Observed::Directory { holds_skipped, .. }) = scan.entries.get_mut(&dir) {
            *holds_skipped = holds;
        }
    }
}

fn mount(path: &TreePath) -> Skipped {
    Skipped {
        path: path.to_string(),
        reason: "mount",
        code: None,
        detail: "Another file system is mounted here; it is not entered.".to_owned(),
    }
}

fn unreadable(path: String, error: &DiskError) -> Skipped {
    Skipped {
        path,
        reason: "unreadable",
        code: Some(Code::Read),
        detail: error.to_string(),
    }
}
