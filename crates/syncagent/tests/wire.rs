//! What goes over the wire: only what is new, and after an interruption only what is missing.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod field;

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use field::proxy::Proxy;
use field::{Field, Machine, Rng, Running, until};
use syncagent_protocol::pack::TARGET_PACK_LEN;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::OsRandom;

const MIB: u64 = 1024 * 1024;
/// A file that is long enough for lists of chunks.
const LONG: u64 = 64 * MIB;
/// What a small edit of a long file may cost on each link: a chunk or two, a list chunk, a commit.
const EDIT: u64 = 650 * 1024;
/// What a pass costs in which no content moves: requests, their heads, a commit or two.
const TALK: u64 = 64 * 1024;
/// What sealing and padding may add to content, and the talk round it.
const OVERHEAD: f64 = 1.05;
const PATIENCE: Duration = Duration::from_secs(120);

/// Two machines, each with a way to the server of its own.
struct Wire<'a> {
    machines: [Machine<'a>; 2],
    ways: [Proxy; 2],
    _server: Running,
}

impl<'a> Wire<'a> {
    fn new(field: &'a Field, genesis: Genesis) -> Self {
        let (server, url) = field.start_server();
        let key = VaultKey::generate(&OsRandom::default());
        let ways = [Proxy::start(), Proxy::start()];
        ways.iter().for_each(|way| way.lead_to(&url));
        let machines = [(0, "machine-a"), (1, "machine-b")]
            .map(|(i, name)| field.unlocked(name, &key, genesis, &ways[i].url()));
        Self {
            machines,
            ways,
            _server: server,
        }
    }

    /// Bytes up and down on the way of machine `i` while it makes a pass that goes well.
    fn pass(&self, i: usize) -> (u64, u64) {
        let before = (self.ways[i].up(), self.ways[i].down());
        self.machines[i].sync_once();
        (self.ways[i].up() - before.0, self.ways[i].down() - before.1)
    }

    /// A pass on the machine that has something new and one on the other: what went up, and what came down.
    fn carry(&self, what: &str, from: usize) -> (u64, u64) {
        let to = 1 - from;
        let (up, down) = self.pass(from);
        assert!(down < TALK, "{what}: the sender was told {down} bytes");
        let (said, fetched) = self.pass(to);
        assert!(said < TALK, "{what}: the reader said {said} bytes");
        println!("{what}: {up} bytes up, {fetched} bytes down");
        (up, fetched)
    }

    fn path(&self, i: usize, name: &str) -> std::path::PathBuf {
        self.machines[i].folder.join(name)
    }

    #[track_caller]
    fn assert_same(&self, name: &str) {
        assert!(
            fs::read(self.path(0, name)).unwrap() == fs::read(self.path(1, name)).unwrap(),
            "{name} differs"
        );
    }
}

fn write(path: &Path, seed: u64, len: u64) {
    let content = Rng(seed).bytes(usize::try_from(len).unwrap());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn at_most(what: &str, bytes: u64, limit: u64) {
    assert!(bytes <= limit, "{what}: {bytes} bytes of at most {limit}");
}

fn with_overhead(content: u64) -> u64 {
    (content as f64 * OVERHEAD) as u64 + TALK
}

#[test]
fn a_small_edit_of_a_long_file_costs_little_on_both_links() {
    let field = Field::new();
    let wire = Wire::new(&field, Genesis::default());
    write(&wire.path(0, "long"), 1, LONG);
    let (up, down) = wire.carry("all of it", 0);
    // Else the bytes were not counted where they went.
    assert!(up > LONG && down > LONG);
    at_most("all of it, up", up, with_overhead(LONG));
    at_most("all of it, down", down, with_overhead(LONG));

    // In place, by either machine: the other one has just fetched it, or has just sent it.
    for (from, at) in [(0, LONG / 2), (1, LONG / 3)] {
        let mut file = File::options()
            .write(true)
            .open(wire.path(from, "long"))
            .unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"!").unwrap();
        drop(file);
        let (up, down) = wire.carry("one byte changed", from);
        at_most("one byte changed, up", up, EDIT);
        at_most("one byte changed, down", down, EDIT);
        wire.assert_same("long");
    }

    let mut content = fs::read(wire.path(0, "long")).unwrap();
    content.insert(0, b'!');
    fs::write(wire.path(0, "long"), content).unwrap();
    let (up, down) = wire.carry("one byte inserted at the start", 0);
    at_most("one byte inserted, up", up, EDIT);
    at_most("one byte inserted, down", down, EDIT);
    wire.assert_same("long");

    // Moved and renamed: no content at all.
    fs::create_dir(wire.path(1, "elsewhere")).unwrap();
    fs::rename(wire.path(1, "long"), wire.path(1, "elsewhere/longer")).unwrap();
    let (up, down) = wire.carry("renamed", 1);
    at_most("renamed, up", up, TALK);
    at_most("renamed, down", down, TALK);
    wire.assert_same("elsewhere/longer");
}

#[test]
fn a_copy_is_not_downloaded_where_its_content_is() {
    const LEN: u64 = 20 * MIB;
    let field = Field::new();
    let wire = Wire::new(&field, Genesis::default());
    write(&wire.path(0, "original"), 2, LEN);
    wire.carry("the original", 0);
    fs::copy(wire.path(1, "original"), wire.path(1, "copy")).unwrap();
    let (_, down) = wire.carry("a copy", 1);
    // Its list of chunks: names and keys.
    at_most("a copy, down", down, TALK);
    wire.assert_same("copy");
}

#[test]
fn with_dedup_equal_content_is_neither_sent_nor_fetched_again() {
    const LEN: u64 = 20 * MIB;
    let field = Field::new();
    let genesis = Genesis {
        dedup_vault: true,
        ..Genesis::default()
    };
    let wire = Wire::new(&field, genesis);
    write(&wire.path(0, "original"), 3, LEN);
    let (up, down) = wire.carry("the original", 0);
    assert!(up > LEN && down > LEN);
    write(&wire.path(0, "dir/the same again"), 3, LEN);
    let (up, down) = wire.carry("the same again", 0);
    // Neither the chunks nor their ids, nor the lists of them.
    at_most("the same again, up", up, TALK / 8);
    at_most("the same again, down", down, TALK / 8);
    wire.assert_same("dir/the same again");
    // And the same as a part of something longer, which nobody has as a whole.
    let mut content = fs::read(wire.path(1, "original")).unwrap();
    content.extend(Rng(4).bytes(100_000));
    fs::write(wire.path(1, "longer"), content).unwrap();
    let (up, _) = wire.carry("a longer one", 1);
    at_most("a longer one, up", up, EDIT);
    wire.assert_same("longer");
}

/// Content that may have to be fetched again: three answers of 4 MiB and a chunk, under way when the way was cut.
const FETCHES: u64 = 3 * (4 * MIB + MIB / 4);

#[test]
fn a_long_download_goes_on_where_it_was_cut_off() {
    let field = Field::new();
    let wire = Wire::new(&field, Genesis::default());
    write(&wire.path(0, "long"), 5, LONG);
    wire.pass(0);
    let (b, way) = (&wire.machines[1], &wire.ways[1]);
    let start = way.down();

    // The connection goes.
    way.cut_after_down(LONG / 3);
    let done = b.try_sync();
    assert_eq!(done.exit, 5, "{done}");
    assert!(done.stderr.contains("E_OFFLINE"), "{done}");
    assert!(way.is_cut() && !wire.path(1, "long").exists());
    way.mend();

    // The machine goes.
    let before = way.down();
    way.cut_after_down(LONG / 3);
    let mut running = b.start();
    until("a third of it", PATIENCE, || way.is_cut().then_some(()));
    running.kill();
    way.mend();
    at_most("a second third", way.down() - before, LONG / 3 + MIB);

    let (_, last) = wire.pass(1);
    let all = way.down() - start;
    println!("{last} bytes at last, {all} in all");
    at_most(
        "what was missing",
        last,
        with_overhead(LONG / 3 + 2 * FETCHES),
    );
    at_most("in all", all, with_overhead(LONG + 2 * FETCHES));
    wire.assert_same("long");
    assert_eq!(b.temps(), Vec::<String>::new());
}

#[test]
fn a_long_upload_goes_on_where_it_was_cut_off() {
    /// What may be sent again: the packs in flight and the one being filled.
    const PACKS: u64 = 4 * TARGET_PACK_LEN as u64;
    const FIRST: u64 = 64 * MIB;
    const SECOND: u64 = 12 * MIB;
    let field = Field::new();
    let wire = Wire::new(&field, Genesis::default());
    const SIZE: u64 = 80 * MIB;
    write(&wire.path(0, "long"), 6, SIZE);
    let (a, way) = (&wire.machines[0], &wire.ways[0]);
    let start = way.up();

    // The connection goes.
    way.cut_after_up(FIRST);
    let done = a.try_sync();
    assert_eq!(done.exit, 5, "{done}");
    assert!(way.is_cut());
    way.mend();

    // The machine goes.
    way.cut_after_up(SECOND);
    let mut running = a.start();
    until("a part of the rest", PATIENCE, || {
        way.is_cut().then_some(())
    });
    running.kill();
    way.mend();

    let (last, _) = wire.pass(0);
    let all = way.up() - start;
    println!("{last} bytes at last, {all} in all");
    at_most("in all", all, with_overhead(SIZE + 2 * PACKS));
    wire.pass(1);
    wire.assert_same("long");
}
