//! `init`: a new vault on this machine.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use syncagent_client::home::Home;
use syncagent_client::setup::{InPlace, VaultChoices};
use syncagent_protocol::{Code, VaultId};

use crate::ask;
use crate::cli::{Dedup, PasswordArgs};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::password;
use crate::private_file;

#[derive(Serialize)]
struct Made<'a> {
    vault: VaultId,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_file: Option<&'a Path>,
    cloud_slot: bool,
}

pub(super) fn run(
    context: &Context,
    args: &PasswordArgs,
    cloud_slot: bool,
    dedup: Dedup,
    recovery_file: Option<&Path>,
) -> Result {
    let home = context.home()?;
    let setup = context.setup(&home);
    refuse_or_ask(context, &home)?;
    if context.interactive && args.password_file.is_none() {
        context.output.remark("Create the master password of the new vault. It is never sent anywhere and cannot be reset.");
    }
    let text = password::new(context, &home, args, "Master password")?;
    let vault = setup.new_vault(
        &text,
        VaultChoices {
            dedup_vault: dedup == Dedup::Vault,
            cloud_slot,
        },
    )?;
    let code = vault.recovery_code();
    let file = recovery_file.map(|file| context.absolute(file));
    // The code first: a key whose code nobody has seen could not be got back.
    match &file {
        Some(file) => write_new(file, &code)?,
        None if context.interactive => show_and_confirm(context, &code)?,
        None => {}
    }
    let key = setup.keep_vault(vault)?;
    let shown = file.is_none() && !context.interactive;
    let made = Made {
        vault: key.vault(),
        recovery_code: (shown || context.output.is_json() && file.is_none()).then_some(&**code),
        recovery_file: file.as_deref(),
        cloud_slot,
    };
    context.output.result(&made, || {
        if shown {
            format!("recovery code: {}", *code)
        } else {
            String::new()
        }
    })?;
    if let Some(file) = &file {
        context.output.remark(&format!(
            "The recovery code is in {}. Print it, then delete the file.",
            file.display()
        ));
    } else if shown {
        context.output.remark(
            "Write the recovery code down: it is the only way back if the password is lost.",
        );
    }
    context.output.remark(match home.credentials()?.is_some_and(|here| here.token.is_some()) {
        true => "The vault is made.\nNext: `syncagent sync`.",
        false => "The vault is made.\nNext: `syncagent register` with an invitation from the server, then `syncagent sync`.",
    });
    Ok(())
}

fn refuse_or_ask(context: &Context, home: &Home) -> Result {
    // No vault has this id: whatever is here is another one's.
    match context.setup(home).in_place(VaultId([0; 16]), None)? {
        InPlace::Nothing => Ok(()),
        InPlace::Same | InPlace::Used => Err(Failure::usage(format!(
            "this machine has a key already, and things were written with it. To begin anew, move {} away first",
            home.key_path().display()
        ))),
        InPlace::Unused => {
            let question = "This machine has a key already, with which nothing was written. Replace it by a new one?";
            match ask::yes(context, question)? {
                true => Ok(()),
                false => Err(Failure::usage("nothing was changed")),
            }
        }
    }
}

fn show_and_confirm(context: &Context, code: &str) -> Result {
    eprintln!("\nThe recovery code. Write it down on paper; it is shown only now:\n\n    {code}\n");
    eprintln!("It opens the vault if the password is lost. Whoever has it can read everything.");
    eprintln!("To be sure that it is written down right, type two of its groups from there.");
    let groups: Vec<&str> = code.split('-').collect();
    let mut dice = [0; 2];
    context.random.fill(&mut dice);
    let first = usize::from(dice[0]) % groups.len();
    let second = (first + 1 + usize::from(dice[1]) % (groups.len() - 1)) % groups.len();
    for wanted in [first, second] {
        while !ask::line(&format!("Group {} of {}: ", wanted + 1, groups.len()))?
            .trim()
            .eq_ignore_ascii_case(groups[wanted])
        {
            eprintln!("That is another one than group {}. Look again.", wanted + 1);
        }
    }
    Ok(())
}

fn write_new(file: &Path, code: &str) -> Result {
    let failed = |error| Failure::file(Code::Write, "write the recovery code to", file)(error);
    let mut new = private_file::create_new(file).map_err(failed)?;
    new.write_all(format!("{code}\n").as_bytes())
        .and_then(|()| new.sync_all())
        .map_err(failed)
}
