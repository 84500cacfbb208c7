//! `machines`: who belongs to the vault.

use serde::Serialize;
use syncagent_client::daemon::control::{Client, Command};
use syncagent_client::home::Home;
use syncagent_client::index::{Index, KnownMachine};
use syncagent_client::remote::Remote as _;
use syncagent_protocol::api::Machine;
use syncagent_protocol::{Code, MachineId};

use super::sync;
use crate::ask;
use crate::cli::{DryRun, MachinesCommand, PasswordArgs};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::text;
use crate::password;

#[derive(Serialize)]
struct Row {
    name: String,
    id: MachineId,
    platform: String,
    this: bool,
    state: String,
    last_seen: String,
    last_seen_ms: u64,
    files: u64,
    synced_n: u64,
    /// The server takes nothing from it any more.
    removed: bool,
    /// The vault's signed history says so, too.
    removal_signed: bool,
}

pub(super) fn run(context: &Context, command: Option<MachinesCommand>) -> Result {
    match command {
        None | Some(MachinesCommand::List) => list(context),
        Some(MachinesCommand::Remove {
            name,
            password,
            dry_run,
        }) => remove(context, &name, &password, dry_run),
    }
}

fn list(context: &Context) -> Result {
    #[derive(Serialize)]
    struct Answer {
        machines: Vec<Row>,
    }
    let home = context.home()?;
    let machines = rows(context, &home)?;
    let answer = Answer { machines };
    context.output.result(&answer, || {
        let now = context.now_ms();
        let mut table = vec![
            ["NAME", "STATE", "LAST SEEN", "FILES IN SYNC", "PLATFORM"]
                .map(str::to_owned)
                .to_vec(),
        ];
        table.extend(answer.machines.iter().map(|row| {
            let state = match (row.removed, row.removal_signed) {
                (true, true) => "removed".to_owned(),
                (true, false) => "removed, not yet signed".to_owned(),
                (false, _) if row.state.is_empty() => "-".to_owned(),
                (false, _) => row.state.clone(),
            };
            let name = if row.this {
                format!("{} (this one)", row.name)
            } else {
                row.name.clone()
            };
            vec![
                name,
                state,
                text::ago(row.last_seen_ms, now),
                row.files.to_string(),
                row.platform.clone(),
            ]
        }));
        text::table(&table)
    })
}

fn rows(context: &Context, home: &Home) -> Result<Vec<Row>> {
    let this = home.credentials()?.map(|here| here.id());
    let known = match home.state_path().exists() {
        true => Index::open(&home.state_path())?.machines()?,
        false => Vec::new(),
    };
    let remote = context.remote(home)?;
    let machines = context.block_on(async { Ok(remote.machines().await?) })?;
    Ok(machines
        .into_iter()
        .map(|machine| row(machine, this, &known))
        .collect())
}

fn row(machine: Machine, this: Option<MachineId>, known: &[KnownMachine]) -> Row {
    let removal_signed = known
        .iter()
        .any(|known| known.id == machine.id && known.revoked_n.is_some());
    Row {
        this: this == Some(machine.id),
        last_seen: text::rfc3339(machine.last_seen_ms),
        last_seen_ms: machine.last_seen_ms,
        name: machine.name,
        id: machine.id,
        platform: machine.platform,
        state: machine.state,
        files: machine.files,
        synced_n: machine.synced_n,
        removed: machine.revoked,
        removal_signed,
    }
}

fn remove(context: &Context, name: &str, args: &PasswordArgs, dry_run: DryRun) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        removed: &'a str,
        /// Position of the commit that says so.
        n: u64,
    }
    let home = context.home()?;
    let machines = rows(context, &home)?;
    let machine = machines
        .iter()
        .find(|row| !row.removal_signed && (row.name == name || row.id.to_string() == name))
        .ok_or_else(|| {
            Failure::not_found(format!(
                "there is no machine '{name}': `syncagent machines` lists them"
            ))
        })?;
    if dry_run.is_set() {
        return foresee_removal(context, machine);
    }
    let question = format!(
        "Remove {}{}? It gets nothing any more and needs a new invitation to come back. No file is touched, there neither.",
        machine.name,
        if machine.this {
            ", which is this machine"
        } else {
            ""
        }
    );
    if !ask::yes(context, &question)? {
        return Err(Failure::usage("nothing was changed"));
    }
    let n = match sign(context, &home, args, machine.id) {
        Err(failure) if !machine.this => {
            return Err(at_least_lock_out(context, &home, machine, failure));
        }
        result => result?,
    };
    let answer = Answer {
        removed: &machine.name,
        n,
    };
    context
        .output
        .result(&answer, || format!("{} is removed", machine.name))
}

fn foresee_removal(context: &Context, machine: &Row) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        dry_run: bool,
        removes: &'a Row,
    }
    let answer = Answer {
        dry_run: true,
        removes: machine,
    };
    context.output.result(&answer, || {
        format!("remove {} ({})", machine.name, machine.platform)
    })?;
    context.output.remark("Nothing was changed (--dry-run).");
    Ok(())
}

/// Through the daemon if there is one, which has the key already; else right here. The server ends the token with it.
fn sign(context: &Context, home: &Home, args: &PasswordArgs, machine: MachineId) -> Result<u64> {
    let told = context.block_on(async {
        match Client::connect(home).await {
            Some(daemon) => Ok(Some(daemon.tell(Command::Remove(machine)).await?)),
            None => Ok(None),
        }
    })?;
    if let Some(answer) = told {
        return answer.as_u64().ok_or_else(|| {
            Failure::new(Code::Busy, "the daemon speaks another version: restart it")
        });
    }
    let key = password::open_key(context, home, args)?;
    context.block_on(async {
        let (_lock, mut engine) = sync::open(context, home, key)?;
        Ok(engine.remove_machine(machine).await?)
    })
}

/// Without the key nothing can be signed, but a machine that was stolen should not wait for it.
fn at_least_lock_out(context: &Context, home: &Home, machine: &Row, failure: Failure) -> Failure {
    let locked_out = context.remote(home).and_then(|remote| {
        context.block_on(async { Ok(remote.remove_machine(machine.id).await?) })
    });
    match locked_out {
        Err(_) => failure,
        Ok(()) => Failure::new(
            failure.code,
            format!(
                "the server gives {0} nothing any more, but the removal is not yet signed, so that only the server keeps it \
                 out. Run `syncagent machines remove {0}` again. What was in the way: {1}",
                machine.name, failure.message
            ),
        ),
    }
}
