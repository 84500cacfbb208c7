//! `join`: register, get the key, make the first pass.

use std::path::{Path, PathBuf};

use syncagent_client::ClientError;
use syncagent_client::home::{Home, HomeLock, UnprovenSlot};
use syncagent_client::index::Index;
use syncagent_client::remote::http::HttpRemote;
use syncagent_client::setup::{self, ForeignKey};
use syncagent_protocol::{Code, VaultId};
use syncagent_vault::slot::{Opener, Password, SlotType};

use super::{key, recovery, register, sync};
use crate::cli::{MachineArgs, PasswordArgs};
use crate::context::{Context, not_registered};
use crate::failure::{Failure, Result};
use crate::password::{self, Text};

/// What was said about where the key comes from.
pub(super) struct Source {
    pub(super) export_file: Option<PathBuf>,
    pub(super) export_password_file: Option<PathBuf>,
    pub(super) recovery_code_file: Option<PathBuf>,
}

impl Source {
    fn is_given(&self) -> bool {
        self.export_file.is_some() || self.recovery_code_file.is_some()
    }
}

/// A key, and the password that seals it here.
struct Got {
    key: ForeignKey,
    text: Text,
}

pub(super) fn run(
    context: &Context,
    link: &str,
    dir: Option<&Path>,
    machine: &MachineArgs,
    args: &PasswordArgs,
    source: &Source,
) -> Result<u8> {
    let (server, token) = link.split_once('#').ok_or_else(|| {
        Failure::usage("what `join` takes is the server's address, #, and the invitation: https://example.org#sa1-...")
    })?;
    let home = context.home()?;
    let invitation = register::parse(token)?;
    let registered = context.block_on(register::register(
        context,
        &home,
        server,
        &invitation,
        machine,
        dir,
    ))?;
    context.output.remark(&format!("Registered at {server}."));
    // A password slot that the log has not vouched for yet may be an old one, or hold a key that somebody made up: it is
    // fetched anew. Who names a source has lost the password of the key that is here.
    let unproven = home.credentials()?.and_then(|here| here.unproven_slot);
    let is_fetched =
        source.is_given() || unproven.is_some_and(|slot| slot.slot_type == SlotType::Password);
    let here = match home.slot() {
        // It is about to be replaced.
        Err(ClientError::KeyFile { .. }) if is_fetched => None,
        slot => slot?,
    };
    let (slot, key) = match here {
        // A second try after the key was taken over.
        Some(_) if !is_fetched => (None, password::open_key(context, &home, args)?),
        _ => {
            let vault = registered.vault.ok_or_else(|| {
                Failure::setup(
                    "there is no vault behind this invitation yet. Make one here with `syncagent init`, or run `syncagent sync` \
                     on the machine that made it and join again",
                )
            })?;
            let got = get_key(context, &home, vault, args, source)?;
            if got.key.vault() != vault {
                return Err(Failure::new(
                    Code::Vault,
                    "this key is for another vault than the invitation",
                ));
            }
            key::may_replace(context, &home, &got.key)?;
            {
                let _one_at_a_time = HomeLock::acquire(&home)?;
                context.setup(&home).keep_foreign(&got.key, &got.text)?;
            }
            context
                .output
                .remark("The key is here. Synchronising for the first time ...");
            (got.key.slot(), got.key.into_key())
        }
    };
    let status = sync::once(context, &home, key)?;
    check_slot(&home, slot)?;
    context
        .output
        .remark("Done. `syncagent sync` keeps the folder up to date.");
    Ok(status)
}

fn get_key(
    context: &Context,
    home: &Home,
    vault: VaultId,
    args: &PasswordArgs,
    source: &Source,
) -> Result<Got> {
    if let Some(file) = &source.export_file {
        return from_export(
            context,
            home,
            args,
            file,
            source.export_password_file.as_deref(),
        );
    }
    let remote = remote(context, home, vault)?;
    if let Some(file) = &source.recovery_code_file {
        return from_recovery(context, home, args, &remote, Some(file));
    }
    let slots =
        context.block_on(async { Ok(setup::slots_of(&remote, SlotType::Password).await?) })?;
    if slots.is_empty() {
        if !context.interactive {
            return Err(Failure::new(
                Code::Locked,
                "the server keeps no password slot for this vault: give --export-file or --recovery-code-file",
            ));
        }
        context.output.remark(
            "The server keeps no password slot for this vault, so the recovery code opens it.",
        );
        return from_recovery(context, home, args, &remote, None);
    }
    let text = password::existing(context, home, args)?;
    let key = setup::open_slots(&slots, &Opener::Password(&Password::new(&text)))?;
    Ok(Got { key, text })
}

fn from_export(
    context: &Context,
    home: &Home,
    args: &PasswordArgs,
    file: &Path,
    password_file: Option<&Path>,
) -> Result<Got> {
    let export = password::first_line_of(context, file)?;
    let password = password::from_file(
        context,
        password_file,
        "Password of the export",
        "--export-password-file",
    )?;
    let key = context.setup(home).open_export(&export, &password)?;
    let text = password::new(context, home, args, "Master password for this machine")?;
    Ok(Got { key, text })
}

fn from_recovery(
    context: &Context,
    home: &Home,
    args: &PasswordArgs,
    remote: &HttpRemote,
    file: Option<&Path>,
) -> Result<Got> {
    let code = recovery::read_code(context, file)?;
    let slots =
        context.block_on(async { Ok(setup::slots_of(remote, SlotType::Recovery).await?) })?;
    let key = setup::open_slots(&slots, &Opener::Recovery(&code)).map_err(|error| {
        match error.code() {
            Code::Keyslot => Failure::new(
                Code::Keyslot,
                "this recovery code does not open the vault of the invitation",
            ),
            _ => error.into(),
        }
    })?;
    let text = password::new(context, home, args, "Master password for this machine")?;
    Ok(Got { key, text })
}

fn remote(context: &Context, home: &Home, vault: VaultId) -> Result<HttpRemote> {
    let here = home.credentials()?.ok_or_else(not_registered)?;
    let token = here.token.as_ref().ok_or_else(not_registered)?;
    Ok(HttpRemote::new(
        context.network(&context.config(home)?)?,
        vault,
        token,
    ))
}

/// A machine that worked with this key before goes on with it, whichever slot it came from this time; but it says what
/// the log says of that slot. For all others the pass itself has asked.
fn check_slot(home: &Home, slot: Option<UnprovenSlot>) -> Result {
    let Some(slot) = slot else {
        return Ok(());
    };
    match Index::open(&home.state_path())?.keyslot(slot.slot_type.number())? {
        Some(pinned) if pinned != slot.hash => Err(Failure::new(
            Code::Keyslot,
            "the server handed out another key slot than the vault's history names. The files are right, but do not trust this \
             server with a password",
        )),
        _ => Ok(()),
    }
}
