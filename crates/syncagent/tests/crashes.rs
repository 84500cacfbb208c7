//! The real binary dies at each step of what brings content to another machine, is started again, and nothing is
//! amiss. Which steps: `crates/protocol/src/crash.rs`. Why so: `docs/decisions/0011-where-tests-kill.md`.
#![cfg(all(unix, debug_assertions))]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod field;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use field::proxy::Proxy;
use field::tree::{self, Tree, assert_same};
use field::{Done, Field, Machine, Rng, Running, checksum, is_whole};
use syncagent_protocol::crash::Point;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::OsRandom;

const PATIENCE: Duration = Duration::from_secs(60);
/// What one round costs beside content: requests and their heads, ops and commits, a page of the log.
const TALK: u64 = 200 * 1024;
/// `abort` on every system that has signals.
const SIGABRT: i32 = 6;
/// How often each point is tried in a soak.
const IN_A_SOAK: u64 = 10;

/// Whose process dies at a point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Sender,
    /// While the sender speaks to it.
    ServerTaking,
    /// While the receiver does.
    ServerGiving,
    Receiver,
}

fn victim(point: Point) -> Victim {
    use Point as P;
    match point {
        P::PackReady | P::PackAcknowledged | P::PackNoted => Victim::Sender,
        P::CommitSealing | P::CommitSealed | P::CommitAnswered | P::CommitTaken => Victim::Sender,
        P::PackBegun | P::PackPieceWritten | P::PackWritten => Victim::ServerTaking,
        P::PackFlushed | P::PackNamed | P::PackDurable => Victim::ServerTaking,
        P::PackRecording | P::PackRecorded => Victim::ServerTaking,
        P::CommitAppending | P::CommitAppended | P::CommitTold => Victim::ServerTaking,
        P::CommitsRead | P::ChunksRead => Victim::ServerGiving,
        P::CommitsFetched | P::CommitsKeeping | P::CommitsKept => Victim::Receiver,
        P::PartWritten | P::ContentWritten | P::FileStaged => Victim::Receiver,
        P::IdsNoted | P::BatchFlushed | P::DirectoryMade | P::NewPlaced => Victim::Receiver,
        P::SwapNamed | P::Exchanged => Victim::Receiver,
        P::AsideNoted | P::AsideLinked | P::AsideKept => Victim::Receiver,
        P::MetaSet | P::NodeMoved | P::NodesSwapped => Victim::Receiver,
        P::TakenOut | P::DirectoryRemoved | P::NamesFlushed => Victim::Receiver,
        P::OldLetGo | P::RowsWriting | P::RowsWritten => Victim::Receiver,
    }
}

/// Whether a pack was on its way then: it may be sent once more. Nothing else may.
fn in_flight(point: Point) -> bool {
    use Point as P;
    matches!(
        point,
        P::PackAcknowledged | P::PackBegun | P::PackPieceWritten | P::PackWritten
    ) || matches!(point, P::PackFlushed | P::PackNamed | P::PackDurable)
        || matches!(point, P::PackRecording | P::PackRecorded)
}

#[test]
fn every_point_is_one_place_in_the_code() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for source in ["client/src", "server/src"].map(|source| crates.join(source)) {
        for path in tree::walk(&source) {
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(source.join(&path)).unwrap();
            for (at, call) in text.match_indices("point(Point::") {
                let name = text[at + call.len()..].split(')').next().unwrap();
                found.entry(name.to_owned()).or_default().push(path.clone());
            }
        }
    }
    for (name, places) in &found {
        assert_eq!(places.len(), 1, "{name} stands in {places:?}");
    }
    let listed: BTreeSet<_> = Point::ALL
        .iter()
        .map(|point| format!("{point:?}"))
        .collect();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), listed);
}

#[test]
fn what_people_run_has_no_point_and_cannot_be_armed() {
    let has = |binary: &Path, text: &str| {
        memchr::memmem::find(&fs::read(binary).unwrap(), text.as_bytes()).is_some()
    };
    let ours = Path::new(env!("CARGO_BIN_EXE_syncagent"));
    // `cargo xtask test` names the release binary here; `cargo test` alone makes none.
    let release = std::env::var_os("SYNCAGENT_BIN");
    for text in ["SYNCAGENT_CRASH_AT", "CommitAppending"] {
        assert!(has(ours, text), "{text} is not how it is found");
        if let Some(release) = &release {
            assert!(!has(Path::new(release), text), "{text} is in {release:?}");
        }
    }
}

#[test]
fn killed_at_every_point() {
    let soak = std::env::var("SYNCAGENT_SOAK").is_ok_and(|soak| soak == "1");
    let seed = std::env::var("SYNCAGENT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(41);
    println!("seed {seed} (SYNCAGENT_SEED={seed} runs it again)");
    let field = Field::of_debug_build();
    let mut world = World::new(&field, seed);
    let mut killed = 0;
    for _ in 0..if soak { IN_A_SOAK } else { 1 } {
        for point in Point::ALL {
            // Not always the first time that it is reached; but a pass may not reach it so often.
            let time = if soak { 1 + world.rng.below(4) } else { 1 };
            if !world.round(*point, time) {
                assert!(time > 1, "{point:?} was not reached");
                assert!(world.round(*point, 1), "{point:?} was not reached");
            }
            killed += 1;
        }
    }
    let wanted = Point::ALL.len() as u64 * if soak { IN_A_SOAK } else { 1 };
    assert_eq!(killed, wanted);
    println!("{killed} kills, {} waves", world.wave);
}

struct World<'a> {
    field: &'a Field,
    proxy: Proxy,
    server: Running,
    a: Machine<'a>,
    b: Machine<'a>,
    rng: Rng,
    wave: usize,
}

/// What was written for one round.
struct Wave {
    /// Both folders before anybody synchronised.
    before: [Tree; 2],
    /// What B wrote where A wrote, too.
    edit_of_b: u64,
    /// Content of all of it.
    len: u64,
}

impl<'a> World<'a> {
    fn new(field: &'a Field, seed: u64) -> Self {
        let proxy = Proxy::start();
        let (server, url) = field.start_server();
        proxy.lead_to(&url);
        let key = VaultKey::generate(&OsRandom::default());
        let [a, b] = ["machine-a", "machine-b"]
            .map(|name| field.unlocked(name, &key, Genesis::default(), &proxy.url()));
        let mut world = Self {
            field,
            proxy,
            server,
            a,
            b,
            rng: Rng(seed),
            wave: 0,
        };
        for name in [
            "edited",
            "both",
            "touched",
            "one",
            "other",
            "moved 0",
            "new 0/small",
        ] {
            world.write(&world.a.folder.join(name), 20_000);
        }
        for machine in [&world.a, &world.b, &world.a] {
            machine.sync_once();
        }
        world
    }

    fn write(&mut self, path: &Path, len: usize) -> u64 {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = self.rng.sealed(len);
        fs::write(path, &content).unwrap();
        checksum(&content)
    }

    /// One of each: files of every size, edits, a conflict, links, directories, moves, exchanges, deletions.
    fn write_wave(&mut self) -> Wave {
        self.wave += 1;
        let n = self.wave;
        let a = self.a.folder.clone();
        let mut len = 0;
        let new = a.join(format!("new {n}"));
        for (path, size) in [
            (new.join("long"), 3_000_000),
            (new.join("deep/small"), 30_000),
            (new.join("tiny"), 100),
            (a.join("edited"), 30_000 + n),
            (a.join("both"), 25_000 + n),
        ] {
            self.write(&path, size);
            len += size as u64;
        }
        symlink("../edited", new.join("way")).unwrap();
        let mode = if n.is_multiple_of(2) { 0o644 } else { 0o755 };
        fs::set_permissions(a.join("touched"), fs::Permissions::from_mode(mode)).unwrap();
        for (from, to) in [("one", "third"), ("other", "one"), ("third", "other")] {
            fs::rename(a.join(from), a.join(to)).unwrap();
        }
        fs::rename(
            a.join(format!("moved {}", n - 1)),
            a.join(format!("moved {n}")),
        )
        .unwrap();
        fs::remove_dir_all(a.join(format!("new {}", n - 1))).unwrap();
        for path in tree::walk(&a) {
            if path.to_str().unwrap().contains(".conflict-") {
                fs::remove_file(a.join(path)).unwrap();
            }
        }
        let both = self.b.folder.join("both");
        let edit_of_b = self.write(&both, 26_000 + n);
        len += 26_000;
        Wave {
            before: [&self.a, &self.b].map(|machine| tree::read(&machine.folder)),
            edit_of_b,
            len,
        }
    }

    /// A wave of edits, a kill at the point when it is reached for the `time`-th time, and all that has to hold
    /// afterwards. Whether it was reached.
    fn round(&mut self, point: Point, time: usize) -> bool {
        let wave = self.write_wave();
        let case = format!("{point:?}, time {time}, wave {}", self.wave);
        let up = self.proxy.up();
        let died = self.kill(point, &format!("{point:?}:{time}"), &case);
        self.nothing_partial(&case, point, &wave);
        self.restart(&case);
        let sent = self.proxy.up() - up;
        let may = TALK + wave.len * 21 / 20 * if in_flight(point) { 2 } else { 1 };
        assert!(sent <= may, "{case}: {sent} bytes were sent, {may} may be");
        self.all_is_well(&case, &wave);
        died
    }

    /// Whether the victim died.
    fn kill(&mut self, point: Point, at: &str, case: &str) -> bool {
        let who = victim(point);
        if matches!(who, Victim::Receiver | Victim::ServerGiving) {
            good(&self.a.try_sync(), case);
        }
        let speaker = match who {
            Victim::Sender | Victim::ServerTaking => &self.a,
            Victim::Receiver | Victim::ServerGiving => &self.b,
        };
        let marker = format!("crash point {point:?}\n");
        if matches!(who, Victim::Sender | Victim::Receiver) {
            self.field.next_dies_at(at);
            let done = speaker.try_sync();
            if done.signal.is_none() {
                good(&done, case);
                return false;
            }
            assert_eq!(done.signal, Some(SIGABRT), "{case}: {done}");
            assert!(done.stderr.contains(&marker), "{case}: {done}");
            return true;
        }
        self.server.kill();
        let heard = self.field.log("server").len();
        self.field.next_dies_at(at);
        let (server, url) = self.field.start_server();
        self.server = server;
        self.proxy.lead_to(&url);
        let done = speaker.try_sync();
        assert_eq!(done.signal, None, "{case}: {done}");
        let said = self.field.log("server").split_off(heard);
        let died = said.contains(&marker);
        if died {
            assert_eq!(self.server.dies(PATIENCE), Some(SIGABRT), "{case}: {said}");
            assert_ne!(
                done.exit, 0,
                "{case}: a machine says that all is well: {done}"
            );
        } else {
            good(&done, case);
            self.server.kill();
        }
        let (server, url) = self.field.start_server();
        self.server = server;
        self.proxy.lead_to(&url);
        died
    }

    /// Whoever looks between the kill and the next start sees whole files, and each of them is one that somebody wrote.
    fn nothing_partial(&self, case: &str, point: Point, wave: &Wave) {
        let [a, b] = [&self.a, &self.b].map(|machine| tree::read(&machine.folder));
        assert_same(case, ("A before", &wave.before[0]), ("A", &a));
        let contents = |tree: &Tree| -> BTreeSet<u64> {
            let content = |entry: &tree::Entry| match entry {
                tree::Entry::File { content, .. } => Some(*content),
                _ => None,
            };
            tree.values().filter_map(content).collect()
        };
        let [written_a, written_b] = [0, 1].map(|side| contents(&wave.before[side]));
        for path in tree::walk(&self.b.folder) {
            let full = self.b.folder.join(&path);
            if !fs::symlink_metadata(&full).unwrap().is_file() {
                continue;
            }
            let content = fs::read(&full).unwrap();
            let sum = checksum(&content);
            assert!(is_whole(&content), "{case}: {} is partial", path.display());
            let is_known = written_a.contains(&sum) || written_b.contains(&sum);
            assert!(is_known, "{case}: nobody wrote {}", path.display());
        }
        // Before anybody has told B anything, nothing there has changed.
        if matches!(victim(point), Victim::Sender | Victim::ServerTaking) {
            assert_same(case, ("B before", &wave.before[1]), ("B", &b));
        }
        // A name that both sides have is never missing.
        for path in wave.before[1].keys() {
            let stays = wave.before[0].contains_key(path);
            assert!(
                !stays || b.contains_key(path),
                "{case}: {} is gone",
                path.display()
            );
        }
    }

    /// Both go on until nothing is left to be said.
    fn restart(&self, case: &str) {
        for machine in [&self.a, &self.b, &self.a, &self.b] {
            good(&machine.try_sync(), case);
        }
    }

    fn all_is_well(&self, case: &str, wave: &Wave) {
        let [a, b] = [&self.a, &self.b].map(|machine| tree::read(&machine.folder));
        assert_same(case, ("A", &a), ("B", &b));
        // Everything that A wrote is where A wrote it, nothing that A deleted is back, and what B wrote stands beside.
        let is_copy = |path: &Path| path.to_str().unwrap().starts_with("both.conflict-");
        let (copies, rest): (Tree, Tree) = a.into_iter().partition(|(path, _)| is_copy(path));
        assert_same(case, ("what A wrote", &wave.before[0]), ("A", &rest));
        assert_eq!(copies.len(), 1, "{case}: {copies:?}");
        for (path, entry) in &copies {
            let is_it =
                matches!(entry, tree::Entry::File { content, .. } if *content == wave.edit_of_b);
            assert!(is_it, "{case}: {} is something else", path.display());
        }
        for machine in [&self.a, &self.b] {
            let temps = machine.temps();
            assert_eq!(
                temps,
                Vec::<String>::new(),
                "{case}: left on {}",
                machine.name
            );
        }
        let incoming = self.field.server_data().join("packs/incoming");
        assert_eq!(fs::read_dir(incoming).unwrap().count(), 0, "{case}");

        let identities = || [&self.a, &self.b].map(|machine| tree::identities(&machine.folder));
        let (stood, up) = (identities(), self.proxy.up());
        for machine in [&self.a, &self.b] {
            let answer = good(&machine.try_sync(), case);
            for what in ["sent", "fetched", "removed", "bytes_sent", "conflicts"] {
                assert_eq!(answer[what], 0, "{case}: a second sync: {answer}");
            }
        }
        assert_eq!(
            identities(),
            stood,
            "{case}: a second sync changed something"
        );
        let talk = self.proxy.up() - up;
        assert!(talk < 16 * 1024, "{case}: a second sync said {talk} bytes");
    }
}

/// A pass that went well, whether or not it made a conflict copy; its answer.
#[track_caller]
fn good(done: &Done, case: &str) -> serde_json::Value {
    assert_eq!(done.signal, None, "{case}: {done}");
    let answer: serde_json::Value =
        serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{case}: {done}"));
    assert_eq!(
        answer["status"]["errors"],
        serde_json::json!([]),
        "{case}: {done}"
    );
    assert!([0, 10].contains(&done.exit), "{case}: {done}");
    answer
}
