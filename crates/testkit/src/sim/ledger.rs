//! What people did with which content, and what therefore must be found at the end.
//!
//! Every content that a person writes in a world is unique, so a hash says which writing it was. The promises:
//!
//! * **Nothing lost.** What a person wrote and did not destroy is a file at the end, on every machine.
//! * **Nothing lost, not even what was replaced.** What stood on a disk through a pass that ended well is a version in
//!   the log.
//! * **Nothing comes back.** What a person deleted or overwrote on a machine in sync is no file at the end, unless it
//!   was *touched* somewhere without that machine having seen it: a touch beats a deletion (docs/sync.md).
//!
//! A touch is a rename, a copy, a set bit or time. It counts until the machine that deletes has seen the position at which it
//! was sent.
//!
//! A power cut excuses the loss of what was not certainly durable, and no more.

use std::collections::{BTreeMap, BTreeSet};

use syncagent_protocol::ContentHash;

use super::fs::{Fs, Item};

/// Somebody did something with a file but deleting it or changing its content.
#[derive(Debug)]
struct Touch {
    who: String,
    /// A position of the log by which it was sent; none while it may not have been.
    n: Option<u64>,
}

/// A deletion on a machine that was in sync with what it deleted.
#[derive(Debug)]
struct Deletion {
    who: String,
    /// A position of the log by which it was sent; none while it may not have been.
    n: Option<u64>,
    /// Somebody has touched the file and the machine did not know, or did so later.
    outdone: bool,
}

/// The books of one world.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Everything anybody wrote: which machine, under which name.
    written: BTreeMap<ContentHash, String>,
    /// Deleted or overwritten by a person, on any machine.
    destroyed: BTreeSet<ContentHash>,
    /// Lost in a power cut although nobody destroyed it.
    excused: BTreeSet<ContentHash>,
    touches: BTreeMap<ContentHash, Vec<Touch>>,
    /// Contents that stood under one name, one after the other: whoever is told apart by its name, it may be one file.
    /// Each leads to another one of them, and at last to the one that stands for all.
    same_file: BTreeMap<ContentHash, ContentHash>,
    /// Names that people took away from a content, or gave to another one, on any machine.
    unnamed: BTreeMap<ContentHash, usize>,
    /// Stood under two names somewhere: one may be deleted here and the other there, and nobody deleted the last one.
    copied: BTreeSet<ContentHash>,
    dead: BTreeMap<ContentHash, Deletion>,
    /// By machine: what stood there at the end of a pass that ended well, and still does.
    synced: BTreeMap<String, BTreeSet<ContentHash>>,
    /// By machine: the position of the log at the end of that pass.
    seen: BTreeMap<String, u64>,
    /// What stood somewhere through a whole pass that ended well.
    promised: BTreeMap<ContentHash, String>,
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
        self.note_copies(before);
        self.note_copies(after);
        let was: BTreeMap<&String, ContentHash> = before
            .iter()
            .flat_map(|(hash, paths)| paths.iter().map(|path| (path, *hash)))
            .collect();
        for (hash, paths) in after {
            if !before.contains_key(hash) {
                // Whoever makes it anew, by a cut at the same place say, wants it, whatever became of it before.
                if let Some(deletion) = self.dead.get_mut(hash) {
                    deletion.outdone = true;
                }
                self.written
                    .entry(*hash)
                    .or_insert_with(|| format!("{} on {who}", paths.join(", ")));
            }
            for was in paths.iter().filter_map(|path| was.get(path)) {
                self.note_same(*was, *hash);
            }
        }
        for (hash, paths) in before {
            let left = after.get(hash).map_or(&[][..], Vec::as_slice);
            let gone = paths.iter().filter(|path| !left.contains(path));
            *self.unnamed.entry(*hash).or_default() += gone.count();
            if left.is_empty() {
                self.destroyed.insert(*hash);
                let synced = self.synced.entry(who.to_owned()).or_default();
                if synced.remove(hash) && self.written.contains_key(hash) {
                    self.deleted(who, *hash);
                }
            }
        }
    }

    fn deleted(&mut self, who: &str, hash: ContentHash) {
        if self.dead.get(&hash).is_some_and(|before| !before.outdone) {
            return;
        }
        let seen = self.seen.get(who).copied().unwrap_or(0);
        let unseen =
            |touch: &Touch| touch.who != who && touch.n.is_none_or(|touched| touched > seen);
        let touches = self.touches.get(&self.file(hash)).into_iter().flatten();
        let deletion = Deletion {
            who: who.to_owned(),
            n: None,
            outdone: { touches }.any(unseen),
        };
        self.dead.insert(hash, deletion);
    }

    /// Which content stands for all that may have been of one file. A place or a bit that was changed under one of them
    /// goes on under the others until it is sent.
    fn file(&self, hash: ContentHash) -> ContentHash {
        let mut at = hash;
        while let Some(next) = self.same_file.get(&at) {
            at = *next;
        }
        at
    }

    fn note_same(&mut self, a: ContentHash, b: ContentHash) {
        let (a, b) = (self.file(a), self.file(b));
        if a != b {
            self.same_file.insert(a, b);
            let touches = self.touches.remove(&a).unwrap_or_default();
            self.touches.entry(b).or_default().extend(touches);
        }
    }

    /// A file of this content was touched on `who`.
    pub fn touched(&mut self, who: &str, hash: ContentHash) {
        let file = self.file(hash);
        let touches = self.touches.entry(file).or_default();
        let is_known = |touch: &Touch| touch.who == who && touch.n.is_none();
        if !touches.iter().any(is_known) {
            let who = who.to_owned();
            touches.push(Touch { who, n: None });
        }
        // Who knows of a deletion does not touch what was deleted, but another version or a copy of it.
        let seen = self.seen.get(who).copied().unwrap_or(0);
        let same: Vec<ContentHash> = { self.dead.iter() }
            .filter(|(_, deletion)| deletion.n.is_none_or(|n| n > seen))
            .map(|(dead, _)| *dead)
            .filter(|dead| self.file(*dead) == file)
            .collect();
        for dead in same {
            if let Some(deletion) = self.dead.get_mut(&dead) {
                deletion.outdone = true;
            }
        }
    }

    /// Two files of one content: one of them may go here, the other there.
    fn note_copies(&mut self, contents: &Contents) {
        let copies = contents.iter().filter(|(_, paths)| paths.len() > 1);
        self.copied.extend(copies.map(|(hash, _)| *hash));
    }

    /// A pass on `who` is over, or was cut off; it made `after` of `before`. Whatever has other names now may have got
    /// them there, and a conflict name with the machine's own name in it certainly.
    pub fn moved(&mut self, who: &str, before: &Contents, after: &Contents) {
        self.note_copies(after);
        let made_here = |path: &String| path.contains(".conflict-") && path.contains(who);
        let moved = after
            .iter()
            .filter(|(hash, paths)| match before.get(*hash) {
                Some(were) => were != *paths,
                None => paths.iter().any(made_here),
            });
        for hash in moved.map(|(hash, _)| *hash).collect::<Vec<_>>() {
            self.touched(who, hash);
        }
    }

    /// A pass on `who` ended well at position `n`, and nobody did anything meanwhile; `before` and `after` are what
    /// stood there.
    pub fn passed(&mut self, who: &str, n: u64, before: &Contents, after: &Contents) {
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
        self.seen.insert(who.to_owned(), n);
        let of_who = |touch: &&mut Touch| touch.who == who && touch.n.is_none();
        for touch in self.touches.values_mut().flatten().filter(of_who) {
            touch.n = Some(n);
        }
        for deletion in self.dead.values_mut().filter(|dead| dead.who == who) {
            deletion.n.get_or_insert(n);
        }
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
        // The deletion itself was lost, if it was not told to anybody.
        self.dead.retain(|hash, deletion| {
            deletion.n.is_some() || deletion.who != who || !after.contains_key(hash)
        });
        let synced = self.synced.entry(who.to_owned()).or_default();
        synced.retain(|hash| after.contains_key(hash));
    }

    /// `who` knows nothing any more but what stands in its folder: all of that is as if it were new, and what was
    /// deleted there may come back.
    pub fn reset(&mut self, who: &str, contents: &Contents) {
        self.dead.retain(|_, deletion| deletion.who != who);
        self.synced.remove(who);
        self.seen.remove(who);
        for hash in contents.keys() {
            self.touched(who, *hash);
        }
    }

    /// The log has lost what came after position `n`, for good, and has `left`. What was deleted there may come back, and
    /// what was replaced there is nowhere.
    pub fn cut(&mut self, n: u64, left: &BTreeSet<ContentHash>) {
        self.promised.retain(|hash, _| left.contains(hash));
        self.dead
            .retain(|_, deletion| deletion.n.is_some_and(|by| by <= n));
        // What was in sync is no longer, until the next pass.
        self.synced.clear();
        for seen in self.seen.values_mut() {
            *seen = n.min(*seen);
        }
    }

    /// Deletions that nothing excuses from coming to stay.
    pub fn firm_deletions(&self) -> usize {
        self.dead.values().filter(|dead| !dead.outdone).count()
    }

    /// Compares the books with the files that are there at the end and the versions in the log.
    pub fn audit(&self, files: &Contents, log: &BTreeSet<ContentHash>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (hash, what) in &self.written {
            let alive = files.contains_key(hash);
            if !alive && !self.destroyed.contains(hash) && !self.excused.contains(hash) {
                // Each of two names was taken away by somebody, on machines that knew of one alone.
                let one_by_one = self.copied.contains(hash)
                    && self.unnamed.get(hash).is_some_and(|times| *times >= 2);
                let logged = match log.contains(hash) {
                    true if one_by_one => continue,
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
        for (hash, deletion) in self.dead.iter().filter(|(_, dead)| !dead.outdone) {
            if let Some(paths) = files.get(hash) {
                let what = self.written.get(hash).map_or("?", String::as_str);
                wrong.push(format!(
                    "{what} ({}) was deleted on {}, and nobody had touched it, but it is back at {}",
                    short(hash),
                    deletion.who,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(of: u8) -> ContentHash {
        ContentHash([of; 32])
    }

    fn files(of: &[(u8, &str)]) -> Contents {
        let mut files = Contents::new();
        for (content, path) in of {
            files
                .entry(hash(*content))
                .or_default()
                .push((*path).to_owned());
        }
        files
    }

    fn log(of: &[u8]) -> BTreeSet<ContentHash> {
        of.iter().map(|content| hash(*content)).collect()
    }

    /// Ada wrote `a`, and it is known on both machines.
    fn known_to_both() -> Ledger {
        let mut ledger = Ledger::default();
        let here = files(&[(1, "a")]);
        ledger.edited("ada", &files(&[]), &here);
        ledger.passed("ada", 1, &here, &here);
        ledger.passed("bob", 1, &here, &here);
        ledger
    }

    #[test]
    fn what_is_gone_or_back_is_told() {
        let nothing = files(&[]);
        let here = files(&[(1, "a")]);
        let mut ledger = known_to_both();
        assert_eq!(ledger.audit(&here, &log(&[1])), Vec::<String>::new());
        for (log, word) in [(log(&[]), "is lost"), (log(&[1]), "only a version")] {
            assert!(ledger.audit(&nothing, &log)[0].contains(word));
        }
        assert!(ledger.audit(&here, &log(&[]))[0].contains("is not in the log"));
        ledger.edited("ada", &here, &nothing);
        assert_eq!(ledger.audit(&nothing, &log(&[1])), Vec::<String>::new());
        assert!(ledger.audit(&here, &log(&[1]))[0].contains("is back at a"));
    }

    #[test]
    fn only_a_touch_that_was_not_seen_beats_a_deletion() {
        let (nothing, here) = (files(&[]), files(&[(1, "a")]));
        let moved = files(&[(1, "b")]);
        let back = |ledger: &Ledger| ledger.audit(&moved, &log(&[1])).len();
        // Not sent yet, and sent where Ada has not looked yet.
        for sent in [false, true] {
            let mut ledger = known_to_both();
            ledger.touched("bob", hash(1));
            if sent {
                ledger.passed("bob", 2, &moved, &moved);
            }
            ledger.edited("ada", &here, &nothing);
            assert_eq!(back(&ledger), 0);
        }
        // Seen, and deleted all the same.
        let mut ledger = known_to_both();
        ledger.touched("bob", hash(1));
        ledger.passed("bob", 2, &moved, &moved);
        ledger.passed("ada", 2, &moved, &moved);
        ledger.edited("ada", &moved, &nothing);
        assert_eq!(back(&ledger), 1);
        // Touched again later by somebody who still has it.
        ledger.touched("bob", hash(1));
        assert_eq!(back(&ledger), 0);
        // Made anew by somebody who knows that it was deleted.
        let mut ledger = known_to_both();
        ledger.edited("ada", &here, &nothing);
        ledger.passed("ada", 2, &nothing, &nothing);
        ledger.passed("bob", 2, &nothing, &nothing);
        assert_eq!(back(&ledger), 1);
        ledger.edited("bob", &nothing, &moved);
        assert_eq!(back(&ledger), 0);
    }

    #[test]
    fn one_name_of_two_is_not_the_last() {
        let (nothing, two) = (files(&[]), files(&[(1, "a"), (1, "b")]));
        let (a, b) = (files(&[(1, "a")]), files(&[(1, "b")]));
        let mut ledger = Ledger::default();
        ledger.edited("ada", &nothing, &two);
        ledger.passed("ada", 1, &two, &two);
        ledger.edited("ada", &two, &a);
        assert!(ledger.audit(&nothing, &log(&[1]))[0].contains("only a version"));
        ledger.edited("bob", &two, &b);
        assert_eq!(ledger.audit(&nothing, &log(&[1])), Vec::<String>::new());
        assert!(ledger.audit(&nothing, &log(&[]))[0].contains("is lost"));
    }
}
