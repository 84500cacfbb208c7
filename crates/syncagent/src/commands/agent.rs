//! `unlock` and `lock`, and the process between them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use syncagent_client::agent::{self, Keepsake};
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::State;
use syncagent_client::home::Home;
use syncagent_client::keyring::{self, KeepError, KeyringError};
use syncagent_protocol::Code;
use syncagent_vault::keys::VaultKey;

use crate::cli::PasswordArgs;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::password::Place;
use crate::{memory, password, shell};

const READY: &str = "ready";

/// How long a daemon that was told to lock may take until it answers again.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct Unlocked {
    unlocked: bool,
    /// Where the key is now.
    kept: Place,
}

pub(super) fn unlock(context: &Context, args: &PasswordArgs) -> Result {
    let home = context.home()?;
    let (key, place, why) = match password::kept(context, &home)? {
        Some((key, place)) => (key, place, None),
        None => {
            let key = password::open_key(context, &home, args)?;
            let (place, why) = keep(context, &home, &key)?;
            (key, place, why)
        }
    };
    let too_far = match wake(context, &home) {
        // A `sync` that was started outside of the session, by a service manager for one, has no way to its keyring.
        Err(failure) if failure.code == Code::Locked && place == Place::Keyring => {
            let keepsake = Keepsake::new(&key, &*context.random, context.now_ms())?;
            start(context, &keepsake)?;
            wake(context, &home)?;
            true
        }
        woken => {
            woken?;
            false
        }
    };
    let answer = Unlocked {
        unlocked: true,
        kept: place,
    };
    context.output.result(&answer, || match (place, why) {
        (Place::Keyring, _) if too_far => {
            "unlocked until `syncagent lock`: the key is in the system's keyring, and until log-out in memory, too, for the \
             running `sync`, which cannot ask the keyring"
                .to_owned()
        }
        (Place::Keyring, _) => {
            "unlocked until `syncagent lock`: the key is in the system's keyring".to_owned()
        }
        (Place::Agent, None) => {
            "unlocked until `syncagent lock` or log-out: the key is in memory".to_owned()
        }
        (Place::Agent, Some(why)) => {
            format!(
                "unlocked until `syncagent lock` or log-out: the key is in memory, because {why}"
            )
        }
    })
}

/// Keeps the key in the keyring, or else in an agent; then also why.
fn keep(context: &Context, home: &Home, key: &VaultKey) -> Result<(Place, Option<KeyringError>)> {
    let random = &*context.random;
    let mut why = None;
    if context.config(home)?.keyring != Some(false) {
        let kept = context
            .keyring()
            .map_err(KeepError::from)
            .and_then(|keyring| keyring::keep(home, &*keyring, key, random, context.now_ms()));
        match kept {
            Ok(()) => return Ok((Place::Keyring, None)),
            Err(KeepError::Client(error)) => return Err(error.into()),
            Err(KeepError::Keyring(error)) => why = Some(error),
        }
    }
    start(context, &Keepsake::new(key, random, context.now_ms())?)?;
    Ok((Place::Agent, why))
}

/// A daemon that waits for the key goes on.
fn wake(context: &Context, home: &Home) -> Result {
    context.block_on(async {
        let Some(daemon) = Client::connect(home).await else {
            return Ok(());
        };
        daemon.tell(Command::Unlock).await?;
        Ok(())
    })
}

fn start(context: &Context, keepsake: &Keepsake) -> Result {
    let failed = |why: String| Failure::new(Code::State, format!("cannot keep the key: {why}"));
    let mut command = process::Command::new(&context.binary);
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
    let keepsake = memory::read_pipe()
        .and_then(|mut pipe| Keepsake::read(&mut pipe))
        .map_err(|_| {
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

#[derive(Serialize)]
struct Locked {
    unlocked: bool,
}

/// Takes the key from everywhere. What fails on the way keeps the rest from nothing.
pub(super) fn lock(context: &Context) -> Result {
    let home = context.home()?;
    let keyring = context.keyring();
    // First of all: a `sync` that is just opening looks at it once it can be told.
    let noted = home.note_lock(&*context.random);
    // Who holds the key gives it up first: a keyring may ask a person before it forgets what opens nothing any more.
    let agent = agent::lock(&home);
    let daemon = context.block_on(lock_daemon(&home));
    let forgotten = keyring::forget(&home, keyring.as_deref().ok())?;
    let was_unlocked = agent? | daemon? | forgotten.was_kept;
    if let Err(error) = noted {
        context.output.remark(&format!(
            "A `sync` that was starting at this moment may not have noticed ({error})."
        ));
    }
    if let Some(error) = forgotten.left {
        context.output.remark(&format!(
            "An entry may be left in the keyring; it opens nothing any more ({error})."
        ));
    }
    context
        .output
        .result(&Locked { unlocked: false }, || match was_unlocked {
            true => "locked".to_owned(),
            false => "locked; it was not unlocked".to_owned(),
        })
}

/// True if one runs. When this returns, it has no key, and says so to whoever asks.
async fn lock_daemon(home: &Home) -> Result<bool> {
    let Some(daemon) = Client::connect(home).await else {
        return Ok(false);
    };
    daemon.lock().await?;
    // It starts itself anew; one that was just ending does not come back.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(daemon) = Client::connect(home).await
            && let Ok(status) = daemon.status().await
            && status.state == State::Locked
        {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(true)
}
