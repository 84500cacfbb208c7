//! The processes of a demonstration: the same binary, each with a home of its own and its own log.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use syncagent_client::home::Home;
use syncagent_protocol::Code;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::context::{Context, VARIABLES};
use crate::failure::{Failure, Result};

/// How long a child may take to end in order.
const GRACE: Duration = Duration::from_secs(20);

/// Starts children.
pub(super) struct Children<'a> {
    context: &'a Context,
    logs: PathBuf,
}

impl<'a> Children<'a> {
    pub(super) fn new(context: &'a Context, logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).map_err(Failure::file(Code::Write, "create", &logs))?;
        Ok(Self { context, logs })
    }

    fn command(&self, home: Option<&Home>, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.context.binary);
        command.args(arguments).kill_on_drop(true);
        for name in VARIABLES
            .iter()
            .filter(|name| name.starts_with("SYNCAGENT_"))
        {
            command.env_remove(name);
        }
        if let Some(dir) =
            home.and_then(|home| home.config_path().parent().map(std::path::Path::to_owned))
        {
            command.env("SYNCAGENT_HOME", dir);
        }
        command
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.logs.join(format!("{name}.log"));
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(Failure::file(Code::Write, "open", &path))
    }

    /// Starts a child that runs until this process ends.
    pub(super) fn start(
        &self,
        name: &str,
        home: Option<&Home>,
        arguments: &[&OsStr],
    ) -> Result<Child> {
        let arguments = [&["--until-eof".as_ref()], arguments].concat();
        let mut process = self
            .command(home, &arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(self.log(name)?)
            .spawn()
            .map_err(|error| Failure::new(Code::State, format!("cannot start {name}: {error}")))?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        Ok(Child {
            name: name.to_owned(),
            process,
            stdin,
            stdout,
            log: self.logs.join(format!("{name}.log")),
        })
    }

    /// Runs one command to its end; what it printed.
    pub(super) async fn run(
        &self,
        name: &str,
        home: Option<&Home>,
        arguments: &[&OsStr],
        input: Option<String>,
    ) -> Result<String> {
        let failed =
            |why: String| Failure::new(Code::State, format!("cannot set up {name}: {why}"));
        let mut process = self
            .command(home, arguments)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let (Some(mut stdin), Some(input)) = (process.stdin.take(), input) {
            stdin
                .write_all(input.as_bytes())
                .await
                .map_err(|error| failed(error.to_string()))?;
        }
        let output = process
            .wait_with_output()
            .await
            .map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failed(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            )),
        }
    }
}

/// A child that runs.
pub(super) struct Child {
    name: String,
    process: tokio::process::Child,
    /// Held open: its end is what tells the child to end.
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    log: PathBuf,
}

impl Child {
    /// The first line it prints; none if it ends before.
    pub(super) async fn first_line(&mut self) -> Option<String> {
        let mut line = String::new();
        BufReader::new(self.stdout.as_mut()?)
            .read_line(&mut line)
            .await
            .ok()?;
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        let status = self.process.try_wait();
        status
            .map(|status| status.is_some())
            .map_err(|error| Failure::new(Code::State, error.to_string()))
    }

    /// Waits until another try makes sense, if the child ended because somebody else was still there.
    pub(super) async fn ended_busy(mut self, deadline: Instant) -> Result {
        let status = self
            .process
            .wait()
            .await
            .map_err(|error| Failure::new(Code::State, error.to_string()))?;
        if status.code() != Some(i32::from(Code::Busy.exit())) || Instant::now() > deadline {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default();
            return Err(Failure::new(
                Code::State,
                format!("{} does not start: {last}", self.name),
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    pub(super) fn too_slow(&self) -> Failure {
        Failure::new(
            Code::State,
            format!(
                "{} does not come up: {} says why",
                self.name,
                self.log.display()
            ),
        )
    }

    /// Returns its name when it ends.
    pub(super) async fn ends(&mut self) -> String {
        let _ = self.process.wait().await;
        self.name.clone()
    }

    /// Tells it to end, and waits until it did.
    pub(super) async fn stop(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(GRACE, self.process.wait())
            .await
            .is_err()
        {
            let _ = self.process.kill().await;
        }
    }
}
