//! `status`, `pause`, `resume`, `now`: how the daemon does, and what it is told.

use std::path::Path;

use serde::Serialize;
use syncagent_client::ClientError;
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::{State, Status};
use syncagent_client::home::Home;
use syncagent_client::index::Index;
use syncagent_protocol::Code;

use crate::context::{Context, not_registered};
use crate::failure::{Exit, Failure, Result, advice};
use crate::output::text::{self, shown};
use crate::signals;

#[derive(Serialize)]
struct Answer {
    /// Whether `sync` runs on this machine.
    running: bool,
    #[serde(flatten)]
    status: Status,
    /// False until `recovery test` has succeeded.
    recovery_tested: bool,
}

/// Keeps the status of a pass, for questions while nothing runs. One that failed does not make the last that ended well
/// undone.
pub(super) fn remember(home: &Home, status: &Status) {
    let mut status = status.clone();
    if status.last_sync.is_none() {
        status.last_sync = kept(home).and_then(|kept| kept.last_sync);
    }
    if let Err(error) = save(home, &status) {
        // Nothing depends on it.
        tracing::warn!(%error, "the last state could not be kept");
    }
}

fn save(home: &Home, status: &impl Serialize) -> Result {
    let bytes = serde_json::to_vec(status).map_err(unserialisable)?;
    Ok(home.save_last_status(&bytes)?)
}

/// What the last pass said. What another version wrote, or half of something, is not known.
fn kept(home: &Home) -> Option<Status> {
    serde_json::from_slice(&home.last_status()?).ok()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unserialisable(error: serde_json::Error) -> Failure {
    Failure::new(Code::State, error.to_string())
}

/// Keeps why a pass could not even begin, and hands the error on.
pub(super) fn remember_failure(home: &Home, error: ClientError) -> Failure {
    let held = match &error {
        ClientError::Held { .. } => State::Held,
        ClientError::Halted { .. } => State::Halted,
        _ => return error.into(),
    };
    let held = serde_json::json!({"state": held, "held": {"code": error.code(), "message": error.to_string()}});
    let keep = || -> Result {
        let mut status = serde_json::to_value(last(home)?).map_err(unserialisable)?;
        if let (Some(status), serde_json::Value::Object(held)) = (status.as_object_mut(), held) {
            status.extend(held);
        }
        save(home, &status)
    };
    // What goes wrong here is less than what went wrong before.
    let _ = keep();
    error.into()
}

/// What is known without a daemon: the last pass, and what the index says now.
pub(super) fn last(home: &Home) -> Result<Status> {
    if !home.state_path().exists() {
        return Ok(Status::default());
    }
    let index = Index::open(&home.state_path())?;
    let mut status = kept(home).unwrap_or_default();
    status.head = index.position()?.or(status.head);
    Ok(status)
}

/// Names the folder in what keeps it from being synchronised: an engine does not know its path.
pub(super) fn with_folder(mut status: Status, folder: Option<&Path>) -> Status {
    if let (Some(held), Some(folder)) = (&mut status.held, folder)
        && held.code == Code::Root
    {
        let folder = folder.display().to_string();
        if !held.message.contains(&folder) {
            held.message = format!("{folder}: {}", held.message);
        }
    }
    status
}

pub(super) fn run(context: &Context, watch: bool) -> Result<u8> {
    let home = context.home()?;
    let here = home.credentials()?.ok_or_else(not_registered)?;
    let recovery_tested = here.recovery_tested;
    // What is wrong with the settings keeps nobody from asking.
    let folder = context.config(&home).ok().and_then(|config| config.folder);
    let folder = folder.as_deref();
    context.block_on(async {
        match (Client::connect(&home).await, watch) {
            (Some(daemon), true) => follow(context, &home, daemon, folder, recovery_tested).await,
            (Some(daemon), false) => show(
                context,
                Answer {
                    running: true,
                    status: with_folder(daemon.status().await?, folder),
                    recovery_tested,
                },
            ),
            (None, true) => Err(nothing_runs()),
            (None, false) => show(
                context,
                Answer {
                    running: false,
                    status: last(&home)?,
                    recovery_tested,
                },
            ),
        }
    })
}

fn show(context: &Context, answer: Answer) -> Result<u8> {
    context
        .output
        .result(&answer, || describe(context, &answer))?;
    Ok(exit_of(&answer.status))
}

/// Shows every change until the daemon ends or somebody has seen enough.
async fn follow(
    context: &Context,
    home: &Home,
    daemon: Client,
    folder: Option<&Path>,
    recovery_tested: bool,
) -> Result<u8> {
    let told_to_end = signals::told_to_end(context.global.until_eof)?;
    tokio::pin!(told_to_end);
    let mut lines = daemon.watch().await?;
    loop {
        let next = tokio::select! {
            next = lines.next() => next?,
            () = &mut told_to_end => return Ok(0),
        };
        let Some(status) = next else {
            let status = last(home)?;
            return show(
                context,
                Answer {
                    running: false,
                    status,
                    recovery_tested,
                },
            );
        };
        show(
            context,
            Answer {
                running: true,
                status: with_folder(status, folder),
                recovery_tested,
            },
        )?;
    }
}

fn nothing_runs() -> Failure {
    Failure::not_found("nothing runs on this machine: `syncagent sync` starts it")
}

fn command(context: &Context, command: Command, done: &str) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        done: &'a str,
    }
    let home = context.home()?;
    context.block_on(async {
        let daemon = Client::connect(&home).await.ok_or_else(nothing_runs)?;
        daemon.tell(command).await?;
        Ok(())
    })?;
    context.output.result(&Answer { done }, || done.to_owned())
}

pub(super) fn pause(context: &Context) -> Result {
    command(context, Command::Pause, "paused")
}

pub(super) fn resume(context: &Context) -> Result {
    command(context, Command::Resume, "resumed")
}

pub(super) fn now(context: &Context) -> Result {
    let (verb, done) = match context.global.yes {
        true => (Command::Approve, "looking, and changing what was held"),
        false => (Command::Now, "looking"),
    };
    command(context, verb, done)
}

fn exit_of(status: &Status) -> u8 {
    let mut exit = Exit::default();
    if !status.conflicts.is_empty() {
        exit.add(Exit::CONFLICTS);
    }
    status
        .errors
        .iter()
        // A server that was away a while ago is no failure of `status`.
        .filter(|error| !error.path.is_empty() || error.code.exit() != Code::Offline.exit())
        .for_each(|error| exit.add(error.code.exit()));
    if let Some(held) = &status.held {
        exit.add(held.code.exit());
    }
    exit.status()
}

fn describe(context: &Context, answer: &Answer) -> String {
    let Status {
        state,
        pending,
        errors,
        skipped,
        conflicts,
        held,
        head,
        files,
        last_sync,
        notices,
        progress,
    } = &answer.status;
    let mut lines = vec![match (answer.running, last_sync) {
        (true, _) if *state == State::Locked => {
            "locked (`syncagent unlock` lets the folder be kept up to date again)".to_owned()
        }
        (true, _) => state.as_str().to_owned(),
        (false, Some(_)) => format!(
            "{} (nothing is running; `syncagent sync` keeps the folder up to date)",
            state.as_str()
        ),
        (false, None) => "never synchronised: run `syncagent sync`".to_owned(),
    }];
    let mut row = |name: &str, value: String| lines.push(format!("  {name:<10} {value}"));
    if let Some(held) = held {
        row("waiting", format!("{}: {}", held.code, held.message));
    }
    row("files", format!("{files} in sync"));
    if *pending > 0 {
        let left = progress.bytes_total.saturating_sub(progress.bytes_done);
        row(
            "pending",
            format!("{} ({})", text::count(*pending, "file"), text::size(left)),
        );
    }
    if let Some(head) = head {
        row("position", head.n.to_string());
    }
    if let Some(last_sync) = last_sync {
        row("last sync", text::ago(*last_sync, context.now_ms()));
    }
    for error in errors {
        let text = match error.path.is_empty() {
            true => format!("{}{}", error.message, advice(error.code)),
            false => format!("{}: {}", shown(&error.path), error.message),
        };
        row("failed", format!("{text} ({})", error.code));
    }
    for conflict in conflicts {
        row(
            "conflict",
            format!("{} and {}", shown(&conflict.path), shown(&conflict.copy)),
        );
    }
    for skipped in skipped {
        row(
            "left alone",
            format!("{}: {}", shown(&skipped.path), skipped.detail),
        );
    }
    for notice in notices {
        row("note", notice.clone());
    }
    if !answer.recovery_tested {
        row(
            "note",
            "the recovery code was never tested: `syncagent recovery test`".to_owned(),
        );
    }
    lines.join("\n")
}
