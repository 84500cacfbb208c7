//! One seed, one world: machines that edit, synchronise, crash and come back, and the promises checked at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use syncagent_client::ClientError;
use syncagent_client::engine::{Engine, EngineConfig, Hint, Outcome, State, Way};
use syncagent_client::folder::disk::ErrorKind;
use syncagent_client::home::Credentials;
use syncagent_client::index::Index;
use syncagent_client::remote::http::{HttpRemote, register};
use syncagent_client::work::Work;
use syncagent_protocol::api::{RegisterRequest, register_message};
use syncagent_protocol::{Body, Code, ContentHash, NodeId, TreePath};
use syncagent_server::Entropy;
use syncagent_sync::Placed;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::machine::MachineKey;
use syncagent_vault::op::{Genesis, Put, PutBody};
use syncagent_vault::random::Random;
use syncagent_vault::secret::Secret;

use super::clock::SimClock;
use super::dice::{Dice, SimRandom};
use super::disk::{Drive, Fault, Known};
use super::fs::{Body as FileBody, Fs, Item};
use super::ledger::{Contents, Ledger, contents, short, sorted};
use super::net::{Net, Weather};
use super::server::{Mark, SimServer};
use super::trace::Trace;
use super::user::{User, is_below};
use crate::transport::RouterTransport;

/// How large a world is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Machines, 2 to 5.
    pub machines: usize,
    /// Edits before everything is healed.
    pub edits: usize,
    /// Whether people keep apart: each works at one machine, in a directory of their own. Then nothing can be a conflict,
    /// and what stands there on their own machine is what must stand there on every other in the end, name by name, bit
    /// by bit and time by time. No server is put back in these worlds: a union may bring back what was deleted.
    pub apart: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            machines: 2,
            edits: 40,
            apart: false,
        }
    }
}

/// How often what happened in a world.
pub type Counts = BTreeMap<&'static str, u64>;

/// What is broken on purpose. Each world sees one of these at least.
const FAULTS: [&str; 16] = [
    "crash",
    "power cut",
    "clock jump",
    "disk error",
    "full disk",
    "unreadable for a while",
    "request cut",
    "request late",
    "request repeated",
    "request echoed",
    "half an answer",
    "lost reply",
    "lost pack",
    "lost chunks",
    "server put back",
    "fork",
];

/// Whether anything was broken on purpose.
pub fn has_fault(counts: &Counts) -> bool {
    FAULTS.iter().any(|fault| counts.contains_key(fault))
}

/// A world that kept its promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How often what happened.
    pub counts: Counts,
    /// Everything that happened.
    pub trace: Vec<String>,
}

/// A broken promise, with everything needed to see it again.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The world.
    pub seed: u64,
    /// How large it was.
    pub size: Size,
    /// What is wrong.
    pub wrong: Vec<String>,
    /// Everything that happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}:", self.seed)?;
        for wrong in &self.wrong {
            writeln!(f, "  {wrong}")?;
        }
        write!(
            f,
            "again: cargo xtask simulate --seeds 1 --seed {} --machines {}{}",
            self.seed,
            self.size.machines,
            if self.size.apart { " --apart" } else { "" }
        )
    }
}

/// Most turns of one pass; beyond, it hangs.
const MAX_TURNS: usize = 100_000;
/// Rounds in which machines must have come to rest.
const MAX_ROUNDS: usize = 10;

/// Position and tree of each machine.
type Snapshot = Vec<(Option<u64>, BTreeMap<String, Item>)>;

enum Runs {
    Off,
    Idle(Box<Engine>),
    Busy(LocalBoxFuture<'static, (Box<Engine>, Result<Outcome, ClientError>)>),
}

/// What has been said of a machine's folder since its last pass that ended well.
#[derive(Default)]
struct Heard {
    paths: BTreeSet<TreePath>,
    /// What was given a second name since the last look at everything. Once that name is gone again, only such a look
    /// can find what was written through it.
    linked: BTreeSet<String>,
    /// Whether anybody has edited something since the pass began.
    edited: bool,
    /// What no person did in a directory where nobody but they should.
    wrong: Vec<String>,
}

struct Machine {
    name: String,
    seed: [u8; 32],
    token: String,
    /// What it takes the time for.
    clock: SimClock,
    drive: Drive,
    net: Net,
    /// Where the index lives; it stays as long as `_keeper` does.
    index: String,
    keeper: rusqlite::Connection,
    runs: Runs,
    heard: Arc<Mutex<Heard>>,
    /// What stood in the folder when the pass began.
    before: Contents,
    turns: usize,
    began: Began,
    /// Whether the last pass ended well, with nothing left over.
    well: bool,
    /// Where people keep apart: what stands in the directory of this machine's own, as people left it.
    own: Arc<Mutex<Shown>>,
}

/// A tree as replicas must agree on it: what is under which path.
type Shown = BTreeMap<String, String>;

/// How things were when a pass began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Began {
    /// Calls that had changed something in the tree.
    changes: u64,
    /// Requests that wanted to send something.
    posts: u64,
    /// The server had gone back behind what the machine had seen.
    behind: bool,
    /// The server went on from a backup then, or has done so since.
    cut: bool,
}

struct World {
    seed: u64,
    size: Size,
    clock: SimClock,
    trace: Trace,
    dice: Dice,
    people: Arc<Mutex<Dice>>,
    random: Arc<dyn Random>,
    ledger: Arc<Mutex<Ledger>>,
    known: Known,
    key: VaultKey,
    server: SimServer,
    /// Backups of the server.
    marks: Vec<Mark>,
    /// From which of them it goes on at present.
    cut: Option<Mark>,
    machines: Vec<Machine>,
}

/// Runs the world of a seed.
pub fn run(seed: u64, size: Size) -> Result<Told, Box<Failure>> {
    let clock = SimClock::default();
    let trace = Trace::new(clock.clone());
    let _log = std::env::var_os("SYNCAGENT_TRACE").map(|_| trace.listen());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime needs nothing that could be missing");
    let world = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(seed, size, clock, trace.clone()).await?;
            world.live().await?;
            world.rest().await
        })
    }));
    let wrong = match world {
        Ok(Ok(())) => {
            let (counts, trace) = (trace.counts(), trace.lines());
            return Ok(Told { counts, trace });
        }
        Ok(Err(wrong)) => wrong,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            vec![format!("panic: {}", text.unwrap_or_default())]
        }
    };
    Err(Box::new(Failure {
        seed,
        size,
        wrong,
        trace: trace.lines(),
    }))
}

/// An index in memory, and what keeps it there.
fn new_index() -> Result<(String, rusqlite::Connection), ClientError> {
    static INDEXES: AtomicU64 = AtomicU64::new(0);
    let index = format!(
        "file:world-{}?mode=memory&cache=shared",
        INDEXES.fetch_add(1, Ordering::Relaxed)
    );
    let keeper = rusqlite::Connection::open(&index)?;
    Ok((index, keeper))
}

type Checked<T> = Result<T, Vec<String>>;

fn broken(what: impl Into<String>) -> Vec<String> {
    vec![what.into()]
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    async fn new(seed: u64, size: Size, clock: SimClock, trace: Trace) -> Checked<Self> {
        let random: Arc<dyn Random> = Arc::new(SimRandom::new(seed, "random"));
        let for_server = SimRandom::new(seed, "server");
        let entropy: Entropy = Arc::new(move |out: &mut [u8]| for_server.fill(out));
        let server = SimServer::new(clock.clone(), entropy).map_err(broken)?;
        let mut world = Self {
            seed,
            size,
            clock,
            trace,
            dice: Dice::new(seed, "world"),
            people: Arc::new(Mutex::new(Dice::new(seed, "people"))),
            key: VaultKey::generate(&*random),
            random,
            ledger: Arc::default(),
            known: Known::default(),
            server,
            marks: Vec::new(),
            cut: None,
            machines: Vec::new(),
        };
        for name in ["ada", "bob", "cyd", "dee", "eve"]
            .into_iter()
            .take(size.machines)
        {
            let machine = world
                .join(name)
                .await
                .map_err(|error| broken(error.to_string()))?;
            world.machines.push(machine);
        }
        if size.apart {
            world.set_apart()?;
        }
        Ok(world)
    }

    async fn join(&self, name: &str) -> Result<Machine, ClientError> {
        let app = &self.server.app;
        let transport = RouterTransport::new(app.router());
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        let key = MachineKey::from_seed(Secret::copy_from(&seed))?;
        let invitation = app
            .invite()
            .await
            .map_err(|error| ClientError::Setup(error.to_string()))?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let request = RegisterRequest {
            invitation: invitation.to_text(),
            public_key: hex(key.public()),
            name: name.to_owned(),
            platform: "linux".to_owned(),
            signature: hex(&key.sign(&register_message(&invitation.hash(), name))),
        };
        let response = register(&transport, &request).await?;
        let (index, keeper) = new_index()?;
        let clock = self.clock.another();
        let net = Net::new(
            &self.server,
            Dice::new(self.seed, name),
            self.trace.clone(),
            name,
        );
        let drive = Drive::new(
            clock.clone(),
            self.trace.clone(),
            name,
            Arc::clone(&self.known),
        );
        drive.follow_rounds(net.seen());
        Ok(Machine {
            name: name.to_owned(),
            seed,
            token: response.token,
            clock,
            drive,
            net,
            index,
            keeper,
            runs: Runs::Off,
            heard: Arc::default(),
            before: Contents::new(),
            turns: 0,
            began: Began::default(),
            well: false,
            own: Arc::default(),
        })
    }

    /// Makes the directory that the people of each machine keep to.
    fn set_apart(&self) -> Checked<()> {
        for machine in &self.machines {
            let made = machine.drive.with(|fs| {
                fs.create(fs.root(), &machine.name, FileBody::Dir(BTreeMap::new()))?;
                fs.sync_all();
                Ok(())
            });
            made.map_err(|error: ErrorKind| broken(format!("{}: {error:?}", machine.name)))?;
        }
        Ok(())
    }

    // ---- the time in which things happen ----

    async fn live(&mut self) -> Checked<()> {
        for _ in 0..8 {
            self.edit(0);
            self.clock.advance_ns(50_000_000);
        }
        for i in 0..self.machines.len() {
            self.sync(i).await?;
        }
        let (mut edits, wanted) = (0, self.size.edits as u64);
        // It is not over before something has gone wrong.
        while edits < wanted || !has_fault(&self.trace.counts()) {
            self.pass_time();
            let i = self.dice.below(self.machines.len());
            match self.dice.below(100) {
                0..24 => {
                    edits += self.edit(i);
                }
                24..42 => self.begin(i)?,
                42..84 => {
                    for _ in 0..=self.dice.below(30) {
                        let i = self.dice.below(self.machines.len());
                        self.turn(i).await?;
                    }
                }
                84..86 => self.crash(i)?,
                86..92 => self.arm(i),
                92..95 => self.weather(i),
                95..97 => {
                    let Self { machines, dice, .. } = self;
                    machines[i].drive.with(|fs| fs.write_back(dice));
                }
                _ => match self.dice.below(12) {
                    0..2 => self.set_clock(i),
                    2..4 => self.spell(i),
                    4..6 => self.lose(i)?,
                    6 => self.twice(i).await?,
                    7..10 => self.back_up()?,
                    10 => self.put_back()?,
                    _ => self.bring_back().await?,
                },
            }
        }
        Ok(())
    }

    /// A machine's clock is set: years forward, years back, or right.
    fn set_clock(&mut self, i: usize) {
        const DAY_NS: i64 = 24 * 3_600 * 1_000_000_000;
        let days = match self.dice.below(6) {
            0 => 0,
            1..3 => i64::try_from(self.dice.below(4000)).unwrap_or(0),
            3..5 => -i64::try_from(self.dice.below(4000)).unwrap_or(0),
            _ => i64::try_from(self.dice.below(3)).unwrap_or(0) - 1,
        };
        let off =
            days * DAY_NS + i64::try_from(self.dice.below(3_600_000)).unwrap_or(0) * 1_000_000;
        self.trace.line(
            &self.machines[i].name,
            format_args!("clock: {days} days off"),
        );
        // An hour more or less is none.
        if days != 0 {
            self.trace.count("clock jump");
        }
        self.machines[i].clock.set_off_ns(off);
    }

    /// For a while the disk is full, or files cannot be read.
    fn spell(&mut self, i: usize) {
        let (kind, calls) = match self.dice.below(3) {
            0 => (ErrorKind::Io, 20 + self.dice.below(200)),
            _ => (ErrorKind::Full, 50 + self.dice.below(500)),
        };
        self.trace.line(
            &self.machines[i].name,
            format_args!("disk: {kind:?} for {calls} calls"),
        );
        self.machines[i].drive.spell(kind, calls as u64);
    }

    /// The server loses chunks: those of the next pack, or some that it has had for long.
    fn lose(&mut self, i: usize) -> Checked<()> {
        if self.dice.chance(700) {
            self.machines[i].net.lose_pack();
            return Ok(());
        }
        let lost = self.server.lose_some(&mut self.dice).map_err(sql)?;
        self.trace
            .line("server", format_args!("loses {lost} chunks"));
        if lost > 0 {
            self.trace.count("lost chunks");
        }
        Ok(())
    }

    fn back_up(&mut self) -> Checked<()> {
        if self.cut.is_none() && !self.size.apart {
            self.marks.push(self.server.mark().map_err(sql)?);
        }
        Ok(())
    }

    /// Position of the log that a machine has seen, running or not.
    fn seen(&self, i: usize) -> Checked<u64> {
        let keeper = &self.machines[i].keeper;
        // One that has never been started has seen nothing.
        let has_begun = keeper.table_exists(None, "commits").map_err(sql)?;
        if !has_begun {
            return Ok(0);
        }
        let sql_text = "SELECT coalesce(max(n), 0) FROM commits";
        keeper
            .query_row(sql_text, [], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
            .map_err(sql)
    }

    /// The server goes on from a backup.
    fn put_back(&mut self) -> Checked<()> {
        let now = self.server.mark().map_err(sql)?;
        let older: Vec<Mark> = self
            .marks
            .iter()
            .filter(|mark| mark.n < now.n)
            .copied()
            .collect();
        let Some(to) = self
            .dice
            .pick(&older)
            .copied()
            .filter(|_| self.cut.is_none())
        else {
            return Ok(());
        };
        self.server.put_back(to).map_err(sql)?;
        self.trace.line(
            "server",
            format_args!("goes back from position {} to {}", now.n, to.n),
        );
        self.trace.count("server put back");
        self.cut = Some(to);
        for machine in &mut self.machines {
            machine.began.cut = true;
            machine.net.break_off();
        }
        Ok(())
    }

    /// The whole log is there again. Machines that went on without it have to notice, and begin anew.
    async fn bring_back(&mut self) -> Checked<()> {
        let Some(to) = self.cut.take() else {
            return Ok(());
        };
        self.drain().await;
        if self.server.mark().map_err(sql)?.n == to.n {
            if self.dice.chance(700) {
                return self.recover().await;
            }
        } else if self.dice.chance(500) {
            return self.unite(to).await;
        }
        self.server.bring_back(to).map_err(sql)?;
        self.trace.line("server", "has its whole log again");
        for i in 0..self.machines.len() {
            let stood = self.machines[i].drive.with(|fs| contents(fs));
            if matches!(self.machines[i].runs, Runs::Busy(_)) {
                self.books_of_the_cut_off(i, &stood);
            }
            self.stop(i);
            if self.is_on_the_log(i)? {
                continue;
            }
            self.trace.count("fork");
            let machine = &mut self.machines[i];
            machine.net.set(Weather::Fine);
            machine.drive.disarm();
            self.boot(i)?;
            self.begin_with(i, true);
            self.machines[i].began.cut = true;
            while self.turn(i).await? {}
            self.stop(i);
            let machine = &mut self.machines[i];
            self.trace.line(&machine.name, "is reset");
            (machine.index, machine.keeper) =
                new_index().map_err(|error| broken(error.to_string()))?;
            let stands = machine.drive.with(|fs| contents(fs));
            lock(&self.ledger).reset(&machine.name, &stands);
        }
        Ok(())
    }

    /// Whether what a machine has seen, running or not, is a part of what the server shows.
    fn is_on_the_log(&self, i: usize) -> Checked<bool> {
        let n = self.seen(i)?;
        let sql_text = "SELECT hash FROM commits WHERE n = ?1";
        let keeper = &self.machines[i].keeper;
        let mine = keeper
            .query_row(sql_text, [n.cast_signed()], |row| {
                row.get(0).map(syncagent_protocol::CommitHash)
            })
            .ok();
        Ok(n == 0 || mine == self.server.hash_at(n).map_err(sql)?)
    }

    /// Others have gone on from the backup, and what the server lost stays lost: each machine that had seen more, or
    /// something else, unites with it.
    async fn unite(&mut self, to: Mark) -> Checked<()> {
        self.server.forget_cut().map_err(sql)?;
        self.marks.retain(|mark| mark.n <= to.n);
        let mut order: Vec<usize> = (0..self.machines.len()).collect();
        order.rotate_left(self.dice.below(self.machines.len()));
        let mut most = (0, 0);
        for i in &order {
            let stood = self.machines[*i].drive.with(|fs| contents(fs));
            if matches!(self.machines[*i].runs, Runs::Busy(_)) {
                self.books_of_the_cut_off(*i, &stood);
            }
            self.stop(*i);
            most = most.max((self.seen(*i)?, *i));
        }
        let left = self.log(most.1, to.n);
        let left = left.map_err(|error| broken(error.to_string()))?;
        lock(&self.ledger).cut(to.n, &left);
        for i in order {
            if self.is_on_the_log(i)? {
                continue;
            }
            self.machines[i].net.set(Weather::Fine);
            self.machines[i].drive.disarm();
            if self.dice.chance(400) {
                let calls = self.dice.below(60);
                self.machines[i].drive.arm(calls as u64, Fault::Crash);
            }
            self.unite_one(i).await?;
            self.machines[i].drive.disarm();
            let machine = &self.machines[i];
            let stands = machine.drive.with(|fs| contents(fs));
            lock(&self.ledger).reset(&machine.name, &stands);
            self.stop(i);
        }
        Ok(())
    }

    /// One machine of a union. If it stops in the middle, somebody says `recover` once more.
    async fn unite_one(&mut self, i: usize) -> Checked<()> {
        for _ in 0..3 {
            self.boot(i)?;
            if matches!(self.machines[i].runs, Runs::Off) {
                continue;
            }
            let united = self.rejoin(i).await;
            if self.machines[i].drive.crashed_in().is_none() {
                self.trace.count("union");
                return united.map(|_| ());
            }
            self.trace.count("crash in union");
            self.crash(i)?;
        }
        let name = &self.machines[i].name;
        Err(broken(format!("{name} does not unite")))
    }

    /// Machine `i`, which runs, and its server come together again as `recover` offers it.
    async fn rejoin(&mut self, i: usize) -> Checked<(Way, u64)> {
        let machine = &mut self.machines[i];
        let Runs::Idle(engine) = &mut machine.runs else {
            return Err(broken(format!("{} cannot recover", machine.name)));
        };
        let name = &machine.name;
        let failed = |error: ClientError| broken(format!("{name}: cannot recover: {error}"));
        let recovery = match engine.recovery().await {
            // The connection had broken off when the server went back.
            Err(error) if error.code() == Code::Offline => engine.recovery().await,
            recovery => recovery,
        };
        let course = recovery.map_err(failed)?.course;
        let recovered = engine.rejoin(course).await.map_err(failed)?;
        self.trace
            .line(name, format_args!("{course:?}: {recovered:?}"));
        Ok((course.way, recovered.commits))
    }

    /// Nobody has gone on from the backup: the machine that has seen most gives back what was lost, as far as it knows
    /// of it. Old versions are on no disk any more, so their chunks come back by themselves.
    async fn recover(&mut self) -> Checked<()> {
        self.server.bring_chunks_back().map_err(sql)?;
        self.server.find_lost().map_err(sql)?;
        let mut most = (0, 0);
        for i in 0..self.machines.len() {
            let stood = self.machines[i].drive.with(|fs| contents(fs));
            if matches!(self.machines[i].runs, Runs::Busy(_)) {
                self.books_of_the_cut_off(i, &stood);
            }
            self.stop(i);
            most = most.max((self.seen(i)?, i));
        }
        let (_, i) = most;
        self.machines[i].net.set(Weather::Fine);
        self.machines[i].drive.disarm();
        self.boot(i)?;
        let (way, commits) = self.rejoin(i).await?;
        if way == Way::Unite {
            let name = &self.machines[i].name;
            return Err(broken(format!("{name}: does not hold what was lost")));
        }
        if commits > 0 {
            self.trace.count("recovered");
        }
        self.stop(i);
        Ok(())
    }

    /// Until every request that nobody waits for has arrived.
    async fn drain(&self) {
        for _ in 0..MAX_TURNS {
            let adrift = |machine: &Machine| machine.net.seen().adrift.load(Ordering::Relaxed) > 0;
            if !self.machines.iter().any(adrift) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A pass right after one that ended well does nothing.
    async fn twice(&mut self, i: usize) -> Checked<()> {
        if self.cut.is_some() {
            return Ok(());
        }
        self.machines[i].net.set(Weather::Fine);
        self.machines[i].drive.disarm();
        while self.turn(i).await? {}
        // What still drifts about is none of this machine's doing.
        self.drain().await;
        self.sync(i).await?;
        if !self.machines[i].well {
            return Ok(());
        }
        let before = self.snapshot();
        self.sync(i).await?;
        self.trace.count("second pass");
        self.at_rest(i, &before)
    }

    /// Whether the last pass of a machine did nothing at all.
    fn at_rest(&self, i: usize, before: &Snapshot) -> Checked<()> {
        let machine = &self.machines[i];
        let (changes, posts) = (machine.drive.changes(), posts(machine));
        let mut wrong = Vec::new();
        if !machine.well {
            wrong.push(format!("{}: a second pass did not end well", machine.name));
        }
        if self.snapshot()[i] != before[i] {
            wrong.push(format!("{}: a second pass changed something", machine.name));
        }
        if (changes, posts) != (machine.began.changes, machine.began.posts) {
            wrong.push(format!(
                "{}: a second pass made {} changing calls and {} requests to send",
                machine.name,
                changes - machine.began.changes,
                posts - machine.began.posts
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn pass_time(&mut self) {
        let ns = match self.dice.below(10) {
            0..6 => self.dice.below(3_000_000),
            6..9 => 50_000_000 + self.dice.below(500_000_000),
            _ => 5_000_000_000,
        };
        self.clock.advance_ns(i64::try_from(ns).unwrap_or(0));
    }

    /// Somebody at machine `i` tries to do something. How much came of it: one thing, or seldom none.
    fn edit(&mut self, i: usize) -> u64 {
        let before = self.trace.counted("edit");
        let edit = self.editing(i);
        self.machines[i].drive.disturb();
        self.machines[i].drive.with(edit);
        self.trace.counted("edit") - before
    }

    /// Something that a person at machine `i` does, now or in the middle of something else.
    fn editing(&self, i: usize) -> impl FnOnce(&mut Fs) + Send + 'static {
        let who = self.machines[i].name.clone();
        let heard = Arc::clone(&self.machines[i].heard);
        let (people, ledger) = (Arc::clone(&self.people), Arc::clone(&self.ledger));
        let (trace, known) = (self.trace.clone(), Arc::clone(&self.known));
        let (apart, own) = (self.size.apart, Arc::clone(&self.machines[i].own));
        move |fs: &mut Fs| {
            let mut user = User {
                who: &who,
                dice: &mut lock(&people),
                ledger: &mut lock(&ledger),
                trace: &trace,
                linked: Vec::new(),
                within: apart.then(|| who.clone()),
            };
            let is_as_left = !apart || within(fs, &who) == *lock(&own);
            let paths = user.edit(fs);
            let linked = std::mem::take(&mut user.linked);
            lock(&known).extend(contents(fs).into_keys());
            *lock(&own) = within(fs, &who);
            let mut heard = lock(&heard);
            if !is_as_left {
                let what = "what only this person changes was changed before their edit";
                heard.wrong.push(format!("{who}: {what}"));
            }
            heard.edited = true;
            heard.linked.extend(linked);
            heard
                .paths
                .extend(paths.iter().filter_map(|path| TreePath::parse(path).ok()));
        }
    }

    fn weather(&mut self, i: usize) {
        let weather = match self.dice.below(4) {
            0 => Weather::Offline,
            1 => Weather::Rough(30 + self.dice.below(300)),
            _ => Weather::Fine,
        };
        self.trace
            .line(&self.machines[i].name, format_args!("network: {weather:?}"));
        self.machines[i].net.set(weather);
    }

    fn arm(&mut self, i: usize) {
        let calls = match self.dice.below(2) {
            0 => self.dice.below(20),
            _ => self.dice.below(200),
        };
        let fault = match self.dice.below(11) {
            0..2 => Fault::Crash,
            2..6 => Fault::CrashInChange,
            6 => Fault::Error(ErrorKind::Full),
            7 => Fault::Error(ErrorKind::Io),
            8 => Fault::Error(ErrorKind::Denied),
            _ => Fault::Meanwhile(Box::new(self.editing(i))),
        };
        self.machines[i].drive.arm(calls as u64, fault);
    }

    fn boot(&mut self, i: usize) -> Checked<()> {
        let machine = &self.machines[i];
        self.trace.line(&machine.name, "starts");
        let result = self.open(machine);
        let machine = &mut self.machines[i];
        match result {
            Ok(engine) => machine.runs = Runs::Idle(Box::new(engine)),
            Err(error) => {
                self.trace
                    .line(&machine.name, format_args!("does not start: {error}"));
                if machine.drive.crashed_in().is_none() && !is_excusable(&error) {
                    return Err(broken(format!("{} does not start: {error}", machine.name)));
                }
                self.stop(i);
            }
        }
        self.look(i)
    }

    fn open(&self, machine: &Machine) -> Result<Engine, ClientError> {
        let credentials = Credentials {
            machine: MachineKey::from_seed(Secret::copy_from(&machine.seed))?,
            token: Some(machine.token.clone().into()),
            vault: Some(self.key.vault()),
            check_value: None,
            genesis: Some(Genesis::default()),
            key_used: true,
            recovery_tested: true,
            trusted: None,
            pending_slots: Vec::new(),
            pending_removals: Vec::new(),
            unproven_slot: None,
        };
        let remote = HttpRemote::new(
            Arc::new(machine.net.clone()),
            self.key.vault(),
            &machine.token,
        );
        Engine::open(EngineConfig {
            key: self.key.duplicate(),
            credentials,
            home: None,
            name: machine.name.clone(),
            platform: "linux".to_owned(),
            index: Index::open(Path::new(&machine.index))?,
            disk: Arc::new(machine.drive.start()),
            remote: Arc::new(remote),
            work: Work::Inline,
            clock: Arc::new(machine.clock.clone()),
            random: Arc::clone(&self.random),
        })
    }

    /// Begins a pass, if none is running.
    fn begin(&mut self, i: usize) -> Checked<()> {
        if matches!(self.machines[i].runs, Runs::Off) {
            self.boot(i)?;
        }
        let everything = self.dice.chance(300);
        self.begin_with(i, everything);
        Ok(())
    }

    fn begin_with(&mut self, i: usize, everything: bool) {
        let machine = &mut self.machines[i];
        machine.runs = match std::mem::replace(&mut machine.runs, Runs::Off) {
            Runs::Idle(mut engine) => {
                let mut heard = lock(&machine.heard);
                heard.edited = false;
                let hint = if everything {
                    heard.linked.clear();
                    Hint::Everything
                } else {
                    Hint::Paths(heard.paths.clone())
                };
                self.trace
                    .line(&machine.name, format_args!("pass: {hint:?}"));
                machine.before = machine.drive.with(|fs| contents(fs));
                machine.turns = 0;
                machine.well = false;
                let head = engine.head();
                let shown = self.server.hash_at(head.n).ok().flatten();
                machine.began = Began {
                    changes: machine.drive.changes(),
                    posts: posts(machine),
                    behind: head.n > 0 && shown != Some(head.hash),
                    cut: self.cut.is_some(),
                };
                Runs::Busy(
                    async move {
                        let result = engine.pass(hint).await;
                        (engine, result)
                    }
                    .boxed_local(),
                )
            }
            other => other,
        };
    }

    /// Lets machine `i` go on until it waits for something.
    async fn turn(&mut self, i: usize) -> Checked<bool> {
        let machine = &mut self.machines[i];
        let Runs::Busy(pass) = &mut machine.runs else {
            return Ok(false);
        };
        let ended = poll_fn(|cx| {
            Poll::Ready(match pass.as_mut().poll(cx) {
                Poll::Ready(ended) => Some(ended),
                Poll::Pending => None,
            })
        })
        .await;
        // What the pass has spawned, and what was aborted.
        tokio::task::yield_now().await;
        machine.turns += 1;
        if machine.turns > MAX_TURNS {
            return Err(broken(format!("{}: a pass does not end", machine.name)));
        }
        if let Some((engine, result)) = ended {
            machine.runs = Runs::Idle(engine);
            self.ended(i, result)?;
        }
        self.look(i)?;
        Ok(true)
    }

    fn ended(&mut self, i: usize, result: Result<Outcome, ClientError>) -> Checked<()> {
        self.is_honest(i, &result)?;
        let cut = self.cut.is_some();
        let machine = &mut self.machines[i];
        let stands = machine.drive.with(|fs| contents(fs));
        lock(&self.ledger).moved(&machine.name, &machine.before, &stands);
        match result {
            Ok(outcome) => {
                machine.well = outcome.errors.is_empty() && machine.drive.crashed_in().is_none();
                self.trace.line(
                    &machine.name,
                    format_args!(
                        "in sync: {} sent, {} fetched, {} removed, {} conflicts, errors {:?}",
                        outcome.sent,
                        outcome.fetched,
                        outcome.removed,
                        outcome.conflicts.len(),
                        outcome.errors
                    ),
                );
                if self.size.apart && !outcome.conflicts.is_empty() {
                    let what = "finds a conflict where each kept to their own";
                    return Err(broken(format!(
                        "{} {what}: {:?}",
                        machine.name, outcome.conflicts
                    )));
                }
                for conflict in &outcome.conflicts {
                    self.trace.count("conflict");
                    self.trace
                        .line(&machine.name, format_args!("  conflict: {conflict:?}"));
                }
                let mut heard = lock(&machine.heard);
                let mut wrong = std::mem::take(&mut heard.wrong);
                if self.size.apart
                    && machine.drive.with(|fs| within(fs, &machine.name)) != *lock(&machine.own)
                {
                    let what = "what only this person changes is not as they left it after a pass";
                    wrong.push(format!("{}: {what}", machine.name));
                }
                if machine.well && !heard.edited {
                    wrong.extend(not_durable(machine, &heard.linked));
                }
                if !wrong.is_empty() {
                    return Err(wrong);
                }
                if machine.well && !heard.edited {
                    heard.paths.clear();
                    // What is told to a server that goes on from a backup, it may forget again.
                    if !cut && let Runs::Idle(engine) = &machine.runs {
                        let n = engine.head().n;
                        let mut found = stands.clone();
                        for paths in found.values_mut() {
                            paths.retain(|path| !heard.linked.contains(path));
                        }
                        found.retain(|_, paths| !paths.is_empty());
                        lock(&self.ledger).passed(&machine.name, n, &machine.before, &found);
                    }
                    self.trace.count("pass that ended well");
                }
            }
            Err(error) => {
                self.trace
                    .line(&machine.name, format_args!("pass ends: {error}"));
                self.trace.count("pass that failed");
                let is_noticed = machine.began.cut
                    && matches!(error.code(), Code::Rollback | Code::Fork)
                    && matches!(error, ClientError::Halted { .. });
                if is_noticed {
                    self.trace.count(match error.code() {
                        Code::Rollback => "rollback noticed",
                        _ => "fork noticed",
                    });
                }
                // Where people delete all they have, they say that they meant it; the books say whether they did.
                let is_held = error.code() == Code::Brake;
                if is_held && let Runs::Idle(engine) = &mut machine.runs {
                    engine.agree_to_held();
                    self.trace.count("yes to a mass change");
                }
                let is_right = is_noticed || is_held || is_excusable(&error);
                if machine.drive.crashed_in().is_none() && !is_right {
                    return Err(broken(format!("{}: {error}", machine.name)));
                }
            }
        }
        Ok(())
    }

    /// Whether what a pass says is so: in sync means that folder and log are the same, and one that has seen more than
    /// the server shows has done nothing.
    fn is_honest(&self, i: usize, result: &Result<Outcome, ClientError>) -> Checked<()> {
        let machine = &self.machines[i];
        let Runs::Idle(engine) = &machine.runs else {
            return Ok(());
        };
        let mut wrong = Vec::new();
        if machine.began.behind {
            let did = (machine.drive.changes(), posts(machine));
            if did != (machine.began.changes, machine.began.posts) {
                wrong.push(format!(
                    "{}: did something although the server had gone back behind what it had seen",
                    machine.name
                ));
            }
            if result.is_ok() {
                wrong.push(format!(
                    "{}: is in sync with a server that had gone back behind what it had seen",
                    machine.name
                ));
            }
        }
        let status = engine.status();
        let in_sync = matches!(status.state, State::Idle | State::Conflict);
        let heard = lock(&machine.heard);
        if in_sync && !heard.edited && machine.drive.crashed_in().is_none() {
            let log = told(engine.placed());
            let here = shown(&machine.drive.with(|fs| fs.tree()));
            let left = |path: &String| {
                heard.linked.contains(path)
                    || status.skipped.iter().any(|skipped| skipped.path == *path)
            };
            let all: BTreeSet<&String> = log.keys().chain(here.keys()).collect();
            for path in all.into_iter().filter(|path| !left(path)) {
                let (here, log) = (here.get(path), log.get(path));
                let same = match (here, log) {
                    // The log's time is one that nobody has to have set here.
                    (Some(here), Some(log)) => { here.strip_prefix(log.as_str()) }
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(", mtime ")),
                    _ => false,
                };
                if !same {
                    wrong.push(format!(
                        "{} says it is in sync, but {path} is {here:?} and {log:?} in the log, and left out is {:?}",
                        machine.name, status.skipped
                    ));
                }
            }
            self.trace.count("said to be in sync");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// What became of a machine: did it stop by itself, was anything seen that must not be?
    fn look(&mut self, i: usize) -> Checked<()> {
        let violations = self.machines[i].drive.take_violations();
        if !violations.is_empty() {
            return Err(violations);
        }
        if let Some(verb) = self.machines[i].drive.crashed_in() {
            // Nothing else than placing, moving and removing does these.
            let applying = ["rename_noreplace", "exchange", "mkdir", "rmdir"];
            if applying.contains(&verb) {
                self.trace.count("crash in apply");
            }
            self.crash(i)?;
        }
        Ok(())
    }

    /// Machine `i` stops without a word: killed, or without power.
    fn crash(&mut self, i: usize) -> Checked<()> {
        if matches!(self.machines[i].runs, Runs::Off)
            && self.machines[i].drive.crashed_in().is_none()
        {
            return Ok(());
        }
        self.trace.count("crash");
        let stands = self.machines[i].drive.with(|fs| contents(fs));
        self.books_of_the_cut_off(i, &stands);
        self.stop(i);
        let Self {
            machines,
            dice,
            ledger,
            known,
            trace,
            ..
        } = self;
        let machine = &mut machines[i];
        if dice.chance(500) {
            trace.line(&machine.name, "is killed");
            return Ok(());
        }
        trace.line(&machine.name, "loses power");
        trace.count("power cut");
        let drive = &machine.drive;
        let (before, certain) = drive.with(|fs| (contents(fs), certain(fs)));
        drive.power_cut(dice);
        let after = drive.with(|fs| contents(fs));
        *lock(&machine.own) = drive.with(|fs| within(fs, &machine.name));
        // Torn files are none of SyncAgent's doing, if they are not what it wrote: those it checks.
        lock(known).extend(sorted(drive.with(|fs| fs.everything())).into_keys());
        lock(ledger).power_cut(&machine.name, &certain, &before, &after);
        // The other programs of the machine are gone as well, and a new start looks everywhere.
        lock(&machine.heard).edited = true;
        Ok(())
    }

    /// Writes down what a pass did that does not come to its end.
    fn books_of_the_cut_off(&self, i: usize, stands: &Contents) {
        let machine = &self.machines[i];
        let mut ledger = lock(&self.ledger);
        if matches!(machine.runs, Runs::Busy(_)) {
            ledger.moved(&machine.name, &machine.before, stands);
        }
    }

    fn stop(&mut self, i: usize) {
        let machine = &mut self.machines[i];
        // First the disk: what a dying program's destructors do must not happen either.
        machine.drive.kill();
        machine.runs = Runs::Off;
    }

    // ---- the time in which everything comes to rest ----

    /// One pass to its end.
    async fn sync(&mut self, i: usize) -> Checked<()> {
        if matches!(self.machines[i].runs, Runs::Off) {
            self.boot(i)?;
        }
        self.begin_with(i, true);
        while self.turn(i).await? {}
        Ok(())
    }

    async fn rest(&mut self) -> Checked<()> {
        self.trace.line("world", "everything is healed");
        for i in 0..self.machines.len() {
            self.machines[i].net.set(Weather::Fine);
            self.machines[i].drive.disarm();
            while self.turn(i).await? {}
        }
        self.drain().await;
        self.bring_back().await?;
        self.server.find_lost().map_err(sql)?;
        for i in 0..self.machines.len() {
            self.stop(i);
        }
        let mut rounds = 0;
        loop {
            self.clock.advance_ns(1_000_000_000);
            let before = self.snapshot();
            for i in 0..self.machines.len() {
                self.sync(i).await?;
            }
            if self.snapshot() == before {
                for i in 0..self.machines.len() {
                    self.at_rest(i, &before)?;
                }
                break;
            }
            rounds += 1;
            if rounds > MAX_ROUNDS {
                return Err(broken(format!("not at rest after {MAX_ROUNDS} rounds")));
            }
        }
        self.trace
            .line("world", format_args!("at rest after {rounds} rounds"));
        self.audit()
    }

    /// Everything that a second sync must leave as it is.
    fn snapshot(&self) -> Snapshot {
        let each = self.machines.iter().map(|machine| {
            let head = match &machine.runs {
                Runs::Idle(engine) => Some(engine.head().n),
                _ => None,
            };
            (head, machine.drive.with(|fs| fs.tree()))
        });
        each.collect()
    }

    fn audit(&self) -> Checked<()> {
        let mut wrong = Vec::new();
        let snapshot = self.snapshot();
        for (machine, (head, tree)) in self.machines.iter().zip(&snapshot) {
            if let Runs::Idle(engine) = &machine.runs {
                let status = engine.status();
                for error in &status.errors {
                    wrong.push(format!("{} still reports {error:?}", machine.name));
                }
                for skipped in &status.skipped {
                    wrong.push(format!("{} still skips {skipped:?}", machine.name));
                }
            }
            let temps = machine.drive.with(|fs| fs.temps());
            if !temps.is_empty() {
                wrong.push(format!("{} has temps left: {temps:?}", machine.name));
            }
            if *head != snapshot[0].0 {
                wrong.push(format!(
                    "{} is at {head:?}, the first machine at {:?}",
                    machine.name, snapshot[0].0
                ));
            }
            let (here, there) = (shown(tree), shown(&snapshot[0].1));
            for (path, item) in &here {
                if there.get(path) != Some(item) {
                    wrong.push(format!(
                        "{}: {path} is {item}, not {:?}",
                        machine.name,
                        there.get(path)
                    ));
                }
            }
            for path in there.keys().filter(|path| !here.contains_key(*path)) {
                wrong.push(format!("{}: {path} is missing", machine.name));
            }
        }
        wrong.extend(self.astray());
        let files = self.machines[0].drive.with(|fs| contents(fs));
        let log = self.log(0, u64::MAX >> 1);
        let log = log.map_err(|error| broken(error.to_string()))?;
        let ledger = lock(&self.ledger);
        wrong.extend(ledger.audit(&files, &log));
        for _ in 0..ledger.firm_deletions() {
            self.trace.count("deletion that must stay");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Where people keep apart: what does not stand everywhere as they left it.
    fn astray(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for owner in self.machines.iter().filter(|_| self.size.apart) {
            let own = lock(&owner.own);
            for machine in &self.machines {
                let here = machine.drive.with(|fs| within(fs, &owner.name));
                let paths: BTreeSet<&String> = own.keys().chain(here.keys()).collect();
                let differ = paths
                    .into_iter()
                    .filter(|path| own.get(*path) != here.get(*path));
                wrong.extend(differ.map(|path| {
                    format!(
                        "{} left {path} as {:?}, and on {} it is {:?}",
                        owner.name,
                        own.get(path),
                        machine.name,
                        here.get(path)
                    )
                }));
                self.trace.count("arrived exactly");
            }
        }
        wrong
    }

    /// Every content that the log has held up to position `n`, as machine `i` knows it.
    fn log(&self, i: usize, n: u64) -> Result<BTreeSet<ContentHash>, ClientError> {
        let mut hashes = BTreeSet::new();
        let mut statement = self.machines[i]
            .keeper
            .prepare("SELECT node, put FROM ops WHERE put IS NOT NULL AND n <= ?1")?;
        let rows = statement.query_map([n.cast_signed()], |row| {
            Ok((NodeId(row.get(0)?), row.get::<_, Vec<u8>>(1)?))
        })?;
        for row in rows {
            let (node, put) = row?;
            if let PutBody::File(file) = Put::parse(&put, node)?.body {
                hashes.insert(file.hash);
            }
        }
        Ok(hashes)
    }
}

fn posts(machine: &Machine) -> u64 {
    machine.net.seen().posts.load(Ordering::Relaxed)
}

fn sql(error: rusqlite::Error) -> Vec<String> {
    broken(format!("the simulation's own: {error}"))
}

/// What the log says is where, as the start of what [`shown`] says.
fn told(placed: &Placed) -> Shown {
    let nodes = placed.tree.walk(NodeId::ROOT).into_iter();
    nodes
        .filter_map(|(path, id)| {
            let item = match &placed.tree.get(id)?.body {
                Body::File { hash, size, exec } => {
                    format!("file {} of {size} bytes, exec {exec}", short(hash))
                }
                Body::Directory => "directory".to_owned(),
                Body::Symlink { target } => format!("link to {target}"),
            };
            Some((path.as_str().to_owned(), item))
        })
        .collect()
}

/// What is on the platter already and still has a name: what a power cut must leave.
fn certain(fs: &Fs) -> BTreeSet<ContentHash> {
    let files = |tree: BTreeMap<String, Item>| {
        let file = |item: Item| match item {
            Item::File { hash, inode, .. } => Some((hash, inode)),
            _ => None,
        };
        tree.into_values().filter_map(file).collect::<BTreeSet<_>>()
    };
    let durable = files(fs.certain());
    let both = files(fs.everything());
    both.intersection(&durable).map(|(hash, _)| *hash).collect()
}

/// The files that a machine says are in sync, and that a power cut now could take or give another name.
fn not_durable(machine: &Machine, left: &BTreeSet<String>) -> Vec<String> {
    let Runs::Idle(engine) = &machine.runs else {
        return Vec::new();
    };
    let status = engine.status();
    if !status.state.is_in_sync() {
        return Vec::new();
    }
    let (here, certain) = machine.drive.with(|fs| (fs.tree(), fs.certain()));
    let hash = |item: Option<&Item>| match item {
        Some(Item::File { hash, .. }) => Some(*hash),
        _ => None,
    };
    let is_left = |path: &String| {
        left.contains(path) || { status.skipped.iter() }.any(|skipped| skipped.path == *path)
    };
    here.iter()
        .filter(|(path, item)| {
            let at = hash(Some(item));
            at.is_some() && at != hash(certain.get(*path)) && !is_left(path)
        })
        .map(|(path, _)| {
            let what = "is said to be in sync, and is not durable";
            format!("{}: {path} {what}", machine.name)
        })
        .collect()
}

/// Whether an error is one of those that the world makes on purpose.
fn is_excusable(error: &ClientError) -> bool {
    matches!(error, ClientError::Remote(error) if error.is_retryable())
        || matches!(error, ClientError::File { .. })
}

/// What is below a directory.
fn within(fs: &Fs, dir: &str) -> Shown {
    let mut below = fs.tree();
    below.retain(|path, _| is_below(path, dir));
    shown(&below)
}

/// A tree as replicas must agree on it.
fn shown(tree: &BTreeMap<String, Item>) -> Shown {
    tree.iter()
        .map(|(path, item)| {
            let item = match item {
                Item::File {
                    hash,
                    size,
                    exec,
                    mtime_ns,
                    ..
                } => {
                    format!(
                        "file {} of {size} bytes, exec {exec}, mtime {mtime_ns}",
                        short(hash)
                    )
                }
                Item::Dir { .. } => "directory".to_owned(),
                Item::Link { target, .. } => format!("link to {target}"),
            };
            (path.clone(), item)
        })
        .collect()
}
