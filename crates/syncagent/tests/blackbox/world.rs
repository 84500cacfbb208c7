//! Servers and machines made of the real binary, each in a directory of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::mounts::Mounts;
pub(crate) use crate::patience::until;

/// What a command did.
pub(crate) struct Run {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    fn new(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("stdout is text"),
            stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }

    /// Fails unless the command ended with this status.
    #[track_caller]
    pub(crate) fn exits(self, wanted: i32) -> Self {
        assert_eq!(
            self.exit, wanted,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails unless stderr names this code.
    #[track_caller]
    pub(crate) fn says(self, code: &str) -> Self {
        assert!(
            self.stderr.contains(&format!("error[{code}]: ")),
            "no {code} in: {}",
            self.stderr
        );
        self
    }

    /// Fails unless stderr names this.
    #[track_caller]
    pub(crate) fn names(&self, what: &str) {
        assert!(self.stderr.contains(what), "no {what} in: {}", self.stderr);
    }

    /// The JSON on stdout, which holds nothing else.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in stdout: {}", self.stdout))
    }
}

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("SYNCAGENT_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_syncagent").into(), PathBuf::from)
}

/// A command in an environment without a home and without a terminal.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SYNCAGENT_"))
    {
        command.env_remove(name);
    }
    command
        .env("HOME", dir.join("nobody"))
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}

/// A child that does not outlive its test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::piped())
                .spawn()
                .expect("the binary starts"),
        )
    }

    pub(crate) fn take_stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("stdout is a pipe"))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> Option<i32> {
        self.0
            .try_wait()
            .expect("a child can be asked")
            .map(|status| status.code().unwrap_or(-1))
    }

    /// Asks it to end, as `kill` and service managers do, and waits for its status.
    pub(crate) fn terminate(mut self) -> i32 {
        let asked = Command::new("kill")
            .arg(self.0.id().to_string())
            .status()
            .expect("kill runs");
        assert!(asked.success());
        until("a child to end", || self.has_ended())
    }

    /// Ends it without asking.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and the machines round it.
pub(crate) struct World {
    server: Option<Running>,
    /// Where all of them run, if they have disks of their own.
    mounts: Option<Arc<Mounts>>,
    dir: tempfile::TempDir,
    /// The lines the server printed.
    pub(crate) announced: String,
    pub(crate) url: String,
}

#[cfg(unix)]
impl Drop for World {
    /// Ends the agents that were started here, before their homes go.
    fn drop(&mut self) {
        use std::io::Write as _;
        let homes = fs::read_dir(self.dir.path())
            .into_iter()
            .flatten()
            .flatten();
        for home in homes {
            let socket = home.path().join("agent/agent.sock");
            if let Ok(mut agent) = std::os::unix::net::UnixStream::connect(socket) {
                let _ = agent.write_all(b"l");
            }
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self::without_server();
        world.start_server("127.0.0.1:0");
        world
    }

    pub(crate) fn without_server() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(
            dir.path().join("password"),
            "correct horse battery staple\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("export-password"),
            "another password for the way\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("wrong-password"),
            "not the password at all\n",
        )
        .unwrap();
        Self {
            server: None,
            mounts: None,
            dir,
            announced: String::new(),
            url: String::new(),
        }
    }

    /// A world whose processes see what is mounted for them, and have no rights beyond those of a plain user. No
    /// server runs yet.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_mounts() -> Self {
        let mut world = Self::without_server();
        world.mounts = Some(Arc::new(Mounts::new()));
        world
    }

    /// What is mounted for the processes of a world [`World::with_mounts`].
    #[cfg(target_os = "linux")]
    pub(crate) fn mounts(&self) -> &Mounts {
        self.mounts.as_deref().expect("a world with mounts")
    }

    /// Where the test finds what the world's processes have at `path`.
    fn seen(&self, path: &Path) -> PathBuf {
        match &self.mounts {
            Some(mounts) => mounts.seen(path),
            None => path.to_owned(),
        }
    }

    fn command(&self) -> Command {
        within(self.mounts.as_deref(), command(self.dir()))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start_server(&mut self, listen: &str) {
        self.start(&["--data", "server", "--listen", listen], &[]);
    }

    /// A server with flags and variables of its own, on any port.
    pub(crate) fn start_server_with(&mut self, flags: &[&str], variables: &[(&str, &str)]) {
        self.start(&[flags, &["--listen", "127.0.0.1:0"]].concat(), variables);
    }

    pub(crate) fn start(&mut self, flags: &[&str], variables: &[(&str, &str)]) {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.path("server.log"))
            .unwrap();
        let mut server = Running::start(
            self.command()
                .arg("server")
                .args(flags)
                .envs(variables.iter().copied())
                .stdout(Stdio::piped())
                .stderr(log),
        );
        let mut line = String::new();
        server.take_stdout().read_line(&mut line).unwrap();
        let rest = line
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("the server said {line:?}"));
        self.url = rest.split(", data in ").next().unwrap().to_owned();
        self.announced = line;
        self.server = Some(server);
        until("the server's health", || healthy(&self.url).then_some(()));
    }

    /// A server that may not come up. One that does is ended.
    #[cfg(target_os = "linux")]
    pub(crate) fn try_server(&self) -> Run {
        let log = self.path("try.log");
        let mut server = Running::start(
            self.command()
                .args(["server", "--data", "server", "--listen", "127.0.0.1:0"])
                .stdout(Stdio::piped())
                .stderr(fs::File::create(&log).unwrap()),
        );
        let mut line = String::new();
        server.take_stdout().read_line(&mut line).unwrap();
        let exit = match line.is_empty() {
            true => until("the server to end", || server.has_ended()),
            false => -1,
        };
        Run {
            exit,
            stdout: line,
            stderr: fs::read_to_string(log).unwrap(),
        }
    }

    pub(crate) fn stop_server(&mut self) -> i32 {
        self.server.take().expect("a server runs").terminate()
    }

    /// Stops the server's process where it is: connections stay open and nothing is answered.
    #[cfg(target_os = "linux")]
    pub(crate) fn hold_server(&self) {
        self.signal_server("-STOP");
    }

    /// Lets it go on.
    #[cfg(target_os = "linux")]
    pub(crate) fn release_server(&self) {
        self.signal_server("-CONT");
    }

    #[cfg(target_os = "linux")]
    fn signal_server(&self, signal: &str) {
        let server = self.server.as_ref().expect("a server runs").id();
        let sent = Command::new("kill")
            .args([signal, &server.to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn address(&self) -> String {
        let (_, address) = self.url.split_once("://").expect("an address");
        address.to_owned()
    }

    pub(crate) fn invite(&self) -> String {
        let run = self.try_invite().exits(0);
        assert_eq!(run.stdout.lines().count(), 1);
        run.stdout.trim().to_owned()
    }

    pub(crate) fn try_invite(&self) -> Run {
        run(self
            .command()
            .args(["server", "invite", "--data", "server"]))
    }

    /// A machine with a home and a folder, and nothing done yet.
    pub(crate) fn machine(&self, name: &str) -> Machine {
        let home = self.path(&format!("{name}-home"));
        let own_folder = self.path(name);
        Machine {
            dir: self.dir().to_owned(),
            mounts: self.mounts.clone(),
            home: self.seen(&home),
            own_home: home,
            folder: self.seen(&own_folder),
            own_folder,
            name: format!("{name}-machine"),
            password: self.path("password"),
        }
    }

    /// A machine that made a vault and is registered.
    pub(crate) fn first(&self, name: &str) -> Machine {
        let machine = self.machine(name);
        machine
            .run(&[
                "init",
                "--password-file",
                "password",
                "--recovery-file",
                "recovery-code",
                "--cloud-slot",
            ])
            .exits(0);
        self.register(&machine);
        machine
    }

    /// A machine that got the key from another one and is registered.
    pub(crate) fn next(&self, name: &str, from: &Machine) -> Machine {
        self.joined(self.machine(name), from)
    }

    /// The same for a machine that has nothing yet.
    pub(crate) fn joined(&self, machine: Machine, from: &Machine) -> Machine {
        let export = from.with_passwords("export-key").exits(0).stdout;
        let import = [
            "import-key",
            "--password-file",
            "password",
            "--export-password-file",
            "export-password",
        ];
        machine.feed(&import, &export).exits(0);
        self.register(&machine);
        machine
    }

    pub(crate) fn register(&self, machine: &Machine) {
        let folder = machine.own_folder.to_string_lossy().into_owned();
        let token = self.invite();
        let name = machine.name.as_str();
        machine
            .run(&[
                "register", "--server", &self.url, "--token", &token, "--name", name, "--folder",
                &folder,
            ])
            .exits(0);
    }
}

/// Whether a server answers on `/healthz`.
pub(crate) fn healthy(url: &str) -> bool {
    if let Some(address) = url.strip_prefix("https://") {
        return crate::tls::shown(address).is_some_and(|(_, health)| health.contains(" 200 "));
    }
    let address = url.trim_start_matches("http://");
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut line = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && BufReader::new(stream).read_line(&mut line).is_ok()
        && line.starts_with("HTTP/1.1 200")
}

pub(crate) fn run(command: &mut Command) -> Run {
    Run::new(command.output().expect("the binary runs"))
}

/// The same command without the right to read and write everything that root has: permission bits count again.
#[cfg(unix)]
pub(crate) fn without_privileges(command: &Command) -> Command {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    let mut plain = match id.stdout.starts_with(b"0\n") {
        true => {
            let mut setpriv = Command::new("setpriv");
            let none = ["--bounding-set", "-all", "--inh-caps", "-all"];
            setpriv.args(none).arg(command.get_program());
            setpriv
        }
        false => Command::new(command.get_program()),
    };
    plain.args(command.get_args()).stdin(Stdio::null());
    like(command, &mut plain);
    plain
}

/// Gives `to` environment and directory of `from`.
#[cfg(unix)]
pub(crate) fn like(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(dir) = from.get_current_dir() {
        to.current_dir(dir);
    }
}

/// The same command where these mounts are seen.
fn within(mounts: Option<&Mounts>, command: Command) -> Command {
    match mounts {
        Some(mounts) => mounts.plain(&command),
        None => command,
    }
}

/// One machine.
pub(crate) struct Machine {
    dir: PathBuf,
    mounts: Option<Arc<Mounts>>,
    /// As the test finds it.
    home: PathBuf,
    /// As the machine itself calls it.
    own_home: PathBuf,
    /// As the test finds it.
    pub(crate) folder: PathBuf,
    /// As the machine itself calls it.
    pub(crate) own_folder: PathBuf,
    name: String,
    pub(crate) password: PathBuf,
}

impl Machine {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = within(self.mounts.as_deref(), command(&self.dir));
        command
            .env("SYNCAGENT_HOME", &self.own_home)
            .args(arguments);
        command
    }

    /// The same machine with its home elsewhere.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_home(mut self, home: PathBuf) -> Self {
        self.home = self
            .mounts
            .as_deref()
            .map_or_else(|| home.clone(), |mounts| mounts.seen(&home));
        self.own_home = home;
        self
    }

    /// The same machine with its folder elsewhere.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_folder(mut self, folder: PathBuf) -> Self {
        self.folder = self
            .mounts
            .as_deref()
            .map_or_else(|| folder.clone(), |mounts| mounts.seen(&folder));
        self.own_folder = folder;
        self
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Runs a command that nobody can be asked by.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// Runs a command that reads stdin.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> Run {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        child
            .stdin
            .take()
            .expect("stdin is a pipe")
            .write_all(input.as_bytes())
            .expect("stdin is read");
        Run::new(child.wait_with_output().expect("the binary ends"))
    }

    pub(crate) fn with_passwords(&self, verb: &str) -> Run {
        self.run(&[
            verb,
            "--password-file",
            "password",
            "--export-password-file",
            "export-password",
        ])
    }

    pub(crate) fn sync_once(&self) -> Run {
        self.run(&["sync", "--once", "--password-file", "password"])
    }

    /// What `sync_once` would do, as data.
    pub(crate) fn foresee(&self) -> Run {
        let password = ["--password-file", "password"];
        self.run(&[&["sync", "--once", "--dry-run", "--json"], &password[..]].concat())
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    pub(crate) fn start_daemon(&self) -> Running {
        self.start_daemon_that_rests("idle")
    }

    /// A daemon whose first pass ends in this state.
    pub(crate) fn start_daemon_that_rests(&self, state: &str) -> Running {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.join(format!("{}.log", self.name)))
            .unwrap();
        let daemon = Running::start(
            self.command(&["sync", "--password-file", "password"])
                .stdout(Stdio::null())
                .stderr(log),
        );
        until("the first pass", || {
            let status = self.status();
            (status["running"] == true
                && status["state"] == state
                && !status["last_sync"].is_null())
            .then_some(())
        });
        daemon
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(path)).ok()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".syncagent").collect();
        names.sort();
        names
    }
}

/// The keys of a JSON object, in order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}
