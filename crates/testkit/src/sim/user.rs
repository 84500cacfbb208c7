//! What people and their programs do in a folder: everything that a synchroniser has to follow.

use std::collections::BTreeMap;

use syncagent_client::folder::disk::ErrorKind;

use super::dice::Dice;
use super::fs::{Body, Content, Fs, Ino, Item, Result};
use super::ledger::{Ledger, contents};
use super::trace::Trace;

const FILES: [&str; 7] = ["a", "b.txt", "c", "d.md", "e f", "ü", "g"];
const DIRS: [&str; 4] = ["x", "y", "z", "docs"];

/// A person at a machine.
pub struct User<'a> {
    /// The machine.
    pub who: &'a str,
    /// What they decide.
    pub dice: &'a mut Dice,
    /// Where it is written down.
    pub ledger: &'a mut Ledger,
    /// Where it is told.
    pub trace: &'a Trace,
    /// Files that were given a second name: what is written through it nobody hears of under the first.
    pub linked: Vec<String>,
    /// The directory that they keep to; anywhere if there is none.
    pub within: Option<String>,
}

struct Place {
    dir: Ino,
    name: String,
    path: String,
}

impl User<'_> {
    /// Does one thing; returns the paths that a watcher would hear of.
    pub fn edit(&mut self, fs: &mut Fs) -> Vec<String> {
        let before = contents(fs);
        let mut heard = Vec::new();
        // What does not work out (no file to rename, a name taken by a directory) is tried otherwise.
        for _ in 0..8 {
            if let Ok(what) = self.one(fs, &mut heard) {
                self.trace.line(self.who, format_args!("{what}"));
                self.trace.count("edit");
                break;
            }
        }
        if self.dice.chance(300) {
            fs.sync_all();
        }
        self.ledger.edited(self.who, &before, &contents(fs));
        heard
    }

    fn one(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let kind = self.dice.below(103);
        match kind {
            0..20 => self.create(fs, heard),
            20..34 => self.overwrite(fs, heard),
            34..40 => self.append(fs, heard),
            40..44 => self.truncate(fs, heard),
            44..48 => self.in_place(fs, heard),
            48..55 => self.editor(fs, heard),
            55..64 => self.rename_file(fs, heard),
            64..69 => self.rename_dir(fs, heard),
            69..73 => self.swap(fs, heard),
            73..76 => self.cycle(fs, heard),
            76..81 => self.mkdir(fs, heard),
            81..88 => self.remove_file(fs, heard),
            88..91 => self.remove_tree(fs, heard),
            91..93 => self.chmod(fs, heard),
            93..95 => self.symlink(fs, heard),
            95..97 => self.copy(fs, heard),
            97..98 => self.touch(fs, heard),
            98..101 => self.hard_link(fs, heard),
            _ => self.replace_kind(fs, heard),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.dice.below(20) {
            0..14 => 32 + self.dice.below(100),
            14..19 => 2000 + self.dice.below(20_000),
            _ => 60_000 + self.dice.below(200_000),
        };
        // A mark that nobody else writes, then what compresses and what does not.
        let mut bytes = vec![0; len];
        let random = if self.dice.chance(500) { 32 } else { len };
        self.dice.fill(&mut bytes[..random]);
        bytes
    }

    /// Where they may put something.
    fn dirs(&self, fs: &Fs) -> Vec<(Ino, String)> {
        let mut dirs = vec![(fs.root(), String::new())];
        for (path, item) in fs.tree() {
            if let Item::Dir { inode, .. } = item {
                dirs.push((inode, path));
            }
        }
        if let Some(within) = &self.within {
            dirs.retain(|(_, path)| path == within || is_below(path, within));
        }
        dirs
    }

    /// Whether they may do something with what has this path.
    fn may(&self, path: &str) -> bool {
        let within = self.within.as_ref();
        within.is_none_or(|within| is_below(path, within))
    }

    fn place(&mut self, fs: &Fs, names: &[&str]) -> Result<Place> {
        let dirs = self.dirs(fs);
        let (dir, prefix) = self.dice.pick(&dirs).ok_or(ErrorKind::NotFound)?;
        let name = self.dice.pick(names).ok_or(ErrorKind::NotFound)?;
        let path = if prefix.is_empty() {
            (*name).to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        match path.matches('/').count() {
            0..4 => Ok(Place {
                dir: *dir,
                name: (*name).to_owned(),
                path,
            }),
            _ => Err(ErrorKind::BadName),
        }
    }

    fn some(&mut self, fs: &Fs, wanted: impl Fn(&Item) -> bool) -> Result<(Place, Item)> {
        let tree: Vec<(String, Item)> = fs
            .tree()
            .into_iter()
            .filter(|(path, item)| wanted(item) && self.may(path))
            .collect();
        let (path, item) = self.dice.pick(&tree).ok_or(ErrorKind::NotFound)?;
        let (prefix, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = fs.lookup(prefix.split('/').filter(|part| !part.is_empty()))?;
        Ok((
            Place {
                dir,
                name: name.to_owned(),
                path: path.clone(),
            },
            item.clone(),
        ))
    }

    fn file(&mut self, fs: &Fs) -> Result<(Place, Item, Ino)> {
        let (place, item) = self.some(fs, |item| matches!(item, Item::File { .. }))?;
        let Item::File { inode, .. } = item else {
            return Err(ErrorKind::NotFound);
        };
        Ok((place, item, inode))
    }

    /// Its content may now outlive a deletion elsewhere.
    fn note_touched(&mut self, item: &Item) {
        if let Item::File { hash, .. } = item {
            self.ledger.touched(self.who, *hash);
        }
    }

    fn create(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let place = self.place(fs, &FILES)?;
        let bytes = self.bytes();
        let len = bytes.len();
        fs.create(place.dir, &place.name, Body::File(Content::new(bytes)))?;
        heard.push(place.path.clone());
        Ok(format!("writes {} ({len} bytes)", place.path))
    }

    fn overwrite(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, _, inode) = self.file(fs)?;
        let bytes = self.bytes();
        let len = bytes.len();
        fs.write(inode, |old| *old = bytes)?;
        heard.push(place.path.clone());
        Ok(format!("overwrites {} ({len} bytes)", place.path))
    }

    fn append(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, _, inode) = self.file(fs)?;
        let bytes = self.bytes();
        fs.write(inode, |old| old.extend(bytes))?;
        heard.push(place.path.clone());
        Ok(format!("appends to {}", place.path))
    }

    fn truncate(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, _, inode) = self.file(fs)?;
        let len = fs.content(inode)?.bytes().len();
        if len <= 33 {
            return Err(ErrorKind::BadName);
        }
        let to = 32 + self.dice.below(len - 32);
        fs.write(inode, |old| old.truncate(to))?;
        heard.push(place.path.clone());
        Ok(format!("truncates {} to {to} bytes", place.path))
    }

    /// The hardest to see: same length, same mtime.
    fn in_place(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, item, inode) = self.file(fs)?;
        let Item::File { mtime_ns, .. } = item else {
            return Err(ErrorKind::NotFound);
        };
        let keeps = self.dice.chance(500) && !fs.in_change;
        if keeps {
            // Not within the tick of the last change: then nothing at all would tell. See the limits in the head of
            // the client's `folder::apply`.
            fs.wait_a_tick();
        }
        let mut mark = [0; 24];
        self.dice.fill(&mut mark);
        fs.write(inode, |old| {
            let len = old.len().min(24);
            old[..len].copy_from_slice(&mark[..len]);
        })?;
        if keeps {
            fs.set_attributes(inode, Some(mtime_ns), None)?;
        }
        heard.push(place.path.clone());
        Ok(format!(
            "writes into {} in place, mtime {}",
            place.path,
            if keeps { "kept" } else { "new" }
        ))
    }

    fn editor(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, item, inode) = self.file(fs)?;
        let bytes = self.bytes();
        let mode = fs.stat(inode)?.mode;
        let backup = self.dice.chance(300);
        if backup {
            let name = format!("{}~", place.name);
            fs.rename((place.dir, &place.name), (place.dir, &name), true)?;
            self.note_touched(&item);
            heard.push(format!("{}~", place.path));
            fs.create(place.dir, &place.name, Body::File(Content::new(bytes)))?;
        } else {
            let temp = format!(".{}.swp", place.name);
            let new = fs.create(place.dir, &temp, Body::File(Content::new(bytes)))?;
            fs.set_attributes(new, None, Some(mode))?;
            if self.dice.chance(500) {
                fs.sync_file(new)?;
            }
            fs.rename((place.dir, &temp), (place.dir, &place.name), true)?;
        }
        heard.push(place.path.clone());
        Ok(format!(
            "saves {} as an editor does{}",
            place.path,
            if backup { ", with backup" } else { "" }
        ))
    }

    fn rename_file(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (from, item, _) = self.file(fs)?;
        let to = self.place(fs, &FILES)?;
        if from.path == to.path {
            return Err(ErrorKind::Exists);
        }
        fs.rename((from.dir, &from.name), (to.dir, &to.name), true)?;
        self.note_touched(&item);
        heard.extend([from.path.clone(), to.path.clone()]);
        Ok(format!("renames {} to {}", from.path, to.path))
    }

    fn rename_dir(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (from, _) = self.some(fs, |item| matches!(item, Item::Dir { .. }))?;
        let to = self.place(fs, &DIRS)?;
        if from.path == to.path {
            return Err(ErrorKind::Exists);
        }
        fs.rename((from.dir, &from.name), (to.dir, &to.name), true)?;
        self.trace.count("directory move");
        heard.extend([from.path.clone(), to.path.clone()]);
        Ok(format!("renames directory {} to {}", from.path, to.path))
    }

    fn swap(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (a, item_a) = self.some(fs, |_| true)?;
        let (b, item_b) = self.some(fs, |_| true)?;
        if a.path == b.path {
            return Err(ErrorKind::Exists);
        }
        fs.exchange((a.dir, &a.name), (b.dir, &b.name))?;
        self.note_touched(&item_a);
        self.note_touched(&item_b);
        self.trace.count("swap");
        heard.extend([a.path.clone(), b.path.clone()]);
        Ok(format!("swaps {} and {}", a.path, b.path))
    }

    /// a becomes b, b becomes c, and c becomes a (or a is written anew).
    fn cycle(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (a, item_a, _) = self.file(fs)?;
        let (b, item_b, _) = self.file(fs)?;
        let (c, item_c, _) = self.file(fs)?;
        if a.path == b.path || b.path == c.path || a.path == c.path {
            return Err(ErrorKind::Exists);
        }
        for item in [&item_a, &item_b, &item_c] {
            self.note_touched(item);
        }
        let closed = self.dice.chance(500);
        fs.exchange((a.dir, &a.name), (b.dir, &b.name))?;
        if closed {
            fs.exchange((a.dir, &a.name), (c.dir, &c.name))?;
        } else {
            fs.rename((a.dir, &a.name), (c.dir, &c.name), true)?;
            let bytes = self.bytes();
            fs.create(a.dir, &a.name, Body::File(Content::new(bytes)))?;
        }
        self.trace.count("cycle");
        heard.extend([a.path.clone(), b.path.clone(), c.path.clone()]);
        let how = if closed { "cycle" } else { "chain" };
        Ok(format!(
            "renames in a {how}: {}, {}, {}",
            a.path, b.path, c.path
        ))
    }

    fn mkdir(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let place = self.place(fs, &DIRS)?;
        fs.create(place.dir, &place.name, Body::Dir(BTreeMap::new()))?;
        heard.push(place.path.clone());
        Ok(format!("makes directory {}", place.path))
    }

    fn remove_file(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, _) = self.some(fs, |item| !matches!(item, Item::Dir { .. }))?;
        fs.remove(place.dir, &place.name, false)?;
        heard.push(place.path.clone());
        Ok(format!("removes {}", place.path))
    }

    fn remove_tree(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, _) = self.some(fs, |item| matches!(item, Item::Dir { .. }))?;
        remove_all(fs, place.dir, &place.name)?;
        heard.push(place.path.clone());
        Ok(format!("removes {} and everything in it", place.path))
    }

    fn chmod(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, item, inode) = self.file(fs)?;
        let mode = fs.stat(inode)?.mode ^ 0o111;
        fs.set_attributes(inode, None, Some(mode))?;
        self.note_touched(&item);
        heard.push(place.path.clone());
        Ok(format!("sets mode {mode:o} of {}", place.path))
    }

    fn symlink(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let place = self.place(fs, &["link", "a", "x"])?;
        let target = format!("../t{}", self.dice.below(100));
        fs.create(place.dir, &place.name, Body::Link(target.clone()))?;
        heard.push(place.path.clone());
        Ok(format!("links {} to {target}", place.path))
    }

    fn copy(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (from, item, inode) = self.file(fs)?;
        let to = self.place(fs, &FILES)?;
        let content = fs.content(inode)?.clone();
        fs.create(to.dir, &to.name, Body::File(content))?;
        self.note_touched(&item);
        heard.push(to.path.clone());
        Ok(format!("copies {} to {}", from.path, to.path))
    }

    /// From now on whoever writes to one writes to both.
    fn hard_link(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (from, item, inode) = self.file(fs)?;
        let to = self.place(fs, &FILES)?;
        fs.link(inode, to.dir, &to.name)?;
        self.note_touched(&item);
        self.trace.count("hard link");
        self.linked.push(from.path.clone());
        heard.push(to.path.clone());
        Ok(format!("makes {} a second name of {}", to.path, from.path))
    }

    fn touch(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, item, inode) = self.file(fs)?;
        let Item::File { mtime_ns, .. } = item else {
            return Err(ErrorKind::NotFound);
        };
        fs.set_attributes(inode, Some(mtime_ns - 1_000_000_007), None)?;
        self.note_touched(&item);
        heard.push(place.path.clone());
        Ok(format!("touches {}", place.path))
    }

    fn replace_kind(&mut self, fs: &mut Fs, heard: &mut Vec<String>) -> Result<String> {
        let (place, item) = self.some(fs, |_| true)?;
        heard.push(place.path.clone());
        if let Item::Dir { .. } = item {
            remove_all(fs, place.dir, &place.name)?;
            let bytes = self.bytes();
            fs.create(place.dir, &place.name, Body::File(Content::new(bytes)))?;
            return Ok(format!("replaces directory {} by a file", place.path));
        }
        fs.remove(place.dir, &place.name, false)?;
        let dir = fs.create(place.dir, &place.name, Body::Dir(BTreeMap::new()))?;
        let bytes = self.bytes();
        fs.create(dir, "inside", Body::File(Content::new(bytes)))?;
        Ok(format!("replaces {} by a directory", place.path))
    }
}

/// Whether a path leads into a directory.
pub fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn remove_all(fs: &mut Fs, dir: Ino, name: &str) -> Result<()> {
    let ino = fs.child(dir, name)?;
    let entries: Vec<String> = match fs.body(ino)? {
        Body::Dir(entries) => entries.keys().cloned().collect(),
        _ => return fs.remove(dir, name, false),
    };
    for entry in entries {
        remove_all(fs, ino, &entry)?;
    }
    fs.remove(dir, name, true)
}
