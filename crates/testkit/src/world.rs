//! One server, one vault, any number of machines with folders on a real disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncagent_client::ClientError;
use syncagent_client::engine::{Engine, EngineConfig, Hint, Outcome};
use syncagent_client::folder::disk::{Disk, NativeDisk};
use syncagent_client::home::{Credentials, Home};
use syncagent_client::index::Index;
use syncagent_client::remote::http::{HttpRemote, Transport, register};
use syncagent_client::work::Work;
use syncagent_protocol::api::{RegisterRequest, register_message};
use syncagent_protocol::time::Clock;
use syncagent_server::{App, Entropy};
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::{OsRandom, Random};

use crate::transport::{Carried, Chunks, RouterTransport};

/// The system's clock: worlds on a real disk live in real time.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A server with one vault, and the key that only its machines hold.
pub struct World {
    app: App,
    key: VaultKey,
    genesis: Genesis,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// One machine: a home, a folder, and an engine while it runs.
pub struct Machine {
    /// Its files.
    pub home: Home,
    /// Its folder.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    token: String,
    carried: Carried,
    /// While it runs.
    pub engine: Option<Engine>,
}

impl Machine {
    /// The chunks that it has sent and fetched so far.
    pub fn carried(&self) -> Chunks {
        self.carried.chunks()
    }
}

impl World {
    /// A new server in memory, and a new vault.
    pub fn new(genesis: Genesis) -> Self {
        Self::with_clock(genesis, Arc::new(SystemClock))
    }

    /// The same, with a clock that somebody moves.
    pub fn with_clock(genesis: Genesis, clock: Arc<dyn Clock>) -> Self {
        let random: Arc<dyn Random> = Arc::new(OsRandom::default());
        let for_server = Arc::clone(&random);
        let entropy: Entropy = Arc::new(move |out: &mut [u8]| for_server.fill(out));
        let app = App::in_memory(Arc::clone(&clock), entropy, syncagent_server::Work::Pool)
            .unwrap_or_else(|error| panic!("a server in memory: {error}"));
        Self::on(app, genesis, clock)
    }

    /// A new vault on a server that somebody else made.
    pub fn on(app: App, genesis: Genesis, clock: Arc<dyn Clock>) -> Self {
        let random: Arc<dyn Random> = Arc::new(OsRandom::default());
        let key = VaultKey::generate(&*random);
        Self {
            app,
            key,
            genesis,
            clock,
            random,
        }
    }

    /// The server.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Adds a machine with its home and folder below `dir`.
    pub async fn machine(&self, dir: &Path, name: &str) -> Result<Machine, ClientError> {
        let home = Home::at(dir.join(format!("{name}.home")));
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).map_err(ClientError::io("create", &folder))?;
        let mut credentials = home.credentials_or_new(&*self.random)?;
        let invitation = self
            .app
            .invite()
            .await
            .map_err(|error| ClientError::Setup(error.to_string()))?;
        let message = register_message(&invitation.hash(), name);
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let request = RegisterRequest {
            invitation: invitation.to_text(),
            public_key: hex(credentials.machine.public()),
            name: name.to_owned(),
            platform: "linux".to_owned(),
            signature: hex(&credentials.machine.sign(&message)),
        };
        let response = register(&self.transport(), &request).await?;
        credentials.token = Some(zeroize::Zeroizing::new(response.token.clone()));
        credentials.vault = Some(self.key.vault());
        credentials.check_value = Some(self.key.check_value()?);
        credentials.genesis = Some(self.genesis);
        home.save_credentials(&credentials)?;
        Ok(Machine {
            home,
            folder,
            name: name.to_owned(),
            token: response.token,
            carried: Carried::default(),
            engine: None,
        })
    }

    fn transport(&self) -> RouterTransport {
        RouterTransport::new(self.app.router())
    }

    fn credentials(machine: &Machine) -> Result<Credentials, ClientError> {
        machine
            .home
            .credentials()?
            .ok_or_else(|| ClientError::Setup("no credentials".to_owned()))
    }

    /// Starts a machine's engine.
    pub fn start(&self, machine: &mut Machine) -> Result<(), ClientError> {
        let disk = NativeDisk::open(&machine.folder).map_err(|error| {
            ClientError::Setup(format!("{}: {error}", machine.folder.display()))
        })?;
        self.start_on(machine, Arc::new(disk))
    }

    /// Starts a machine's engine on another disk than its folder's.
    pub fn start_on(&self, machine: &mut Machine, disk: Arc<dyn Disk>) -> Result<(), ClientError> {
        let transport = self.transport().noting(&machine.carried);
        self.start_with(machine, disk, Arc::new(transport), Work::Pool)
    }

    /// The same, by another way to the server, and with work done elsewhere.
    pub fn start_with(
        &self,
        machine: &mut Machine,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
        work: Work,
    ) -> Result<(), ClientError> {
        let remote = HttpRemote::new(transport, self.key.vault(), &machine.token);
        machine.engine = Some(Engine::open(EngineConfig {
            key: self.key.duplicate(),
            credentials: Self::credentials(machine)?,
            home: Some(machine.home.clone()),
            name: machine.name.clone(),
            platform: "linux".to_owned(),
            index: Index::open(&machine.home.state_path())?,
            disk,
            remote: Arc::new(remote),
            work,
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        })?);
        Ok(())
    }

    /// One full pass of a machine, which is started if it does not run.
    pub async fn sync(&self, machine: &mut Machine) -> Result<Outcome, ClientError> {
        if machine.engine.is_none() {
            self.start(machine)?;
        }
        match &mut machine.engine {
            Some(engine) => engine.pass(Hint::Everything).await,
            None => Err(ClientError::Setup("the engine does not run".to_owned())),
        }
    }
}
