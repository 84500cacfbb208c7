//! SIGKILL at forty random moments, to either machine or the server, while data flows.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod field;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use field::proxy::Proxy;
use field::tree::{self, assert_same};
use field::{Field, Machine, Rng, Running, is_whole, until, watch};

const KILLS: usize = 40;
/// What may be sent again after a kill: the packs that were on their way.
const IN_FLIGHT: u64 = 4 * 8_912_896;
/// What sealing, padding, commits and requests may add.
const OVERHEAD: f64 = 1.15;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn killed_at_forty_moments() {
    let seed = std::env::var("SYNCAGENT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(40);
    println!("seed {seed} (SYNCAGENT_SEED={seed} runs it again)");
    let field = Field::new();
    let proxy = Proxy::start();
    let (server, url) = field.start_server();
    proxy.lead_to(&url);
    let [a, b] = field.machines(&proxy.url());
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        // Ends the watching thread however this one ends.
        let _ended = SetOnDrop(&end);
        let reader = scope.spawn(|| {
            let mut seen = BTreeMap::new();
            watch(&end, || look_for_parts(&b.folder, &mut seen));
            seen.len()
        });
        let rounds = Rounds {
            rng: Rng(seed),
            server,
            machines: [&a, &b].map(|machine| (machine, machine.start())),
            field: &field,
            proxy: &proxy,
            content: 0,
            waves: 0,
            may_repeat: 0,
        };
        let (content, sent, may_repeat) = rounds.run();
        end.store(true, Ordering::SeqCst);
        println!("the reader saw {} files, all whole", reader.join().unwrap());
        let (content, sent) = (content as f64 * OVERHEAD, sent as f64);
        let again = (sent - content).max(0.0);
        println!(
            "sent beyond content and overhead: {:.1} MB of at most {:.1} MB",
            again / 1e6,
            may_repeat as f64 / 1e6
        );
        assert!(
            again <= may_repeat as f64,
            "{again} bytes were sent again, more than the packs that were in flight: {may_repeat}"
        );
    });
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Uploader,
    Downloader,
    ServerTaking,
    ServerGiving,
}

struct Rounds<'a> {
    rng: Rng,
    field: &'a Field,
    proxy: &'a Proxy,
    server: Running,
    machines: [(&'a Machine<'a>, Running); 2],
    content: u64,
    waves: usize,
    /// As far as kills excuse it.
    may_repeat: u64,
}

impl Rounds<'_> {
    /// Bytes of content, bytes sent, and how many of them may have been sent twice.
    fn run(mut self) -> (u64, u64, u64) {
        let began = Instant::now();
        let up_before = self.proxy.up();
        // Bytes sent since the machine that sends, or its server, was last killed.
        let mut up_since = up_before;
        for kill in 0..KILLS {
            let victim = [
                Victim::Uploader,
                Victim::Downloader,
                Victim::ServerTaking,
                Victim::ServerGiving,
            ][self.rng.below(4)];
            let after = 1 + self.rng.next() % 30_000_000;
            self.wait_for_flow(victim, after);
            let up = self.proxy.up();
            match victim {
                Victim::Uploader => self.restart(0),
                Victim::Downloader => self.restart(1),
                Victim::ServerTaking | Victim::ServerGiving => {
                    self.server.kill();
                    let (server, url) = self.field.start_server();
                    self.server = server;
                    self.proxy.lead_to(&url);
                }
            }
            if !matches!(victim, Victim::Downloader) {
                self.may_repeat += (up - up_since).min(IN_FLIGHT);
                up_since = up;
            }
            println!(
                "{:>6.1} s  kill {:>2}: {victim:?} after {after} bytes, wave {}, {} bytes sent in all",
                began.elapsed().as_secs_f64(),
                kill + 1,
                self.waves,
                up - up_before,
            );
        }
        self.settle();
        println!(
            "{:>6.1} s  {} waves of data came through",
            began.elapsed().as_secs_f64(),
            self.waves
        );
        (self.content, self.proxy.up() - up_before, self.may_repeat)
    }

    /// Waits until so many bytes went the victim's way, with new data whenever all of it has arrived.
    fn wait_for_flow(&mut self, victim: Victim, bytes: u64) {
        let upwards = matches!(victim, Victim::Uploader | Victim::ServerTaking);
        let proxy = self.proxy;
        let flow = || if upwards { proxy.up() } else { proxy.down() };
        let start = flow();
        let mut looked = Instant::now();
        let what = format!("{bytes} bytes for {victim:?}");
        let deadline = Instant::now() + PATIENCE;
        until(&what, 2 * PATIENCE, || {
            if flow() - start >= bytes {
                return Some(());
            }
            if looked.elapsed() > Duration::from_millis(100) {
                if self.is_equal() {
                    self.wave();
                }
                assert!(Instant::now() < deadline, "nothing flows: {}", self.state());
                looked = Instant::now();
            }
            None
        });
    }

    fn restart(&mut self, which: usize) {
        let (machine, running) = &mut self.machines[which];
        running.kill();
        *running = machine.start();
    }

    /// About 60 MB: two large files, a few middling ones, many small ones; new ones, and new versions.
    fn wave(&mut self) {
        self.waves += 1;
        let root = self.machines[0].0.folder.clone();
        let mut write = |name: String, len: usize| {
            let content = self.rng.sealed(len);
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Whole from the first moment on, so that everything partial is the fault of the program.
            let beside = self.field.path("new file");
            fs::write(&beside, &content).unwrap();
            fs::rename(&beside, path).unwrap();
            self.content += content.len() as u64;
        };
        // The same names in every second wave: new versions. The rest are new files.
        let turn = self.waves % 2;
        write(format!("large {turn}"), 20_000_000);
        write(format!("large new {}", self.waves), 18_000_000);
        for i in 0..8 {
            write(format!("middling {turn}/{i}"), 1_200_000 + 100_000 * i);
        }
        for i in 0..400 {
            // Few enough new versions for the brake not to ask whether they are meant.
            let wave = if i % 8 == 0 { 0 } else { self.waves };
            write(format!("small {wave}/{}/{i}", i % 7), 3_000 + 97 * i);
        }
    }

    /// Whether B shows what A has, by what the file system tells.
    fn is_equal(&self) -> bool {
        let [a, b] = &self.machines;
        outline(&a.0.folder) == outline(&b.0.folder)
    }

    /// Everything arrives, nothing is left behind, also not after a last start of both.
    fn settle(&mut self) {
        until("everything arrives in the end", 2 * PATIENCE, || {
            self.is_equal().then_some(())
        });
        for which in [0, 1] {
            self.restart(which);
        }
        for (machine, _) in &self.machines {
            until("both come to rest", PATIENCE, || {
                machine.is_idle().then_some(())
            });
        }
        let [(a, _), (b, _)] = &self.machines;
        assert_same(
            "in the end",
            ("A", &tree::read(&a.folder)),
            ("B", &tree::read(&b.folder)),
        );
        for machine in [a, b] {
            assert_eq!(
                machine.temps(),
                Vec::<String>::new(),
                "temporary files are left on {}",
                machine.name
            );
        }
    }

    fn state(&self) -> String {
        let of = |machine: &Machine<'_>| format!("{}\n{}", machine.status(), machine.log());
        format!(
            "A: {}\nB: {}\nserver: {}",
            of(self.machines[0].0),
            of(self.machines[1].0),
            self.field.log("server")
        )
    }
}

fn outline(root: &Path) -> BTreeMap<PathBuf, Option<(u64, SystemTime)>> {
    let of = |path: &PathBuf| {
        let meta = fs::symlink_metadata(root.join(path)).ok()?;
        meta.is_file()
            .then(|| (meta.len(), meta.modified().unwrap_or(UNIX_EPOCH)))
    };
    tree::walk(root)
        .into_iter()
        .map(|path| (path.clone(), of(&path)))
        .collect()
}

/// Opens everything that is new below `root`; all of it must be whole.
fn look_for_parts(root: &Path, seen: &mut BTreeMap<(u64, i64, i64), PathBuf>) {
    for path in tree::walk(root) {
        // Gone again, or replaced: another look finds what is there then.
        let Ok(mut file) = File::open(root.join(&path)) else {
            continue;
        };
        let Ok(meta) = file.metadata() else { continue };
        let identity = (meta.ino(), meta.ctime(), meta.ctime_nsec());
        if !meta.is_file() || seen.contains_key(&identity) {
            continue;
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(
            is_whole(&content),
            "{} is visible in part or mixed: {} bytes",
            path.display(),
            content.len()
        );
        seen.insert(identity, path);
    }
}
