//! An index that is damaged, cut, or in parts of another time: it is refused with a way out that helps, or goes on as if nothing
//! had been. Nothing is lost, and nothing wrong comes to another machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::world::{Machine, Run, World};

/// SQLite's, unless somebody says otherwise.
const PAGE: usize = 4096;

/// What stands in a folder, by path.
type Tree = BTreeMap<String, Vec<u8>>;

fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut dirs = vec![folder.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.ends_with(".syncagent") {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().display().to_string();
                    found.insert(name, fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

/// The same numbers every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// Two machines: the index of `a` is damaged, `b` is whole. Each has something new when that happens.
struct Pair {
    _world: World,
    a: Machine,
    b: Machine,
    round: usize,
    /// What both must have in the end.
    wanted: Tree,
    /// The index of `a` as it was left, and what lies beside it.
    kept: Vec<(PathBuf, Vec<u8>)>,
}

/// What `a` changed and did not send yet.
const OF_A: [&str; 2] = ["dir0/by a", "new"];

impl Pair {
    fn new() -> Self {
        let world = World::new();
        let a = world.first("a");
        for n in 0..24 {
            a.write(&format!("dir{}/file{n}", n % 3), &format!("first of {n}"));
        }
        a.write(OF_A[0], "first");
        a.write("by b", "first");
        a.sync_once().exits(0);
        let b = world.next("b", &a);
        b.sync_once().exits(0);
        // Versions, a move and deletions: a history that an index in parts of another time could mistake.
        for n in (0..24).step_by(2) {
            a.write(
                &format!("dir{}/file{n}", n % 3),
                &format!("second of {n}, longer"),
            );
        }
        fs::rename(a.folder.join("dir1/file1"), a.folder.join("dir2/moved")).unwrap();
        a.sync_once().exits(0);
        b.sync_once().exits(0);
        for n in [5, 8] {
            fs::remove_file(b.folder.join(format!("dir2/file{n}"))).unwrap();
        }
        b.sync_once().exits(0);
        a.sync_once().exits(0);
        // The key at hand: deriving it from the password each time would be most of the test.
        for machine in [&a, &b] {
            machine
                .run(&["unlock", "--password-file", "password"])
                .exits(0);
        }
        Self {
            _world: world,
            a,
            b,
            round: 0,
            wanted: Tree::new(),
            kept: Vec::new(),
        }
    }

    /// Something new on both sides, of which neither knows.
    fn edit(&mut self) {
        self.round += 1;
        let n = self.round;
        self.b.write("by b", &format!("by b, {n}"));
        once(&self.b).exits(0);
        self.wanted = tree(&self.b.folder);
        for name in OF_A {
            let text = format!("by a, {n}");
            self.a.write(name, &text);
            self.wanted.insert(name.to_owned(), text.into_bytes());
        }
    }

    fn index(&self, suffix: &str) -> PathBuf {
        self.a.home().join(format!("state.db{suffix}"))
    }

    fn keep(&mut self) {
        let files = ["", "-wal"].map(|suffix| self.index(suffix));
        self.kept = { files.into_iter() }
            .filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)))
            .collect();
    }

    /// The index as it was kept; SQLite makes the file that its users share anew.
    fn put_back(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(self.index(suffix));
        }
        for (path, bytes) in &self.kept {
            fs::write(path, bytes).unwrap();
        }
    }

    /// A pass of `a` with its index as it is now. Whether it was refused; else everything is where it belongs.
    fn try_pass(&mut self, what: &str, is_lost: bool) -> bool {
        let before = tree(&self.a.folder);
        let pass = once(&self.a);
        assert!(!pass.stderr.contains("panicked"), "{what}: {}", pass.stderr);
        if pass.stderr.contains("error[E_STATE]") {
            assert_eq!(pass.exit, 7, "{what}");
            assert!(pass.stderr.contains("`syncagent reset`"), "{what}");
            // Where it is found out in the middle, what came from the vault may be there already.
            let mut here = tree(&self.a.folder);
            here.insert("by b".to_owned(), before["by b"].clone());
            assert_eq!(here, before, "{what}");
            return true;
        }
        self.compare(what, &pass, is_lost);
        false
    }

    /// Both machines have all there is. Where the index was lost or is older, nobody knows what `a` started from: then
    /// there may be copies.
    fn compare(&mut self, what: &str, pass: &Run, is_lost: bool) {
        let exits: &[i32] = if is_lost { &[0, 10] } else { &[0] };
        assert!(
            exits.contains(&pass.exit),
            "{what}: {} {}",
            pass.exit,
            pass.stderr
        );
        let other = once(&self.b);
        assert!(matches!(other.exit, 0 | 10), "{what}: {}", other.stderr);
        let (mut here, there) = (tree(&self.a.folder), tree(&self.b.folder));
        assert!(here == there, "{what}: {here:?} {there:?}");
        let mut has_copies = false;
        for name in [OF_A[0], OF_A[1], "by b"] {
            let prefix = format!("{name}.conflict-");
            let copy = here.keys().find(|path| path.starts_with(&prefix)).cloned();
            if let Some(copy) = copy {
                assert!(is_lost, "{what}: {copy}");
                let content = here.remove(&copy).unwrap();
                // What `b` wrote last has its name; the copy is of what it wrote before.
                if name != "by b" {
                    here.insert(name.to_owned(), content);
                }
                fs::remove_file(self.a.folder.join(copy)).unwrap();
                has_copies = true;
            }
        }
        assert!(here == self.wanted, "{what}: {here:?}");
        if has_copies {
            // As a person would, before the next accident.
            for name in OF_A {
                fs::write(self.a.folder.join(name), &self.wanted[name]).unwrap();
            }
            once(&self.a).exits(0);
            once(&self.b).exits(0);
        }
    }
}

fn once(machine: &Machine) -> Run {
    machine.run(&["sync", "--once", "--json"])
}

#[test]
fn an_index_damaged_anywhere_is_refused_or_harms_nobody() {
    let is_soak = std::env::var("SYNCAGENT_SOAK").is_ok_and(|value| value == "1");
    let (flips, mut draw) = (if is_soak { 8 } else { 1 }, Draw(0x9e37_79b9_7f4a_7c15));
    let mut pair = Pair::new();
    pair.edit();
    pair.keep();
    let (mut refused, mut went_on) = (0, 0);
    let pages = pair.kept[0].1.len() / PAGE;
    let kinds = ["cut", "zeros", "noise"].len() + flips;
    for (page, kind) in (0..pages).flat_map(|page| (0..kinds).map(move |kind| (page, kind))) {
        let mut bytes = pair.kept[0].1.clone();
        // It grows a little with each round.
        let at = page * PAGE;
        let what = match kind {
            // Some lengths stand for all.
            0 if page > 2 && page + 1 < pages && page % 16 != 0 => continue,
            0 => {
                let end = at + [0, 1, PAGE / 2][page % 3];
                bytes.truncate(end);
                format!("cut to {end}")
            }
            1 => {
                bytes[at..at + PAGE].fill(0);
                format!("zeros in page {page}")
            }
            2 => {
                bytes[at..at + PAGE].copy_from_slice(&draw.bytes(PAGE));
                format!("noise in page {page}")
            }
            _ => {
                // What is not in use is zero, and nobody reads it.
                let used: Vec<usize> = (at..at + PAGE).filter(|at| bytes[*at] != 0).collect();
                if used.is_empty() {
                    continue;
                }
                let (at, bit) = (used[draw.below(used.len())], draw.below(8));
                bytes[at] ^= 1 << bit;
                format!("bit {bit} of byte {} in page {page}", at % PAGE)
            }
        };
        fs::write(pair.index(""), &bytes).unwrap();
        if (page + kind) % 4 == 0 {
            let status = pair.a.run(&["status", "--json"]);
            // Or the pass before was, and it says so.
            let said = format!("{}{}", status.stderr, status.stdout);
            let is_refused = status.exit == 7 && said.contains("E_STATE");
            let is_fine = is_refused || matches!(status.exit, 0 | 10);
            assert!(is_fine, "{what}: {} {said}", status.exit);
        }
        if pair.try_pass(&what, bytes.len() < PAGE) {
            refused += 1;
            if refused % 16 != 0 {
                pair.put_back();
                continue;
            }
            // What the advice says helps.
            pair.a.run(&["reset", "--yes"]).exits(0);
            let pass = once(&pair.a);
            pair.compare(&format!("{what}, and a reset"), &pass, true);
        } else {
            went_on += 1;
        }
        pair.edit();
        pair.keep();
    }
    // Neither is the rule.
    assert!(refused > pages && went_on > 8, "{refused} {went_on}");
}

#[test]
fn a_journal_that_is_damaged_gone_or_of_another_time_harms_nobody() {
    let mut pair = Pair::new();
    let daemon = |pair: &Pair, n: usize| {
        let daemon = pair.a.start_daemon();
        pair.a.write("dir0/file0", &format!("while it runs, {n}"));
        crate::world::until("the daemon to send it", || {
            once(&pair.b).exits(0);
            let wanted = format!("while it runs, {n}");
            (pair.b.read("dir0/file0") == Some(wanted)).then_some(())
        });
        pair.a.run(&["now"]).exits(0);
        // Leaves the journal behind, as a power cut does.
        daemon.kill();
        let files = ["", "-wal"].map(|suffix| fs::read(pair.index(suffix)).unwrap());
        assert!(files[1].len() > PAGE);
        files
    };
    let [early, early_journal] = daemon(&pair, 1);
    for n in 10..20 {
        pair.a.write(&format!("dir1/file{n}"), "between");
    }
    fs::remove_file(pair.a.folder.join("dir0/file3")).unwrap();
    once(&pair.a).exits(0);
    let [late, late_journal] = daemon(&pair, 2);
    once(&pair.a).exits(0);
    once(&pair.b).exits(0);
    let closed = fs::read(pair.index("")).unwrap();
    let half = late_journal.len() / 2;
    let mut flipped = late_journal.clone();
    flipped[half] ^= 1;
    let mut first = late_journal.clone();
    first[40] ^= 1;
    let none = Vec::new();
    let cases = [
        ("an older journal", &late, &early_journal),
        (
            "an older journal beside what was closed",
            &closed,
            &early_journal,
        ),
        ("a newer journal", &early, &late_journal),
        ("a journal that is in it already", &closed, &late_journal),
        ("no journal", &late, &none),
        ("half a journal", &late, &late_journal[..half].to_vec()),
        (
            "half a journal that is in it already",
            &closed,
            &late_journal[..half].to_vec(),
        ),
        ("a byte", &late, &flipped),
        ("a byte at the begin", &late, &first),
        ("a byte in what is in it already", &closed, &flipped),
        ("both of then", &early, &early_journal),
    ];
    for (what, index, journal) in cases {
        pair.edit();
        pair.put_back();
        fs::write(pair.index(""), index).unwrap();
        fs::write(pair.index("-wal"), journal).unwrap();
        if pair.try_pass(what, true) {
            pair.a.run(&["reset", "--yes"]).exits(0);
            let pass = once(&pair.a);
            pair.compare(&format!("{what}, and a reset"), &pass, true);
        }
        once(&pair.a).exits(0);
        once(&pair.b).exits(0);
    }
}
