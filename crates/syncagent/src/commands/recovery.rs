//! `recovery test`: does what was written down open the vault?

use std::path::Path;

use serde::Serialize;
use syncagent_client::remote::Remote;
use syncagent_vault::recovery::RecoveryCode;
use zeroize::Zeroizing;

use crate::ask;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::password;

pub(super) fn test(context: &Context, code_file: Option<&Path>) -> Result {
    #[derive(Serialize)]
    struct Answer {
        works: bool,
    }
    let home = context.home()?;
    context.vault(&home)?;
    let code = read_code(context, code_file)?;
    // Before the first sync the slot is still here, and no server is needed.
    let remote = context.remote(&home).ok();
    let remote = remote.as_ref().map(|remote| remote as &dyn Remote);
    context.block_on(async { Ok(context.setup(&home).test_recovery(&code, remote).await?) })?;
    context.output.result(&Answer { works: true }, || {
        "the recovery code works".to_owned()
    })
}

/// A recovery code from a file, or typed. Typing errors are found here.
pub(super) fn read_code(context: &Context, file: Option<&Path>) -> Result<RecoveryCode> {
    let text: Zeroizing<String> = match file {
        Some(file) => password::first_line_of(context, file)?,
        None if context.interactive => ask::line("Recovery code: ")?,
        None => {
            return Err(Failure::new(
                syncagent_protocol::Code::Locked,
                "a recovery code is needed and nobody can be asked: give it in a file with --code-file \
                 (`join`: --recovery-code-file)",
            ));
        }
    };
    // What `init` printed can be given as it stands.
    Ok(text
        .trim()
        .trim_start_matches("recovery code:")
        .parse::<RecoveryCode>()?)
}
