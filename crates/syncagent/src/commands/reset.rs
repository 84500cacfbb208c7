//! `reset`: forget what was observed, and find it again.

use std::path::Path;

use serde::Serialize;
use syncagent_client::home::{Home, HomeLock};
use syncagent_client::setup;

use crate::ask;
use crate::cli::DryRun;
use crate::context::Context;
use crate::failure::{Failure, Result};

pub(super) fn run(context: &Context, new_machine: bool, dry_run: DryRun) -> Result {
    #[derive(Serialize)]
    struct Answer {
        reset: bool,
        new_machine: bool,
    }
    let home = context.home()?;
    if dry_run.is_set() {
        return foresee(context, &home, new_machine);
    }
    let _one_at_a_time = HomeLock::acquire(&home)?;
    let question = "Forget what this machine has observed? No file is touched; the next `syncagent sync` compares everything \
                    anew and keeps what differs on both sides.";
    let also = match new_machine {
        true => " It also becomes a new machine to the vault, which needs a new invitation.",
        false => "",
    };
    if !ask::yes(context, &format!("{question}{also}"))? {
        return Err(Failure::usage("nothing was changed"));
    }
    let next = match new_machine {
        true => setup::become_another(&home, &*context.random)
            .map(|()| "done; next is `syncagent register` with a new invitation")?,
        false => setup::reset(&home, &*context.random)
            .map(|()| "done; the next `syncagent sync` compares everything anew")?,
    };
    let answer = Answer {
        reset: true,
        new_machine,
    };
    context.output.result(&answer, || next.to_owned())
}

fn foresee(context: &Context, home: &Home, new_machine: bool) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        dry_run: bool,
        forgets: Option<&'a Path>,
        new_machine: bool,
    }
    let state = home.state_path();
    let answer = Answer {
        dry_run: true,
        forgets: state.exists().then_some(&state),
        new_machine,
    };
    context.output.result(&answer, || {
        let mut rows = vec![match answer.forgets {
            Some(path) => format!("forget {}", path.display()),
            None => "nothing to forget".to_owned(),
        }];
        if new_machine {
            rows.push("replace this machine's signing key, and drop its token".to_owned());
        }
        rows.join("\n")
    })?;
    context.output.remark("Nothing was changed (--dry-run).");
    Ok(())
}
