//! `restore` and `trash restore`: bring something back.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Serialize;
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::engine::{ForeseenRestore, Hint, Left, Occupied, Restore, Restored, State};
use syncagent_client::home::Home;
use syncagent_protocol::Code;

use super::{browse, status, sync};
use crate::ask;
use crate::cli::{DryRun, PasswordArgs, PlaceArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::text::{count, shown};
use crate::password;

/// How long a daemon is waited for after it agreed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn version(
    context: &Context,
    args: &PasswordArgs,
    path: &str,
    n: u64,
    place: PlaceArgs,
    dry_run: DryRun,
) -> Result<u8> {
    run(
        context,
        args,
        dry_run,
        Restore {
            what: browse::in_vault(context, path)?,
            version: Some(n),
            occupied: occupied(place),
        },
    )
}

pub(super) fn trash(
    context: &Context,
    args: &PasswordArgs,
    path: &str,
    place: PlaceArgs,
    dry_run: DryRun,
) -> Result<u8> {
    run(
        context,
        args,
        dry_run,
        Restore {
            what: browse::in_vault(context, path)?,
            version: None,
            occupied: occupied(place),
        },
    )
}

fn occupied(place: PlaceArgs) -> Occupied {
    match (place.keep_both, place.replace) {
        (true, _) => Occupied::KeepBoth,
        (_, true) => Occupied::Replace,
        _ => Occupied::Refuse,
    }
}

fn run(
    context: &Context,
    args: &PasswordArgs,
    dry_run: DryRun,
    mut restore: Restore,
) -> Result<u8> {
    #[derive(Serialize)]
    struct Answer<'a> {
        restored: &'a Restored,
        on_disk: bool,
    }
    let home = context.home()?;
    context.vault(&home)?;
    if dry_run.is_set() {
        return foresee(context, &home, args, &restore);
    }
    let (restored, on_disk) = loop {
        match bring_back(context, &home, args, &restore) {
            Err(failure)
                if failure.code == Code::Conflict
                    && context.interactive
                    && std::io::stdout().is_terminal() =>
            {
                restore.occupied = ask_occupied(&restore.what)?;
            }
            result => break result?,
        }
    };
    context.output.result(
        &Answer {
            restored: &restored,
            on_disk,
        },
        || described(&restored),
    )?;
    tell_left(context, &restored.left);
    if restored.older > 0 {
        context.output.remark(&format!(
            "Older ones of the same names stay in the trash: {}. `syncagent trash` lists them, and by its id each can be \
             brought back with --keep-both.",
            count(restored.older, "thing")
        ));
    }
    if !on_disk {
        context.output.remark(
            "It is in the vault again and comes to the folder with the next `syncagent sync`.",
        );
    }
    Ok(exit_of(&restored.left))
}

/// Where it is, what came with it, and which name is free now.
fn described(restored: &Restored) -> String {
    let mut text = format!("restored {}", shown(&restored.path));
    match restored.below {
        0 => {}
        1 => text.push_str(" with 1 thing that was in it"),
        n => text.push_str(&format!(" with {n} things that were in it")),
    }
    if let Some(from) = &restored.from {
        text.push_str(&format!(
            ", where that version was; it is no longer {}",
            shown(from)
        ));
    }
    text
}

fn tell_left(context: &Context, left: &[Left]) {
    for left in left {
        let Left {
            path,
            code,
            message,
        } = left;
        context
            .output
            .remark(&format!("{}: {message} ({code})", shown(path)));
    }
}

fn exit_of(left: &[Left]) -> u8 {
    let mut exit = Exit::default();
    left.iter().for_each(|left| exit.add(left.code.exit()));
    exit.status()
}

/// What it would do. Nobody is asked: without --keep-both or --replace, something in the place is an error here, too.
fn foresee(context: &Context, home: &Home, args: &PasswordArgs, restore: &Restore) -> Result<u8> {
    #[derive(Serialize)]
    struct Answer {
        dry_run: bool,
        restores: ForeseenRestore,
    }
    let key = password::open_key(context, home, args)?;
    let restores = context.block_on(async {
        let mut preview = sync::open_to_look(context, home, key)?;
        Ok(preview.restore(restore).await?)
    })?;
    let answer = Answer {
        dry_run: true,
        restores,
    };
    context.output.result(&answer, || {
        let ForeseenRestore {
            path,
            version,
            directories,
            replaces,
            from,
            below,
            left: _,
        } = &answer.restores;
        let mut rows = vec![format!("restore {path}, version {version}")];
        rows.extend(directories.iter().map(|path| format!("restore {path}/")));
        rows.extend(below.iter().map(|path| format!("restore {path}")));
        let moved = from.iter();
        rows.extend(moved.map(|from| format!("move {from} to {path}, where that version was")));
        let trashed = replaces
            .iter()
            .map(|path| format!("move the present {path} into the trash"));
        rows.extend(trashed);
        rows.join("\n")
    })?;
    tell_left(context, &answer.restores.left);
    context.output.remark("Nothing was changed (--dry-run).");
    Ok(exit_of(&answer.restores.left))
}

fn ask_occupied(what: &str) -> Result<Occupied> {
    loop {
        let question = format!(
            "Something else stands in the place of {}. [k]eep both, [r]eplace it, or [s]top? ",
            shown(what)
        );
        match ask::line(&question)?.trim() {
            "k" => return Ok(Occupied::KeepBoth),
            "r" => return Ok(Occupied::Replace),
            "s" => return Err(Failure::usage("nothing was changed")),
            _ => {}
        }
    }
}

/// Through the daemon if there is one, which has the key already; else right here.
fn bring_back(
    context: &Context,
    home: &Home,
    args: &PasswordArgs,
    restore: &Restore,
) -> Result<(Restored, bool)> {
    let running = context.block_on(async { Ok(Client::connect(home).await.is_some()) })?;
    match running {
        true => context.block_on(through_daemon(context, home, restore)),
        false => here(context, home, args, restore),
    }
}

async fn through_daemon(
    context: &Context,
    home: &Home,
    restore: &Restore,
) -> Result<(Restored, bool)> {
    let daemon = Client::connect(home).await.ok_or_else(gone)?;
    let answer = daemon.tell(Command::Restore(restore.clone())).await?;
    let told_ms = context.now_ms();
    let restored = serde_json::from_value(answer)
        .map_err(|_| Failure::new(Code::Busy, "the daemon speaks another version: restart it"))?;
    let on_disk = wait_for_pass(home, told_ms).await?;
    Ok((restored, on_disk))
}

/// The daemon was there a moment ago.
pub(super) fn gone() -> Failure {
    Failure::new(Code::Busy, "the daemon ended while it was asked: try again")
}

/// Waits for the pass that brings to the disk what was told before: it begins after the answer. Whether it ended well.
pub(super) async fn wait_for_pass(home: &Home, told_ms: u64) -> Result<bool> {
    let mut states = Client::connect(home)
        .await
        .ok_or_else(gone)?
        .watch()
        .await?;
    let settled = async {
        while let Ok(Some(status)) = states.next().await {
            if status.last_sync >= Some(told_ms)
                || !matches!(status.state, State::Syncing | State::Idle | State::Conflict)
            {
                return status.last_sync >= Some(told_ms);
            }
        }
        false
    };
    Ok(tokio::time::timeout(PATIENCE, settled)
        .await
        .unwrap_or(false))
}

fn here(
    context: &Context,
    home: &Home,
    args: &PasswordArgs,
    restore: &Restore,
) -> Result<(Restored, bool)> {
    let key = password::open_key(context, home, args)?;
    context.block_on(async {
        let (_lock, mut engine) = sync::open(context, home, key)?;
        let restored = engine.restore(restore).await?;
        let on_disk = engine.pass(Hint::Everything).await.is_ok();
        status::remember(home, &engine.status());
        Ok((restored, on_disk))
    })
}
