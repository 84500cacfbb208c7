//! The real binary on real folders: a server, two machines, trees that are compared, and a way to wait.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and fails loudly"
)]

pub(crate) mod liar;
pub(crate) mod proxy;
pub(crate) mod tree;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use syncagent_client::agent::Keepsake;
use syncagent_client::home::Home;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::{OsRandom, Random as _};
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::slot::{KdfParams, Opener, Slot, SlotRandom};
use tempfile::TempDir;

/// The one wait of these tests: looks every few milliseconds and gives up loudly.
pub(crate) fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {patience:?} for nothing: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Looks again and again until told to end, and once more after that: for a watching thread.
pub(crate) fn watch(end: &AtomicBool, mut look: impl FnMut()) {
    loop {
        let last = end.load(Ordering::SeqCst);
        look();
        if last {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A test's own random numbers (splitmix64): the same for the same seed on every machine.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }

    /// Content that says itself whether it is whole: see [`is_whole`].
    pub(crate) fn sealed(&mut self, len: usize) -> Vec<u8> {
        let mut out = (len as u64 + 16).to_le_bytes().to_vec();
        out.extend(self.bytes(len));
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        out
    }
}

/// Whether `content` is exactly what [`Rng::sealed`] once returned: nothing missing, nothing mixed.
pub(crate) fn is_whole(content: &[u8]) -> bool {
    let Some((body, sum)) = content.split_last_chunk::<8>() else {
        return false;
    };
    let len = body.first_chunk::<8>().map(|len| u64::from_le_bytes(*len));
    len == Some(content.len() as u64) && checksum(body) == u64::from_le_bytes(*sum)
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = bytes.len() as u64;
    for word in words {
        sum = (sum ^ u64::from_le_bytes(*word))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    }
    for byte in rest {
        sum = (sum ^ u64::from(*byte))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    }
    sum
}

/// The most memory that a process of this number has had so far; 0 once it has ended.
#[cfg(target_os = "linux")]
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    mark.map_or(0, |mark| {
        mark.trim().trim_end_matches(" kB").parse().unwrap()
    })
}

fn binary() -> PathBuf {
    std::env::var_os("SYNCAGENT_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_syncagent").into(), PathBuf::from)
}

/// A process that never outlives its handle.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Waits until it ends by itself; the signal that ended it.
    pub(crate) fn dies(&mut self, patience: Duration) -> Option<i32> {
        until("a process dies", patience, || {
            self.child.try_wait().unwrap()
        })
        .signal()
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap()?;
        Some(status.code().unwrap_or(-1))
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where everything of one test lives.
pub(crate) struct Field {
    dir: TempDir,
    binary: PathBuf,
    /// Where the next process dies.
    crash: Mutex<Option<String>>,
}

impl Field {
    pub(crate) fn new() -> Self {
        Self::of(binary())
    }

    /// A field of the binary that was built with the tests: it can be told where to die.
    pub(crate) fn of_debug_build() -> Self {
        Self::of(env!("CARGO_BIN_EXE_syncagent").into())
    }

    fn of(binary: PathBuf) -> Self {
        let field = Self {
            dir: tempfile::tempdir().unwrap(),
            binary,
            crash: Mutex::default(),
        };
        fs::write(
            field.password(),
            "correct horse battery staple of the field tests\n",
        )
        .unwrap();
        field
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn password(&self) -> PathBuf {
        self.path("password")
    }

    /// The next process that is started ends itself at this point (`docs/decisions/0011-where-tests-kill.md`).
    pub(crate) fn next_dies_at(&self, point: &str) {
        *self.crash.lock().unwrap() = Some(point.to_owned());
    }

    pub(crate) fn server_data(&self) -> PathBuf {
        self.path("server")
    }

    /// The binary with nothing of this computer's environment. It ends when this process does.
    fn command(&self, home: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear();
        // Where `cargo xtask coverage` has its counters written; a file beside the user's own, if nobody said.
        if let Some(counters) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", counters);
        }
        if let Some(at) = self.crash.lock().unwrap().take() {
            command.env("SYNCAGENT_CRASH_AT", at);
        }
        command
            .args(args)
            .arg("--until-eof")
            .env("HOME", self.dir.path())
            .env("SYNCAGENT_HOME", home);
        command
    }

    fn spawn(&self, name: &str, mut command: Command, stdout: Stdio) -> Running {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child }
    }

    /// Runs a command to its end, which must be a good one; its stdout.
    fn run(&self, home: &Path, args: &[&str], stdin: &str) -> String {
        let done = self.try_run(home, args, stdin);
        assert!(done.exit == 0, "`syncagent {}` {done}", args.join(" "));
        done.stdout
    }

    /// Runs a command to its end, whatever that is.
    pub(crate) fn try_run(&self, home: &Path, args: &[&str], stdin: &str) -> Done {
        self.try_run_watched(home, args, stdin, |_| ())
    }

    /// The same; and the most memory that it had at once, in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn try_run_measured(&self, home: &Path, args: &[&str]) -> (Done, u64) {
        let (ended, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let done = std::thread::scope(|scope| {
            let done = self.try_run_watched(home, args, "", |pid| {
                let (ended, peak) = (&ended, &peak);
                // It is a mark that only rises: who looks late sees the same.
                let look = move || {
                    peak.fetch_max(peak_kib(pid), Ordering::SeqCst);
                };
                scope.spawn(move || watch(ended, look));
            });
            ended.store(true, Ordering::SeqCst);
            done
        });
        let peak = peak.into_inner();
        assert_ne!(peak, 0, "nobody looked: {done}");
        (done, peak)
    }

    /// The same; `watching` gets to know the number of the process while it runs.
    fn try_run_watched(
        &self,
        home: &Path,
        args: &[&str],
        stdin: &str,
        watching: impl FnOnce(u32),
    ) -> Done {
        let mut command = self.command(home, args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        watching(child.id());
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(stdin.as_bytes()).unwrap();
        if args[0] == "import-key" {
            drop(pipe);
        } else {
            child.stdin = Some(pipe);
        }
        // `wait_with_output` would close stdin, which ends a command that runs until then.
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        Done {
            exit: output.status.code().unwrap_or(-1),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts the server at a free port; its handle and address.
    pub(crate) fn start_server(&self) -> (Running, String) {
        self.start_server_on(&self.server_data())
    }

    /// The same, on another server's directory.
    pub(crate) fn start_server_on(&self, data: &Path) -> (Running, String) {
        let args = [
            "server",
            "--data",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
        ];
        let mut running = self.spawn(
            "server",
            self.command(&self.path("none"), &args),
            Stdio::piped(),
        );
        let mut line = String::new();
        BufReader::new(running.child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(", data in ").next());
        let url = url.unwrap_or_else(|| panic!("the server did not start: {}", self.log("server")));
        (running, url.to_owned())
    }

    /// Two machines of one vault, registered at `url`.
    pub(crate) fn machines(&self, url: &str) -> [Machine<'_>; 2] {
        let machines = ["machine-a", "machine-b"].map(|name| self.machine(name));
        let password = self.password();
        let password = ["--password-file", password.to_str().unwrap()];
        let export_password = ["--export-password-file", password[1]];
        let recovery = self.path("recovery");
        let init = [
            "init",
            password[0],
            password[1],
            "--recovery-file",
            recovery.to_str().unwrap(),
        ];
        self.run(&machines[0].home, &init, "");
        let export = [
            "export-key",
            password[0],
            password[1],
            export_password[0],
            export_password[1],
        ];
        let export = self.run(&machines[0].home, &export, "");
        let import = [
            "import-key",
            password[0],
            password[1],
            export_password[0],
            export_password[1],
        ];
        self.run(&machines[1].home, &import, &export);
        for machine in &machines {
            machine.register(url);
        }
        machines
    }

    /// A machine with nothing done yet.
    fn machine(&self, name: &'static str) -> Machine<'_> {
        Machine {
            field: self,
            name,
            home: self.path(&format!("home-{name}")),
            folder: self.path(name),
            agent: None,
        }
    }

    /// A machine registered at `url` that has this vault's key, unlocked by an agent: no password is derived from.
    pub(crate) fn unlocked(
        &self,
        name: &'static str,
        key: &VaultKey,
        genesis: Genesis,
        url: &str,
    ) -> Machine<'_> {
        let mut machine = self.machine(name);
        let random = OsRandom::default();
        let home = Home::at(&machine.home);
        let mut credentials = home.credentials_or_new(&random).unwrap();
        credentials.vault = Some(key.vault());
        credentials.check_value = Some(key.check_value().unwrap());
        credentials.genesis = Some(genesis);
        home.save_credentials(&credentials).unwrap();
        let mut code = [0; 20];
        random.fill(&mut code);
        let slot = Slot::seal(
            key,
            &Opener::Recovery(&RecoveryCode::from_bytes(&code)),
            KdfParams::FLOOR,
            0,
            &SlotRandom::new(&random),
        );
        home.save_slot(&slot.unwrap()).unwrap();
        machine.register(url);
        let mut agent = self.spawn(
            "agent",
            self.command(&machine.home, &["agent"]),
            Stdio::piped(),
        );
        let keepsake = Keepsake::new(key, &random, 0).unwrap();
        keepsake.write(agent.child.stdin.as_mut().unwrap()).unwrap();
        let mut line = String::new();
        let stdout = agent.child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{}", self.log("agent"));
        machine.agent = Some(agent);
        machine
    }

    /// What a process said on stderr.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }
}

/// How a command ended.
pub(crate) struct Done {
    pub(crate) exit: i32,
    /// What ended it, if it did not end itself.
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ended with {}:\n{}{}",
            self.exit, self.stderr, self.stdout
        )
    }
}

/// One machine of a [`Field`].
pub(crate) struct Machine<'a> {
    field: &'a Field,
    pub(crate) name: &'static str,
    pub(crate) home: PathBuf,
    pub(crate) folder: PathBuf,
    /// Holds the key; without it the password does.
    agent: Option<Running>,
}

impl Machine<'_> {
    /// Registers with the server that [`Field::start_server`] started, by way of `url`.
    fn register(&self, url: &str) {
        let invitation = self.invitation();
        let folder = self.folder.to_str().unwrap();
        let register = [
            "register",
            "--server",
            url,
            "--token",
            &invitation,
            "--name",
            self.name,
            "--folder",
            folder,
        ];
        self.field.run(&self.home, &register, "");
    }

    /// A new invitation to the server's vault.
    pub(crate) fn invitation(&self) -> String {
        let data = self.field.server_data();
        let invite = ["server", "invite", "--data", data.to_str().unwrap()];
        self.field.run(&self.home, &invite, "").trim().to_owned()
    }

    /// `verb` and what opens the key.
    fn with_key<T>(&self, verb: &[&str], run: impl FnOnce(&[&str]) -> T) -> T {
        let password = self.field.password();
        let mut args = verb.to_vec();
        if self.agent.is_none() {
            args.extend(["--password-file", password.to_str().unwrap()]);
        }
        run(&args)
    }

    /// `sync --once`, which must go well: what it answered.
    pub(crate) fn sync_once(&self) -> serde_json::Value {
        let stdout = self.with_key(&["sync", "--once", "--json"], |args| {
            self.field.run(&self.home, args, "")
        });
        serde_json::from_str(&stdout).unwrap()
    }

    /// `sync --once`, however it ends.
    pub(crate) fn try_sync(&self) -> Done {
        self.try_with_key(&["sync", "--once", "--json"])
    }

    /// The same, and the most memory that it had at once, in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn try_sync_measured(&self) -> (Done, u64) {
        self.with_key(&["sync", "--once", "--json"], |args| {
            self.field.try_run_measured(&self.home, args)
        })
    }

    /// A command that needs the key, however it ends.
    pub(crate) fn try_with_key(&self, verb: &[&str]) -> Done {
        self.with_key(verb, |args| self.field.try_run(&self.home, args, ""))
    }

    /// Any command, however it ends.
    pub(crate) fn try_run(&self, args: &[&str]) -> Done {
        self.field.try_run(&self.home, args, "")
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.field.run(&self.home, &["status", "--json"], "")).unwrap()
    }

    /// The daemon. It may take a moment until it is up: [`Machine::is_idle`].
    pub(crate) fn start(&self) -> Running {
        self.with_key(&["sync"], |args| {
            let command = self.field.command(&self.home, args);
            self.field.spawn(self.name, command, Stdio::null())
        })
    }

    /// Whether the daemon runs, has made a pass and has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        let status = self.status();
        status["running"] == true && status["state"] == "idle" && !status["last_sync"].is_null()
    }

    /// What lies in `.syncagent/tmp`.
    pub(crate) fn temps(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.join(".syncagent/tmp")) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }

    pub(crate) fn log(&self) -> String {
        let log = self.field.log(self.name);
        let from = log.len().saturating_sub(4000);
        let from = (from..=log.len())
            .find(|&at| log.is_char_boundary(at))
            .unwrap_or(0);
        log[from..].to_owned()
    }
}
