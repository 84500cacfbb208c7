//! `server`: run it, and hand out invitations.

mod admin;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use syncagent_protocol::Code;
use syncagent_server::tls::{self, Certificate, Tls};
use syncagent_server::{Entropy, ServerConfig};
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{ServerCommand, ServerPlaces, ServerRun};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::settings::{self, ServerSettings};
use crate::{logs, signals};

pub(super) fn run(context: &Context, command: Option<ServerCommand>, run: &ServerRun) -> Result {
    match command {
        None => serve(context, run),
        Some(ServerCommand::Run(run)) => serve(context, &run),
        Some(ServerCommand::Invite { places }) => invite(context, &places),
        Some(ServerCommand::Admin { command }) => admin::run(context, command),
    }
}

fn serve(context: &Context, run: &ServerRun) -> Result {
    let ServerSettings {
        places,
        listen,
        log_dir,
        log,
        retention_days,
        tls,
        tls_names,
    } = ServerSettings::new(context, run)?;
    let data = places.data.clone();
    let config = ServerConfig {
        places,
        listen,
        clock: Arc::clone(&context.clock),
        entropy: entropy(context),
    };
    context.block_on(async {
        let told_to_end = signals::told_to_end(context.global.until_eof)?;
        let app = syncagent_server::open(&config)?;
        logs::start(context, log, LevelFilter::INFO, Some(&log_dir))?;
        if let Some(days) = retention_days {
            tracing::warn!(
                "a trash retention of {days} days is set, but this version purges nothing: everything is kept"
            );
        }
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(|error| cannot_listen(listen, &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| cannot_listen(listen, &error))?;
        let tls = open_tls(&data, tls.as_ref(), &tls_names)?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                "plain http beyond this computer, which machines refuse: start it with --tls self-signed, or put a server with \
                 TLS in front of {address}"
            );
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        announce(context, &format!("{scheme}://{address}"), &data)?;
        tracing::info!(%address, data = %data.display(), tls = tls.is_some(), "listening");
        let served = match tls {
            Some(tls) => syncagent_server::serve_tls(app, listener, tls, told_to_end).await,
            None => syncagent_server::serve(app, listener, told_to_end).await,
        };
        served.map_err(|error| Failure::new(Code::Server, format!("the server failed: {error}")))?;
        tracing::info!("ended in order");
        Ok(())
    })
}

/// The lock on `data` is held: nobody else changes what is in use.
fn open_tls(
    data: &Path,
    certificate: Option<&Certificate>,
    names: &[String],
) -> Result<Option<Tls>> {
    let Some(certificate) = certificate else {
        tls::none(data)?;
        return Ok(None);
    };
    let tls = Tls::open(data, certificate)?;
    if let Some(hash) = tls.pin()? {
        let hash = data_encoding::HEXLOWER.encode(&hash);
        tracing::info!(
            sha256 = hash,
            "the certificate vouches for itself; invitations name it"
        );
    }
    let unnamed = tls.unnamed(names);
    if !unnamed.is_empty() {
        tracing::warn!(
            "the certificate does not name {}. Machines that know it from their invitation do not mind; one that is made \
             anew would be another one to them",
            unnamed.join(", ")
        );
    }
    Ok(Some(tls))
}

fn announce(context: &Context, url: &str, data: &Path) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        url: &'a str,
        data: &'a Path,
    }
    context.output.result(&Answer { url, data }, || {
        format!("listening on {url}, data in {}", data.display())
    })
}

fn invite(context: &Context, flags: &ServerPlaces) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        invitation: &'a str,
        expires_in_s: u64,
    }
    let (places, certificate) = settings::server_places(context, flags)?;
    let pin = match certificate {
        Some(None) => None,
        Some(Some(certificate)) => tls::pin(&places.data, Some(&certificate))?,
        None => tls::pin(&places.data, None)?,
    };
    let invitation = syncagent_server::invite(places, &*context.clock, &entropy(context))?
        .pinning(pin)
        .to_text();
    let answer = Answer {
        invitation: &invitation,
        expires_in_s: 24 * 60 * 60,
    };
    context.output.result(&answer, || invitation.clone())
}

fn entropy(context: &Context) -> Entropy {
    let random = Arc::clone(&context.random);
    Arc::new(move |out| random.fill(out))
}

fn cannot_listen(listen: SocketAddr, error: &std::io::Error) -> Failure {
    let code = if error.kind() == std::io::ErrorKind::AddrInUse {
        Code::Busy
    } else {
        Code::Usage
    };
    Failure::new(
        code,
        format!("cannot listen on {listen}: {error}. Choose another address with --listen"),
    )
}
