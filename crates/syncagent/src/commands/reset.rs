//! `reset`: forget what was observed, and find it again.

use serde::Serialize;
use syncagent_client::home::HomeLock;
use syncagent_client::setup;

use crate::ask;
use crate::context::Context;
use crate::failure::{Failure, Result};

pub(super) fn run(context: &Context) -> Result {
    #[derive(Serialize)]
    struct Answer {
        reset: bool,
    }
    let home = context.home()?;
    let _one_at_a_time = HomeLock::acquire(&home)?;
    let question = "Forget what this machine has observed? No file is touched; the next `syncagent sync` compares everything \
                    anew and keeps what differs on both sides.";
    if !ask::yes(context, question)? {
        return Err(Failure::usage("nothing was changed"));
    }
    setup::reset(&home, &*context.random)?;
    context.output.result(&Answer { reset: true }, || {
        "done; the next `syncagent sync` compares everything anew".to_owned()
    })
}
