//! The two that are compared, each with a folder A, a server, and a folder B.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::measure::{Cost, Running, cpu, peak, run};
use super::relay::Relay;
use crate::needs::{capture, quietly};

pub(super) const OURS: &str = "syncagent";
pub(super) const RSYNC: &str = "rsync";

/// How long anything may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(120);

/// A way from A to B.
pub(super) trait Side {
    fn name(&self) -> &'static str;
    /// A's folder.
    fn folder(&self) -> &Path;
    /// B's.
    fn copy(&self) -> &Path;
    /// Brings what A has to B.
    fn transfer(&mut self) -> Result<Cost>;
    /// Writes to A again and again and waits until B has it: what all cost, and how long each took.
    fn live(&mut self, edits: usize) -> Result<(Cost, Vec<f64>)>;
}

/// Two commands one after the other, and what they cost with the daemon between them.
fn both(commands: [Command; 2], daemon: u32, relay: &Relay) -> Result<Cost> {
    let (bytes, before) = (relay.bytes(), cpu(daemon));
    let [mut first, mut second] = commands;
    let (wall_a, cpu_a, peak_a, peak_s) = run(&mut first, daemon)?;
    let (wall_b, cpu_b, peak_b, peak_t) = run(&mut second, daemon)?;
    // A daemon's child counts once its parent has seen its end.
    thread::sleep(Duration::from_millis(100));
    Ok(Cost {
        wall: wall_a + wall_b,
        cpu: cpu_a + cpu_b + cpu(daemon) - before,
        bytes: relay.bytes() - bytes,
        peaks: [peak_a, peak_s.max(peak_t), peak_b],
    })
}

fn edit(folder: &Path, i: usize) -> Result<(PathBuf, Vec<u8>)> {
    let content = format!(
        "edit {i}: {}\n",
        "a line of text that somebody wrote. ".repeat(100)
    )
    .into_bytes();
    let name = PathBuf::from(format!("note-{}.txt", i % 10));
    fs::write(folder.join(&name), &content)?;
    Ok((name, content))
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            bail!("{what} takes more than {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The product: a server and two homes.
pub(super) struct Ours {
    binary: PathBuf,
    dir: PathBuf,
    folders: [PathBuf; 2],
    server: Running,
    relay: Relay,
}

impl Ours {
    pub(super) fn start(binary: &Path, dir: &Path) -> Result<Self> {
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
        let relay = Relay::start(port.with_context(|| format!("the server says {line:?}"))?)?;
        let folders = ["a", "b"].map(|name| dir.join(name));
        let ours = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            folders,
            server,
            relay,
        };
        ours.set_up(&data)?;
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

    fn set_up(&self, data: &Path) -> Result<()> {
        let password = self.dir.join("password");
        fs::write(&password, "correct horse battery staple, for a bench\n")?;
        let code = self.dir.join("recovery-code");
        capture(
            self.with_password(0, &["init", "--recovery-file"])
                .arg(&code),
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
            let url = format!("http://127.0.0.1:{}", self.relay.port);
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
        both([sync(0), sync(1)], self.server.0.id(), &self.relay)
    }

    fn daemon(&self, machine: usize) -> Result<Running> {
        let mut command = self.command(machine, &["--until-eof", "sync"]);
        let log = fs::File::create(self.dir.join(format!("daemon-{machine}.log")))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        command
            .spawn()
            .map(Running)
            .context("cannot start a daemon")
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

    fn live(&mut self, edits: usize) -> Result<(Cost, Vec<f64>)> {
        let daemons = [self.daemon(0)?, self.daemon(1)?];
        let pids = [daemons[0].0.id(), self.server.0.id(), daemons[1].0.id()];
        let arrived =
            |path: &Path, content: &[u8]| fs::read(path).is_ok_and(|there| there == content);
        // A first one, so that both are up and watch.
        let (name, content) = edit(&self.folders[0], edits + 7)?;
        until("the first edit", || {
            arrived(&self.folders[1].join(&name), &content)
        })?;
        thread::sleep(Duration::from_secs(1));
        let used = || pids.iter().map(|pid| cpu(*pid)).sum::<f64>();
        let (bytes, before) = (self.relay.bytes(), used());
        let mut waits = Vec::new();
        for i in 0..edits {
            let start = Instant::now();
            let (name, content) = edit(&self.folders[0], i)?;
            until("an edit", || {
                arrived(&self.folders[1].join(&name), &content)
            })?;
            waits.push(start.elapsed().as_secs_f64());
        }
        let cost = Cost {
            wall: 0.0,
            cpu: used() - before,
            bytes: self.relay.bytes() - bytes,
            peaks: pids.map(peak),
        };
        Ok((cost, waits))
    }
}

/// rsync's daemon, a client that pushes and one that pulls.
pub(super) struct Rsync {
    folders: [PathBuf; 2],
    daemon: Running,
    relay: Relay,
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
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
        command
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", config.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = Running(command.spawn().context("cannot start rsync")?);
        until("rsync's start", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        })?;
        Ok(Self {
            folders,
            daemon,
            relay: Relay::start(port)?,
        })
    }

    fn transfer_once(&self) -> Result<Cost> {
        let remote = format!("rsync://127.0.0.1:{}/folder/", self.relay.port);
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
            [command(&a, &remote), command(&remote, &b)],
            self.daemon.0.id(),
            &self.relay,
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
    fn live(&mut self, edits: usize) -> Result<(Cost, Vec<f64>)> {
        let mut all = Cost::default();
        let mut waits = Vec::new();
        for i in 0..edits {
            edit(&self.folders[0], i)?;
            let cost = self.transfer_once()?;
            waits.push(cost.wall);
            all.cpu += cost.cpu;
            all.bytes += cost.bytes;
            all.peaks = [0, 1, 2].map(|role| all.peaks[role].max(cost.peaks[role]));
        }
        Ok((all, waits))
    }
}
