//! `recovery test`: does what was written down open the vault?

use std::path::Path;

use serde::Serialize;
use syncagent_client::remote::Remote;
use syncagent_vault::VaultError;
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
        None if context.interactive => return typed_code(context),
        None => {
            return Err(Failure::new(
                syncagent_protocol::Code::Locked,
                "a recovery code is needed and nobody can be asked: give it in a file with --code-file \
                 (`join`: --recovery-code-file)",
            ));
        }
    };
    Ok(parse(&text)?)
}

/// Asked again after a typing error: the code tells one from a wrong code.
fn typed_code(context: &Context) -> Result<RecoveryCode> {
    loop {
        match parse(&ask::line("Recovery code: ")?) {
            Ok(code) => return Ok(code),
            Err(error) => context
                .output
                .remark(&password::sentence(&error.to_string())),
        }
    }
}

fn parse(text: &str) -> std::result::Result<RecoveryCode, VaultError> {
    // What `init` printed can be given as it stands.
    text.trim().trim_start_matches("recovery code:").parse()
}
