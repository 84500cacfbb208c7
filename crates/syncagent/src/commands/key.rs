//! `export-key`, `import-key` and `change-password`: the key goes from one seal to another.

use std::io::Read as _;
use std::path::Path;

use serde::Serialize;
use syncagent_client::home::{Home, HomeLock};
use syncagent_client::setup::{ForeignKey, InPlace};
use syncagent_protocol::{Code, VaultId};
use zeroize::Zeroizing;

use crate::ask;
use crate::cli::PasswordArgs;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::password;

/// Longer than any export.
const MAX_EXPORT_LEN: u64 = 256 * 1024;
const EXPORT_FLAG: &str = "--export-password-file";

pub(super) fn export(context: &Context, args: &PasswordArgs, export_file: Option<&Path>) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        export: &'a str,
    }
    let home = context.home()?;
    let key = password::open_key(context, &home, args)?;
    if context.interactive && export_file.is_none() {
        context
            .output
            .remark("Choose a password for the way; the other machine asks for it.");
    }
    let text =
        password::new_from_file(context, export_file, "Password of the export", EXPORT_FLAG)?;
    let export = context.setup(&home).export(&key, &text)?;
    context
        .output
        .result(&Answer { export: &export }, || export.to_string())
}

pub(super) fn import(context: &Context, args: &PasswordArgs, export_file: Option<&Path>) -> Result {
    #[derive(Serialize)]
    struct Answer {
        vault: VaultId,
    }
    let home = context.home()?;
    if context.interactive {
        context
            .output
            .remark("Paste the line that `syncagent export-key` printed:");
    }
    let text = read_export(context)?;
    let password =
        password::from_file(context, export_file, "Password of the export", EXPORT_FLAG)?;
    let foreign = context.setup(&home).open_export(&text, &password)?;
    let text = match may_replace(context, &home, &foreign)? {
        // The same key again: its seal stays what it is if nobody gives another.
        InPlace::Same if args.password_file.is_none() && args.password_command.is_none() => None,
        _ => Some(password::new(
            context,
            &home,
            args,
            "Master password for this machine",
        )?),
    };
    if let Some(text) = text {
        let _one_at_a_time = HomeLock::acquire(&home)?;
        context.setup(&home).keep_foreign(&foreign, &text)?;
    }
    context.output.result(
        &Answer {
            vault: foreign.vault(),
        },
        || "the key is imported".to_owned(),
    )?;
    if home.credentials()?.is_none_or(|here| here.token.is_none()) {
        let server = foreign
            .server()
            .map_or(String::new(), |server| format!(" --server {server}"));
        context.output.remark(&format!(
            "Next: `syncagent register{server}` with an invitation."
        ));
    }
    Ok(())
}

/// Whether a key from elsewhere may take the place of the one that is here.
pub(super) fn may_replace(context: &Context, home: &Home, foreign: &ForeignKey) -> Result<InPlace> {
    let in_place = context.setup(home).foreign_in_place(foreign)?;
    let question = "This machine has the key of another vault and has written to it. Without another copy of that key, what \
                    is in that vault cannot be read again. Replace the key?";
    if in_place == InPlace::Used && !ask::yes(context, question)? {
        return Err(Failure::usage("nothing was changed"));
    }
    Ok(in_place)
}

fn read_export(context: &Context) -> Result<Zeroizing<String>> {
    if context.interactive {
        return ask::line("");
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(MAX_EXPORT_LEN)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(
                Code::Read,
                format!("cannot read the export from stdin: {error}"),
            )
        })?;
    match text.trim().is_empty() {
        true => Err(Failure::usage(
            "there is no export on stdin: `syncagent export-key ... | syncagent import-key ...`",
        )),
        false => Ok(text),
    }
}

pub(super) fn change_password(
    context: &Context,
    args: &PasswordArgs,
    new_file: Option<&Path>,
) -> Result {
    #[derive(Serialize)]
    struct Answer {
        cloud_slot: bool,
    }
    let home = context.home()?;
    let key = password::open_key(context, &home, args)?;
    let text = password::new_from_file(
        context,
        new_file,
        "New master password",
        "--new-password-file",
    )?;
    let cloud_slot = context.setup(&home).change_password(&key, &text)?;
    context.output.result(&Answer { cloud_slot }, || {
        "the password is changed on this machine".to_owned()
    })?;
    if cloud_slot {
        context
            .output
            .remark("The server's password slot follows with the next `syncagent sync`.");
    }
    context
        .output
        .remark("Other machines, and copies of the old key file, keep the old password.");
    Ok(())
}
