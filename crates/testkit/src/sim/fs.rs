//! A file system in memory that knows what a power cut would leave of it.
//!
//! There are two trees: what programs see, and what certainly is on the platter. Between them lies a journal of
//! changes to names and inodes, which reach the platter **in order, up to some point**, as with ext4 and XFS; the
//! content of a file reaches it on its own, before or after. [`Fs::sync_dir`] forces the journal up to the last change
//! of that directory, [`Fs::sync_file`] one file's content (and *not* its name: that is the pessimistic reading of
//! POSIX). After [`Fs::power_cut`] a file whose content was not synced holds its old content, its new one, or a torn
//! one: the new length with zeros at the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use syncagent_client::folder::disk::{EntryKind, ErrorKind, Stat};
use syncagent_protocol::ContentHash;

use super::clock::SimClock;
use super::dice::Dice;

/// SyncAgent's own directory.
pub const OWN: &str = ".syncagent";
/// The one for temps in it.
pub const TMP: &str = "tmp";
/// The volume.
pub const DEVICE: u64 = 77;

/// Number of an inode.
pub type Ino = u64;
/// What a call may fail with.
pub type Result<T> = std::result::Result<T, ErrorKind>;

/// The bytes of a file.
#[derive(Debug, Clone, Default)]
pub struct Content {
    bytes: Arc<Vec<u8>>,
    hash: OnceLock<ContentHash>,
}

impl Content {
    /// These bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            hash: OnceLock::new(),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3.
    pub fn hash(&self) -> ContentHash {
        *self
            .hash
            .get_or_init(|| ContentHash(*blake3::hash(&self.bytes).as_bytes()))
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.hash = OnceLock::new();
        change(Arc::make_mut(&mut self.bytes));
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes
    }
}

/// What an inode is.
#[derive(Debug, Clone)]
pub enum Body {
    /// A regular file.
    File(Content),
    /// A directory.
    Dir(BTreeMap<String, Ino>),
    /// A symbolic link.
    Link(String),
}

/// Times and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Last change of content.
    pub mtime_ns: i64,
    /// Last change of the inode.
    pub ctime_ns: i64,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Debug, Clone)]
struct Inode {
    body: Body,
    attributes: Attributes,
    links: u64,
}

/// One change in the journal.
#[derive(Debug, Clone)]
enum Change {
    Make(Ino, Body, Attributes),
    Entry {
        dir: Ino,
        name: String,
        to: Option<Ino>,
    },
    Attributes(Ino, Attributes),
}

/// Something in the tree, for comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file.
    File {
        /// BLAKE3.
        hash: ContentHash,
        /// Length.
        size: u64,
        /// Whether its owner may execute it.
        exec: bool,
        /// Its time.
        mtime_ns: i64,
        /// Its inode.
        inode: Ino,
        /// Its inode's own time.
        ctime_ns: i64,
    },
    /// A directory.
    Dir {
        /// Its inode.
        inode: Ino,
        /// Its time: when an entry last came or went.
        mtime_ns: i64,
    },
    /// A link.
    Link {
        /// Where it points.
        target: String,
        /// Its inode.
        inode: Ino,
        /// Its time.
        mtime_ns: i64,
    },
}

/// The file system.
pub struct Fs {
    clock: SimClock,
    live: BTreeMap<Ino, Inode>,
    durable: BTreeMap<Ino, Inode>,
    /// Each element reaches the platter as a whole.
    journal: VecDeque<Vec<Change>>,
    next: Ino,
    /// Set while a person acts in the microseconds between the program's last look at a file and its change, or between
    /// its change and the look at what that left: see the limits in the head of the client's `folder::apply`.
    pub in_change: bool,
}

const ROOT: Ino = 2;

impl Fs {
    /// An empty one.
    pub fn new(clock: SimClock) -> Self {
        let stamp = clock.stamp_ns();
        let attributes = Attributes {
            mtime_ns: stamp,
            ctime_ns: stamp,
            mode: 0o755,
        };
        let root = Inode {
            body: Body::Dir(BTreeMap::new()),
            attributes,
            links: 2,
        };
        let tree = BTreeMap::from([(ROOT, root)]);
        Self {
            clock,
            live: tree.clone(),
            durable: tree,
            journal: VecDeque::new(),
            next: 11,
            in_change: false,
        }
    }

    // ---- looking ----

    /// The root directory.
    pub fn root(&self) -> Ino {
        ROOT
    }

    fn inode(&self, ino: Ino) -> Result<&Inode> {
        self.live.get(&ino).ok_or(ErrorKind::NotFound)
    }

    /// The entries of a directory.
    pub fn entries(&self, dir: Ino) -> Result<&BTreeMap<String, Ino>> {
        match &self.inode(dir)?.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(ErrorKind::NotADirectory),
        }
    }

    /// The entry of this name.
    pub fn child(&self, dir: Ino, name: &str) -> Result<Ino> {
        self.entries(dir)?
            .get(name)
            .copied()
            .ok_or(ErrorKind::NotFound)
    }

    /// Follows names down from the root; a link on the way or at the end is not followed.
    pub fn lookup<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Ino> {
        let mut at = ROOT;
        for name in names {
            if name.len() > 255 {
                return Err(ErrorKind::BadName);
            }
            if matches!(self.inode(at)?.body, Body::Link(_)) {
                return Err(ErrorKind::Escapes);
            }
            at = self.child(at, name)?;
        }
        Ok(at)
    }

    /// What is at an inode.
    pub fn body(&self, ino: Ino) -> Result<&Body> {
        Ok(&self.inode(ino)?.body)
    }

    /// The content of a file.
    pub fn content(&self, ino: Ino) -> Result<&Content> {
        match &self.inode(ino)?.body {
            Body::File(content) => Ok(content),
            Body::Dir(_) => Err(ErrorKind::NotAFile),
            Body::Link(_) => Err(ErrorKind::Escapes),
        }
    }

    /// What `stat` says.
    pub fn stat(&self, ino: Ino) -> Result<Stat> {
        let inode = self.inode(ino)?;
        let (kind, size) = match &inode.body {
            Body::File(content) => (EntryKind::File, content.bytes().len()),
            Body::Dir(entries) => (EntryKind::Directory, 2 + entries.len()),
            Body::Link(target) => (EntryKind::Symlink, target.len()),
        };
        Ok(Stat {
            kind,
            size: size as u64,
            mtime_ns: inode.attributes.mtime_ns,
            ctime_ns: inode.attributes.ctime_ns,
            inode: ino,
            device: DEVICE,
            links: inode.links,
            mode: inode.attributes.mode,
        })
    }

    /// Everything in the tree but SyncAgent's own directory, by path.
    pub fn tree(&self) -> BTreeMap<String, Item> {
        let mut out = BTreeMap::new();
        self.collect(&self.live, ROOT, "", &mut out);
        out
    }

    /// Everything in the tree and in SyncAgent's own directory, by path.
    pub fn everything(&self) -> BTreeMap<String, Item> {
        let mut out = self.tree();
        if let Ok(tmp) = lookup_in(&self.live, &[OWN, TMP]) {
            self.collect(&self.live, tmp, "//tmp/", &mut out);
        }
        out
    }

    /// Everything that a power cut now would certainly leave, by path; temps as well.
    pub fn certain(&self) -> BTreeMap<String, Item> {
        let mut out = BTreeMap::new();
        self.collect(&self.durable, ROOT, "", &mut out);
        if let Ok(tmp) = lookup_in(&self.durable, &[OWN, TMP]) {
            self.collect(&self.durable, tmp, "//tmp/", &mut out);
        }
        out
    }

    /// Whether a name in the tree, not only in SyncAgent's own directory, leads to this inode.
    pub fn is_in_tree(&self, ino: Ino) -> bool {
        let own = self.lookup([OWN].into_iter());
        let tmp = self.lookup([OWN, TMP].into_iter());
        self.live.iter().any(|(dir, inode)| {
            let is_own = own.as_ref() == Ok(dir) || tmp.as_ref() == Ok(dir);
            matches!(&inode.body, Body::Dir(entries) if !is_own && entries.values().any(|of| *of == ino))
        })
    }

    /// The temps that are there, by name.
    pub fn temps(&self) -> BTreeMap<String, Ino> {
        let tmp = self.lookup([OWN, TMP].into_iter());
        tmp.and_then(|tmp| self.entries(tmp))
            .cloned()
            .unwrap_or_default()
    }

    fn collect(
        &self,
        from: &BTreeMap<Ino, Inode>,
        dir: Ino,
        prefix: &str,
        out: &mut BTreeMap<String, Item>,
    ) {
        let Some(Inode {
            body: Body::Dir(entries),
            ..
        }) = from.get(&dir)
        else {
            return;
        };
        for (name, ino) in entries {
            if dir == ROOT && name == OWN {
                continue;
            }
            let path = format!("{prefix}{name}");
            let Some(inode) = from.get(ino) else { continue };
            let Attributes {
                mtime_ns,
                ctime_ns,
                mode,
            } = inode.attributes;
            let item = match &inode.body {
                Body::File(content) => Item::File {
                    hash: content.hash(),
                    size: content.bytes().len() as u64,
                    exec: mode & 0o100 != 0,
                    mtime_ns,
                    inode: *ino,
                    ctime_ns,
                },
                Body::Dir(_) => Item::Dir {
                    inode: *ino,
                    mtime_ns,
                },
                Body::Link(target) => Item::Link {
                    target: target.clone(),
                    inode: *ino,
                    mtime_ns,
                },
            };
            out.insert(path.clone(), item);
            if matches!(inode.body, Body::Dir(_)) {
                self.collect(from, *ino, &format!("{path}/"), out);
            }
        }
    }

    // ---- changing ----

    /// Lets the next stamp differ from the last one.
    pub fn wait_a_tick(&self) {
        self.clock.advance_ns(super::clock::TICK_NS);
    }

    fn stamp(&self) -> i64 {
        self.clock.stamp_ns()
    }

    /// Makes an inode without a name.
    fn make(&mut self, body: Body, mode: u32, op: &mut Vec<Change>) -> Ino {
        let ino = self.next;
        self.next += 1;
        let stamp = self.stamp();
        let attributes = Attributes {
            mtime_ns: stamp,
            ctime_ns: stamp,
            mode,
        };
        let in_journal = match &body {
            // The name comes first, the content when it is synced.
            Body::File(_) => Body::File(Content::default()),
            other => other.clone(),
        };
        op.push(Change::Make(ino, in_journal, attributes));
        self.live.insert(
            ino,
            Inode {
                body,
                attributes,
                links: 0,
            },
        );
        ino
    }

    fn set_entry(&mut self, dir: Ino, name: &str, to: Option<Ino>, op: &mut Vec<Change>) {
        let stamp = self.stamp();
        let before = match self.live.get_mut(&dir) {
            Some(Inode {
                body: Body::Dir(entries),
                attributes,
                ..
            }) => {
                attributes.mtime_ns = stamp;
                attributes.ctime_ns = stamp;
                op.push(Change::Attributes(dir, *attributes));
                match to {
                    Some(to) => entries.insert(name.to_owned(), to),
                    None => entries.remove(name),
                }
            }
            _ => None,
        };
        op.push(Change::Entry {
            dir,
            name: name.to_owned(),
            to,
        });
        for (ino, more) in [(before, false), (to, true)] {
            if let Some(ino) = ino
                && let Some(inode) = self.live.get_mut(&ino)
            {
                inode.links = if more {
                    inode.links + 1
                } else {
                    inode.links.saturating_sub(1)
                };
                inode.attributes.ctime_ns = stamp;
                op.push(Change::Attributes(ino, inode.attributes));
            }
        }
    }

    fn commit(&mut self, op: Vec<Change>) {
        self.journal.push_back(op);
    }

    /// Makes an entry where nothing is.
    pub fn create(&mut self, dir: Ino, name: &str, body: Body) -> Result<Ino> {
        if name.len() > 255 {
            return Err(ErrorKind::BadName);
        }
        if self.entries(dir)?.contains_key(name) {
            return Err(ErrorKind::Exists);
        }
        let mode = match body {
            Body::File(_) => 0o644,
            Body::Dir(_) => 0o755,
            Body::Link(_) => 0o777,
        };
        let mut op = Vec::new();
        let ino = self.make(body, mode, &mut op);
        self.set_entry(dir, name, Some(ino), &mut op);
        self.commit(op);
        Ok(ino)
    }

    /// A second name.
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &str) -> Result<()> {
        if name.len() > 255 {
            return Err(ErrorKind::BadName);
        }
        if self.entries(dir)?.contains_key(name) {
            return Err(ErrorKind::Exists);
        }
        if matches!(self.body(ino)?, Body::Dir(_)) {
            return Err(ErrorKind::Denied);
        }
        let mut op = Vec::new();
        self.set_entry(dir, name, Some(ino), &mut op);
        self.commit(op);
        Ok(())
    }

    /// Whether `dir` is `top` or lies below it.
    fn is_below(&self, dir: Ino, top: Ino) -> bool {
        dir == top
            || self.entries(top).is_ok_and(|entries| {
                entries.values().any(|ino| {
                    matches!(self.body(*ino), Ok(Body::Dir(_))) && self.is_below(dir, *ino)
                })
            })
    }

    /// Renames; replaces what may be replaced, unless told not to.
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), replace: bool) -> Result<()> {
        if to.1.len() > 255 {
            return Err(ErrorKind::BadName);
        }
        let ino = self.child(from.0, from.1)?;
        let is_dir = matches!(self.body(ino)?, Body::Dir(_));
        let there = self.entries(to.0)?.get(to.1).copied();
        if is_dir && self.is_below(to.0, ino) {
            return Err(ErrorKind::Io);
        }
        if let Some(there) = there {
            if !replace {
                return Err(ErrorKind::Exists);
            }
            if there == ino {
                return Ok(());
            }
            match (is_dir, self.body(there)?) {
                (true, Body::Dir(entries)) if !entries.is_empty() => {
                    return Err(ErrorKind::NotEmpty);
                }
                (true, Body::Dir(_)) => {}
                (true, _) => return Err(ErrorKind::NotADirectory),
                (false, Body::Dir(_)) => return Err(ErrorKind::NotAFile),
                (false, _) => {}
            }
        }
        let mut op = Vec::new();
        self.set_entry(from.0, from.1, None, &mut op);
        self.set_entry(to.0, to.1, Some(ino), &mut op);
        self.commit(op);
        Ok(())
    }

    /// Lets two names change places.
    pub fn exchange(&mut self, a: (Ino, &str), b: (Ino, &str)) -> Result<()> {
        let (ino_a, ino_b) = (self.child(a.0, a.1)?, self.child(b.0, b.1)?);
        let into = |top: Ino, dir: Ino| {
            matches!(self.body(top), Ok(Body::Dir(_))) && self.is_below(dir, top)
        };
        if into(ino_a, b.0) || into(ino_b, a.0) {
            return Err(ErrorKind::Io);
        }
        let mut op = Vec::new();
        self.set_entry(a.0, a.1, Some(ino_b), &mut op);
        self.set_entry(b.0, b.1, Some(ino_a), &mut op);
        self.commit(op);
        Ok(())
    }

    /// Removes a name: of a directory only if that is empty and `dir_wanted`, else of anything but a directory.
    pub fn remove(&mut self, dir: Ino, name: &str, dir_wanted: bool) -> Result<()> {
        let ino = self.child(dir, name)?;
        match (self.body(ino)?, dir_wanted) {
            (Body::Dir(entries), true) if !entries.is_empty() => return Err(ErrorKind::NotEmpty),
            (Body::Dir(_), false) => return Err(ErrorKind::NotAFile),
            (Body::File(_) | Body::Link(_), true) => return Err(ErrorKind::NotADirectory),
            _ => {}
        }
        let mut op = Vec::new();
        self.set_entry(dir, name, None, &mut op);
        self.commit(op);
        Ok(())
    }

    /// Changes the content of a file in place.
    pub fn write(&mut self, ino: Ino, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let stamp = self.stamp();
        let inode = self.live.get_mut(&ino).ok_or(ErrorKind::NotFound)?;
        let Body::File(content) = &mut inode.body else {
            return Err(ErrorKind::NotAFile);
        };
        content.change(change);
        inode.attributes.mtime_ns = stamp;
        inode.attributes.ctime_ns = stamp;
        Ok(())
    }

    /// Changes the content of a file through a mapping, as databases and linkers do: a page that waits to be written
    /// back already gets no new stamp. Taken for one page, whatever its length.
    pub fn store(&mut self, ino: Ino, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let made = self
            .journal
            .iter()
            .flatten()
            .find_map(|change| match change {
                Change::Make(made, body, _) if *made == ino => Some(body),
                _ => None,
            });
        let written_back = made.or_else(|| self.durable.get(&ino).map(|on| &on.body));
        let is_clean = match (self.content(ino)?, written_back) {
            (content, Some(Body::File(written_back))) => content.same(written_back),
            _ => false,
        };
        if is_clean {
            return self.write(ino, change);
        }
        if let Some(Inode {
            body: Body::File(content),
            ..
        }) = self.live.get_mut(&ino)
        {
            content.change(change);
        }
        Ok(())
    }

    /// Sets time and permissions.
    pub fn set_attributes(
        &mut self,
        ino: Ino,
        mtime_ns: Option<i64>,
        mode: Option<u32>,
    ) -> Result<()> {
        let stamp = self.stamp();
        let inode = self.live.get_mut(&ino).ok_or(ErrorKind::NotFound)?;
        inode.attributes.ctime_ns = stamp;
        if let Some(mtime_ns) = mtime_ns {
            inode.attributes.mtime_ns = mtime_ns;
        }
        if let Some(mode) = mode {
            inode.attributes.mode = mode;
        }
        let attributes = inode.attributes;
        self.commit(vec![Change::Attributes(ino, attributes)]);
        Ok(())
    }

    // ---- what lasts ----

    /// Makes the content of a file durable.
    pub fn sync_file(&mut self, ino: Ino) -> Result<()> {
        let inode = self.inode(ino)?;
        let (body, attributes) = (inode.body.clone(), inode.attributes);
        if let Some(durable) = self.durable.get_mut(&ino) {
            if !matches!(durable.body, Body::Dir(_)) {
                durable.body = body.clone();
            }
            durable.attributes = attributes;
        }
        for op in &mut self.journal {
            op.retain_mut(|change| match change {
                Change::Make(made, in_journal, stamps) if *made == ino => {
                    if !matches!(in_journal, Body::Dir(_)) {
                        *in_journal = body.clone();
                    }
                    *stamps = attributes;
                    true
                }
                Change::Attributes(of, _) => *of != ino,
                _ => true,
            });
        }
        Ok(())
    }

    /// Makes the names in a directory durable, and with them everything that changed before.
    pub fn sync_dir(&mut self, dir: Ino) -> Result<()> {
        self.entries(dir)?;
        let touches = |op: &Vec<Change>| {
            op.iter()
                .any(|change| matches!(change, Change::Entry { dir: of, .. } if *of == dir))
        };
        let upto = self
            .journal
            .iter()
            .rposition(touches)
            .map_or(0, |last| last + 1);
        self.write_back_names(upto);
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync_all(&mut self) {
        self.write_back_names(self.journal.len());
        let files: Vec<Ino> = self.durable.keys().copied().collect();
        for ino in files {
            let _ = self.sync_file(ino);
        }
    }

    /// What the kernel does by itself after a while: some of the names, some of the contents.
    pub fn write_back(&mut self, dice: &mut Dice) {
        let upto = dice.below(self.journal.len() + 1);
        self.write_back_names(upto);
        let files: Vec<Ino> = self.live.keys().copied().collect();
        for ino in files {
            if dice.chance(400) {
                let _ = self.sync_file(ino);
            }
        }
    }

    fn write_back_names(&mut self, upto: usize) {
        for op in self.journal.drain(..upto) {
            for change in op {
                apply(&mut self.durable, change);
            }
        }
    }

    /// The power goes and comes back: what programs see is now what lasted.
    pub fn power_cut(&mut self, dice: &mut Dice) {
        let upto = dice.below(self.journal.len() + 1);
        self.write_back_names(upto);
        self.journal.clear();
        for (ino, durable) in &mut self.durable {
            let (
                Body::File(old),
                Some(Inode {
                    body: Body::File(new),
                    attributes,
                    ..
                }),
            ) = (&mut durable.body, self.live.get(ino))
            else {
                continue;
            };
            if old.same(new) {
                continue;
            }
            match dice.below(4) {
                0 | 1 => {}
                2 => {
                    *old = new.clone();
                    durable.attributes = *attributes;
                }
                _ => {
                    let mut torn = new.bytes().to_vec();
                    let whole = dice.below(torn.len() + 1);
                    torn[whole..].fill(0);
                    *old = Content::new(torn);
                    durable.attributes = *attributes;
                }
            }
        }
        // What no name leads to is gone.
        let mut kept = BTreeMap::new();
        let mut stack = vec![ROOT];
        while let Some(ino) = stack.pop() {
            if let Some(inode) = self.durable.get(&ino) {
                if let Body::Dir(entries) = &inode.body {
                    stack.extend(entries.values());
                }
                let kept = kept.entry(ino).or_insert_with(|| Inode {
                    links: 0,
                    ..inode.clone()
                });
                kept.links += 1;
            }
        }
        self.live = kept.clone();
        self.durable = kept;
    }
}

fn lookup_in(tree: &BTreeMap<Ino, Inode>, names: &[&str]) -> Result<Ino> {
    let mut at = ROOT;
    for name in names {
        let Some(Inode {
            body: Body::Dir(entries),
            ..
        }) = tree.get(&at)
        else {
            return Err(ErrorKind::NotFound);
        };
        at = *entries.get(*name).ok_or(ErrorKind::NotFound)?;
    }
    Ok(at)
}

fn apply(tree: &mut BTreeMap<Ino, Inode>, change: Change) {
    match change {
        Change::Make(ino, body, attributes) => {
            tree.insert(
                ino,
                Inode {
                    body,
                    attributes,
                    links: 1,
                },
            );
        }
        Change::Entry { dir, name, to } => {
            if let Some(Inode {
                body: Body::Dir(entries),
                ..
            }) = tree.get_mut(&dir)
            {
                match to {
                    Some(to) => drop(entries.insert(name, to)),
                    None => drop(entries.remove(&name)),
                }
            }
        }
        Change::Attributes(ino, attributes) => {
            if let Some(inode) = tree.get_mut(&ino) {
                inode.attributes = attributes;
            }
        }
    }
}
