//! `sync`: keep the folder and the vault the same.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use serde::Serialize;
use syncagent_client::ClientError;
use syncagent_client::daemon::{self, Options, Reason};
use syncagent_client::engine::{
    Engine, EngineConfig, FileError, Foreseen, Hint, Outcome, Preview, State, Status,
};
use syncagent_client::folder::disk::{ErrorKind, NativeDisk};
use syncagent_client::home::{Home, HomeLock, LockMark};
use syncagent_client::index::Index;
use syncagent_client::remote::http::HttpRemote;
use syncagent_client::setup;
use syncagent_client::work::Work;
use syncagent_protocol::api::MachineReport;
use syncagent_protocol::{Code, TreePath};
use syncagent_vault::keys::VaultKey;
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;

use super::status::{self, Told};
use crate::cli::{Begin, LogTo, PasswordArgs};
use crate::context::{Context, no_key, not_registered};
use crate::failure::{Exit, Result};
use crate::output::Output;
use crate::output::progress::Progress;
use crate::output::text::{self, shown};
use crate::{heap, host, logs, memory, password, signals};

/// How a daemon that begins locked, or paused, is told to.
const LOCKED: &str = "--locked";
const PAUSED: &str = "--paused";

pub(super) fn run(
    context: &Context,
    args: &PasswordArgs,
    once: bool,
    dry_run: bool,
    begin: Begin,
) -> Result<u8> {
    let home = context.home()?;
    is_set_up(context, &home)?;
    if begin.locked {
        return watch(context, &home, None, begin.paused);
    }
    // Before the key: whoever locks while this opens may not find anybody to tell.
    let before_key = home.last_lock()?;
    let key = password::open_key(context, &home, args)?;
    if dry_run {
        foresee(context, &home, key)
    } else if once {
        self::once(context, &home, key)
    } else {
        watch(context, &home, Some((key, before_key)), begin.paused)
    }
}

/// Says what is missing before anybody is asked for a password.
pub(super) fn is_set_up(context: &Context, home: &Home) -> Result {
    if home.slot()?.is_none() {
        return Err(no_key());
    }
    let registered = home.credentials()?.is_some_and(|here| here.token.is_some())
        && context.config(home)?.folder.is_some();
    if registered {
        Ok(())
    } else {
        Err(not_registered())
    }
}

/// One machine, ready to work, and the lock that makes it the only one on its home.
pub(super) fn open(context: &Context, home: &Home, key: VaultKey) -> Result<(HomeLock, Engine)> {
    let lock = HomeLock::acquire(home)?;
    let index = Index::open(&home.state_path())?;
    let folder = context.config(home)?.folder.ok_or_else(not_registered)?;
    // Somebody who looks at `status` afterwards is to see why nothing moves.
    let remember = |error| status::remember_failure(home, error);
    let disk = open_folder(&folder).map_err(remember)?;
    let config = parts(context, home, key, index, disk, Some(home.clone()))?;
    let engine = Engine::open(config).map_err(|error| remember(in_folder(error, &folder)))?;
    Ok((lock, engine))
}

/// What the engine says of a folder, whose path it does not know, with that path.
fn in_folder(error: ClientError, folder: &Path) -> ClientError {
    match error {
        ClientError::Busy(message) => ClientError::Busy(format!("{}: {message}", folder.display())),
        error => error.in_folder(folder),
    }
}

/// The same machine, to look and change nothing. A `sync` may run meanwhile.
pub(super) fn open_to_look(context: &Context, home: &Home, key: VaultKey) -> Result<Preview> {
    let index = Index::copy_of(&home.state_path())?;
    let folder = context.config(home)?.folder.ok_or_else(not_registered)?;
    let config = parts(context, home, key, index, open_folder(&folder)?, None)?;
    Ok(Preview::open(config).map_err(|error| in_folder(error, &folder))?)
}

fn parts(
    context: &Context,
    home: &Home,
    key: VaultKey,
    index: Index,
    disk: NativeDisk,
    notes: Option<Home>,
) -> Result<EngineConfig> {
    let credentials = home.credentials()?.ok_or_else(not_registered)?;
    let config = context.config(home)?;
    let token = credentials.token.as_ref().ok_or_else(not_registered)?;
    let remote = HttpRemote::new(context.network(&config)?, key.vault(), token);
    Ok(EngineConfig {
        disk: Arc::new(disk),
        index,
        remote: Arc::new(remote),
        name: config
            .name
            .unwrap_or_else(|| setup::machine_name(&host::name(&context.variables))),
        platform: host::platform(),
        home: notes,
        work: Work::Pool,
        clock: Arc::clone(&context.clock),
        random: Arc::clone(&context.random),
        key,
        credentials,
    })
}

fn open_folder(folder: &Path) -> std::result::Result<NativeDisk, ClientError> {
    let held = |what: &str| ClientError::Held {
        code: Code::Root,
        message: format!("the folder {} {what}", folder.display()),
    };
    NativeDisk::open(folder).map_err(|error| match error.kind {
        ErrorKind::NotFound => {
            held("is missing; nothing is deleted anywhere. Is its disk mounted?")
        }
        ErrorKind::NotADirectory => {
            held("was replaced by something that is none; nothing is deleted anywhere. Put it back")
        }
        _ => ClientError::File {
            path: TreePath::ROOT,
            code: error.code(),
            message: error.to_string(),
        },
    })
}

#[derive(Serialize)]
struct Answer {
    sent: u64,
    fetched: u64,
    removed: u64,
    bytes_sent: u64,
    conflicts: usize,
    status: Told,
    exit: u8,
}

/// One pass.
pub(super) fn once(context: &Context, home: &Home, key: VaultKey) -> Result<u8> {
    logs::start(
        context,
        LogTo::Stderr,
        LevelFilter::ERROR,
        Some(&home.log_dir()),
    )?;
    context.block_on(async {
        let (_lock, mut engine) = open(context, home, key)?;
        let progress = tokio::spawn(show_progress(Progress::new(context), engine.watch()));
        if context.global.yes {
            engine.allow_mass_change();
        }
        let result = engine.pass(Hint::Everything).await;
        progress.abort();
        let _ = progress.await;
        let folder = context.config(home)?.folder.ok_or_else(not_registered)?;
        let status = status::with_folder(engine.status(), Some(&folder));
        status::remember(home, &status);
        let outcome = result.map_err(|error| in_folder(error, &folder))?;
        // What other machines are shown of this one; a daemon tells the same.
        let report = MachineReport {
            state: status.state.as_str().to_owned(),
            synced_n: status.head.map_or(0, |head| head.n),
            files: status.files,
        };
        let _ = engine.remote().report(report).await;
        let exit = exit_of(&outcome);
        for error in &outcome.errors {
            context.output.remark(&describe(error));
        }
        let answer = Answer {
            sent: outcome.sent,
            fetched: outcome.fetched,
            removed: outcome.removed,
            bytes_sent: outcome.bytes_sent,
            conflicts: outcome.conflicts.len(),
            status: status.into(),
            exit,
        };
        context
            .output
            .result(&answer, || summary(&outcome, &answer.status))?;
        Ok(exit)
    })
}

/// What one pass would do.
fn foresee(context: &Context, home: &Home, key: VaultKey) -> Result<u8> {
    #[derive(Serialize)]
    struct Answer {
        dry_run: bool,
        #[serde(flatten)]
        foreseen: Foreseen,
        exit: u8,
    }
    let foreseen = context.block_on(async {
        let mut preview = open_to_look(context, home, key)?;
        if context.global.yes {
            preview.allow_mass_change();
        }
        Ok(preview.plan().await?)
    })?;
    let mut exit = Exit::default();
    if !foreseen.conflicts.is_empty() {
        exit.add(Exit::CONFLICTS);
    }
    let errors = foreseen.errors.iter().map(|error| error.code);
    let held = foreseen.held.iter().map(|held| held.code);
    errors.chain(held).for_each(|code| exit.add(code.exit()));
    let answer = Answer {
        dry_run: true,
        foreseen,
        exit: exit.status(),
    };
    context
        .output
        .result(&answer, || foreseen_text(&answer.foreseen))?;
    context.output.remark("Nothing was changed (--dry-run).");
    Ok(answer.exit)
}

fn foreseen_text(foreseen: &Foreseen) -> String {
    let sides = [
        ("in this folder", &foreseen.here),
        ("in the vault", &foreseen.vault),
    ];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (side, steps) in sides {
        rows.extend(steps.iter().map(|step| {
            let path = match &step.from {
                Some(from) => format!("{from} -> {}", step.path),
                None => step.path.to_string(),
            };
            let size = step.size.map_or_else(String::new, text::size);
            vec![side.to_owned(), step.action.as_str().to_owned(), size, path]
        }));
    }
    let mut text = match rows.is_empty() {
        true => "in sync: nothing to do\n".to_owned(),
        false => text::table(&rows),
    };
    for conflict in &foreseen.conflicts {
        text.push_str(&format!(
            "conflict: {} was changed here and elsewhere; this machine's becomes {}\n",
            shown(&conflict.path),
            shown(&conflict.copy)
        ));
    }
    for error in &foreseen.errors {
        text.push_str(&format!("cannot: {}\n", describe(error)));
    }
    for skipped in &foreseen.skipped {
        text.push_str(&format!(
            "left alone: {}: {}\n",
            shown(&skipped.path),
            skipped.detail
        ));
    }
    if let Some(held) = &foreseen.held {
        text.push_str(&format!("would wait: {}: {}\n", held.code, held.message));
    }
    text
}

/// One failure in a line; those of a whole pass have no path.
fn describe(error: &FileError) -> String {
    match error.path.is_empty() {
        true => format!("{}: {}", error.code, error.message),
        false => format!("{}: {}: {}", error.code, shown(&error.path), error.message),
    }
}

async fn show_progress(mut progress: Progress, mut status: watch::Receiver<Status>) {
    loop {
        let now = status.borrow_and_update().progress;
        progress.show("synchronising", now.bytes_done, now.bytes_total);
        if status.changed().await.is_err() {
            return;
        }
    }
}

pub(super) fn exit_of(outcome: &Outcome) -> u8 {
    let mut exit = Exit::default();
    if !outcome.conflicts.is_empty() {
        exit.add(Exit::CONFLICTS);
    }
    outcome
        .errors
        .iter()
        .for_each(|error| exit.add(error.code.exit()));
    exit.status()
}

fn summary(outcome: &Outcome, told: &Told) -> String {
    let mut parts = Vec::new();
    let made = outcome.conflicts.len() as u64;
    let open = told.status.conflicts.len() as u64;
    for (n, one, word) in [
        (outcome.sent, "file", " sent"),
        (outcome.fetched, "file", " fetched"),
        (outcome.removed, "thing", " removed here"),
        (made, "conflict copy", ""),
        (open.saturating_sub(made), "earlier conflict", " to resolve"),
        (outcome.errors.len() as u64, "file", " failed"),
        (outcome.skipped.len() as u64, "thing", " left alone"),
    ] {
        if n > 0 {
            parts.push(format!("{}{word}", text::count(n, one)));
        }
    }
    let parts = parts.join(", ");
    match (parts.is_empty(), told.in_sync) {
        (true, true) => "in sync".to_owned(),
        (false, true) => format!("in sync: {parts}"),
        // What failed, is left alone or waits for a person is not.
        (false, false) => parts,
        (true, false) => told.status.state.as_str().to_owned(),
    }
}

/// The daemon: runs until it is told to end, and rests while it has no key.
fn watch(
    context: &Context,
    home: &Home,
    mut key: Option<(VaultKey, LockMark)>,
    mut paused: bool,
) -> Result<u8> {
    logs::start(
        context,
        LogTo::Stderr,
        LevelFilter::ERROR,
        Some(&home.log_dir()),
    )?;
    context.block_on(async {
        let mut told_to_end = pin!(signals::told_to_end(context.global.until_eof)?);
        loop {
            let has_key = match key.take() {
                Some(key) => Some(key),
                None => rest(context, home, told_to_end.as_mut()).await?,
            };
            let ended = match has_key {
                Some(key) => work(context, home, key, paused, told_to_end.as_mut()).await?,
                None => Reason::Shutdown,
            };
            let Reason::Locked(locking) = ended else {
                if context.interactive {
                    // The terminal shows the ^C; what comes next begins on a line of its own.
                    context.output.remark("\nStopped.");
                }
                return Ok(0);
            };
            // Keys wipe themselves where they are dropped, but what reads, seals and sends with them leaves copies: on
            // stacks, in buffers, in libraries. A new run of the program has none of that.
            paused = locking.was_paused();
            let mut arguments = context.arguments.clone();
            arguments.retain(|argument| argument != LOCKED && argument != PAUSED);
            arguments.push(LOCKED.into());
            if paused {
                arguments.push(PAUSED.into());
            }
            let error = memory::start_over(&context.binary, &arguments);
            tracing::warn!(%error, "locked within the same process");
            locking.done();
        }
    })
}

/// Works with the key until there is a reason not to.
async fn work(
    context: &Context,
    home: &Home,
    (key, before_key): (VaultKey, LockMark),
    paused: bool,
    told_to_end: impl Future<Output = ()>,
) -> Result<Reason> {
    let (_lock, engine) = open(context, home, key)?;
    let config = context.config(home)?;
    let options = Options {
        schedule: config.schedule(),
        folder: config.folder.ok_or_else(not_registered)?,
        home: Some(home.clone()),
        paused,
        before_key: Some(before_key),
    };
    context.output.remark(&format!(
        "Keeping {} up to date. Ctrl-C ends it.",
        options.folder.display()
    ));
    let folder = options.folder.clone();
    let status = engine.watch();
    let told = tokio::spawn(tell(
        context.output.clone(),
        Progress::new(context),
        engine.watch(),
        options.folder.clone(),
    ));
    let at_rest = tokio::spawn(heap::give_back_at_rest(engine.watch()));
    let result = daemon::run(engine, options, told_to_end).await;
    at_rest.abort();
    told.abort();
    let _ = told.await;
    let last = status.borrow().clone();
    status::remember(home, &status::with_folder(last, Some(&folder)));
    Ok(result?)
}

/// Waits, without a key, for `unlock`; none if it is told to end before.
async fn rest(
    context: &Context,
    home: &Home,
    told_to_end: impl Future<Output = ()>,
) -> Result<Option<(VaultKey, LockMark)>> {
    let _lock = HomeLock::acquire(home)?;
    let status = Status {
        state: State::Locked,
        ..status::last(home)?
    };
    context
        .output
        .remark("Locked. `syncagent unlock` goes on, Ctrl-C ends it.");
    if context.output.is_json() {
        // Who no longer reads does not keep anybody from unlocking.
        let _ = context.output.json_line(&Told::from(status.clone()));
    }
    let unlock = || {
        // It may take as long as a person needs to unlock their keyring.
        let before_key = home.last_lock()?;
        tokio::task::block_in_place(|| password::kept(context, home))
            .map(|kept| kept.map(|(key, _)| (key, before_key)))
            .map_err(|failure| ClientError::Locked(failure.message))
    };
    Ok(daemon::rest(home, status, told_to_end, unlock).await?)
}

/// Says how the daemon does: a line for each change of its state, or JSON for each change of anything.
async fn tell(
    output: Output,
    mut progress: Progress,
    mut status: watch::Receiver<Status>,
    folder: PathBuf,
) {
    let mut told = None;
    loop {
        let now = status.borrow_and_update().clone();
        let now = status::with_folder(now, Some(&folder));
        if output.is_json() {
            // Who no longer reads does not keep the folder from being synchronised.
            let _ = output.json_line(&Told::from(now));
        } else if now.state == State::Syncing {
            progress.show(
                "synchronising",
                now.progress.bytes_done,
                now.progress.bytes_total,
            );
        } else {
            let line = line(&now);
            if told.as_ref() != Some(&line) {
                progress.clear();
                output.remark(&line);
                told = Some(line);
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn line(status: &Status) -> String {
    let state = status.state.as_str();
    let why = status
        .held
        .as_ref()
        .map(|held| format!(": {}: {}", held.code, held.message));
    let why = why.or_else(|| {
        status
            .errors
            .first()
            .map(|error| format!(": {}", describe(error)))
    });
    let files = text::count(status.files, "file");
    let mut line = match status.state.is_in_sync() {
        true => format!("{state}, {files} in sync"),
        // What is the same by now, nobody knows: some may be deleted here, or changed there.
        false => format!("{state}, {files} in sync before"),
    };
    // What keeps "in sync" from being the whole truth stands in the same line.
    for (n, one, word) in [
        (status.skipped.len() as u64, "thing", " left alone"),
        (
            status.notices.len() as u64,
            "note",
            " in `syncagent status`",
        ),
    ] {
        if n > 0 {
            line += &format!(", {}{word}", text::count(n, one));
        }
    }
    if status.unwatched.is_some() {
        line += ", but not everything is watched (`syncagent status`)";
    }
    line + &why.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use syncagent_client::engine::{ConflictFile, SkippedFile, Unwatched};

    use super::*;

    #[test]
    fn a_pass_in_a_line() {
        let mut outcome = Outcome::default();
        let mut status = Status {
            last_sync: Some(1),
            ..Status::default()
        };
        let line = |outcome: &Outcome, status: &Status| summary(outcome, &status.clone().into());
        assert_eq!(line(&outcome, &status), "in sync");
        outcome.sent = 1;
        outcome.removed = 2;
        assert_eq!(
            line(&outcome, &status),
            "in sync: 1 file sent, 2 things removed here"
        );
        let error = FileError {
            path: "x".into(),
            code: Code::Read,
            message: "why".into(),
        };
        outcome.errors = vec![error.clone(), error];
        status.errors.clone_from(&outcome.errors);
        assert_eq!(
            line(&outcome, &status),
            "1 file sent, 2 things removed here, 2 files failed"
        );
        (outcome, status.errors) = Default::default();
        outcome.skipped = vec![SkippedFile {
            path: "x".into(),
            reason: "special".into(),
            detail: "a socket".into(),
        }];
        status.skipped.clone_from(&outcome.skipped);
        assert_eq!(line(&outcome, &status), "1 thing left alone");
        (outcome.skipped, status.skipped) = Default::default();
        status.state = State::Conflict;
        status.conflicts = vec![ConflictFile {
            path: "x".into(),
            copy: "y".into(),
            time_ms: 1,
        }];
        assert_eq!(line(&outcome, &status), "1 earlier conflict to resolve");
    }

    #[test]
    fn a_state_in_a_line() {
        let mut status = Status {
            state: State::Idle,
            files: 2,
            ..Status::default()
        };
        assert_eq!(line(&status), "idle, 2 files in sync");
        status.skipped = vec![SkippedFile {
            path: "x".into(),
            reason: "special".into(),
            detail: "a socket".into(),
        }];
        assert_eq!(line(&status), "idle, 2 files in sync, 1 thing left alone");
        status.notices = vec!["a note".into()];
        let said = "idle, 2 files in sync, 1 thing left alone, 1 note in `syncagent status`";
        assert_eq!(line(&status), said);
        status.unwatched = Some(Unwatched {
            paths: vec!["x".into()],
            more: 0,
            message: "why".into(),
        });
        assert_eq!(
            line(&status),
            format!("{said}, but not everything is watched (`syncagent status`)")
        );
        (status.skipped, status.notices, status.unwatched) = Default::default();
        for state in [
            State::Syncing,
            State::Error,
            State::Offline,
            State::Paused,
            State::Locked,
            State::Held,
            State::Halted,
        ] {
            status.state = state;
            let line = line(&status);
            assert_eq!(line, format!("{}, 2 files in sync before", state.as_str()));
        }
    }
}
