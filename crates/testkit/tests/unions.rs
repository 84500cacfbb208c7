//! `recover`, interrupted at every call to the disk, every request and every step of the code in turn, and run again.
//!
//! The server was restored from a backup. The laptop has seen more than it now has; the desktop has not, and in most of
//! these tests it has gone on from there. The phone, where there is one, has seen as much as the laptop.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, TryStreamExt as _};
use http::{Request, Response};
use syncagent_client::ClientError;
use syncagent_client::engine::{Engine, Hint, Outcome, Recovered, Way};
use syncagent_client::folder::disk::ErrorKind;
use syncagent_client::remote::RemoteError;
use syncagent_client::remote::http::{Body as HttpBody, Transport};
use syncagent_client::work::Work;
use syncagent_protocol::api::Event;
use syncagent_protocol::{Code, TreePath};
use syncagent_server::Entropy;
use syncagent_testkit::sim::clock::SimClock;
use syncagent_testkit::sim::disk::{Drive, Fault, Known};
use syncagent_testkit::sim::fs::{Body, Content, Fs, Item};
use syncagent_testkit::sim::net::Seen;
use syncagent_testkit::sim::server::SimServer;
use syncagent_testkit::sim::trace::Trace;
use syncagent_testkit::transport::RouterTransport;
use syncagent_testkit::world::{Machine, World};
use syncagent_vault::op::Genesis;
use syncagent_vault::random::{OsRandom, Random as _};
use tokio::sync::Notify;

/// Steps of one `recover` with its pass; more would mean that a test does not end.
const MANY: u64 = 3000;

/// What happens once, at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    /// The machine stops at a call to its disk.
    Killed,
    /// Such a call fails.
    DiskError,
    /// The machine stops before a request arrives.
    KilledBefore,
    /// The machine stops when a request has arrived, and before it is answered.
    KilledAfter,
    /// A request does not arrive.
    Cut,
    /// Its answer is lost.
    AnswerLost,
    /// The machine stops at a crash point.
    Died,
    /// A request waits until somebody lets it go on.
    Held,
}

impl Happens {
    fn is_death(self) -> bool {
        matches!(
            self,
            Self::Killed | Self::KilledBefore | Self::KilledAfter | Self::Died
        )
    }
}

/// The way to the server, on which one thing may happen.
struct Line {
    inner: RouterTransport,
    /// What, after how many further requests.
    armed: Mutex<Option<(Happens, u64)>>,
    /// The machine is to stop, or a request of it is held.
    stop: Notify,
    /// What is held may go on.
    go_on: Notify,
}

impl Line {
    fn due(&self) -> Option<Happens> {
        let mut armed = self.armed.lock().unwrap();
        match &mut *armed {
            Some((_, 0)) => armed.take().map(|(what, _)| what),
            Some((_, left)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    async fn die(&self) -> ! {
        self.stop.notify_one();
        std::future::pending().await
    }
}

impl Transport for Line {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<HttpBody>, RemoteError>> {
        async move {
            let due = self.due();
            let cut = || RemoteError::Offline("cut by the test".to_owned());
            match due {
                Some(Happens::KilledBefore) => self.die().await,
                Some(Happens::Cut) => return Err(cut()),
                Some(Happens::Held) => {
                    self.stop.notify_one();
                    self.go_on.notified().await;
                }
                _ => {}
            }
            let response = self.inner.send(request).await?;
            if matches!(due, None | Some(Happens::Held)) {
                return Ok(response);
            }
            // What the server does then is done, whoever listens.
            let _ = response.into_body().try_collect::<Vec<Bytes>>().await;
            match due {
                Some(Happens::KilledAfter) => self.die().await,
                _ => Err(cut()),
            }
        }
        .boxed()
    }

    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        let token = token.to_owned();
        async move { self.inner.events(&token).await }.boxed()
    }
}

thread_local! {
    /// Crash points that this test's machine comes by before it dies; dead from zero on.
    static POINTS_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Died;

/// From now on the machines of this thread may die at crash points.
#[cfg(debug_assertions)]
fn arm_points() {
    syncagent_protocol::crash::arm(|_| match POINTS_LEFT.get() {
        None => {}
        // Whatever still runs comes no further, either.
        Some(0) => resume_unwind(Box::new(Died)),
        Some(left) => POINTS_LEFT.set(Some(left - 1)),
    });
}

struct Here {
    machine: Machine,
    drive: Drive,
    /// What somebody wrote; nothing else may ever stand under a name.
    known: Known,
    line: Arc<Line>,
    /// Counts passes: what one removes the next may bring back.
    passes: Arc<Seen>,
}

impl Here {
    fn write(&self, path: &str, bytes: &[u8]) {
        let content = Content::new(bytes.to_vec());
        self.known.lock().unwrap().insert(content.hash());
        self.drive.with(|fs| {
            let (dir, name) = place(fs, path);
            match fs.child(dir, name) {
                Ok(ino) => fs.write(ino, |content| *content = bytes.to_vec()).unwrap(),
                Err(_) => {
                    fs.create(dir, name, Body::File(content)).unwrap();
                }
            }
        });
    }

    fn remove(&self, path: &str) {
        self.drive.with(|fs| {
            let (dir, name) = place(fs, path);
            fs.remove(dir, name, false).unwrap();
        });
    }

    fn rename(&self, from: &str, to: &str) {
        self.drive.with(|fs| {
            let (from, to) = (place(fs, from), place(fs, to));
            fs.rename(from, to, false).unwrap();
        });
    }

    /// Every file, by path; of a conflict copy the path that it was a copy of, and a star.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for (path, item) in self.drive.with(|fs| fs.tree()) {
            let path = match path.split_once(".conflict-") {
                Some((path, _)) => format!("{path}*"),
                None => path,
            };
            if let Item::File { hash, .. } = item {
                // As many copies as there are.
                let path = (0..MANY as usize)
                    .map(|n| format!("{path}{}", "*".repeat(n)))
                    .find(|path| !files.contains_key(path));
                files.insert(path.unwrap(), hash.to_string());
            }
        }
        files
    }

    fn engine(&mut self) -> &mut Engine {
        self.machine.engine.as_mut().unwrap()
    }

    /// Those of what was deleted that a notice names.
    fn noticed(&mut self) -> Vec<String> {
        let notices = self.engine().status().notices;
        let is_named = |path: &&&str| {
            let begin = format!("{path} was deleted on one side");
            notices.iter().any(|notice| notice.starts_with(&begin))
        };
        DELETED
            .iter()
            .filter(is_named)
            .map(|path| (*path).to_owned())
            .collect()
    }

    /// Each conflict copy is listed as one, whatever came between, and nothing else is.
    fn lists_every_copy(&mut self, case: &str) {
        let conflicts = self.engine().status().conflicts;
        let listed: BTreeSet<String> = conflicts.into_iter().map(|open| open.copy).collect();
        let tree = self.drive.with(|fs| fs.tree()).into_iter();
        let copies = tree.map(|(path, _)| path);
        let copies = copies.filter(|path| path.contains(".conflict-"));
        assert_eq!(listed, copies.collect(), "{case}");
    }

    async fn pass(&mut self) -> Result<Outcome, ClientError> {
        self.passes.rounds.fetch_add(1, Ordering::Relaxed);
        self.engine().pass(Hint::Everything).await
    }

    /// What the command does. `told` learns what it says before its pass.
    async fn recover(&mut self, told: &mut Vec<String>) -> Result<Recovered, ClientError> {
        let course = self.engine().recovery().await?.course;
        let recovered = self.engine().rejoin(course).await?;
        told.extend(recovered.not_deleted.iter().cloned());
        // Whoever is told to end here says this, and must not be held to where the machine once was.
        let (status, head) = (self.engine().status(), self.engine().head());
        assert_eq!(status.head, Some(head));
        self.pass().await?;
        Ok(recovered)
    }

    fn arm(&self, what: Happens, step: u64) {
        match what {
            Happens::Killed => self.drive.arm(step, Fault::Crash),
            Happens::DiskError => self.drive.arm(step, Fault::Error(ErrorKind::Io)),
            Happens::Died => POINTS_LEFT.set(Some(step)),
            _ => *self.line.armed.lock().unwrap() = Some((what, step)),
        }
    }

    /// Takes back what has not happened. Whether it has.
    fn disarm(&self, what: Happens, errors_before: u64) -> bool {
        match what {
            Happens::Killed | Happens::DiskError => {
                let errors = self.errors();
                self.drive.disarm();
                self.drive.crashed_in().is_some() || errors > errors_before
            }
            Happens::Died => POINTS_LEFT.take() == Some(0),
            _ => self.line.armed.lock().unwrap().take().is_none(),
        }
    }

    fn errors(&self) -> u64 {
        TRACE.with(|trace| {
            let trace = trace.borrow();
            trace.as_ref().map_or(0, |trace: &Trace| {
                trace.counts().get("disk error").copied().unwrap_or(0)
            })
        })
    }
}

thread_local! {
    static TRACE: std::cell::RefCell<Option<Trace>> = const { std::cell::RefCell::new(None) };
}

/// The directory of a path, and its name there.
fn place<'a>(fs: &mut Fs, path: &'a str) -> (u64, &'a str) {
    match path.rsplit_once('/') {
        None => (fs.root(), path),
        Some((dir, name)) => (fs.lookup(dir.split('/')).unwrap(), name),
    }
}

/// Bytes that do not compress, too many to stand in the log.
fn large() -> Vec<u8> {
    let mut bytes = vec![0; 40_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn hash(bytes: &[u8]) -> String {
    Content::new(bytes.to_vec()).hash().to_string()
}

struct Restored {
    _dir: tempfile::TempDir,
    clock: SimClock,
    world: World,
    server: SimServer,
    laptop: Here,
    desktop: Here,
    phone: Option<Here>,
}

/// Deleted on one side only, in one way or another.
const DELETED: [&str; 6] = [
    "dir/dropped",
    "dir/gone",
    "dir/untold",
    "dropped",
    "gone",
    "untold",
];

impl Restored {
    /// The server is back at a position behind what the laptop has seen.
    async fn new(gone_on: bool) -> Self {
        Self::with(gone_on, false).await
    }

    async fn with(gone_on: bool, phone: bool) -> Self {
        // Where the index need not reach a disk, if there is such a place.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let clock = SimClock::default();
        let trace = Trace::new(clock.clone());
        TRACE.set(Some(trace.clone()));
        let entropy: Entropy = Arc::new(|out: &mut [u8]| OsRandom::default().fill(out));
        let server = SimServer::new(clock.clone(), entropy).unwrap();
        let world = World::on(
            server.app.clone(),
            Genesis::default(),
            Arc::new(clock.clone()),
        );
        let known = Known::default();
        let mut here = Vec::new();
        let names = ["laptop", "desktop", "phone"];
        for name in &names[..if phone { 3 } else { 2 }] {
            let drive = Drive::new(clock.clone(), trace.clone(), name, Arc::clone(&known));
            let passes = Arc::new(Seen::default());
            drive.follow_rounds(&passes);
            here.push(Here {
                machine: world.machine(dir.path(), name).await.unwrap(),
                drive,
                passes,
                known: Arc::clone(&known),
                line: Arc::new(Line {
                    inner: RouterTransport::new(server.app.router()),
                    armed: Mutex::new(None),
                    stop: Notify::new(),
                    go_on: Notify::new(),
                }),
            });
        }
        let phone = here.drain(2..).next();
        let (desktop, laptop) = (here.pop().unwrap(), here.pop().unwrap());
        let mut restored = Self {
            _dir: dir,
            clock,
            world,
            server,
            laptop,
            desktop,
            phone,
        };
        restored.begin(gone_on).await;
        restored
    }

    fn start(world: &World, here: &mut Here) {
        here.machine.engine = None;
        let disk = Arc::new(here.drive.start());
        let line = Arc::clone(&here.line) as Arc<dyn Transport>;
        world
            .start_with(&mut here.machine, disk, line, Work::Inline)
            .unwrap();
    }

    async fn begin(&mut self, gone_on: bool) {
        let every = [
            Some(&mut self.laptop),
            Some(&mut self.desktop),
            self.phone.as_mut(),
        ];
        for here in every.into_iter().flatten() {
            Self::start(&self.world, here);
        }
        self.laptop.drive.with(|fs| {
            fs.create(fs.root(), "dir", Body::Dir(BTreeMap::new()))
                .unwrap();
        });
        for name in ["both", "ours", "theirs", "renamed", "dir/x"] {
            self.laptop.write(name, format!("{name} before").as_bytes());
        }
        for name in DELETED {
            self.laptop.write(name, format!("{name} before").as_bytes());
        }
        self.settle().await;
        let mark = self.server.mark().unwrap();
        let (laptop, desktop) = (&mut self.laptop, &mut self.desktop);

        // This is lost, and the desktop has never seen it.
        laptop.write("both", b"by the laptop");
        laptop.write("ours", b"by the laptop");
        laptop.write("only on the laptop", b"new");
        laptop.write("large", &large());
        laptop.rename("renamed", "dir/renamed");
        laptop.remove("gone");
        laptop.remove("dir/gone");
        self.clock.advance_ns(1_000_000_000);
        laptop.pass().await.unwrap();
        if let Some(phone) = &mut self.phone {
            phone.pass().await.unwrap();
        }
        assert!(self.server.mark().unwrap().n > mark.n);
        self.server.put_back(mark).unwrap();

        if gone_on {
            desktop.write("both", b"by the desktop");
            desktop.write("theirs", b"by the desktop");
            desktop.write("only on the desktop", b"new");
            desktop.remove("dropped");
            desktop.remove("dir/dropped");
            self.clock.advance_ns(1_000_000_000);
            desktop.pass().await.unwrap();
        }
        // Nobody has heard of this.
        laptop.remove("untold");
        laptop.remove("dir/untold");
        laptop.write("meanwhile", b"waits");
        self.clock.advance_ns(1_000_000_000);
        if let Some(phone) = &mut self.phone {
            phone.write("meanwhile on the phone", b"waits, too");
        }
        for here in [Some(laptop), self.phone.as_mut()].into_iter().flatten() {
            let code = here.pass().await.unwrap_err().code();
            assert!(matches!(code, Code::Rollback | Code::Fork), "{code}");
        }
    }

    /// A pass of the laptop, at one of whose requests it is killed. Whether it was.
    async fn pass_killed(&mut self, what: Happens, step: u64) -> bool {
        self.laptop.arm(what, step);
        let line = Arc::clone(&self.laptop.line);
        let run = self.laptop.pass();
        let stopped = std::pin::pin!(line.stop.notified());
        let ended = match select(std::pin::pin!(run), stopped).await {
            Either::Left((ended, _)) => Some(ended),
            Either::Right(_) => None,
        };
        if let Some(ended) = ended {
            ended.unwrap();
            line.armed.lock().unwrap().take();
            return false;
        }
        self.laptop.drive.kill();
        Self::start(&self.world, &mut self.laptop);
        true
    }

    async fn settle(&mut self) {
        for _ in 0..3 {
            self.clock.advance_ns(1_000_000_000);
            self.laptop.pass().await.unwrap();
            self.desktop.pass().await.unwrap();
            if let Some(phone) = &mut self.phone {
                phone.pass().await.unwrap();
            }
        }
    }

    /// Runs `recover` on the laptop and lets something happen at a step of it. Whether it has.
    async fn interrupt(&mut self, what: Happens, step: u64, told: &mut Vec<String>) -> bool {
        let before = self.laptop.errors();
        self.laptop.arm(what, step);
        let line = Arc::clone(&self.laptop.line);
        let run = AssertUnwindSafe(self.laptop.recover(told)).catch_unwind();
        let stopped = std::pin::pin!(line.stop.notified());
        let ended = match select(std::pin::pin!(run), stopped).await {
            Either::Left((Ok(ended), _)) => Some(ended.map(drop)),
            Either::Left((Err(panic), _)) => match panic.downcast::<Died>() {
                Ok(_) => None,
                Err(panic) => resume_unwind(panic),
            },
            Either::Right(_) => None,
        };
        let happened = self.laptop.disarm(what, before);
        if !happened {
            ended.unwrap().unwrap();
        } else if what.is_death() {
            // First the disk: what a dying program's destructors do must not happen either.
            self.laptop.drive.kill();
            Self::start(&self.world, &mut self.laptop);
        }
        happened
    }

    /// All three hold the same, list the same, and have nothing to do. What two of them had in the place of the same file
    /// each has set aside.
    async fn check_all_three(&mut self, gone_on: bool, case: &str) {
        let mut files = self.laptop.files();
        assert_eq!(files, self.desktop.files(), "{case}");
        assert_eq!(files, self.phone.as_ref().unwrap().files(), "{case}");
        if files.get("both*") == files.get("both**") {
            files.remove("both**");
        }
        assert_eq!(files, self.expected(gone_on), "{case}");
        let every = [&mut self.laptop, &mut self.desktop];
        for here in every.into_iter().chain(&mut self.phone) {
            let quiet = here.pass().await.unwrap();
            let done = (quiet.sent, quiet.fetched, quiet.removed);
            assert_eq!(done, (0, 0, 0), "{case}");
            here.lists_every_copy(case);
            assert_eq!(here.drive.take_violations(), [""; 0], "{case}");
        }
    }

    /// What all machines must hold in the end.
    fn expected(&self, gone_on: bool) -> BTreeMap<String, String> {
        let mut expected = BTreeMap::new();
        let mut is = |path: &str, bytes: &[u8]| {
            expected.insert(path.to_owned(), hash(bytes));
        };
        is("ours", b"by the laptop");
        is("only on the laptop", b"new");
        is("large", &large());
        is("dir/renamed", b"renamed before");
        is("dir/x", b"dir/x before");
        is("meanwhile", b"waits");
        if self.phone.is_some() {
            is("meanwhile on the phone", b"waits, too");
        }
        if gone_on {
            is("both", b"by the desktop");
            is("both*", b"by the laptop");
            is("theirs", b"by the desktop");
            is("only on the desktop", b"new");
            for name in DELETED {
                is(name, format!("{name} before").as_bytes());
            }
        } else {
            is("both", b"by the laptop");
            is("theirs", b"theirs before");
            // Nobody has gone on, so a deletion is one, as ever.
            for name in ["dir/dropped", "dropped"] {
                is(name, format!("{name} before").as_bytes());
            }
        }
        expected
    }
}

/// What comes between the interruption and the second `recover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// A pass for which somebody has said yes to a mass change.
    PassWithYes,
}

/// Tries one thing at every step in turn. How many steps there were.
async fn at_every_step(what: Happens, gone_on: bool, then: Then) -> u64 {
    for step in 0..MANY {
        let case = format!("{what:?} at step {step}");
        let mut restored = Restored::new(gone_on).await;
        let mut told = Vec::new();
        let happened = restored.interrupt(what, step, &mut told).await;
        restored.clock.advance_ns(1_000_000_000);
        if then == Then::PassWithYes {
            restored.laptop.engine().allow_mass_change();
            if let Err(error) = restored.laptop.pass().await {
                assert!(
                    matches!(error.code(), Code::Fork | Code::Rollback),
                    "{case}: {error}"
                );
            }
            told.extend(restored.laptop.noticed());
            restored.clock.advance_ns(1_000_000_000);
        }
        let again = restored.laptop.recover(&mut told).await;
        let again = again.unwrap_or_else(|error| panic!("{case}: again: {error}"));
        assert!(again.versions_lost.is_empty(), "{case}: {again:?}");
        if what == Happens::DiskError {
            // What could not be taken away is tidied with the next start.
            Restored::start(&restored.world, &mut restored.laptop);
        }
        restored.settle().await;
        let (mut laptop, desktop) = (restored.laptop.files(), restored.desktop.files());
        assert_eq!(laptop, desktop, "{case}");
        // Where the disk does not say whether a copy stands, it is kept once more.
        let twice = laptop.get("both**").cloned();
        if what == Happens::DiskError && laptop.get("both*") == twice.as_ref() {
            laptop.remove("both**");
        }
        assert_eq!(laptop, restored.expected(gone_on), "{case}");
        for here in [&mut restored.laptop, &mut restored.desktop] {
            let quiet = here.pass().await.unwrap();
            assert_eq!((quiet.sent, quiet.fetched, quiet.removed), (0, 0, 0));
            assert_eq!(here.drive.take_violations(), [""; 0], "{case}");
            assert!(here.drive.with(|fs| fs.temps()).is_empty(), "{case}");
            // The second of two copies of the same, said above, need not be listed.
            if what != Happens::DiskError {
                here.lists_every_copy(&case);
            }
        }
        // Somebody is told what was kept, if not by this run, then by the next.
        if gone_on && what != Happens::DiskError {
            let told: BTreeSet<&str> = told.iter().map(String::as_str).collect();
            assert_eq!(told, BTreeSet::from(DELETED), "{case}");
        }
        if !happened {
            return step;
        }
    }
    panic!("`recover` does not end");
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(test);
}

#[test]
fn a_union_that_was_killed_at_any_call_to_the_disk_is_made_by_the_next() {
    run(async {
        let steps = at_every_step(Happens::Killed, true, Then::Nothing).await;
        assert!(steps > 50, "only {steps}");
    });
}

#[test]
fn a_union_goes_on_after_an_error_of_the_disk_at_any_call() {
    run(async {
        let steps = at_every_step(Happens::DiskError, true, Then::Nothing).await;
        assert!(steps > 50, "only {steps}");
    });
}

#[test]
fn a_union_that_was_cut_off_at_any_request_is_made_by_the_next() {
    run(async {
        for what in [
            Happens::KilledBefore,
            Happens::KilledAfter,
            Happens::Cut,
            Happens::AnswerLost,
        ] {
            let steps = at_every_step(what, true, Then::Nothing).await;
            assert!(steps > 10, "only {steps}");
        }
    });
}

#[cfg(debug_assertions)]
#[test]
fn a_union_that_died_at_any_crash_point_is_made_by_the_next() {
    arm_points();
    run(async {
        let steps = at_every_step(Happens::Died, true, Then::Nothing).await;
        assert!(steps > 20, "only {steps}");
    });
}

/// The laptop has lost its index, and knows of what it saw only how far that went. The server has gone past it.
async fn forgotten() -> Restored {
    let mut restored = Restored::new(true).await;
    let laptop = &mut restored.laptop;
    let seen = laptop.engine().head();
    let seen = format!(r#"{{"head":{{"n":{},"hash":"{}"}}}}"#, seen.n, seen.hash);
    laptop.machine.engine = None;
    let home = &laptop.machine.home;
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(home.state_path().with_file_name(name));
    }
    home.save_last_status(seen.as_bytes()).unwrap();
    for name in ["one", "two"] {
        restored.desktop.write(name, name.as_bytes());
        restored.clock.advance_ns(1_000_000_000);
        restored.desktop.pass().await.unwrap();
    }
    Restored::start(&restored.world, &mut restored.laptop);
    let code = restored.laptop.pass().await.unwrap_err().code();
    assert_eq!(code, Code::Fork);
    restored
}

#[test]
fn a_machine_that_forgot_what_it_saw_unites_after_any_interruption() {
    run(async {
        for what in [
            Happens::Killed,
            Happens::KilledBefore,
            Happens::KilledAfter,
            Happens::Cut,
            Happens::AnswerLost,
        ] {
            for step in 0.. {
                let case = format!("{what:?} at step {step}");
                let mut restored = forgotten().await;
                let course = restored.laptop.engine().recovery().await.unwrap().course;
                assert_eq!(course.way, Way::Unite, "{case}");
                let mut before: Vec<String> = restored.laptop.files().into_values().collect();
                before.extend(restored.desktop.files().into_values());
                let happened = restored.interrupt(what, step, &mut Vec::new()).await;
                restored.clock.advance_ns(1_000_000_000);
                restored.laptop.recover(&mut Vec::new()).await.unwrap();
                restored.settle().await;
                let files = restored.laptop.files();
                assert_eq!(files, restored.desktop.files(), "{case}");
                let is_there = |hash: &String| files.values().any(|now| now == hash);
                // What the laptop had not touched is a version in the vault, and brought up to date.
                before.retain(|found| !is_there(found) && *found != hash(b"theirs before"));
                assert_eq!(before, [""; 0], "{case}: {files:?}");
                if !happened {
                    assert!(step > 5, "only {step}");
                    break;
                }
            }
        }
    });
}

/// It is noted that both sides are being united, and not yet forgotten what was seen before.
#[test]
fn a_union_that_was_noted_goes_on_although_the_server_shows_something_else_than_was_seen() {
    run(async {
        let mut restored = forgotten().await;
        let laptop = &mut restored.laptop;
        let trusted = laptop.machine.home.credentials().unwrap().unwrap().trusted;
        assert!(trusted.is_some());
        let course = laptop.engine().recovery().await.unwrap().course;
        laptop.engine().rejoin(course).await.unwrap();
        let credentials = |here: &Here| here.machine.home.credentials().unwrap().unwrap();
        assert!(credentials(laptop).trusted.is_none());
        // As it was in that moment.
        laptop.engine().index().set_meta("uniting", b"[]").unwrap();
        { laptop.engine().index().set_meta("forgetting", b"") }.unwrap();
        laptop.machine.engine = None;
        let mut before = credentials(laptop);
        before.trusted = Some(syncagent_protocol::api::Head {
            n: trusted.unwrap().n + 100,
            hash: trusted.unwrap().hash,
        });
        laptop.machine.home.save_credentials(&before).unwrap();
        Restored::start(&restored.world, &mut restored.laptop);
        restored.laptop.pass().await.unwrap();
        assert!(credentials(&restored.laptop).trusted.is_none());
    });
}

#[test]
fn what_is_given_back_is_given_back_after_any_interruption() {
    run(async {
        for what in [
            Happens::Killed,
            Happens::KilledBefore,
            Happens::KilledAfter,
            Happens::Cut,
            Happens::AnswerLost,
        ] {
            let steps = at_every_step(what, false, Then::Nothing).await;
            assert!(steps > 10, "{what:?}: only {steps}");
        }
    });
}

#[test]
fn a_yes_to_a_mass_change_is_none_to_what_a_union_keeps() {
    run(async {
        for what in [Happens::KilledBefore, Happens::Cut, Happens::AnswerLost] {
            let steps = at_every_step(what, true, Then::PassWithYes).await;
            assert!(steps > 10, "{what:?}: only {steps}");
        }
    });
}

/// Runs `recover` until it has gone through: it says when to run it again.
async fn recover_in_the_end(here: &mut Here) {
    for _ in 0..5 {
        match here.recover(&mut Vec::new()).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.code(), Code::Busy, "{error}"),
        }
    }
    panic!("`recover` is in the way of another");
}

/// The laptop's `recover` is held at a request, then the phone's at one of its own, and both go on, the laptop first.
/// Whether each of them was held.
async fn at_once(restored: &mut Restored, laptop_at: u64, phone_at: u64) -> (bool, bool) {
    let Restored { laptop, phone, .. } = restored;
    let phone = phone.as_mut().unwrap();
    laptop.arm(Happens::Held, laptop_at);
    phone.arm(Happens::Held, phone_at);
    let lines = [Arc::clone(&laptop.line), Arc::clone(&phone.line)];
    let mut one = Box::pin(recover_in_the_end(laptop));
    let mut other = Box::pin(recover_in_the_end(phone));
    let is_held = |ended| matches!(ended, Either::Right(_));
    let one_held = is_held(select(&mut one, Box::pin(lines[0].stop.notified())).await);
    let other_held = is_held(select(&mut other, Box::pin(lines[1].stop.notified())).await);
    if one_held {
        lines[0].go_on.notify_one();
        one.await;
    }
    if other_held {
        lines[1].go_on.notify_one();
        other.await;
    }
    for line in &lines {
        line.armed.lock().unwrap().take();
    }
    (one_held, other_held)
}

/// Tries every pair of requests. How many the laptop made.
async fn two_at_every_request(gone_on: bool) -> u64 {
    for laptop_at in 0..MANY {
        for phone_at in 0..MANY {
            let case = format!("laptop held at {laptop_at}, phone at {phone_at}");
            let mut restored = Restored::with(gone_on, true).await;
            let (laptop_held, phone_held) = at_once(&mut restored, laptop_at, phone_at).await;
            restored.settle().await;
            restored.check_all_three(gone_on, &case).await;
            if !laptop_held {
                return laptop_at;
            }
            if !phone_held {
                break;
            }
        }
    }
    panic!("`recover` does not end");
}

/// Both want one name, the desktop first. The laptop is killed before any request of the pass that finds out.
async fn both_want(path: &str, desktop: impl Fn(&Here), laptop: &[u8]) {
    for step in 0..MANY {
        let case = format!("{path}, killed before request {step}");
        let mut restored = Restored::new(false).await;
        recover_in_the_end(&mut restored.laptop).await;
        restored.settle().await;
        desktop(&restored.desktop);
        restored.clock.advance_ns(1_000_000_000);
        restored.desktop.pass().await.unwrap();
        restored.laptop.write(path, laptop);
        restored.clock.advance_ns(1_000_000_000);
        let killed = restored.pass_killed(Happens::KilledBefore, step).await;
        // The copy's directory gets another name, which the laptop hears of before it has sent the copy.
        restored.desktop.rename("dir", "other");
        restored.settle().await;
        let files = restored.laptop.files();
        assert_eq!(files, restored.desktop.files(), "{case}");
        let copy = format!("{}*", path.replace("dir/", "other/"));
        assert_eq!(files.get(&copy), Some(&hash(laptop)), "{case}");
        restored.laptop.lists_every_copy(&case);
        restored.desktop.lists_every_copy(&case);
        if !killed {
            assert!(step > 3, "only {step}");
            return;
        }
    }
    panic!("a pass does not end");
}

#[test]
fn a_conflict_stays_one_whatever_comes_between() {
    run(async {
        let by_the_desktop = |here: &Here| here.write("dir/x", b"by the desktop");
        both_want("dir/x", by_the_desktop, &large()).await;
        let a_directory = |here: &Here| {
            here.drive.with(|fs| {
                let (dir, name) = place(fs, "dir/new");
                fs.create(dir, name, Body::Dir(BTreeMap::new())).unwrap();
            });
        };
        both_want("dir/new", a_directory, &large()).await;
    });
}

#[test]
fn a_conflict_whose_copy_the_server_lost_is_one_after_a_union() {
    run(async {
        let mut restored = Restored::new(false).await;
        recover_in_the_end(&mut restored.laptop).await;
        restored.settle().await;
        restored.desktop.write("dir/x", b"by the desktop");
        restored.clock.advance_ns(1_000_000_000);
        restored.desktop.pass().await.unwrap();
        let mark = restored.server.mark().unwrap();
        restored.laptop.write("dir/x", b"by the laptop");
        restored.clock.advance_ns(1_000_000_000);
        restored.laptop.pass().await.unwrap();
        restored.laptop.lists_every_copy("before");
        restored.server.put_back(mark).unwrap();
        restored.desktop.write("both", b"something else");
        restored.clock.advance_ns(1_000_000_000);
        restored.desktop.pass().await.unwrap();
        restored.laptop.write("ours", b"something else");
        restored.clock.advance_ns(1_000_000_000);
        restored.laptop.pass().await.unwrap_err();
        recover_in_the_end(&mut restored.laptop).await;
        restored.settle().await;
        let files = restored.desktop.files();
        assert_eq!(files["dir/x*"], hash(b"by the laptop"));
        restored.laptop.lists_every_copy("after");
        restored.desktop.lists_every_copy("after");
    });
}

#[test]
fn two_machines_unite_at_once() {
    run(async {
        let requests = two_at_every_request(true).await;
        assert!(requests > 10, "only {requests}");
    });
}

#[test]
fn two_machines_give_back_at_once() {
    run(async {
        let requests = two_at_every_request(false).await;
        assert!(requests > 10, "only {requests}");
    });
}

/// What could not be read all the time may stand under two names, and nothing is missing.
async fn nothing_is_missing(mut restored: Restored, case: &str) {
    restored.clock.advance_ns(1_000_000_000);
    restored.laptop.recover(&mut Vec::new()).await.unwrap();
    restored.settle().await;
    let (laptop, desktop) = (restored.laptop.files(), restored.desktop.files());
    assert_eq!(laptop, desktop, "{case}");
    for (path, hash) in restored.expected(true) {
        assert_eq!(laptop.get(&path), Some(&hash), "{case}: {path}");
    }
}

#[test]
fn what_cannot_be_read_during_a_union_is_not_deleted_after_it() {
    run(async {
        let mut restored = Restored::new(true).await;
        restored
            .laptop
            .drive
            .spell(ErrorKind::Io, u64::from(u32::MAX));
        let _ = restored.laptop.recover(&mut Vec::new()).await;
        restored.laptop.drive.disarm();
        nothing_is_missing(restored, "files").await;

        let mut restored = Restored::new(true).await;
        let dir = TreePath::parse("dir").unwrap();
        restored.laptop.drive.close(Some(&dir));
        restored.laptop.recover(&mut Vec::new()).await.unwrap();
        restored.laptop.drive.close(None);
        nothing_is_missing(restored, "a directory").await;

        // Of a folder of which nothing can be seen nothing is known: that union waits.
        let mut restored = Restored::new(true).await;
        let before = restored.desktop.files();
        restored.laptop.drive.close(Some(&TreePath::ROOT));
        for _ in 0..2 {
            let refused = restored.laptop.recover(&mut Vec::new()).await;
            assert_eq!(refused.unwrap_err().code(), Code::Read);
        }
        restored.desktop.pass().await.unwrap();
        assert_eq!(restored.desktop.files(), before);
        restored.laptop.drive.close(None);
        nothing_is_missing(restored, "the folder").await;
    });
}

#[test]
fn without_an_interruption_it_is_a_union() {
    run(async {
        let mut restored = Restored::new(true).await;
        let course = restored.laptop.engine().recovery().await.unwrap().course;
        assert_eq!(course.way, Way::Unite);
        let mut restored = Restored::new(false).await;
        let course = restored.laptop.engine().recovery().await.unwrap().course;
        assert_eq!(course.way, Way::GiveBack);
    });
}
