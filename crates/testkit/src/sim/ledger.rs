//! What people did with which content, and what therefore must be found at the end.
//!
//! Every content that a person writes in a world is unique, so a hash says which writing it was. The promises:
//!
//! * **Nothing lost.** What a person wrote and did not destroy is a file at the end, on every machine.
//! * **Nothing lost, not even what was replaced.** What stood on a disk through a pass that ended well is a version in
//!   the log.
//! * **Nothing comes back.** What a person deleted or overwrote on a machine in sync, and nobody else touched in this
//!   version or one before, is no file at the end.
//!
//! A power cut excuses the loss of what was not certainly durable, and no more.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::ContentHash;

use super::fs::{Fs, Item};

/// The books of one world.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Everything anybody wrote: which machine, under which name.
    pub written: BTreeMap<ContentHash, String>,
    /// Deleted or overwritten by a person, on any machine.
    pub destroyed: BTreeSet<ContentHash>,
    /// Lost in a power cut although nobody destroyed it.
    pub excused: BTreeSet<ContentHash>,
    /// Moved, copied or touched by a person: it may survive a deletion elsewhere.
    pub touched: BTreeSet<ContentHash>,
    /// What each content was made of: the one that stood under its name before.
    pub made_of: BTreeMap<ContentHash, ContentHash>,
    /// Stood under two names somewhere: one may be deleted here and the other there, and nobody deleted the last one.
    pub copied: BTreeSet<ContentHash>,
    /// Destroyed on a machine that was in sync with it.
    pub dead: BTreeSet<ContentHash>,
    /// By machine: what stood there at the end of a pass that ended well, and still does.
    pub synced: BTreeMap<String, BTreeSet<ContentHash>>,
    /// What stood somewhere through a whole pass that ended well.
    pub promised: BTreeMap<ContentHash, String>,
}

/// Contents, and where they stand.
pub type Contents = BTreeMap<ContentHash, Vec<String>>;

/// The contents in a tree.
pub fn contents(fs: &Fs) -> Contents {
    sorted(fs.tree())
}

/// The contents of files by hash.
pub fn sorted(tree: BTreeMap<String, Item>) -> Contents {
    let mut out = Contents::new();
    for (path, item) in tree {
        if let Item::File { hash, .. } = item {
            out.entry(hash).or_default().push(path);
        }
    }
    out
}

impl Ledger {
    /// A person did something on `who` that made `after` of `before`.
    pub fn edited(&mut self, who: &str, before: &Contents, after: &Contents) {
        for (hash, paths) in after.iter().filter(|(hash, _)| !before.contains_key(*hash)) {
            self.written
                .entry(*hash)
                .or_insert_with(|| format!("{} on {who}", paths.join(", ")));
        }
        self.note_copies(before);
        self.note_copies(after);
        let was: BTreeMap<&String, ContentHash> = before
            .iter()
            .flat_map(|(hash, paths)| paths.iter().map(|path| (path, *hash)))
            .collect();
        for (hash, paths) in after.iter().filter(|(hash, _)| !before.contains_key(*hash)) {
            if let Some(was) = paths.iter().find_map(|path| was.get(path)) {
                self.made_of.insert(*hash, *was);
            }
        }
        let synced = self.synced.entry(who.to_owned()).or_default();
        for hash in before.keys().filter(|hash| !after.contains_key(*hash)) {
            self.destroyed.insert(*hash);
            if synced.remove(hash) && self.written.contains_key(hash) {
                self.dead.insert(*hash);
            }
        }
    }

    /// Two files of one content: one of them may go here, the other there.
    fn note_copies(&mut self, contents: &Contents) {
        let copies = contents.iter().filter(|(_, paths)| paths.len() > 1);
        self.copied.extend(copies.map(|(hash, _)| *hash));
    }

    /// A pass on `who` ended well; `before` and `after` are what stood there.
    pub fn passed(&mut self, who: &str, before: &Contents, after: &Contents) {
        self.note_copies(after);
        for (hash, paths) in after.iter().filter(|(hash, _)| before.contains_key(*hash)) {
            self.promised
                .entry(*hash)
                .or_insert_with(|| format!("{} on {who}", paths.join(", ")));
        }
        let through = after
            .keys()
            .filter(|hash| before.contains_key(*hash))
            .copied()
            .collect();
        self.synced.insert(who.to_owned(), through);
    }

    /// The program stopped on `who`, where `contents` stand: it may not have noted which of them it had fetched, and
    /// what it does not know to be the vault's, it sends as new.
    pub fn crashed(&mut self, who: &str, contents: &Contents) {
        let synced = self.synced.entry(who.to_owned()).or_default();
        let unsure = contents.keys().filter(|hash| !synced.contains(hash));
        self.touched.extend(unsure);
    }

    /// The power went on `who`; `certain` is what could not be lost, `before` and `after` what was seen.
    pub fn power_cut(
        &mut self,
        who: &str,
        certain: &BTreeSet<ContentHash>,
        before: &Contents,
        after: &Contents,
    ) {
        for hash in before
            .keys()
            .filter(|hash| !after.contains_key(*hash) && !certain.contains(*hash))
        {
            // A file that somebody else has too is downloaded again; one nobody has is gone.
            self.excused.insert(*hash);
        }
        for hash in after.keys() {
            // The deletion itself was lost.
            self.dead.remove(hash);
        }
        let synced = self.synced.entry(who.to_owned()).or_default();
        synced.retain(|hash| after.contains_key(hash));
    }

    /// Whether somebody may have touched the same file elsewhere, in this version or one before: that beats a deletion.
    fn may_survive(&self, hash: ContentHash) -> bool {
        let mut at = Some(hash);
        while let Some(hash) = at {
            if self.touched.contains(&hash) || self.copied.contains(&hash) {
                return true;
            }
            at = self.made_of.get(&hash).copied();
        }
        false
    }

    /// Compares the books with the files that are there at the end and the versions in the log.
    pub fn audit(&self, files: &Contents, log: &BTreeSet<ContentHash>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (hash, what) in &self.written {
            let alive = files.contains_key(hash);
            if !alive && !self.destroyed.contains(hash) && !self.excused.contains(hash) {
                let logged = match log.contains(hash) {
                    true if self.copied.contains(hash) => continue,
                    true => "only a version",
                    false => "lost",
                };
                wrong.push(format!(
                    "{what} ({}) was never deleted, but is {logged}",
                    short(hash)
                ));
            }
        }
        for (hash, what) in &self.promised {
            if !log.contains(hash) {
                wrong.push(format!(
                    "{what} ({}) stood there through a pass, but is not in the log",
                    short(hash)
                ));
            }
        }
        for hash in &self.dead {
            if self.may_survive(*hash) {
                continue;
            }
            if let Some(paths) = files.get(hash) {
                let what = self.written.get(hash).map_or("?", String::as_str);
                wrong.push(format!(
                    "{what} ({}) was deleted everywhere, but is back at {}",
                    short(hash),
                    paths.join(", ")
                ));
            }
        }
        wrong
    }
}

/// The start of a hash, for people.
pub fn short(hash: &ContentHash) -> String {
    hash.to_string().chars().take(8).collect()
}
