//! Puts catalog, chunk store and hub together. Time and randomness come from outside, so the same
//! requests in the same order give the same server, byte for byte.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fmt, io};

use axum::Router;
use syncagent_protocol::MachineId;
use syncagent_protocol::api::{Event, Machine, Problem};
use syncagent_protocol::invitation::Invitation;
use syncagent_protocol::time::Clock;
use tokio::sync::{broadcast, watch};

use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{Catalog, CatalogError, Session, VaultKey};
use crate::chunks::directory::DirectoryStore;
use crate::chunks::{ChunkStore, PackId};
use crate::data_dir::{DataDir, Places};
use crate::http;
use crate::hub::{Hub, Note};
use crate::limits::{INVITATION_MS, Limits};
use crate::tls::{Tls, TlsError};
use crate::work::Work;

/// Fills a buffer with random bytes.
pub type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// What a server is started with.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where its data lie; made if they are not there.
    pub places: Places,
    /// Where the binary will listen.
    pub listen: SocketAddr,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, of the quality that keys need.
    pub entropy: Entropy,
}

/// What an [`App`] is made of, for tests and simulated worlds that bring their own.
///
/// All that a server remembers is in `catalog` and `chunks`: a new app of the same parts is the same server
/// after a restart.
#[derive(Clone)]
pub struct Parts {
    /// What is known.
    pub catalog: Arc<dyn Catalog>,
    /// What is kept.
    pub chunks: Arc<dyn ChunkStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Entropy,
    /// Where blocking work runs.
    pub work: Work,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("cannot use {path} as data directory: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another server runs on it.
    #[error("another server uses {0}: stop it first, or choose another directory with --data")]
    Busy(PathBuf),
    /// No server ever ran there.
    #[error("there is no server's catalog at {0}")]
    Nothing(PathBuf),
    /// There is no such vault, or it has to be said which one.
    #[error("{0}")]
    Vault(String),
    /// The catalog cannot be opened.
    #[error("cannot open the catalog in {path}: {error}")]
    Catalog {
        /// The data directory.
        path: PathBuf,
        /// Why.
        error: CatalogError,
    },
}

impl OpenError {
    /// Whether the same start may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_))
            || matches!(self, Self::Catalog { error, .. } if error.is_retryable())
    }
}

/// Why there is no invitation.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// It cannot be kept.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The certificate that it has to name cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl InviteError {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Catalog(error) if error.is_retryable())
    }
}

/// A server without its sockets. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct App(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) chunks: Arc<dyn ChunkStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) work: Work,
    pub(crate) hub: Hub,
    pub(crate) limits: Limits,
    /// What it is served with, once it is.
    tls: OnceLock<Tls>,
    /// When each machine was last heard of, as far as this process knows: a write for each request would
    /// cost more than it tells.
    seen: Mutex<HashMap<(VaultKey, MachineId), u64>>,
    /// Packs whose recording failed in such a way that a crash may bring it back.
    doubted: Mutex<Vec<PackId>>,
    /// True from the moment the server goes down.
    pub(crate) closing: watch::Sender<bool>,
    /// Hold the places.
    _lock: Vec<File>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("App")
    }
}

/// Opens the data directory for one server.
pub fn open(config: &ServerConfig) -> Result<App, OpenError> {
    let work = Work::Pool;
    let directory_error = |error| OpenError::Directory {
        path: config.places.data.clone(),
        error,
    };
    let data = DataDir::create(&config.places).map_err(directory_error)?;
    let lock = data
        .lock()
        .map_err(directory_error)?
        .ok_or_else(|| OpenError::Busy(config.places.data.clone()))?;
    let catalog = open_catalog(&data, &config.places.data, work)?;
    let chunks = DirectoryStore::open(data.packs(), work).map_err(directory_error)?;
    let parts = Parts {
        catalog: Arc::new(catalog),
        chunks: Arc::new(chunks),
        clock: Arc::clone(&config.clock),
        entropy: Arc::clone(&config.entropy),
        work,
    };
    Ok(App::with_lock(parts, lock))
}

pub(crate) fn open_catalog(
    data: &DataDir,
    path: &Path,
    work: Work,
) -> Result<SqliteCatalog, OpenError> {
    let _turn = data
        .lock_migration()
        .map_err(|error| OpenError::Directory {
            path: path.to_owned(),
            error,
        })?;
    SqliteCatalog::open(data.database(), work).map_err(|error| OpenError::Catalog {
        path: path.to_owned(),
        error,
    })
}

/// Makes an invitation in a data directory, beside a running server or without one.
///
/// It is for the vault that is there, or for a new one if there is none.
pub fn invite(
    places: impl Into<Places>,
    clock: &dyn Clock,
    entropy: &Entropy,
) -> Result<Invitation, OpenError> {
    let places = places.into();
    let data = places.data.as_path();
    let directory = DataDir::create(&places).map_err(|error| OpenError::Directory {
        path: data.to_owned(),
        error,
    })?;
    let catalog = open_catalog(&directory, data, Work::Inline)?;
    // Inline work never waits: the future is ready when it is first looked at.
    futures_util::FutureExt::now_or_never(new_invitation(&catalog, clock, entropy))
        .unwrap_or(Err(CatalogError::Busy))
        .map_err(|error| OpenError::Catalog {
            path: data.to_owned(),
            error,
        })
}

async fn new_invitation(
    catalog: &dyn Catalog,
    clock: &dyn Clock,
    entropy: &Entropy,
) -> Result<Invitation, CatalogError> {
    let mut secret = [0; 16];
    entropy(&mut secret);
    let invitation = Invitation::new(secret, None);
    let now_ms = clock.now_ms();
    catalog
        .invite(invitation.hash(), now_ms, now_ms + INVITATION_MS)
        .await?;
    Ok(invitation)
}

impl App {
    /// A server of these parts.
    pub fn new(parts: Parts) -> Self {
        Self::with_lock(parts, Vec::new())
    }

    /// A server that is gone with the process: its catalog and packs are in memory.
    pub fn in_memory(
        clock: Arc<dyn Clock>,
        entropy: Entropy,
        work: Work,
    ) -> Result<Self, CatalogError> {
        let catalog = Arc::new(SqliteCatalog::in_memory(work)?);
        let chunks = Arc::new(crate::chunks::memory::MemoryStore::default());
        Ok(Self::new(Parts {
            catalog,
            chunks,
            clock,
            entropy,
            work,
        }))
    }

    fn with_lock(parts: Parts, lock: Vec<File>) -> Self {
        let Parts {
            catalog,
            chunks,
            clock,
            entropy,
            work,
        } = parts;
        Self(Arc::new(Inner {
            catalog,
            chunks,
            clock,
            entropy,
            work,
            hub: Hub::default(),
            limits: Limits::default(),
            tls: OnceLock::new(),
            seen: Mutex::default(),
            doubted: Mutex::default(),
            closing: watch::Sender::new(false),
            _lock: lock,
        }))
    }

    /// Every route, ready for `tower::ServiceExt::oneshot` or [`crate::serve()`].
    pub fn router(&self) -> Router {
        http::router(self.clone())
    }

    /// Notes what it is served with, which invitations have to name.
    pub(crate) fn served_with(&self, tls: &Tls) {
        // It is served once.
        let _ = self.0.tls.set(tls.clone());
    }

    /// Makes an invitation, as [`invite`] does. If the certificate that this app is served with vouches for itself,
    /// the invitation names it.
    pub async fn invite(&self) -> Result<Invitation, InviteError> {
        let pin = match self.0.tls.get() {
            Some(tls) => tls.pin()?,
            None => None,
        };
        let made = new_invitation(&*self.0.catalog, &*self.0.clock, &self.0.entropy).await?;
        Ok(made.pinning(pin))
    }

    /// What `/ws/events` does, without a socket: for simulated worlds.
    pub async fn watch(&self, token: &str) -> Result<Watch, Problem> {
        let session = http::auth::authenticate(self, token)
            .await
            .map_err(http::problem::Failure::into_problem)?;
        Ok(Watch::start(self, session))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// Notes that a machine was heard of.
    pub(crate) fn saw(&self, session: &Session) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((session.vault, session.machine), self.now_ms());
    }

    /// When a machine was last heard of by this process; 0 if it was not.
    pub(crate) fn last_seen_ms(&self, vault: VaultKey, machine: MachineId) -> u64 {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(vault, machine)).copied().unwrap_or(0)
    }

    /// Notes that nobody knows whether these packs are recorded, until something else is.
    pub(crate) fn doubt(&self, packs: impl IntoIterator<Item = PackId>) {
        let mut doubted = self
            .0
            .doubted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        doubted.extend(packs);
    }

    /// The packs that were doubted, each once.
    pub(crate) fn take_doubted(&self) -> Vec<PackId> {
        let mut doubted = self
            .0
            .doubted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *doubted)
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0.entropy)(&mut bytes);
        bytes
    }

    /// Tells sockets and watches to close. Requests that are under way come to their end.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }
}

/// Why a [`Watch`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The machine was removed.
    Revoked,
    /// The server goes down, or failed.
    Closing,
}

/// The events of one vault for one machine: the head at once, then whenever the log grows.
pub struct Watch {
    app: App,
    session: Session,
    notes: broadcast::Receiver<Note>,
    closing: watch::Receiver<bool>,
    /// The head as last told.
    told: u64,
    /// Whether the catalog is to be looked at, because nothing was told yet or notes were missed.
    look: bool,
}

impl Watch {
    pub(crate) fn start(app: &App, session: Session) -> Self {
        let notes = app.0.hub.listen(session.vault);
        Self {
            app: app.clone(),
            session,
            notes,
            closing: app.0.closing.subscribe(),
            told: 0,
            look: true,
        }
    }

    /// The next event; waits for it. May be dropped and asked again without missing one.
    pub async fn next(&mut self) -> Result<Event, Ended> {
        loop {
            if self.look {
                let n = self.head().await?;
                self.look = false;
                self.told = n;
                return Ok(Event::Head { n });
            }
            let note = tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return Err(Ended::Closing),
                note = self.notes.recv() => note,
            };
            match note {
                Ok(Note::Head(n)) if n > self.told => {
                    self.told = n;
                    return Ok(Event::Head { n });
                }
                Ok(Note::Revoked(machine)) if machine == self.session.machine => {
                    return Err(Ended::Revoked);
                }
                Ok(_) => {}
                // Too slow: what was missed may have been the removal of this very machine.
                Err(broadcast::error::RecvError::Lagged(_)) => self.look = true,
                Err(broadcast::error::RecvError::Closed) => return Err(Ended::Closing),
            }
        }
    }

    /// Notes that the other end gave a sign of life.
    pub(crate) fn heard(&self) {
        self.app.saw(&self.session);
    }

    /// The head as the catalog has it, if the machine is still welcome.
    async fn head(&self) -> Result<u64, Ended> {
        let catalog = &self.app.0.catalog;
        let failed = |error: CatalogError| {
            tracing::error!(%error, "cannot read the head for a socket");
            Ended::Closing
        };
        let machines = catalog.machines(self.session.vault).await.map_err(failed)?;
        let is_me = |machine: &&Machine| machine.id == self.session.machine;
        if machines
            .iter()
            .find(is_me)
            .is_none_or(|machine| machine.revoked)
        {
            return Err(Ended::Revoked);
        }
        let tip = catalog.tip(self.session.vault).await.map_err(failed)?;
        Ok(tip.map_or(0, |tip| tip.n))
    }
}
