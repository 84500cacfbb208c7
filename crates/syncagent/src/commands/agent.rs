//! `unlock` and `lock`, and the process between them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use serde::Serialize;
use syncagent_client::agent::{self, Keepsake};
use syncagent_protocol::Code;

use crate::cli::PasswordArgs;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::{password, shell};

const READY: &str = "ready";

#[derive(Serialize)]
struct Answer {
    unlocked: bool,
}

pub(super) fn unlock(context: &Context, args: &PasswordArgs) -> Result {
    let home = context.home()?;
    if agent::fetch(&home)?.is_none() {
        let key = password::open_key(context, &home, args)?;
        start(
            context,
            &Keepsake::new(&key, &*context.random, context.now_ms())?,
        )?;
    }
    context.output.result(&Answer { unlocked: true }, || {
        "unlocked until `syncagent lock` or log-out".to_owned()
    })
}

fn start(context: &Context, keepsake: &Keepsake) -> Result {
    let failed = |why: String| Failure::new(Code::State, format!("cannot keep the key: {why}"));
    let mut command = Command::new(&context.binary);
    // `/`: an agent must not keep a file system from being unmounted. The path of the home may be relative to here.
    command
        .arg("agent")
        .current_dir(std::path::absolute("/").unwrap_or_default());
    if let Some(dir) = context.variables.path("SYNCAGENT_HOME") {
        command.env("SYNCAGENT_HOME", context.absolute(&dir));
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell::background(&mut command);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        keepsake
            .write(&mut stdin)
            .map_err(|error| failed(error.to_string()))?;
    }
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| failed(error.to_string()))?;
    }
    if line.trim_end() == READY {
        return Ok(());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    Err(failed(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// The hidden verb: takes the keepsake from stdin, says that it is ready, and stays.
pub(super) fn be_one(context: &Context) -> Result {
    let home = context.home()?;
    let keepsake = Keepsake::read(&mut std::io::stdin().lock()).map_err(|_| {
        Failure::usage(
            "this is the process that `syncagent unlock` starts; it does nothing by itself",
        )
    })?;
    let ready = || {
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
    };
    Ok(agent::run(&home, keepsake, ready)?)
}

pub(super) fn lock(context: &Context) -> Result {
    let was_unlocked = agent::lock(&context.home()?)?;
    context
        .output
        .result(&Answer { unlocked: false }, || match was_unlocked {
            true => "locked".to_owned(),
            false => "locked; it was not unlocked".to_owned(),
        })
}
