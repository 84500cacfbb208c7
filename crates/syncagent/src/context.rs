//! What `main` read from outside, once: environment, clock, randomness, terminal. Everything else takes it as an argument.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncagent_client::home::{Config, Home};
use syncagent_client::keyring::{self, Keyring, KeyringError};
use syncagent_client::remote::http::HttpRemote;
use syncagent_client::remote::reqwest::Network;
use syncagent_client::setup::Setup;
use syncagent_protocol::VaultId;
use syncagent_protocol::time::Clock;
use syncagent_vault::random::Random;
use syncagent_vault::slot::KdfParams;

use crate::cli::Global;
use crate::directories;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings;

/// The variables that are read, and no others.
pub(crate) const VARIABLES: [&str; 36] = [
    "APPDATA",
    "COMPUTERNAME",
    "DBUS_SESSION_BUS_ADDRESS",
    "HOME",
    "LOCALAPPDATA",
    "NO_COLOR",
    "SYNCAGENT_CA",
    "SYNCAGENT_CLOSED_MS",
    "SYNCAGENT_CONFIG",
    "SYNCAGENT_DATA",
    "SYNCAGENT_DB_PATH",
    "SYNCAGENT_DUMPS",
    "SYNCAGENT_FOLDER",
    "SYNCAGENT_FULL_SCAN_S",
    "SYNCAGENT_HOME",
    "SYNCAGENT_KEYRING",
    "SYNCAGENT_LISTEN",
    "SYNCAGENT_LOG",
    "SYNCAGENT_LOG_PATH",
    "SYNCAGENT_NAME",
    "SYNCAGENT_PASSWORD_COMMAND",
    "SYNCAGENT_PASSWORD_FILE",
    "SYNCAGENT_QUIET_MS",
    "SYNCAGENT_SERVER",
    "SYNCAGENT_SETTLE_MS",
    "SYNCAGENT_STORAGE_PATH",
    "SYNCAGENT_TLS",
    "SYNCAGENT_TLS_CERT",
    "SYNCAGENT_TLS_KEY",
    "SYNCAGENT_TLS_NAME",
    "SYNCAGENT_TRASH_RETENTION_DAYS",
    "USERPROFILE",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// The values of [`VARIABLES`]; an empty one counts as not set.
#[derive(Default)]
pub(crate) struct Variables(pub(crate) BTreeMap<&'static str, OsString>);

impl Variables {
    pub(crate) fn get(&self, name: &str) -> Option<&OsString> {
        debug_assert!(VARIABLES.contains(&name), "{name} is not read");
        self.0.get(name)
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

/// Everything a command may know of the world.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) variables: Variables,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    /// This very binary, to start more of it.
    pub(crate) binary: PathBuf,
    /// What it was started with, without its own name.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) current_dir: PathBuf,
    /// Whether somebody sits there who can be asked.
    pub(crate) interactive: bool,
    pub(crate) output: Output,
}

impl Context {
    /// The files of this machine.
    pub(crate) fn home(&self) -> Result<Home> {
        match self.variables.path("SYNCAGENT_HOME") {
            Some(dir) => Ok(Home::at(self.absolute(&dir))),
            None => directories::home(&self.variables),
        }
    }

    /// What this machine is set to.
    pub(crate) fn config(&self, home: &Home) -> Result<Config> {
        settings::machine(self, home)
    }

    /// Whether memory with keys in it may be written to disk and read by debuggers, for somebody who looks for a bug.
    pub(crate) fn dumps_allowed(&self) -> Result<bool> {
        let allowed = settings::switch(self, "SYNCAGENT_DUMPS")?;
        Ok(allowed.unwrap_or(false))
    }

    /// A path that a person typed.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        // Without `.` in between, which nobody wants to read later.
        self.current_dir.join(path).components().collect()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn setup<'a>(&'a self, home: &'a Home) -> Setup<'a> {
        Setup {
            home,
            random: &*self.random,
            now_ms: self.now_ms(),
            kdf: KdfParams::DEFAULT,
        }
    }

    /// The system's keyring, whether or not the settings want it used.
    pub(crate) fn keyring(&self) -> std::result::Result<Box<dyn Keyring>, KeyringError> {
        keyring::system(self.session_bus().as_deref())
    }

    /// Where the session bus listens: where the variable says, or where it does on systems with systemd.
    fn session_bus(&self) -> Option<OsString> {
        if let Some(address) = self.variables.get("DBUS_SESSION_BUS_ADDRESS") {
            return Some(address.clone());
        }
        let socket = self.variables.path("XDG_RUNTIME_DIR")?.join("bus");
        socket.exists().then(|| {
            let mut address = OsString::from("unix:path=");
            address.push(socket);
            address
        })
    }

    /// Runs what waits for the network.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new(
                    syncagent_protocol::Code::State,
                    format!("cannot start threads: {error}"),
                )
            })?;
        let result = runtime.block_on(future);
        // Blocking work that nobody waits for any more is not waited for here either.
        runtime.shutdown_background();
        result
    }

    /// The way to the server that this machine is registered with.
    pub(crate) fn network(&self, config: &Config) -> Result<Arc<Network>> {
        let server = config.server.as_deref().ok_or_else(not_registered)?;
        Ok(Arc::new(Network::new(server, &config.trust()?)?))
    }

    /// The vault on the server, with this machine's token.
    pub(crate) fn remote(&self, home: &Home) -> Result<HttpRemote> {
        let credentials = home.credentials()?.ok_or_else(not_registered)?;
        let token = credentials.token.as_ref().ok_or_else(not_registered)?;
        let vault = credentials.vault.ok_or_else(no_key)?;
        Ok(HttpRemote::new(
            self.network(&self.config(home)?)?,
            vault,
            token,
        ))
    }

    /// The vault whose key this machine has.
    pub(crate) fn vault(&self, home: &Home) -> Result<VaultId> {
        home.credentials()?
            .and_then(|credentials| credentials.vault)
            .ok_or_else(no_key)
    }
}

pub(crate) fn not_registered() -> Failure {
    Failure::setup(
        "this machine is not registered with a server: run `syncagent register` or `syncagent join`",
    )
}

pub(crate) fn no_key() -> Failure {
    Failure::setup(
        "this machine has no key yet: run `syncagent init` for a new vault, or `syncagent import-key`",
    )
}
