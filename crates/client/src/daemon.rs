//! An engine that stays: watches the folder, listens to the server, answers on the control socket.
//!
//! `syncagent_sync::schedule` decides when to look; this file only carries messages between it, the
//! watcher, the event socket, the clock and the engine. Asleep when nothing happens: the one timer that always
//! runs is the 5-minute look.
//!
//! A lock ends all that at once: [`run`] returns, its caller gets rid of the key, and [`rest`] answers until it is
//! unlocked.

pub mod control;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use syncagent_protocol::Code;
use syncagent_protocol::api::{Event as RemoteEvent, MachineReport};
use syncagent_sync::schedule::{Config, Effect, Event, Outcome as Ended, Schedule};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::control::{Command, Inbox, Mailbox, Request};
use crate::engine::{Engine, Hint, State, Status};
use crate::error::ClientError;
use crate::folder::disk::NativeDisk;
use crate::folder::watch::Watcher;
use crate::home::{Home, LockMark};
use crate::remote::Remote;

/// The first and the longest wait before the event socket is opened again.
const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Quiet time before a machine's state is reported to the server.
const REPORT_DELAY: Duration = Duration::from_secs(2);

/// How a daemon runs.
pub struct Options {
    /// The folder, for the watcher, and to open it anew.
    pub folder: PathBuf,
    /// Where the control socket goes; none: no socket.
    pub home: Option<Home>,
    /// Waiting times.
    pub schedule: Config,
    /// Begin paused, as it was before a lock.
    pub paused: bool,
    /// What [`Home::last_lock`] said before the key was read: somebody who locked since then did not find this daemon.
    pub before_key: Option<LockMark>,
}

/// Why a daemon ended.
pub enum Reason {
    /// It was told to.
    Shutdown,
    /// It was told to lock.
    Locked(Locking),
}

/// Somebody waits for the key to be gone. They learn that it is when this is done, or when the process ends.
pub struct Locking {
    /// None if they did not find anybody to ask.
    request: Option<Request>,
    was_paused: bool,
}

impl Locking {
    /// Whether somebody had asked for quiet, which a lock does not end.
    pub fn was_paused(&self) -> bool {
        self.was_paused
    }

    /// Nothing of the key is left.
    pub fn done(self) {
        if let Some(request) = self.request {
            let _ = request.answer.send(Ok(serde_json::Value::Null));
        }
    }
}

/// Runs until `shutdown` ends or somebody locks. Errors of single passes are states, not ends; only what cannot get better by
/// waiting, such as a lock that somebody else holds, returns.
pub async fn run(
    mut engine: Engine,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<Reason, ClientError> {
    let (mailbox, inbox) = Mailbox::new();
    if options.paused {
        engine.show_paused();
    }
    let status = engine.watch();
    let control = match &options.home {
        Some(home) => Some(control::listen(home, mailbox, status)?),
        None => None,
    };
    // Whoever locks from here on finds the socket.
    if let (Some(home), Some(before)) = (&options.home, &options.before_key)
        && home.last_lock()? != *before
    {
        if let Some(control) = control {
            control.close().await;
        }
        return Ok(Reason::Locked(Locking {
            request: None,
            was_paused: options.paused,
        }));
    }
    let (heads, head_inbox) = mpsc::channel(16);
    let listener = tokio::spawn(listen_to_server(engine.remote(), heads));
    let reporter = tokio::spawn(report(engine.remote(), engine.watch()));
    let mut daemon = Daemon {
        watcher: Watcher::start(&options.folder),
        folder: options.folder,
        astray: false,
        schedule: Schedule::default(),
        config: options.schedule,
        started: Instant::now(),
        wake_at: None,
        engine,
    };
    daemon.engine.listen_to(Box::new(daemon.watcher.ear()));
    daemon.tell_unwatched();
    if options.paused {
        // Nothing to do comes of this; what `Started` asks for waits.
        let _ = daemon.tell(Event::Pause);
    }
    let result = daemon.run(inbox, head_inbox, shutdown).await;
    listener.abort();
    reporter.abort();
    if let Some(control) = control {
        control.close().await;
    }
    result
}

/// Answers without a key, until `shutdown` ends (none) or `unlock` has one, after somebody said that there is.
pub async fn rest<T>(
    home: &Home,
    status: Status,
    shutdown: impl Future<Output = ()>,
    mut unlock: impl FnMut() -> Result<Option<T>, ClientError>,
) -> Result<Option<T>, ClientError> {
    let (mailbox, mut inbox) = Mailbox::new();
    let status = Status {
        state: State::Locked,
        ..status
    };
    let (_keep, status) = watch::channel(status);
    let control = control::listen(home, mailbox, status)?;
    let mut shutdown = pin!(shutdown);
    let key = loop {
        let Request { command, answer } = tokio::select! {
            biased;
            () = &mut shutdown => break None,
            Some(request) = inbox.locks.recv() => request,
            Some(request) = inbox.commands.recv() => request,
        };
        let locked = |why: &str| Err(ClientError::Locked(why.to_owned()));
        let reply = match command {
            Command::Lock => Ok(serde_json::Value::Null),
            Command::Unlock => match unlock() {
                Ok(Some(key)) => {
                    let _ = answer.send(Ok(serde_json::Value::Null));
                    break Some(key);
                }
                Ok(None) => locked(
                    "no key is in reach of the running `sync`: run `syncagent unlock` again, or end `sync` and start it anew",
                ),
                Err(error) => Err(error),
            },
            _ => locked("the key is locked: run `syncagent unlock` first"),
        };
        let _ = answer.send(reply);
    };
    control.close().await;
    Ok(key)
}

struct Daemon {
    engine: Engine,
    watcher: Watcher,
    folder: PathBuf,
    /// The last pass found the folder missing or another one.
    astray: bool,
    schedule: Schedule,
    config: Config,
    started: Instant,
    wake_at: Option<Instant>,
}

impl Daemon {
    async fn run(
        &mut self,
        inbox: Inbox,
        mut heads: mpsc::Receiver<Heard>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Reason, ClientError> {
        let Inbox {
            mut commands,
            mut locks,
        } = inbox;
        let mut shutdown = pin!(shutdown);
        let mut effects = self.tell(Event::Started);
        loop {
            if let Some(hint) = hint_of(effects) {
                // A pass that is dropped half-way leaves nothing that the next one does not mend.
                let ended = tokio::select! {
                    biased;
                    () = &mut shutdown => return Ok(Reason::Shutdown),
                    Some(request) = locks.recv() => return Ok(self.locked(request)),
                    ended = self.pass(hint) => ended,
                };
                self.tell_position();
                effects = self.tell(Event::Done { outcome: ended });
                continue;
            }
            if self.schedule.is_waiting() {
                self.engine.show_waiting();
            }
            let wake_at = self.wake_at;
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            effects = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Reason::Shutdown),
                Some(request) = locks.recv() => return Ok(self.locked(request)),
                Some(request) = commands.recv() => {
                    // An order may take seconds, and what was heard of waits as long; but nothing begins before a pause.
                    let mut effects = match request.command {
                        Command::Pause => Vec::new(),
                        _ => self.hear(),
                    };
                    if self.schedule.is_waiting() || is_work(&effects) {
                        self.engine.show_waiting();
                    }
                    effects.extend(self.obey(request).await);
                    effects
                }
                Some(heard) = heads.recv() => {
                    if heard.is_first {
                        self.engine.reconnected();
                    }
                    self.tell(Event::Head { n: heard.n })
                }
                () = self.watcher.changed() => self.hear(),
                () = sleep => {
                    self.wake_at = None;
                    self.tell(Event::Woke)
                }
            };
        }
    }

    fn locked(&self, request: Request) -> Reason {
        Reason::Locked(Locking {
            request: Some(request),
            was_paused: self.schedule.is_paused(),
        })
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let effects = self.schedule.handle(now_ms, event, &self.config);
        for effect in &effects {
            if let Effect::WakeAt(at_ms) = effect {
                self.wake_at = Some(self.started + Duration::from_millis(*at_ms));
            }
        }
        effects
    }

    fn tell_position(&mut self) {
        let n = self.engine.head().n;
        // Nothing starts while a pass is noted as running; `Done` follows.
        let _ = self.tell(Event::Applied { n });
    }

    fn tell_unwatched(&mut self) {
        self.engine.set_unwatched(self.watcher.unwatched());
    }

    fn hear(&mut self) -> Vec<Effect> {
        let hints = self.watcher.take();
        self.tell_unwatched();
        let mut effects = Vec::new();
        if hints.rescan_all {
            effects.extend(self.tell(Event::Overflow));
        }
        for path in hints.paths {
            effects.extend(self.tell(Event::Changed {
                path,
                closed: hints.closed_write,
            }));
        }
        effects
    }

    async fn pass(&mut self, hint: Hint) -> Ended {
        // What stands at the path by now may be it again, of a drive that came back.
        if self.astray
            && let Ok(disk) = NativeDisk::open(&self.folder)
            && self.engine.reopen(Arc::new(disk)).is_ok()
        {
            tracing::info!("the folder is back");
            self.watcher = Watcher::start(&self.folder);
            self.engine.listen_to(Box::new(self.watcher.ear()));
        }
        if hint == Hint::Everything {
            // What changed there meanwhile is seen by this look.
            self.watcher.again();
        }
        self.tell_unwatched();
        let result = self.engine.pass(hint).await;
        self.astray = match &result {
            // A drive that was pulled out answers nothing but errors.
            Err(ClientError::File { path, .. }) => path.is_root(),
            Err(error) => error.code() == Code::Root,
            Ok(_) => false,
        };
        match result {
            Ok(_) => Ended::Settled,
            Err(error) => {
                tracing::warn!(code = %error.code(), %error, "a pass went no further");
                // Whatever it was, the next try comes with growing distance; a halt stays a halt.
                Ended::Failed
            }
        }
    }

    async fn obey(&mut self, request: Request) -> Vec<Effect> {
        let Request { command, answer } = request;
        let (effects, reply) = match command {
            Command::Pause => {
                let effects = self.tell(Event::Pause);
                self.engine.show_paused();
                (effects, Ok(serde_json::Value::Null))
            }
            Command::Resume => {
                let effects = self.tell(Event::Resume);
                self.engine.show_resumed();
                if is_work(&effects) {
                    self.engine.show_waiting();
                }
                (effects, Ok(serde_json::Value::Null))
            }
            Command::Approve => {
                // To what was held when it was said: a pass that comes later may find something else.
                let agreed = self.engine.agree_to_held();
                (self.tell(Event::Now), Ok(agreed.into()))
            }
            Command::Now => (self.tell(Event::Now), Ok(serde_json::Value::Null)),
            // `Lock` comes another way; and it is unlocked.
            Command::Lock | Command::Unlock => (Vec::new(), Ok(serde_json::Value::Null)),
            Command::Remove(machine) => {
                let result = self.engine.remove_machine(machine).await;
                let effects = match &result {
                    // A pass shows what became of a machine that removed itself, or that was refused.
                    Ok(_) | Err(ClientError::Remote(_) | ClientError::Unanswered(_)) => {
                        self.tell(Event::Now)
                    }
                    Err(_) => Vec::new(),
                };
                (effects, result.map(serde_json::Value::from))
            }
            Command::Resolve(resolve) => {
                let result = self.engine.resolve(&resolve).await;
                let reply =
                    result.map(|resolved| serde_json::to_value(resolved).unwrap_or_default());
                (self.tell(Event::Now), reply)
            }
            Command::Recover(agreed) => {
                let result = self.engine.rejoin(agreed).await;
                let reply =
                    result.map(|recovered| serde_json::to_value(recovered).unwrap_or_default());
                // Positions may have gone back: what was heard of before counts no more.
                let was_paused = self.schedule.is_paused();
                self.schedule = Schedule::default();
                if was_paused {
                    let _ = self.tell(Event::Pause);
                    self.engine.show_paused();
                }
                (self.tell(Event::Started), reply)
            }
            Command::Restore(restore) => {
                let result = self.engine.restore(&restore).await;
                let reply =
                    result.map(|restored| serde_json::to_value(restored).unwrap_or_default());
                (self.tell(Event::Now), reply)
            }
        };
        // Whoever asked may be gone.
        let _ = answer.send(reply.map_err(|error| error.in_folder(&self.folder)));
        effects
    }
}

/// Whether a pass follows at once.
fn is_work(effects: &[Effect]) -> bool {
    { effects.iter() }.any(|effect| !matches!(effect, Effect::WakeAt(_)))
}

/// All effects of one moment are one pass.
fn hint_of(effects: Vec<Effect>) -> Option<Hint> {
    let mut hint = None;
    for effect in effects {
        hint = match (effect, hint) {
            (Effect::FullScan, _) | (_, Some(Hint::Everything)) => Some(Hint::Everything),
            (Effect::ScanPaths(mut paths), before) => {
                if let Some(Hint::Paths(before)) = before {
                    paths.extend(before);
                }
                Some(Hint::Paths(paths))
            }
            (Effect::Fetch, None) => Some(Hint::Paths(BTreeSet::new())),
            (Effect::Fetch | Effect::WakeAt(_), before) => before,
        };
    }
    hint
}

/// What the event socket said.
struct Heard {
    /// Position of the log.
    n: u64,
    /// Nothing was said before on this connection.
    is_first: bool,
}

/// Keeps the event socket open and passes on what it says.
async fn listen_to_server(remote: Arc<dyn Remote>, heads: mpsc::Sender<Heard>) {
    let mut wait = RECONNECT.0;
    loop {
        if let Ok(mut events) = remote.events().await {
            wait = RECONNECT.0;
            let mut is_first = true;
            while let Some(RemoteEvent::Head { n }) = events.next().await {
                if heads.send(Heard { n, is_first }).await.is_err() {
                    return;
                }
                is_first = false;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT.1);
    }
}

/// Tells the server how this machine does, once things are quiet.
async fn report(remote: Arc<dyn Remote>, mut status: watch::Receiver<Status>) {
    let mut last = None;
    while status.changed().await.is_ok() {
        tokio::time::sleep(REPORT_DELAY).await;
        let report = {
            let status = status.borrow_and_update();
            MachineReport {
                state: status.state.as_str().to_owned(),
                synced_n: status.head.map_or(0, |head| head.n),
                files: status.files,
            }
        };
        if last.as_ref() != Some(&report) && remote.report(report.clone()).await.is_ok() {
            last = Some(report);
        }
    }
}
