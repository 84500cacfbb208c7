//! `recover`: give a server back what it lost, and go on with it.

use std::collections::BTreeMap;

use serde::Serialize;
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::{Hint, Recovered, Recovery, State, Way};
use syncagent_client::home::Home;
use syncagent_protocol::{Code, name};
use syncagent_vault::keys::VaultKey;

use super::{status, sync};
use crate::ask;
use crate::cli::{DryRun, PasswordArgs};
use crate::context::{Context, not_registered};
use crate::failure::{Failure, Result};
use crate::output::text::{self, shown};
use crate::password;

#[derive(Serialize)]
struct Answer<'a> {
    dry_run: bool,
    #[serde(flatten)]
    recovery: &'a Recovery,
    recovered: Option<&'a Recovered>,
    exit: u8,
}

pub(super) fn run(
    context: &Context,
    args: &PasswordArgs,
    unite: bool,
    dry_run: DryRun,
) -> Result<u8> {
    let home = context.home()?;
    sync::is_set_up(context, &home)?;
    let key = password::open_key(context, &home, args)?;
    if dry_run.is_set() {
        let recovery = context.block_on(look(context, &home, key, unite))?;
        let answer = Answer {
            dry_run: true,
            recovery: &recovery,
            recovered: None,
            exit: 0,
        };
        context.output.sentences(&answer, || foreseen(&recovery))?;
        context.output.remark("Nothing was changed (--dry-run).");
        return Ok(0);
    }
    let (recovery, recovered, exit) = context.block_on(async {
        match Client::connect(&home).await {
            Some(_) => through_daemon(context, &home, key, unite).await,
            None => here(context, &home, key, unite).await,
        }
    })?;
    let answer = Answer {
        dry_run: false,
        recovery: &recovery,
        recovered: Some(&recovered),
        exit,
    };
    context
        .output
        .result(&answer, || done(&recovery, &recovered))?;
    Ok(exit)
}

/// What would be done. A `sync` may run meanwhile.
async fn look(context: &Context, home: &Home, key: VaultKey, unite: bool) -> Result<Recovery> {
    let preview = sync::open_to_look(context, home, key)?;
    Ok(chosen(preview.recovery().await?, unite))
}

/// To unite is always possible.
fn chosen(mut recovery: Recovery, unite: bool) -> Recovery {
    if unite && recovery.course.way == Way::GiveBack {
        recovery.course.way = Way::Unite;
    }
    recovery
}

fn agree(context: &Context, recovery: &Recovery) -> Result {
    let is_safe = recovery.course.way == Way::Nothing;
    if is_safe || ask::yes(context, &format!("{} Go on?", foreseen(recovery)))? {
        return Ok(());
    }
    Err(Failure::usage("nothing was changed"))
}

/// The daemon has the folder; it makes a pass afterwards.
async fn through_daemon(
    context: &Context,
    home: &Home,
    key: VaultKey,
    unite: bool,
) -> Result<(Recovery, Recovered, u8)> {
    let recovery = look(context, home, key, unite).await?;
    agree(context, &recovery)?;
    let gone = || Failure::new(Code::Busy, "the daemon ended while it was asked: try again");
    let daemon = Client::connect(home).await.ok_or_else(gone)?;
    let answer = daemon.tell(Command::Recover(recovery.course)).await?;
    let recovered = serde_json::from_value(answer)
        .map_err(|_| Failure::new(Code::Busy, "the daemon speaks another version: restart it"))?;
    remark(context, &recovered);
    let status = match Client::connect(home).await {
        Some(daemon) => daemon.status().await.ok(),
        None => None,
    };
    if status.is_some_and(|status| status.state == State::Paused) {
        context.output.remark(
            "`sync` is paused, as it was before: what follows comes with `syncagent resume`.",
        );
    }
    Ok((recovery, recovered, 0))
}

/// Right here, with a pass afterwards.
async fn here(
    context: &Context,
    home: &Home,
    key: VaultKey,
    unite: bool,
) -> Result<(Recovery, Recovered, u8)> {
    let (_lock, mut engine) = sync::open(context, home, key)?;
    let folder = context.config(home)?.folder.ok_or_else(not_registered)?;
    let recovery = chosen(engine.recovery().await?, unite);
    agree(context, &recovery)?;
    let rejoined = engine.rejoin(recovery.course).await;
    let recovered = rejoined.map_err(|error| error.in_folder(&folder))?;
    // Before the pass, which may wait for a yes.
    remark(context, &recovered);
    let passed = engine.pass(Hint::Everything).await;
    let status = status::with_folder(engine.status(), Some(&folder));
    status::remember(home, &status);
    let passed = passed.map_err(|error| error.in_folder(&folder))?;
    Ok((recovery, recovered, sync::exit_of(&passed)))
}

/// What a person has to know of it.
fn remark(context: &Context, recovered: &Recovered) {
    for lost in &recovered.versions_lost {
        let (path, what) = (
            shown(&lost.path),
            match lost.current {
                true => "any machine that has it gives it to the server with `syncagent recover`",
                false => "this old version is lost, unless another machine has it",
            },
        );
        context.output.remark(&format!(
            "{}: {path}, version {}: its content is neither on the server nor here; {what}",
            Code::Chunk,
            lost.version
        ));
    }
    for path in &recovered.not_deleted {
        context.output.remark(&format!(
            "not deleted: {}: it is gone on one side only; delete it again if that is meant",
            shown(path)
        ));
    }
}

fn foreseen(recovery: &Recovery) -> String {
    let course = recovery.course;
    let mut by_machine: BTreeMap<&str, u64> = BTreeMap::new();
    for lost in &recovery.lost {
        *by_machine.entry(&lost.machine).or_default() += 1;
    }
    let whose: Vec<String> = by_machine
        .iter()
        .map(|(machine, n)| format!("{n} of {}", name::shown(machine, 255)))
        .collect();
    let lost = match recovery.lost.is_empty() {
        true => String::new(),
        false => format!(
            " It has lost {} ({}).",
            text::count(recovery.lost.len() as u64, "commit"),
            whose.join(", ")
        ),
    };
    let removed = match recovery.removed.is_empty() {
        true => String::new(),
        false => format!(
            " Of machines that were removed since it stays so: {}.",
            recovery.removed.join(", ")
        ),
    };
    let (server, own, common) = (course.server_n, course.own_n, course.common_n);
    match course.way {
        Way::Nothing => format!(
            "The server has everything that this machine has seen, up to position {own}. What it may lack of the content is given to it."
        ),
        Way::GiveBack => format!(
            "The server shows position {server}, this machine has seen {own}.{lost} They are given back as they were, with the content that is on this disk; nothing is deleted anywhere. Machines that have seen no more than this one notice nothing. If another one has seen more (`head` in `syncagent status --json`), say no and run `syncagent recover` there first: otherwise what only that one saw has to be united afterwards, by the same command there."
        ),
        Way::Unite if server >= own && recovery.lost.is_empty() => format!(
            "The server shows another history than this machine has seen at position {own}. What it saw it has forgotten since, so it cannot tell what is missing: the server was restored from a backup and has gone on, or it shows this machine something else than the others. If nobody restored it, say no, and compare `syncagent fingerprint` between machines. If it was restored, its history is taken as it is from now on, and both sides are united: what is only on one side comes to the other, what differs becomes a conflict copy, and nothing is deleted anywhere."
        ),
        Way::Unite => format!(
            "The server shows position {server}, this machine has seen {own}, and only up to {common} both have the same history.{lost} They are not given back{}. Both sides are united: what is only on one side comes to the other, what both changed becomes a conflict copy, and nothing is deleted anywhere.{removed}",
            match server == common && recovery.lost.iter().all(|lost| lost.held) {
                true => "",
                false => ", because the server has gone on, or this machine no longer holds them",
            }
        ),
    }
}

fn done(recovery: &Recovery, recovered: &Recovered) -> String {
    let chunks = match recovered.chunks {
        0 => String::new(),
        n => format!(", {} sealed again", text::count(n, "chunk")),
    };
    let slots = match recovered.slots {
        0 => String::new(),
        n => format!(", {} put back", text::count(n, "key slot")),
    };
    match recovery.course.way {
        Way::Nothing if !recovered.not_deleted.is_empty() => {
            format!("a union that was interrupted is finished{chunks}{slots}")
        }
        Way::Nothing => format!("nothing was lost that this machine knows of{chunks}{slots}"),
        Way::GiveBack => format!(
            "the server has {} again{chunks}{slots}",
            text::count(recovered.commits, "commit")
        ),
        Way::Unite => format!(
            "united with the server from position {} on",
            recovery.course.common_n
        ),
    }
}
