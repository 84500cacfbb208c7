//! `status`, `pause`, `resume`, `now`: how the daemon does, and what it is told.

use std::path::Path;

use serde::Serialize;
use syncagent_client::ClientError;
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::{Problem, State, Status, Unwatched};
use syncagent_client::home::Home;
use syncagent_client::index::Index;
use syncagent_protocol::Code;

use crate::context::{Context, not_registered};
use crate::failure::{Exit, Failure, Result, advice};
use crate::output;
use crate::output::text::{self, shown};
use crate::signals;

/// Files of a held change that `status` names; `--held` names the rest.
const FIRST_HELD: usize = 5;

/// A status as scripts are told it.
#[derive(Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub(super) status: Status,
    /// Whether nothing is left to do, to decide or to know of.
    pub(super) in_sync: bool,
}

impl From<Status> for Told {
    fn from(status: Status) -> Self {
        Self {
            in_sync: status.is_in_sync(),
            status,
        }
    }
}

#[derive(Serialize)]
struct Answer {
    /// Whether `sync` runs on this machine.
    running: bool,
    #[serde(flatten)]
    told: Told,
    /// False until `recovery test` has succeeded.
    recovery_tested: bool,
}

impl Answer {
    fn new(running: bool, status: Status, recovery_tested: bool) -> Self {
        let mut told = Told::from(status);
        // What was changed since the last pass, nobody has heard where nothing runs.
        told.in_sync &= running;
        Self {
            running,
            told,
            recovery_tested,
        }
    }
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
    // It was of a `sync` that runs no longer.
    status.unwatched = None;
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

pub(super) fn run(context: &Context, watch: bool, held: bool) -> Result<u8> {
    let home = context.home()?;
    let here = home.credentials()?.ok_or_else(not_registered)?;
    let recovery_tested = here.recovery_tested;
    // What is wrong with the settings keeps nobody from asking.
    let folder = context.config(&home).ok().and_then(|config| config.folder);
    let folder = folder.as_deref();
    context.block_on(async {
        match (Client::connect(&home).await, watch) {
            (Some(daemon), true) => follow(context, &home, daemon, folder, recovery_tested).await,
            (Some(daemon), false) => tell(
                context,
                Answer::new(
                    true,
                    with_folder(daemon.status().await?, folder),
                    recovery_tested,
                ),
                held,
            ),
            (None, true) => Err(nothing_runs()),
            (None, false) => tell(
                context,
                Answer::new(false, last(&home)?, recovery_tested),
                held,
            ),
        }
    })
}

fn tell(context: &Context, answer: Answer, held: bool) -> Result<u8> {
    if !held || context.output.is_json() {
        return show(context, answer);
    }
    context
        .output
        .result(&answer, || held_text(answer.told.status.held.as_ref()))?;
    Ok(exit_of(&answer.told.status))
}

/// What waits for a yes, one by one.
fn held_text(held: Option<&Problem>) -> String {
    let Some((held, total)) = held.and_then(|held| Some((held, held.total?))) else {
        return "nothing waits for a yes".to_owned();
    };
    let rows: Vec<_> = { held.changes.iter() }
        .map(|change| {
            let (side, what) = (change.side.as_str(), change.change.as_str());
            vec![side.to_owned(), what.to_owned(), shown(&change.path)]
        })
        .collect();
    let mut text = text::table(&rows);
    let more = total.saturating_sub(rows.len() as u64);
    if more > 0 {
        text.push_str(&format!(
            "and {more} more: `syncagent sync --once --dry-run` says all\n"
        ));
    }
    text
}

fn show(context: &Context, answer: Answer) -> Result<u8> {
    context
        .output
        .result(&answer, || describe(context, &answer))?;
    Ok(exit_of(&answer.told.status))
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
            return show(context, Answer::new(false, status, recovery_tested));
        };
        show(
            context,
            Answer::new(true, with_folder(status, folder), recovery_tested),
        )?;
    }
}

fn nothing_runs() -> Failure {
    Failure::not_found("nothing runs on this machine: `syncagent sync` starts it")
}

fn told(context: &Context, command: Command) -> Result<serde_json::Value> {
    let home = context.home()?;
    context.block_on(async {
        let daemon = Client::connect(&home).await.ok_or_else(nothing_runs)?;
        Ok(daemon.tell(command).await?)
    })
}

fn command(context: &Context, command: Command, done: &str) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        done: &'a str,
    }
    told(context, command)?;
    context.output.result(&Answer { done }, || done.to_owned())
}

pub(super) fn pause(context: &Context) -> Result {
    command(context, Command::Pause, "paused")
}

pub(super) fn resume(context: &Context) -> Result {
    command(context, Command::Resume, "resumed")
}

pub(super) fn now(context: &Context) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        done: &'a str,
        /// Of how many files the change is that was said yes to.
        agreed: u64,
    }
    if !context.global.yes {
        return command(context, Command::Now, "looking");
    }
    let agreed = told(context, Command::Approve).map_err(|failure| match failure.code {
        Code::NotFound => Failure::not_found(
            "nothing runs on this machine that a yes could be said to: `syncagent sync --once --yes` makes one pass with it",
        ),
        _ => failure,
    });
    let agreed = agreed?.as_u64().unwrap_or(0);
    let done = match agreed {
        0 => "looking; no change of very many files waits for a yes, so this was a yes to nothing"
            .to_owned(),
        n => format!(
            "looking, and changing what was held: {}",
            text::count(n, "file")
        ),
    };
    let answer = Answer {
        done: &done,
        agreed,
    };
    context.output.result(&answer, || done.clone())
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

/// How many files were the same on both sides, and when that was.
fn files_text(status: &Status, running: bool) -> String {
    let files = status.files;
    // Of what is not watched, nobody would have heard.
    match running && status.state.is_in_sync() && status.unwatched.is_none() {
        true => format!("{files} in sync"),
        false => format!("{files} were in sync when folder and vault were last compared"),
    }
}

/// Columns before what stands behind a name.
const INDENT: usize = 13;

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
        unwatched,
        progress,
    } = &answer.told.status;
    let mut lines = vec![match (answer.running, last_sync) {
        (true, _) if *state == State::Locked => {
            "locked (`syncagent unlock` lets the folder be kept up to date again)".to_owned()
        }
        (true, _) if answer.told.in_sync => state.as_str().to_owned(),
        (true, _) if unwatched.is_some() => {
            format!("{}, but not everything is watched", state.as_str())
        }
        (true, _) if !skipped.is_empty() && state.is_in_sync() => format!(
            "{}, but {} left alone",
            state.as_str(),
            match skipped.len() {
                1 => "1 thing is".to_owned(),
                n => format!("{n} things are"),
            }
        ),
        (true, _) => state.as_str().to_owned(),
        (false, Some(_)) => format!(
            "{} (nothing is running; `syncagent sync` keeps the folder up to date)",
            state.as_str()
        ),
        (false, None) => "never synchronised: run `syncagent sync`".to_owned(),
    }];
    let columns = output::columns();
    let mut row = |name: &str, value: String| {
        let value = match columns {
            Some(columns) => text::hanging(&value, columns, INDENT),
            None => value,
        };
        lines.push(format!("  {name:<10} {value}"));
    };
    if let Some(held) = held {
        row("waiting", format!("{}: {}", held.code, held.message));
        for change in held.changes.iter().take(FIRST_HELD) {
            let (what, side) = (change.change.as_str(), change.side.as_str());
            row("", format!("{}: {what} {side}", shown(&change.path)));
        }
        let more = { held.total.unwrap_or(0) }.saturating_sub(FIRST_HELD as u64);
        if more > 0 {
            row("", format!("and {more} more: `syncagent status --held`"));
        }
    }
    if last_sync.is_some() || *files > 0 {
        row("files", files_text(&answer.told.status, answer.running));
    }
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
    if let Some(unwatched) = unwatched {
        row("unwatched", describe_unwatched(unwatched));
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

fn describe_unwatched(unwatched: &Unwatched) -> String {
    let Unwatched {
        paths,
        more,
        message,
    } = unwatched;
    let name = |path: &String| match path.is_empty() {
        true => "the whole folder".to_owned(),
        false => shown(path),
    };
    let mut names = paths.iter().map(name).collect::<Vec<_>>().join(", ");
    if *more > 0 {
        names += &format!(" and {more} more");
    }
    format!("{names}: {message}")
}
