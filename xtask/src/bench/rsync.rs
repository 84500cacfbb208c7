//! rsync: a daemon, and a client that pushes and one that pulls.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::measure::{Cost, Running};
use super::relay::Relay;
use super::sides::{Live, PATIENCE, RSYNC, Side, both, edit, free_port, until};
use crate::needs::capture;

/// rsync's daemon, a client that pushes and one that pulls.
pub(super) struct Rsync {
    folders: [PathBuf; 2],
    daemon: Running,
    relays: [Relay; 2],
}

impl Rsync {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let store = dir.join("server");
        let folders = ["a", "b"].map(|name| dir.join(name));
        for path in [&store, &folders[0], &folders[1]] {
            fs::create_dir_all(path)?;
        }
        let config = dir.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\nreverse lookup = no\npid file = {0}/pid\nlog file = {0}/log\n[folder]\npath = {1}\nread only = no\n",
            dir.display(),
            store.display()
        );
        fs::write(&config, text + &owner())?;
        let port = free_port()?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
        command
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", config.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = Running(command.spawn().context("cannot start rsync")?);
        until("rsync's start", PATIENCE, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        })?;
        Ok(Self {
            folders,
            daemon,
            relays: [Relay::start(port)?, Relay::start(port)?],
        })
    }

    fn transfer_once(&self) -> Result<Cost> {
        let [up, down] = self
            .relays
            .each_ref()
            .map(|relay| format!("rsync://127.0.0.1:{}/folder/", relay.port));
        let [a, b] = self
            .folders
            .each_ref()
            .map(|folder| format!("{}/", folder.display()));
        let command = |from: &str, to: &str| {
            let mut command = Command::new("rsync");
            command.args(["-a", "--delete", from, to]);
            command
        };
        both(
            [command(&a, &up), command(&down, &b)],
            self.daemon.0.id(),
            &self.relays,
        )
    }
}

/// A daemon of root's serves as nobody if it is not told otherwise.
fn owner() -> String {
    let is_root = capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if is_root {
        "uid = 0\ngid = 0\n".to_owned()
    } else {
        String::new()
    }
}

impl Side for Rsync {
    fn name(&self) -> &'static str {
        RSYNC
    }

    fn folder(&self) -> &Path {
        &self.folders[0]
    }

    fn copy(&self) -> &Path {
        &self.folders[1]
    }

    fn transfer(&mut self) -> Result<Cost> {
        self.transfer_once()
    }

    /// rsync watches nothing: a push and a pull start right after each edit.
    fn live(&mut self, edits: usize) -> Result<Live> {
        let mut cost = Cost::default();
        let mut waits = Vec::new();
        for i in 0..edits {
            edit(&self.folders[0], i)?;
            let one = self.transfer_once()?;
            waits.push(one.wall);
            cost.cpu += one.cpu;
            cost.links = [0, 1].map(|link| cost.links[link] + one.links[link]);
            cost.peaks = [0, 1, 2].map(|role| cost.peaks[role].max(one.peaks[role]));
        }
        Ok(Live { cost, waits })
    }
}
