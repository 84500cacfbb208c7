//! One task owns all state of one machine: observe, decide, act.
//!
//! A [`Engine::pass`] looks at the folder and at the log, lets `syncagent_sync` decide, and carries the plan
//! out: `history` verifies what the server shows, `decide` reads what a decision needs, `fetch` puts files together,
//! `apply` changes the disk, `send` seals and posts, `rows` keeps what was agreed.
//! Nothing is remembered as pending: whatever interrupts a pass, the next one observes anew, and `interrupted` knows what was
//! done already.
//!
//! Invariant: the index says "agreed" only about what is durable on this disk and stands in the verified log.

mod apply;
mod below;
mod brake;
mod copies;
mod decide;
mod fetch;
mod history;
mod interrupted;
mod members;
mod preview;
mod recovery;
mod resolve;
mod restore;
mod rows;
mod send;
mod status;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use syncagent_protocol::api::Head;
use syncagent_protocol::time::Clock;
use syncagent_protocol::{Code, CommitHash, ContentHash, MachineId, NodeId, TreePath, VaultId};
use syncagent_sync::ignore::{self, BUILT_IN, Ignore, Verdict};
use syncagent_sync::scan::{Fingerprint, Observed, Scan};
use syncagent_sync::{Ancestor, AncestorNode, LogTree, Placed, Placement, Survey, Utc};
use syncagent_vault::keys::{Keys, VaultKey};
use syncagent_vault::op::Genesis;
use syncagent_vault::random::{self, Random};
use tokio::sync::watch;

pub use self::below::Left;
use self::brake::{Consent, Waiting};
pub use self::brake::{HeldChange, HeldVerb, Side};
use self::decide::Decision;
pub use self::preview::{
    Foreseen, ForeseenRestore, Preview, Step as ForeseenStep, Verb, kept_placement,
};
pub use self::recovery::{Course, LostCommit, Recovered, Recovery, Way};
pub use self::resolve::{Keep, Resolution, Resolve, Undo};
pub use self::restore::{Occupied, Restore, Restored};
pub use self::status::{
    ConflictFile, FileError, Outcome, Problem, Progress, SkippedFile, State, Status, Unwatched,
};
pub use self::verify::{BadChunk, TouchedFile, Verified};
use crate::error::ClientError;
use crate::folder;
use crate::folder::apply::{Folder, RescueName};
use crate::folder::disk::{At, Disk, Guard, Origin};
use crate::folder::read::open_stable;
use crate::folder::root::{self, Identity, RootState};
use crate::folder::scan::{IgnoreRules, Look};
use crate::home::{Credentials, Home};
use crate::index::{Index, Intended, KnownMachine, OwnMoves};
use crate::remote::Remote;
use crate::work::Work;

/// Rounds of observe, decide, act in one pass before it yields to whatever else waits.
const MAX_ROUNDS: usize = 16;
/// How often a look begins anew because it found rules; what lies deeper waits for the next pass.
const MAX_RULES_DEPTH: usize = 4;
/// Notices that are kept; of more, the latest.
const MAX_NOTICES: usize = 50;
/// The longest of them, in characters: two paths and some words.
const MAX_NOTICE_LEN: usize = 10_000;

/// Everything an engine is made of.
pub struct EngineConfig {
    /// The vault key; only what is derived from it is kept.
    pub key: VaultKey,
    /// Who this machine is.
    pub credentials: Credentials,
    /// Where changes of the credentials are kept; none in simulated worlds.
    pub home: Option<Home>,
    /// This machine's name.
    pub name: String,
    /// This machine's operating system, for people.
    pub platform: String,
    /// What it has observed so far.
    pub index: Index,
    /// The folder.
    pub disk: Arc<dyn Disk>,
    /// The server.
    pub remote: Arc<dyn Remote>,
    /// Where blocking work runs.
    pub work: Work,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// Where to look in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Everywhere on this disk.
    Everything,
    /// At these paths and below.
    Paths(BTreeSet<TreePath>),
}

impl Default for Hint {
    fn default() -> Self {
        Self::Paths(BTreeSet::new())
    }
}

impl Hint {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Paths(mut paths), Self::Paths(more)) => {
                paths.extend(more);
                Self::Paths(paths)
            }
            _ => Self::Everything,
        }
    }

    /// The same without paths that lie below others: each place is looked at once.
    fn outermost(&self) -> Self {
        match self {
            Self::Everything => Self::Everything,
            Self::Paths(paths) => Self::Paths(outermost(paths)),
        }
    }
}

/// Says whether something was heard of that nobody has looked at.
pub type Heard = Box<dyn Fn() -> bool + Send + Sync>;

/// One machine at work.
pub struct Engine {
    keys: Arc<Keys>,
    vault: VaultId,
    credentials: Credentials,
    home: Option<Home>,
    name: String,
    platform: String,
    index: Index,
    folder: Arc<Folder>,
    identity: Identity,
    /// None while it only looks.
    _folder_lock: Option<Guard>,
    /// Which directory the folder is.
    root_inode: Option<u64>,
    /// Another directory was found in its place.
    is_copied: bool,
    remote: Arc<dyn Remote>,
    work: Work,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,

    placement: Placement,
    genesis: Genesis,
    machines: BTreeMap<MachineId, KnownMachine>,
    head: Head,
    log: LogTree,
    placed: Placed,
    ancestor: Ancestor,
    scan: Option<Scan>,
    /// Where ancestor, scan and log differ.
    survey: Survey,
    /// What the scan may not show yet: a pass that fails before it could look leaves it to the next one.
    unlooked: Hint,
    pending_ids: BTreeMap<TreePath, NodeId>,
    /// What could not be read when the last pass ended.
    unreadable: BTreeSet<String>,
    /// Moves of the last batch of steps, by where they lead.
    own_moves: OwnMoves,
    /// What a batch that did not come to its end was to bring.
    intended: Vec<Intended>,
    /// Numbers of files that could not be read in this pass: they are somewhere, under whichever name.
    unread_numbers: BTreeSet<u64>,
    hashes: BTreeMap<TreePath, (Fingerprint, ContentHash)>,
    /// Nodes whose content in the vault could not be put together; tried again with the next full look.
    unavailable: BTreeMap<NodeId, FileError>,
    errors: BTreeMap<TreePath, FileError>,
    /// Chunks that the server said it lacks although they were acknowledged once.
    lost: BTreeSet<syncagent_protocol::ChunkId>,
    /// Nodes whose content is among them, although nothing but their name or place is to be told.
    lacking: BTreeSet<NodeId>,
    /// Whether the server's log was compared with this machine's own position in this connection.
    met: bool,
    /// Most ops in the next commit: halved when somebody else is first.
    batch: usize,
    notices: Vec<String>,
    /// What of the rules files does not count.
    no_rules: Vec<String>,
    /// What the watcher does not watch.
    unwatched: Option<folder::watch::Unwatched>,
    /// The change of very many files that the last pass waits with.
    waiting: Option<Waiting>,
    /// Which one somebody said yes to.
    consent: Consent,
    skipped: Vec<syncagent_sync::scan::Skipped>,
    /// Bytes of other machines' commits that are kept, once that was counted.
    kept_len: Option<u64>,
    status: watch::Sender<Status>,
    /// What the last pass ended with.
    rested: Option<Status>,
    /// Whether something was heard of that nobody has looked at.
    heard: Option<Heard>,
    /// Whether a log was left behind that did not lead to the position remembered.
    left_log: bool,
    last_sync_ms: u64,
}

impl Engine {
    /// Takes over a folder: locks it, tidies what a crash left, loads the index. Nothing is sent or changed yet.
    pub fn open(mut config: EngineConfig) -> Result<Self, ClientError> {
        let vault = config.key.vault();
        remember_position(&mut config)?;
        let known = known_folder(&config.index, vault)?;
        let (identity, lock) = take_folder(&*config.disk, vault, known, &*config.random)?;
        if known.is_none() {
            config.index.set_meta("folder", &identity.folder)?;
        }
        let placement = probe(&*config.disk)?;
        preview::keep_placement(&config.index, &placement)?;
        let origin = forget_another(&mut config.index, &*config.disk)?;
        let mut engine = Self::build(config, identity, Some(lock), placement)?;
        if origin == Whence::Copy {
            engine.notice(ANOTHER.to_owned());
        }
        engine.recover()?;
        Ok(engine)
    }

    /// Goes on with `disk`, on which the folder stands that was lost: its drive was taken away and came back. Changes
    /// nothing if it is not that very directory. A copy of it is none: it may still be growing, and what it does not
    /// have yet would be sent as deleted.
    pub fn reopen(&mut self, disk: Arc<dyn Disk>) -> Result<(), ClientError> {
        let (_, lock) = take_folder(&*disk, self.vault, Some(self.identity), &*self.random)?;
        if root_inode(&*disk).is_none_or(|inode| Some(inode) != self.root_inode) {
            self.is_copied = true;
            return Err(held_copy());
        }
        let placement = probe(&*disk)?;
        preview::keep_placement(&self.index, &placement)?;
        let name = rescue_name(Arc::clone(&self.clock), self.name.clone());
        self.folder = Arc::new(Folder::new(disk, name));
        self._folder_lock = Some(lock);
        self.placement = placement;
        self.scan = None;
        self.is_copied = false;
        if let Err(error) = self.recover() {
            // What is left there is tidied with the next start.
            tracing::warn!(%error, "cannot tidy what an interruption left");
        }
        Ok(())
    }

    /// Tidies what a crash left.
    fn recover(&mut self) -> Result<(), ClientError> {
        let wanted = unfetched(&self.placed, &self.ancestor);
        let settled = self
            .folder
            .recover(&|key| wanted.contains(key))
            .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
        for rescued in settled.rescued {
            self.notice(format!(
                "a file that an interruption had left in .syncagent/tmp was kept as {}",
                rescued.to
            ));
        }
        Ok(())
    }

    fn build(
        config: EngineConfig,
        identity: Identity,
        folder_lock: Option<Guard>,
        placement: Placement,
    ) -> Result<Self, ClientError> {
        let EngineConfig {
            key,
            credentials,
            home,
            name,
            platform,
            index,
            disk,
            remote,
            work,
            clock,
            random,
        } = config;
        let vault = key.vault();
        let root_inode = root_inode(&*disk);
        let folder = Folder::new(disk, rescue_name(Arc::clone(&clock), name.clone()));
        let (log, ancestor) = index.load()?;
        let placed = log.placed();
        let head = index.position()?.unwrap_or(Head {
            n: 0,
            hash: CommitHash::genesis(vault),
        });
        let genesis = match (index.genesis()?, credentials.genesis) {
            (Some(bytes), _) => Genesis::parse(&bytes)?,
            (None, Some(genesis)) => genesis,
            (None, None) => Genesis::default(),
        };
        let machines = index
            .machines()?
            .into_iter()
            .map(|machine| (machine.id, machine))
            .collect();
        let pending_ids = index.pending_ids()?;
        let own_moves = index.own_moves()?;
        let intended = index.intended()?;
        let mut engine = Self {
            keys: Arc::new(key.keys()?),
            vault,
            credentials,
            home,
            name,
            platform,
            index,
            folder: Arc::new(folder),
            identity,
            _folder_lock: folder_lock,
            root_inode,
            is_copied: false,
            remote,
            work,
            clock,
            random,
            placement,
            genesis,
            machines,
            head,
            log,
            placed,
            ancestor,
            scan: None,
            survey: Survey::default(),
            unlooked: Hint::default(),
            pending_ids,
            own_moves,
            intended,
            unread_numbers: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            hashes: BTreeMap::new(),
            unavailable: BTreeMap::new(),
            errors: BTreeMap::new(),
            lost: BTreeSet::new(),
            lacking: BTreeSet::new(),
            met: false,
            batch: syncagent_protocol::commit::MAX_OPS,
            notices: Vec::new(),
            no_rules: Vec::new(),
            unwatched: None,
            waiting: None,
            consent: Consent::default(),
            skipped: Vec::new(),
            kept_len: None,
            status: watch::Sender::new(Status::default()),
            rested: None,
            heard: None,
            left_log: false,
            last_sync_ms: 0,
        };
        // Nobody has looked yet: a pass will say how things are.
        engine.publish(State::Syncing);
        Ok(engine)
    }

    /// Takes everything into memory anew, after the index went back to an earlier position.
    fn reload(&mut self) -> Result<(), ClientError> {
        let (log, ancestor) = self.index.load()?;
        self.placed = log.placed();
        (self.log, self.ancestor) = (log, ancestor);
        self.head = self.index.position()?.unwrap_or(Head {
            n: 0,
            hash: CommitHash::genesis(self.vault),
        });
        self.machines = { self.index.machines()?.into_iter() }
            .map(|machine| (machine.id, machine))
            .collect();
        self.pending_ids = self.index.pending_ids()?;
        self.own_moves = self.index.own_moves()?;
        self.intended = self.index.intended()?;
        self.scan = None;
        self.survey = Survey::default();
        self.unlooked = Hint::Everything;
        self.hashes.clear();
        self.unavailable.clear();
        self.lost.clear();
        self.kept_len = None;
        Ok(())
    }

    /// The verified position of the log.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The index, for questions.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The tree the verified log leads to.
    pub fn placed(&self) -> &Placed {
        &self.placed
    }

    /// Follows state and progress.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The current state.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Shows that a person has paused the machine. What waits for a yes still does, and can be said yes to.
    pub fn show_paused(&mut self) {
        self.publish(State::Paused);
    }

    /// Shows again what the last pass ended with: if it failed, a pause has not made that good.
    pub fn show_resumed(&mut self) {
        match &self.rested {
            Some(status) => drop(self.status.send_replace(status.clone())),
            None => self.publish(State::Syncing),
        }
    }

    /// Something was heard of that is looked at soon: what was in sync may no longer be.
    pub fn show_waiting(&self) {
        self.status.send_if_modified(|status| {
            let in_sync = status.state.is_in_sync();
            if in_sync {
                status.state = State::Syncing;
            }
            in_sync
        });
    }

    /// Whom to ask, when a pass has ended well, whether something changed meanwhile: then it is not said to be in sync.
    pub fn listen_to(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// What is not watched, to be shown with the next pass.
    pub fn set_unwatched(&mut self, unwatched: Option<folder::watch::Unwatched>) {
        self.unwatched = unwatched;
    }

    /// The machine's own connection, for questions beside a pass.
    pub fn remote(&self) -> Arc<dyn Remote> {
        Arc::clone(&self.remote)
    }

    /// Brings folder and vault together as far as that goes. An error says why it goes no further; what
    /// concerns single files is in the outcome and the rest went on.
    pub async fn pass(&mut self, hint: Hint) -> Result<Outcome, ClientError> {
        self.publish(State::Syncing);
        self.waiting = None;
        let result = self.try_pass(hint).await;
        let state = match &result {
            Ok(_) => match self.resting_state() {
                state if state.is_in_sync() && self.heard.as_ref().is_some_and(|heard| heard()) => {
                    State::Syncing
                }
                state => state,
            },
            Err(error) => {
                let state = status::state_of(error);
                if state == State::Offline {
                    self.reconnected();
                }
                if state == State::Halted {
                    // Nothing was taken in, so nothing keeps the next pass from looking again: somebody may have given
                    // the server back what it lost, or cut off what does not belong there.
                    self.reconnected();
                }
                state
            }
        };
        if result.is_ok() {
            self.last_sync_ms = self.clock.now_ms();
        }
        self.use_up_consent(result.is_ok());
        self.publish_error(state, result.as_ref().err());
        self.rested = Some(self.status());
        result
    }

    async fn try_pass(&mut self, hint: Hint) -> Result<Outcome, ClientError> {
        self.compare_copies().await?;
        self.unite_on().await?;
        let mut outcome = Outcome::default();
        self.unlooked = std::mem::take(&mut self.unlooked).and(hint);
        if self.scan.is_none() || self.unlooked == Hint::Everything {
            self.unavailable.clear();
            self.unlooked = Hint::Everything;
        }
        // What failed is looked at again, or nobody would say of it that it failed until the next look at everything.
        let failed = Hint::Paths(self.errors.keys().cloned().collect());
        self.unlooked = std::mem::take(&mut self.unlooked).and(failed);
        self.errors.clear();
        self.unread_numbers.clear();
        self.lacking.clear();
        if !self.folder.is_settled() {
            self.check_root()?;
            let mut touched = BTreeSet::new();
            self.settle(&mut touched)?;
            self.unlooked = std::mem::take(&mut self.unlooked).and(Hint::Paths(touched));
        }
        let mut finished = false;
        let mut looked_everywhere = false;
        for _ in 0..MAX_ROUNDS {
            self.check_root()?;
            self.pull().await?;
            self.post_own_affairs().await?;
            self.keep_slots().await?;
            let look = std::mem::take(&mut self.unlooked);
            looked_everywhere |= look == Hint::Everything;
            self.look(&look);
            // Absences count only if the folder was the right one before and after the look.
            if let Err(error) = self.check_root() {
                self.scan = None;
                return Err(error);
            }
            self.take_in_interrupted()?;
            self.remove_leftovers()?;
            let mut decision = self.decide()?;
            if !decision.missing.is_empty() && look != Hint::Everything {
                // It may have been moved to where nobody has looked; only a full look proves an absence.
                self.look(&Hint::Everything);
                self.check_root().inspect_err(|_| self.scan = None)?;
                self.take_in_interrupted()?;
                self.remove_leftovers()?;
                decision = self.decide()?;
            }
            let Decision { local, plan, .. } = decision;
            tracing::debug!(steps = ?plan.steps, ops = ?plan.ops, forget = ?plan.forget, "decided");
            self.skipped.clone_from(&plan.skipped);
            self.brake(&plan)?;
            self.write_rows(&plan, &local)?;
            if plan.is_idle() {
                finished = true;
                break;
            }
            let mut touched = BTreeSet::new();
            // What did not hold still while it was read.
            let mut restless = BTreeSet::new();
            let acted = match self.apply(&plan, &local, &mut outcome, &mut touched).await {
                Ok(applied) => {
                    let sent = self
                        .send(&plan, &local, &applied, &mut outcome, &mut restless)
                        .await;
                    touched.extend(restless.iter().cloned());
                    sent.map(|sent| applied.done > 0 || sent)
                }
                Err(error) => Err(error),
            };
            let acted = match acted {
                Ok(acted) => acted,
                Err(error) => {
                    self.unlooked = Hint::Paths(touched);
                    return Err(error);
                }
            };
            if !acted {
                // Everything left was tried and failed, and it is in the errors; or it would not hold still.
                for path in &restless {
                    if !self.errors.contains_key(path) {
                        let why = "it was being changed while it was read; it is tried again";
                        self.fail(path, Code::Read, &why);
                    }
                }
                self.unlooked = Hint::Paths(touched);
                finished = true;
                break;
            }
            self.unlooked = Hint::Paths(touched);
        }
        if !finished {
            return Err(unfinished());
        }
        self.unreadable = self.unreadable_now();
        if looked_everywhere {
            self.forget_vanished()?;
        }
        outcome.errors = self.all_errors();
        outcome.skipped = self.all_skipped();
        Ok(outcome)
    }

    /// Whether the folder is the one that was adopted; everything is held if not.
    fn check_root(&mut self) -> Result<(), ClientError> {
        let state = root::check_root(&**self.folder.disk(), &self.identity)
            .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
        match state {
            RootState::Fine => Ok(()),
            _ if self.is_copied => Err(held_copy()),
            other => Err(held_root(other)),
        }
    }

    /// What could not be looked at, and what could not be read when its content was wanted.
    fn unreadable_now(&self) -> BTreeSet<String> {
        let skipped = self.scan.iter().flat_map(|scan| &scan.skipped);
        let unreadable = skipped.filter(|skipped| skipped.code.is_some());
        // What can be looked at, but not read, or not flushed before that: nobody knows which content that is.
        let is_unknown = |path: &TreePath| {
            let scan = self.scan.as_ref();
            let seen = scan.and_then(|scan| scan.entries.get(path));
            matches!(seen, Some(Observed::Unknown))
        };
        let unread = { self.errors.iter() }
            .filter(|(path, error)| error.code == Code::Read || is_unknown(path));
        { unreadable.map(|skipped| &skipped.path) }
            .chain(unread.map(|(_, error)| &error.path))
            .cloned()
            .collect()
    }

    /// Whether something can be read no longer. What is missing elsewhere may have been moved there, so no absence
    /// is sent as a deletion until the next pass has tried again.
    fn is_unsure(&self) -> bool {
        !self.unreadable_now().is_subset(&self.unreadable)
    }

    fn look(&mut self, hint: &Hint) {
        let hint = &hint.outermost();
        let mut before = self.rules_files(hint);
        self.look_once(hint);
        // Rules that were found on the way hold for what lies beside and below them, in this look already. A rule that
        // brings a directory back may lead to further ones.
        for _ in 0..MAX_RULES_DEPTH {
            let found = self.rules_files(hint);
            if found.is_subset(&before) {
                return;
            }
            before = found;
            self.look_once(hint);
        }
    }

    /// The rules files that were seen where a hint leads.
    fn rules_files(&self, hint: &Hint) -> BTreeSet<TreePath> {
        let Some(scan) = &self.scan else {
            return BTreeSet::new();
        };
        // Those of the root are read whether or not they were seen.
        let is_rules = |path: &&TreePath| {
            let name = path.as_str().rsplit_once('/');
            name.is_some_and(|(_, name)| Ignore::is_rules_file(name))
        };
        match hint {
            Hint::Everything => scan.entries.keys().filter(is_rules).cloned().collect(),
            Hint::Paths(paths) => {
                let below = paths.iter().flat_map(|top| scan.entries.within(top));
                below
                    .map(|(path, _)| path)
                    .filter(is_rules)
                    .cloned()
                    .collect()
            }
        }
    }

    fn look_once(&mut self, hint: &Hint) {
        let (rules, no_rules) = Rules::read(
            &self.folder,
            self.scan.as_ref(),
            self.placement.case_insensitive,
        );
        self.no_rules = no_rules;
        let known = |path: &TreePath| self.ancestor.knows(path);
        let look = Look {
            disk: &**self.folder.disk(),
            rules: &rules,
            known: &known,
            now_ns: i64::try_from(self.clock.now_ms())
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000_000),
        };
        match (&mut self.scan, hint) {
            (Some(scan), Hint::Paths(paths)) => {
                let mut looked = paths.clone();
                let mut next = paths.clone();
                let mut inodes = BTreeSet::new();
                while !next.is_empty() {
                    // Also what is no longer there: it may have been written to, and has a second name elsewhere.
                    add_inodes(scan, &next, &mut inodes);
                    look.rescan(scan, &next);
                    add_inodes(scan, &next, &mut inodes);
                    next = outermost(&elsewhere(scan, &inodes, &looked));
                    looked.extend(next.iter().cloned());
                    looked = outermost(&looked);
                }
            }
            (scan, _) => {
                // First without the one before: two of them are the most memory that a machine at rest ever needs.
                *scan = None;
                *scan = Some(look.scan());
            }
        }
    }

    /// Something that a person should hear of, once.
    fn notice(&mut self, text: String) {
        // Names of machines are in it, which their owners chose.
        let text = syncagent_protocol::name::shown(&text, MAX_NOTICE_LEN);
        if !self.notices.contains(&text) {
            self.notices.push(text);
        }
        let too_many = self.notices.len().saturating_sub(MAX_NOTICES);
        self.notices.drain(..too_many);
    }

    fn fail(&mut self, path: &TreePath, code: Code, message: &dyn std::fmt::Display) {
        tracing::warn!(%path, %code, %message, "file left alone");
        let error = FileError {
            path: path.as_str().to_owned(),
            code,
            message: message.to_string(),
        };
        self.errors.insert(path.clone(), error);
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Changes what is kept of the credentials, here and in the home, where a command may have written meanwhile.
    fn note(&mut self, change: impl Fn(&mut Credentials)) -> Result<(), ClientError> {
        change(&mut self.credentials);
        match &self.home {
            Some(home) => home.update_credentials(&*self.random, change),
            None => Ok(()),
        }
    }
}

/// Content of the vault that is not on this disk yet: what an interrupted download may go on with.
fn unfetched(placed: &Placed, ancestor: &Ancestor) -> BTreeSet<String> {
    let files = placed.tree.iter().filter(|(id, node)| {
        ancestor
            .get(*id)
            .is_none_or(|row| row.node.body != node.body)
    });
    files
        .filter_map(|(_, node)| match &node.body {
            syncagent_protocol::Body::File { hash, .. } => Some(hash.to_string()),
            _ => None,
        })
        .collect()
}

/// Those of `paths` that lie in no other one.
fn outermost(paths: &BTreeSet<TreePath>) -> BTreeSet<TreePath> {
    let mut tops: Vec<TreePath> = Vec::new();
    // What lies in a path comes right after it.
    for path in paths {
        if tops.last().is_none_or(|top| !path.is_within(top)) {
            tops.push(path.clone());
        }
    }
    tops.into_iter().collect()
}

/// Numbers of what is found at `paths` or below, of which none lies in another.
fn add_inodes(scan: &Scan, paths: &BTreeSet<TreePath>, inodes: &mut BTreeSet<u64>) {
    let below = paths.iter().flat_map(|path| scan.entries.within(path));
    let found = below.map(|(_, seen)| inode(seen));
    inodes.extend(found.filter(|inode| *inode != 0));
}

/// Where else than at `looked`, of which none lies in another, or below, the things with these numbers are said to be: they
/// came from there since the last look, or have a second name there. Half a swap, seen alone, would send one file's
/// content under the other's id.
fn elsewhere(
    scan: &Scan,
    inodes: &BTreeSet<u64>,
    looked: &BTreeSet<TreePath>,
) -> BTreeSet<TreePath> {
    if inodes.is_empty() {
        return BTreeSet::new();
    }
    let is_looked = |path: &TreePath| {
        looked
            .range(..=path.clone())
            .next_back()
            .is_some_and(|top| path.is_within(top))
    };
    let found = scan
        .entries
        .iter()
        .filter(|(path, seen)| inodes.contains(&inode(seen)) && !is_looked(path));
    found.map(|(path, _)| path.clone()).collect()
}

/// The number of what was found; 0 if there is none.
fn inode(seen: &Observed) -> u64 {
    match seen {
        Observed::File { fingerprint, .. } | Observed::Symlink { fingerprint, .. } => {
            fingerprint.inode
        }
        Observed::Directory { inode, .. } => *inode,
        Observed::Unknown => 0,
    }
}

/// The number of the file or directory that a row speaks of; 0 if nobody knows.
fn number_of(row: &AncestorNode) -> u64 {
    row.fingerprint.map_or(row.inode, |print| print.inode)
}

/// Which folder this machine synchronises, if it ever did.
fn known_folder(index: &Index, vault: VaultId) -> Result<Option<Identity>, ClientError> {
    let known = index.meta("folder")?;
    let folder = known.and_then(|bytes| bytes.try_into().ok());
    Ok(folder.map(|folder| Identity { vault, folder }))
}

fn root_error(error: &root::RootError) -> ClientError {
    match error.code() {
        Code::Busy => {
            ClientError::Busy("another SyncAgent already synchronises this folder".into())
        }
        Code::Root => ClientError::Held {
            code: Code::Root,
            message: error.to_string(),
        },
        code => file_error(&TreePath::ROOT, code, error),
    }
}

/// An index that was lost, or put back from a backup, does not know how far the log went. What the last pass said does: a
/// server that shows less is not believed.
fn remember_position(config: &mut EngineConfig) -> Result<(), ClientError> {
    let Some((home, head)) =
        { config.home.as_ref() }.and_then(|home| Some((home, home.last_head()?)))
    else {
        return Ok(());
    };
    if config.index.position()?.is_none_or(|here| here.n < head.n) {
        config.credentials.trust(head);
        home.update_credentials(&*config.random, |credentials| credentials.trust(head))?;
    }
    Ok(())
}

/// Under which key the index notes by what the file with the folder's identity, and its own, are known from copies.
const ORIGINS: &str = "born_ns";
/// Under which key it notes that folder and index are both copies, and were not compared yet.
const COPIED: &str = "copied";
const ANOTHER: &str = "the folder is a copy of the one that was synchronised before, or was put back from a backup. It was merged with the vault: nothing counts as deleted, and older versions are brought up to date";

/// Where a folder comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whence {
    /// It is the one that it was.
    Same,
    /// It is a copy, and the index is none.
    Copy,
    /// Both are copies: of one moment, or of two.
    BothCopies,
}

/// The file with the folder's identity, and the index.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Origins {
    folder: Origin,
    index: Origin,
}

impl Origins {
    fn encode(self) -> Vec<u8> {
        let Self { folder, index } = self;
        let births = [folder.born_ns, index.born_ns].map(|ns| ns.unwrap_or(0));
        let rest = [
            folder.inode.cast_signed(),
            folder.ctime_ns,
            index.inode.cast_signed(),
        ];
        let words = births.into_iter().chain(rest);
        words.flat_map(i64::to_be_bytes).collect()
    }

    /// Of a note of before, the births alone.
    fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            let word = bytes.get(at * 8..)?.first_chunk()?;
            Some(i64::from_be_bytes(*word)).filter(|word| *word != 0)
        };
        let number = |at| word(at).map_or(0, i64::cast_unsigned);
        Self {
            folder: Origin {
                born_ns: word(0),
                inode: number(2),
                ctime_ns: word(3).unwrap_or(0),
            },
            index: Origin {
                born_ns: word(1),
                inode: number(4),
                ctime_ns: 0,
            },
        }
    }

    /// Whether another directory stands where the folder was, a copy of it, and whether the index is one, too.
    fn since(self, before: Self) -> Whence {
        let born_apart = |now: Origin, before: Origin| Some(now.born_ns? != before.born_ns?);
        let numbered_apart = |now: Origin, before: Origin| {
            ![now.inode, before.inode].contains(&0) && now.inode != before.inode
        };
        let (folder, index) = ((self.folder, before.folder), (self.index, before.index));
        // Where nobody says when a file was made, its number and the time of its last change say it together: `chmod` changes
        // that time and no number, and a file system that makes up its numbers with each mount keeps the times.
        let is_another = born_apart(folder.0, folder.1).unwrap_or_else(|| {
            let times = [folder.0, folder.1].map(|file| file.ctime_ns);
            numbered_apart(folder.0, folder.1) && !times.contains(&0) && times[0] != times[1]
        });
        let is_copied =
            born_apart(index.0, index.1).unwrap_or_else(|| numbered_apart(index.0, index.1));
        match (is_another, is_copied) {
            (false, _) => Whence::Same,
            (true, false) => Whence::Copy,
            (true, true) => Whence::BothCopies,
        }
    }
}

/// Where a copy of the folder stands in its place, what it lacks was not deleted, and what is older in it was not changed:
/// what was agreed on says nothing of it. Where the index itself is a copy, too, both may be of one moment, as in a machine
/// that was restored from an image, or of two: the next pass compares them (`copies`). Not where nothing tells.
fn forget_another(index: &mut Index, disk: &dyn Disk) -> Result<Whence, ClientError> {
    let Some(folder) = disk.identity_origin() else {
        return Ok(Whence::Same);
    };
    let now = Origins {
        folder,
        index: index.origin(),
    };
    let note = now.encode();
    let before = index.meta(ORIGINS)?;
    if before.as_ref() == Some(&note) {
        return Ok(Whence::Same);
    }
    let whence = before.map_or(Whence::Same, |before| now.since(Origins::parse(&before)));
    match whence {
        Whence::Same => index.set_meta(ORIGINS, &note)?,
        Whence::Copy => index.forget_folder((ORIGINS, &note))?,
        Whence::BothCopies => index.begin_copies((ORIGINS, &note), COPIED)?,
    }
    Ok(whence)
}

/// Locks the folder; adopts it if this machine never had one.
fn take_folder(
    disk: &dyn Disk,
    vault: VaultId,
    expected: Option<Identity>,
    random: &dyn Random,
) -> Result<(Identity, Guard), ClientError> {
    let root_error = |error| root_error(&error);
    match expected {
        Some(identity) => {
            let state = root::check_root(disk, &identity)
                .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))?;
            if state != RootState::Fine {
                return Err(held_root(state));
            }
            Ok((identity, root::lock(disk).map_err(root_error)?))
        }
        None => {
            let identity = match root::read_identity(disk).map_err(root_error)? {
                // The index was lost: the same folder goes on under its own name.
                Some(found) if found.vault == vault => found,
                _ => Identity {
                    vault,
                    folder: random::bytes(random),
                },
            };
            let lock = root::adopt(disk, &identity).map_err(root_error)?;
            Ok((identity, lock))
        }
    }
}

/// What its file system can hold and tell apart.
fn probe(disk: &dyn Disk) -> Result<Placement, ClientError> {
    crate::folder::placement::probe(disk)
        .map_err(|error| file_error(&TreePath::ROOT, error.code(), &error))
}

/// What is kept for a person without having been asked for is called as a conflict copy is.
fn rescue_name(clock: Arc<dyn Clock>, machine: String) -> RescueName {
    Box::new(move |name, taken| {
        let mut left = taken;
        syncagent_sync::conflict_name(name, utc(&*clock), &machine, |_| {
            left = left.wrapping_sub(1);
            left != u32::MAX
        })
    })
}

fn held_root(state: RootState) -> ClientError {
    let problem = state
        .problem()
        .unwrap_or("the folder is not the one that was synchronised");
    ClientError::Held {
        code: Code::Root,
        message: problem.to_owned(),
    }
}

fn held_copy() -> ClientError {
    ClientError::Held {
        code: Code::Root,
        message: "another directory stands where the folder was, perhaps a copy of it or a backup that was put back. Once all of its files are there, end `syncagent sync` and start it again: both are merged then, and nothing counts as deleted".into(),
    }
}

/// The number of the root; none if there is none.
fn root_inode(disk: &dyn Disk) -> Option<u64> {
    let stat = disk.stat(At::Tree(&TreePath::ROOT)).ok()?;
    Some(stat.inode).filter(|inode| *inode != 0)
}

/// There is something left to do: files kept changing, or others were always first, or the server only says so.
fn unfinished() -> ClientError {
    ClientError::Remote(crate::remote::RemoteError::Refused {
        code: Code::Busy,
        message: "not everything came through: files kept changing, or the server did not take what this machine has. What is left comes with the next try".into(),
    })
}

fn file_error(path: &TreePath, code: Code, error: &dyn std::fmt::Display) -> ClientError {
    ClientError::File {
        path: path.clone(),
        code,
        message: error.to_string(),
    }
}

fn utc(clock: &dyn Clock) -> Utc {
    Utc::from_unix_s(i64::try_from(clock.now_ms() / 1000).unwrap_or(0))
}

/// The ignore rules of the folder, as they stand on disk.
struct Rules(Ignore);

impl Rules {
    /// Reads the rules files that the last scan saw, and says what of them does not count. One that cannot be read
    /// keeps its rules from applying, and is reported by the scan like any other file.
    fn read(folder: &Folder, scan: Option<&Scan>, case_insensitive: bool) -> (Self, Vec<String>) {
        let mut no_rules = BTreeSet::new();
        let mut ignore = Ignore::new(case_insensitive);
        let seen = scan.into_iter().flat_map(|scan| scan.entries.keys());
        // Asked of very many, so the ends come first.
        let ends = |path: &&TreePath| {
            let path = path.as_str();
            path.ends_with(ignore::SHARED) || path.ends_with(ignore::LOCAL)
        };
        let is_rules = |path: &&TreePath| {
            let name = path.as_str().rsplit('/').next();
            name.is_some_and(Ignore::is_rules_file)
        };
        let seen = seen.filter(ends).filter(is_rules);
        let in_root = [ignore::SHARED, ignore::LOCAL]
            .into_iter()
            .filter_map(|name| TreePath::parse(name).ok());
        for path in seen.cloned().chain(in_root) {
            if let Ok(bytes) = read_rules(folder, &path) {
                // Those of the root may be read twice.
                no_rules.extend(ignore.read_file(&path, &bytes));
            }
        }
        (Self(ignore), no_rules.into_iter().collect())
    }
}

fn read_rules(folder: &Folder, path: &TreePath) -> Result<Vec<u8>, crate::folder::read::ReadError> {
    let mut file = open_stable(&**folder.disk(), path, None)?;
    let len = usize::try_from(file.size()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(ignore::MAX_LEN + 1)];
    let mut at = 0;
    while at < bytes.len() {
        match file.read(&mut bytes[at..])? {
            0 => break,
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

impl IgnoreRules for Rules {
    fn ignores(&self, path: &TreePath, is_dir: bool) -> Option<String> {
        match self.0.check_in_kept(path, is_dir) {
            Verdict::Kept => None,
            Verdict::Ignored { rule, source, .. } if source == BUILT_IN => {
                Some(format!("{rule}, a built-in rule"))
            }
            Verdict::Ignored { rule, source, .. } => Some(format!("{rule} in {source}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_another_only_where_nothing_else_can_be() {
        let file = |born_ns, inode, ctime_ns| Origin {
            born_ns,
            inode,
            ctime_ns,
        };
        let index = file(None, 70, 0);
        let copied = file(None, 71, 0);
        let was = file(None, 7, 100);
        let born = file(Some(5), 7, 100);
        for (what, before, now, index_now, whence) in [
            ("untouched", was, was, index, Whence::Same),
            ("put back", was, file(None, 8, 200), index, Whence::Copy),
            ("chmod", was, file(None, 7, 200), index, Whence::Same),
            (
                "mounted with other numbers",
                was,
                file(None, 8, 100),
                index,
                Whence::Same,
            ),
            ("no numbers", was, file(None, 0, 200), index, Whence::Same),
            ("no times", was, file(None, 8, 0), index, Whence::Same),
            (
                "an image, index and all",
                was,
                file(None, 8, 200),
                copied,
                Whence::BothCopies,
            ),
            (
                "an index without number",
                was,
                file(None, 8, 200),
                file(None, 0, 0),
                Whence::Copy,
            ),
            (
                "put back, says its birth",
                born,
                file(Some(6), 7, 100),
                index,
                Whence::Copy,
            ),
            (
                "the same, by its birth",
                born,
                file(Some(5), 8, 200),
                index,
                Whence::Same,
            ),
            (
                "no birth any more",
                born,
                file(None, 7, 200),
                index,
                Whence::Same,
            ),
        ] {
            let of = |folder, index| Origins { folder, index };
            // As the index hands it back.
            let before = Origins::parse(&of(before, index).encode());
            let now = of(now, index_now);
            assert_eq!(now.since(before), whence, "{what}");
        }
        // As it was noted before numbers were.
        let births = [5_i64, 6].map(i64::to_be_bytes);
        let before = Origins::parse(births.as_flattened());
        let of = |folder| Origins {
            folder,
            index: file(Some(6), 70, 0),
        };
        assert_eq!(of(born).since(before), Whence::Same);
        assert_eq!(of(file(Some(4), 7, 100)).since(before), Whence::Copy);
        assert_eq!(of(file(None, 7, 100)).since(before), Whence::Same);
    }
}
