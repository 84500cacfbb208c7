//! The product: a server, and two machines.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::measure::{Cost, Idle, Running, idle, until_quiet};
use super::relay::Relay;
use super::sides::{Live, OURS, Side, awaited_edit, awaited_edits, both};
use crate::needs::{capture, quietly};

/// What `full_scan_s` is if nobody says otherwise.
const FULL_SCAN: Duration = Duration::from_secs(300);

/// The product: a server and two homes.
pub(super) struct Ours {
    binary: PathBuf,
    dir: PathBuf,
    folders: [PathBuf; 2],
    server: Running,
    relays: [Relay; 2],
}

impl Ours {
    /// `init` is what the vault is made with, besides what every vault is.
    pub(super) fn start(binary: &Path, dir: &Path, init: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let data = dir.join("server");
        let mut command = Command::new(binary);
        command
            .args(["--until-eof", "server", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data);
        let log = fs::File::create(dir.join("server.log"))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut server = Running(command.spawn().context("cannot start the server")?);
        let mut line = String::new();
        if let Some(stdout) = server.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(',').next());
        let port = address.and_then(|address| address.trim().rsplit(':').next()?.parse().ok());
        let port = port.with_context(|| format!("the server says {line:?}"))?;
        let relays = [Relay::start(port)?, Relay::start(port)?];
        let folders = ["a", "b"].map(|name| dir.join(name));
        let ours = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            folders,
            server,
            relays,
        };
        ours.set_up(&data, init)?;
        Ok(ours)
    }

    /// A command of a machine that was unlocked.
    fn command(&self, machine: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments);
        command.env("SYNCAGENT_HOME", self.dir.join(format!("home-{machine}")));
        // The key stays in an agent, which ends with this side.
        command.env("SYNCAGENT_KEYRING", "false");
        command
    }

    /// One that needs the password.
    fn with_password(&self, machine: usize, arguments: &[&str]) -> Command {
        let mut command = self.command(machine, arguments);
        command.env("SYNCAGENT_PASSWORD_FILE", self.dir.join("password"));
        command
    }

    fn set_up(&self, data: &Path, init: &[&str]) -> Result<()> {
        let password = self.dir.join("password");
        fs::write(&password, "correct horse battery staple, for a bench\n")?;
        let code = self.dir.join("recovery-code");
        capture(
            self.with_password(0, &["init", "--recovery-file"])
                .arg(&code)
                .args(init),
        )?;
        let export = capture(
            self.with_password(0, &["export-key", "--export-password-file"])
                .arg(&password),
        )?;
        let mut import = self.with_password(1, &["import-key", "--export-password-file"]);
        import
            .arg(&password)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut import = Running(import.spawn()?);
        if let Some(mut stdin) = import.0.stdin.take() {
            stdin.write_all(export.as_bytes())?;
        }
        if !import.0.wait()?.success() {
            bail!("import-key failed");
        }
        for (machine, folder) in self.folders.iter().enumerate() {
            let invitation = capture(
                Command::new(&self.binary)
                    .args(["server", "invite", "--data"])
                    .arg(data),
            )?;
            let url = format!("http://127.0.0.1:{}", self.relays[machine].port);
            let name = format!("machine-{machine}");
            let mut register =
                self.command(machine, &["register", "--server", &url, "--name", &name]);
            capture(
                register
                    .args(["--token", invitation.trim(), "--folder"])
                    .arg(folder),
            )?;
            fs::create_dir_all(folder)?;
            capture(&mut self.with_password(machine, &["unlock"]))?;
        }
        // The first pass of each machine marks its folder.
        self.transfer_once().map(drop)
    }

    fn transfer_once(&self) -> Result<Cost> {
        let sync = |machine| self.command(machine, &["sync", "--once"]);
        both([sync(0), sync(1)], self.server.0.id(), &self.relays)
    }

    fn daemon(&self, machine: usize, full_scan: Duration) -> Result<Running> {
        let mut command = self.command(machine, &["--until-eof", "sync"]);
        let log = fs::File::create(self.dir.join(format!("daemon-{machine}.log")))?;
        command
            .env("SYNCAGENT_FULL_SCAN_S", full_scan.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        command
            .spawn()
            .map(Running)
            .context("cannot start a daemon")
    }

    fn daemons(&self, full_scan: Duration) -> Result<[Running; 2]> {
        Ok([self.daemon(0, full_scan)?, self.daemon(1, full_scan)?])
    }

    /// A's process, the server's and B's.
    fn pids(&self, daemons: &[Running; 2]) -> [u32; 3] {
        [daemons[0].0.id(), self.server.0.id(), daemons[1].0.id()]
    }

    /// Both machines and the server with nothing to do, but for two looks at the whole folder at least.
    pub(super) fn idle(&self, window: Duration) -> Result<Idle> {
        let full_scan = FULL_SCAN.min(window / 2);
        let daemons = self.daemons(full_scan)?;
        awaited_edit(&self.folders, 0)?;
        let pids = self.pids(&daemons);
        until_quiet(&pids);
        idle(pids, window)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for machine in 0..self.folders.len() {
            let _ = quietly(&mut self.command(machine, &["lock"]));
        }
    }
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        OURS
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

    fn live(&mut self, edits: usize) -> Result<Live> {
        let daemons = self.daemons(FULL_SCAN)?;
        awaited_edits(&self.folders, self.pids(&daemons), &self.relays, edits)
    }
}
