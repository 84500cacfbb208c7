//! `register`: an invitation becomes a token.

use std::path::{Path, PathBuf};

use serde::Serialize;
use syncagent_client::home::{Config, Home};
use syncagent_client::remote::reqwest::Network;
use syncagent_client::remote::tls::Trust;
use syncagent_client::setup::{Registered, Registration, machine_name};
use syncagent_protocol::api::Head;
use syncagent_protocol::invitation::Invitation;
use syncagent_protocol::{Code, VaultId};

use crate::cli::MachineArgs;
use crate::context::Context;
use crate::directories;
use crate::failure::{Failure, Result};
use crate::host;

#[derive(Serialize)]
struct Answer<'a> {
    name: &'a str,
    server: &'a str,
    folder: &'a Path,
    vault: Option<VaultId>,
    head: Option<Head>,
}

pub(super) fn run(
    context: &Context,
    server: Option<&str>,
    token: &str,
    machine: &MachineArgs,
    folder: Option<&Path>,
) -> Result {
    let home = context.home()?;
    let server = match server {
        Some(server) => server.to_owned(),
        None => context.config(&home)?.server.ok_or_else(|| {
            Failure::usage("which server? --server gives its address, such as https://example.org")
        })?,
    };
    let invitation = parse(token)?;
    let registered = context.block_on(register(
        context,
        &home,
        &server,
        &invitation,
        machine,
        folder,
    ))?;
    let config = home.config()?;
    show(context, &config, &registered)?;
    let next = match home.slot() {
        Ok(Some(_)) | Err(_) => "Next: `syncagent sync`.",
        Ok(None) => {
            "Next: `syncagent init` for a new vault, or `syncagent import-key` for the one that is there."
        }
    };
    context.output.remark(next);
    Ok(())
}

pub(super) fn parse(token: &str) -> Result<Invitation> {
    token.parse().map_err(|error| {
        Failure::new(
            Code::Auth,
            format!("{error}. `syncagent server invite` prints one"),
        )
    })
}

pub(super) async fn register(
    context: &Context,
    home: &Home,
    server: &str,
    invitation: &Invitation,
    machine: &MachineArgs,
    folder: Option<&Path>,
) -> Result<Registered> {
    let before = context.config(home)?;
    let trust = Trust {
        insecure: machine.insecure,
        certificate: invitation.certificate().copied(),
        ca: match &machine.ca {
            Some(file) => Some(context.absolute(file)),
            None => before.ca,
        },
    };
    let network = Network::new(server, &trust)?;
    if network.is_in_the_open() {
        context.output.remark(
            "Plain http to another computer: whoever is on the way sees which machine talks when and how much, and can \
             take this one's place at the server. They cannot read or forge anything in the vault.",
        );
    }
    let name = machine
        .name
        .clone()
        .or(before.name)
        .unwrap_or_else(|| machine_name(&host::name(&context.variables)));
    let folder: PathBuf = match folder {
        Some(folder) => context.absolute(folder),
        None => before
            .folder
            .map_or_else(|| directories::folder(&context.variables), Ok)?,
    };
    let registration = Registration {
        invitation,
        server,
        name: &name,
        folder: &folder,
        trust: &trust,
        platform: &host::platform(),
    };
    Ok(context.setup(home).register(&network, registration).await?)
}

fn show(context: &Context, config: &Config, registered: &Registered) -> Result {
    let (name, server) = (
        config.name.as_deref().unwrap_or_default(),
        config.server.as_deref().unwrap_or_default(),
    );
    let folder = config.folder.as_deref().unwrap_or(Path::new(""));
    let answer = Answer {
        name,
        server,
        folder,
        vault: registered.vault,
        head: registered.head,
    };
    context.output.result(&answer, || {
        format!(
            "registered {name} at {server}; the folder is {}",
            folder.display()
        )
    })
}
