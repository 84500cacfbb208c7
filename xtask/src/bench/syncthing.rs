//! Syncthing with a server that can read nothing: A and B share a folder with C, which has it encrypted, and know nothing of
//! each other.
//!
//! Three processes run from the first case to the last. Watching is off but in the live cases: each transfer begins with
//! a scan that A is asked for, so that it is not the watcher's delay that is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::measure::{Cost, Running, cpu, has_ended, peak, until_quiet};
use super::relay::Relay;
use super::sides::{
    Live, PATIENCE, SYNCTHING, Side, awaited_edits, bytes, free_port, since, until,
};
use super::trees;
use crate::needs::{quietly, succeeds};

/// For 20,000 small files.
const TRANSFER: Duration = Duration::from_secs(900);
/// The folder's id, and the key of the interface to each process, which listens on loopback alone.
const FOLDER: &str = "bench";
/// Seconds for which the watcher gathers what it sees: as shipped, and the least that can be set.
const DELAY: u32 = 10;
const LEAST_DELAY: u32 = 1;

/// Whether it is on this machine.
pub(super) fn is_installed() -> bool {
    succeeds(Command::new("syncthing").arg("--version"))
}

/// A, C and B.
pub(super) struct Syncthing {
    folders: [PathBuf; 2],
    nodes: [Node; 3],
    /// In front of C, for A and for B.
    relays: [Relay; 2],
}

impl Syncthing {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let homes = ["a", "c", "b"].map(|name| dir.join(format!("home-{name}")));
        let [a, c, b] = ["a", "server", "b"].map(|name| dir.join(name));
        let ids = [
            identity(&homes[0])?,
            identity(&homes[1])?,
            identity(&homes[2])?,
        ];
        let listen = free_port()?;
        let relays = [Relay::start(listen)?, Relay::start(listen)?];
        let server = |relay: usize| Peer {
            id: &ids[1],
            address: Some(relays[relay].port),
            password: true,
        };
        let client = |role: usize| Peer {
            id: &ids[role],
            address: None,
            password: false,
        };
        let node = |role: usize, folder: &Path, kind, port, peers: &[Peer<'_>]| {
            Node::start(&homes[role], &ids[role], folder, kind, port, peers)
        };
        let nodes = [
            node(0, &a, "sendreceive", free_port()?, &[server(0)])?,
            node(1, &c, "receiveencrypted", listen, &[client(0), client(2)])?,
            node(2, &b, "sendreceive", free_port()?, &[server(1)])?,
        ];
        let started = Self {
            folders: [a, b],
            nodes,
            relays,
        };
        for role in [0, 2] {
            until("connecting Syncthing", PATIENCE, || {
                started.nodes[role].is_connected_to(&ids[1])
            })?;
        }
        until_quiet(&started.pids());
        Ok(started)
    }

    fn pids(&self) -> [u32; 3] {
        self.nodes.each_ref().map(Node::pid)
    }

    fn used(&self) -> f64 {
        self.pids().into_iter().map(cpu).sum()
    }

    /// A's scan, and until B has all that A has.
    fn bring(&self) -> Result<()> {
        self.nodes[0].scan()?;
        let start = Instant::now();
        let [a, b] = &self.folders;
        // What is known to differ is looked at until it does not: looking at everything takes a while.
        while let Some(path) = trees::difference(a, b)? {
            while trees::differs(&a.join(&path), &b.join(&path)) {
                if start.elapsed() > TRANSFER {
                    bail!(
                        "Syncthing has not brought {} in {} s",
                        path.display(),
                        TRANSFER.as_secs()
                    );
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Edits that A's watcher finds by itself.
    fn watched(&self, delay_s: u32, edits: usize) -> Result<Live> {
        self.nodes[0].watch(true, delay_s)?;
        let live = awaited_edits(&self.folders, self.pids(), &self.relays, edits);
        self.nodes[0].watch(false, DELAY)?;
        live
    }
}

impl Side for Syncthing {
    fn name(&self) -> &'static str {
        SYNCTHING
    }

    fn folder(&self) -> &Path {
        &self.folders[0]
    }

    fn copy(&self) -> &Path {
        &self.folders[1]
    }

    fn transfer(&mut self) -> Result<Cost> {
        let (before, used, start) = (bytes(&self.relays), self.used(), Instant::now());
        self.bring()?;
        let wall = start.elapsed().as_secs_f64();
        // They go on telling each other that it is done.
        until_quiet(&self.pids());
        Ok(Cost {
            wall,
            cpu: self.used() - used,
            links: since(bytes(&self.relays), before),
            peaks: self.pids().map(peak),
        })
    }

    fn live(&mut self, edits: usize) -> Result<Live> {
        self.watched(LEAST_DELAY, edits)
    }

    fn live_as_shipped(&mut self, edits: usize) -> Result<Option<Live>> {
        self.watched(DELAY, edits).map(Some)
    }
}

/// Makes keys. Gives the id that follows from them.
fn identity(home: &Path) -> Result<String> {
    fs::create_dir_all(home)?;
    quietly(
        Command::new("syncthing")
            .args(["generate", "--no-default-folder", "--skip-port-probing"])
            .arg(format!("--home={}", home.display())),
    )?;
    let config = fs::read_to_string(home.join("config.xml"))?;
    let id = config
        .split_once("<device id=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let (id, _) = id.context("Syncthing's new config.xml names no device")?;
    Ok(id.to_owned())
}

/// Somebody to share with.
struct Peer<'a> {
    id: &'a str,
    /// The port to call; who has none calls by himself.
    address: Option<u16>,
    /// Whether he gets everything encrypted.
    password: bool,
}

/// One process.
struct Node {
    interface: Interface,
    process: Running,
}

impl Node {
    fn start(
        home: &Path,
        id: &str,
        folder: &Path,
        kind: &str,
        listen: u16,
        peers: &[Peer<'_>],
    ) -> Result<Self> {
        // The mark by which it knows that the folder is there.
        fs::create_dir_all(folder.join(trees::MARK))?;
        let port = free_port()?;
        let config = config(id, folder, kind, port, listen, peers);
        fs::write(home.join("config.xml"), config)?;
        let mut command = Command::new("syncthing");
        command
            .args(["serve", "--no-browser", "--no-restart", "--no-upgrade"])
            .arg(format!("--home={}", home.display()))
            .stdin(Stdio::null())
            .stdout(fs::File::create(home.join("log"))?)
            .stderr(Stdio::null());
        let process = command.spawn().context("cannot start Syncthing")?;
        let node = Self {
            interface: Interface::new(port),
            process: Running(process),
        };
        until("Syncthing's start", PATIENCE, || {
            node.interface.get("system/ping").is_ok()
        })?;
        Ok(node)
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn is_connected_to(&self, id: &str) -> bool {
        let Ok(state) = self.interface.get("system/connections") else {
            return false;
        };
        state["connections"][id]["connected"] == true
    }

    /// Comes back when everything was looked at.
    fn scan(&self) -> Result<()> {
        self.interface.post(&format!("db/scan?folder={FOLDER}"))
    }

    fn watch(&self, on: bool, delay_s: u32) -> Result<()> {
        self.interface.patch(
            &format!("config/folders/{FOLDER}"),
            &format!(r#"{{"fsWatcherEnabled": {on}, "fsWatcherDelayS": {delay_s}}}"#),
        )
    }
}

impl Drop for Node {
    /// In order, as what was started may have a child that does the work.
    fn drop(&mut self) {
        let pid = self.pid();
        if self.interface.post("system/shutdown").is_ok() {
            let _ = until("Syncthing's end", Duration::from_secs(10), || {
                has_ended(pid)
            });
        }
    }
}

/// Loopback and nobody else: no discovery, no relays, no reports, no upgrades. All else is as shipped, but for the
/// watcher, for connecting again after a second instead of a minute, and for the priority, which is everybody's.
fn config(
    id: &str,
    folder: &Path,
    kind: &str,
    interface: u16,
    listen: u16,
    peers: &[Peer<'_>],
) -> String {
    let (mut members, mut devices) = (String::new(), String::new());
    for peer in peers {
        let password = if peer.password {
            "not a secret here"
        } else {
            ""
        };
        members += &format!(
            r#"<device id="{}"><encryptionPassword>{password}</encryptionPassword></device>"#,
            peer.id
        );
        let address = peer
            .address
            .map(|port| format!("<address>tcp://127.0.0.1:{port}</address>"))
            .unwrap_or_default();
        devices += &format!(
            r#"<device id="{}" compression="metadata">{address}</device>"#,
            peer.id
        );
    }
    format!(
        r#"<configuration version="36">
<folder id="{FOLDER}" path="{path}" type="{kind}" fsWatcherEnabled="false" fsWatcherDelayS="{DELAY}">
<device id="{id}"></device>{members}
</folder>
<device id="{id}"></device>{devices}
<gui enabled="true" tls="false"><address>127.0.0.1:{interface}</address><apikey>{FOLDER}</apikey></gui>
<options>
<listenAddress>tcp://127.0.0.1:{listen}</listenAddress>
<globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled>
<announceLANAddresses>false</announceLANAddresses>
<relaysEnabled>false</relaysEnabled>
<natEnabled>false</natEnabled>
<stunKeepaliveStartS>0</stunKeepaliveStartS>
<urAccepted>-1</urAccepted>
<autoUpgradeIntervalH>0</autoUpgradeIntervalH>
<crashReportingEnabled>false</crashReportingEnabled>
<startBrowser>false</startBrowser>
<reconnectionIntervalS>1</reconnectionIntervalS>
<setLowPriority>false</setLowPriority>
</options>
</configuration>
"#,
        path = folder.display(),
    )
}

/// What each process is asked and told through.
struct Interface {
    agent: ureq::Agent,
    url: String,
}

impl Interface {
    fn new(port: u16) -> Self {
        let config = ureq::Agent::config_builder()
            // Whatever the environment names is for other hosts.
            .proxy(None)
            .timeout_global(Some(TRANSFER))
            .build();
        Self {
            agent: config.into(),
            url: format!("http://127.0.0.1:{port}/rest"),
        }
    }

    fn get(&self, what: &str) -> Result<Value> {
        let request = self.agent.get(format!("{}/{what}", self.url));
        let mut answer = request.header("X-API-Key", FOLDER).call()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }

    fn post(&self, what: &str) -> Result<()> {
        let request = self.agent.post(format!("{}/{what}", self.url));
        let answer = request.header("X-API-Key", FOLDER).send_empty();
        answer
            .map(drop)
            .with_context(|| format!("Syncthing, {what}"))
    }

    fn patch(&self, what: &str, json: &str) -> Result<()> {
        let request = self.agent.patch(format!("{}/{what}", self.url));
        let answer = request.header("X-API-Key", FOLDER).send(json);
        answer
            .map(drop)
            .with_context(|| format!("Syncthing, {what}"))
    }
}
