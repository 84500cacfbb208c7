//! `server admin`: after a backup was restored, or when a log has to be cut.

use serde::Serialize;
use syncagent_protocol::{MachineId, VaultId};
use syncagent_server::admin::{Admin, RESTORED_MS};

use crate::ask;
use crate::cli::{AdminCommand, DryRun, VaultArgs};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::text::{self, shown};
use crate::settings;

pub(super) fn run(context: &Context, command: AdminCommand) -> Result {
    match command {
        AdminCommand::Restored { end, vault } => restored(context, end, &vault),
        AdminCommand::Cut { to, vault, dry_run } => cut(context, to, &vault, dry_run),
    }
}

fn restored(context: &Context, end: bool, args: &VaultArgs) -> Result {
    #[derive(Serialize)]
    struct Answer {
        vault: Option<VaultId>,
        restored_until_ms: Option<u64>,
    }
    let (places, _) = settings::server_places(context, &args.places)?;
    let admin = Admin::beside(places, args.vault)?;
    let until_ms = match end {
        true => 0,
        false => context.now_ms() + RESTORED_MS,
    };
    admin.set_restored(until_ms)?;
    let answer = Answer {
        vault: admin.vault().vid,
        restored_until_ms: (!end).then_some(until_ms),
    };
    context.output.result(&answer, || match end {
        true => "the vault no longer counts as restored".to_owned(),
        false => format!(
            "the vault counts as restored until {}: now run `syncagent recover` on a machine",
            text::time(until_ms)
        ),
    })
}

fn cut(context: &Context, to: u64, args: &VaultArgs, dry_run: DryRun) -> Result {
    #[derive(Serialize)]
    struct Row {
        n: u64,
        machine: String,
        author: MachineId,
        appended_ms: u64,
        len: u64,
    }
    #[derive(Serialize)]
    struct Answer {
        dry_run: bool,
        vault: Option<VaultId>,
        n: u64,
        cut: Vec<Row>,
    }
    let (places, _) = settings::server_places(context, &args.places)?;
    // Whoever waits for events, or is in the middle of a page, would see positions go back.
    let admin = match dry_run.is_set() {
        true => Admin::beside(places, args.vault)?,
        false => Admin::alone(places, args.vault)?,
    };
    let tail = admin.tail(to)?;
    let rows: Vec<Vec<String>> = tail
        .iter()
        .map(|row| {
            let name = match row.name.is_empty() {
                true => row.author.to_string(),
                false => shown(&row.name).to_string(),
            };
            vec![
                row.n.to_string(),
                text::time(row.appended_ms),
                text::size(row.len),
                name,
            ]
        })
        .collect();
    if !dry_run.is_set() && !tail.is_empty() {
        context.output.remark(&text::table(&rows));
        let question = format!(
            "Remove {} after position {to}? Machines that have seen them stop with E_ROLLBACK, and may give them back with \
             `syncagent recover`, or do without with `syncagent recover --unite`. Chunks stay.",
            text::count(tail.len() as u64, "commit")
        );
        if !ask::yes(context, &question)? {
            return Err(Failure::usage("nothing was changed"));
        }
        admin.cut(to)?;
    }
    let answer = Answer {
        dry_run: dry_run.is_set(),
        vault: admin.vault().vid,
        n: match dry_run.is_set() {
            true => admin.vault().n,
            false => to.min(admin.vault().n),
        },
        cut: tail
            .into_iter()
            .map(|row| Row {
                n: row.n,
                machine: row.name,
                author: row.author,
                appended_ms: row.appended_ms,
                len: row.len,
            })
            .collect(),
    };
    context
        .output
        .result(&answer, || match answer.cut.len() as u64 {
            0 => format!("there is nothing after position {to}"),
            n if answer.dry_run => {
                format!(
                    "would remove {}\n{}",
                    text::count(n, "commit"),
                    text::table(&rows)
                )
            }
            n => format!(
                "removed {}; the last position is {to}",
                text::count(n, "commit")
            ),
        })
}
