//! `machines`: who belongs to the vault.
//!
//! Names, ids and removals are what the verified history says. The server adds what only it knows, by id: it could
//! otherwise have one machine removed in place of another, for good.

use std::collections::BTreeMap;

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
use crate::output::text::{self, shown};
use crate::password;

#[derive(Serialize)]
struct Row {
    name: String,
    id: MachineId,
    platform: String,
    this: bool,
    /// The vault's signed history says that it joined; if not, only the server names it.
    member: bool,
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
    let (known, listed) = (known(&home)?, listed(context, &home)?);
    let machines = rows(&home, &known, listed)?;
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
                (_, true) => "removed".to_owned(),
                (true, false) => "removed, not yet signed".to_owned(),
                (false, _) if row.state.is_empty() => "-".to_owned(),
                (false, _) => shown(&row.state),
            };
            let mut name = shown(&row.name);
            if row.this {
                name.push_str(" (this one)");
            }
            if !row.member {
                name.push_str(&format!(" (only the server names it: {})", row.id));
            }
            let last_seen = match row.last_seen_ms {
                0 => "-".to_owned(),
                then_ms => text::ago(then_ms, now),
            };
            vec![
                name,
                state,
                last_seen,
                row.files.to_string(),
                shown(&row.platform),
            ]
        }));
        text::table(&table)
    })
}

/// The machines that the verified history names, in order of name, removed ones last; and who was removed.
struct Known {
    machines: Vec<KnownMachine>,
    index: Option<Index>,
}

impl Known {
    fn is_removal_signed(&self, id: MachineId) -> Result<bool> {
        // Also of one that never joined.
        let removed = { self.index.as_ref() }.map(|index| index.revoked_n(id));
        Ok(removed.transpose()?.flatten().is_some())
    }
}

fn known(home: &Home) -> Result<Known> {
    if !home.state_path().exists() {
        return Ok(Known {
            machines: Vec::new(),
            index: None,
        });
    }
    let index = Index::open(&home.state_path())?;
    let mut machines = index.machines()?;
    machines.sort_by(|a, b| {
        let key = |machine: &KnownMachine| (machine.revoked_n.is_some(), machine.add.name.clone());
        key(a).cmp(&key(b))
    });
    Ok(Known {
        machines,
        index: Some(index),
    })
}

/// What the server says.
fn listed(context: &Context, home: &Home) -> Result<Vec<Machine>> {
    let remote = context.remote(home)?;
    context.block_on(async { Ok(remote.machines().await?) })
}

/// What the history says, each with what the server adds; and behind them what only the server names.
fn rows(home: &Home, known: &Known, listed: Vec<Machine>) -> Result<Vec<Row>> {
    let this = home.credentials()?.map(|here| here.id());
    let mut listed: BTreeMap<_, _> = listed.into_iter().map(|said| (said.id, said)).collect();
    let mut rows = Vec::new();
    for member in &known.machines {
        let said = listed.remove(&member.id);
        let (name, platform) = (member.add.name.clone(), member.add.platform.clone());
        rows.push(Row {
            member: true,
            name,
            platform,
            ..row(member.id, said, this, known)?
        });
    }
    for (id, said) in listed {
        rows.push(row(id, Some(said), this, known)?);
    }
    Ok(rows)
}

/// What the server says of a machine, and what is signed.
fn row(
    id: MachineId,
    said: Option<Machine>,
    this: Option<MachineId>,
    known: &Known,
) -> Result<Row> {
    let removal_signed = known.is_removal_signed(id)?;
    let said = said.unwrap_or(Machine {
        id,
        name: String::new(),
        platform: String::new(),
        last_seen_ms: 0,
        revoked: removal_signed,
        state: String::new(),
        synced_n: 0,
        files: 0,
    });
    Ok(Row {
        this: this == Some(id),
        member: false,
        last_seen: text::rfc3339(said.last_seen_ms),
        last_seen_ms: said.last_seen_ms,
        name: said.name,
        id,
        platform: said.platform,
        state: said.state,
        files: said.files,
        synced_n: said.synced_n,
        removed: said.revoked,
        removal_signed,
    })
}

/// Whom a person means. An id is an id, whoever may be called so; a name is a member's.
fn find<'a>(rows: &'a [Row], name: &str) -> Result<&'a Row> {
    let left = || rows.iter().filter(|row| !row.removal_signed);
    if let Some(row) = left().find(|row| row.id.to_string() == name) {
        return Ok(row);
    }
    let called: Vec<_> = left()
        .filter(|row| row.member && row.name == name)
        .collect();
    match called[..] {
        [row] => return Ok(row),
        [] => {}
        _ => {
            let ids: Vec<_> = called.iter().map(|row| row.id.to_string()).collect();
            return Err(Failure::usage(format!(
                "{} machines are called '{name}': say which, by its id: {}",
                ids.len(),
                ids.join(", ")
            )));
        }
    }
    Err(Failure::not_found(
        match left().find(|row| row.name == name) {
            Some(row) => format!(
                "only the server names a machine '{name}'; the history that this machine has verified does not. If it joined \
                 since the last sync, run `syncagent now`, or `syncagent sync --once`, first; if it never did, `syncagent machines remove {}` \
                 keeps it out",
                row.id
            ),
            None => format!("there is no machine '{name}': `syncagent machines` lists them"),
        },
    ))
}

fn remove(context: &Context, name: &str, args: &PasswordArgs, dry_run: DryRun) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        removed: &'a str,
        /// Position of the commit that says so.
        n: u64,
    }
    let home = context.home()?;
    let (known, listed) = (known(&home)?, listed(context, &home));
    // A server that says nothing of its machines keeps nobody from removing one.
    let (listed, unlisted) = match listed {
        Ok(listed) => (listed, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let machines = rows(&home, &known, listed)?;
    drop(known);
    let machine = match (find(&machines, name), unlisted) {
        (Ok(machine), _) => machine,
        (Err(failure), None) => return Err(failure),
        (Err(_), Some(unlisted)) => return Err(unlisted),
    };
    if dry_run.is_set() {
        return foresee_removal(context, machine);
    }
    let question = format!(
        "Remove {}{}? It gets nothing any more and needs a new invitation to come back. No file is touched, there neither.",
        shown(&machine.name),
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
        .result(&answer, || format!("{} is removed", shown(&machine.name)))
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
        format!(
            "remove {} ({})",
            shown(&machine.name),
            shown(&machine.platform)
        )
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
