//! `server`: run it, and hand out invitations.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use syncagent_protocol::Code;
use syncagent_server::{Entropy, ServerConfig};
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{ServerCommand, ServerRun};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::{directories, logs, signals};

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// Understood by this project's servers, but not by this version.
const LATER: [&str; 3] = [
    "SYNCAGENT_DB_PATH",
    "SYNCAGENT_STORAGE_PATH",
    "SYNCAGENT_TRASH_RETENTION_DAYS",
];

pub(super) fn run(context: &Context, command: Option<ServerCommand>, run: ServerRun) -> Result {
    match command {
        None => serve(context, &run),
        Some(ServerCommand::Run(run)) => serve(context, &run),
        Some(ServerCommand::Invite { data }) => invite(context, data.as_deref()),
    }
}

fn serve(context: &Context, run: &ServerRun) -> Result {
    let data = data_dir(context, run.data.as_deref())?;
    let listen = listen_address(context, run.listen)?;
    let config = ServerConfig {
        data: data.clone(),
        listen,
        clock: Arc::clone(&context.clock),
        entropy: entropy(context),
    };
    context.block_on(async {
        let told_to_end = signals::told_to_end(context.global.until_eof)?;
        let app = syncagent_server::open(&config)?;
        let log_dir = match context.variables.path("SYNCAGENT_LOG_PATH") {
            Some(dir) => context.absolute(&dir),
            None => data.join("logs"),
        };
        logs::start(context, run.log, LevelFilter::INFO, Some(&log_dir))?;
        for name in LATER
            .iter()
            .filter(|name| context.variables.get(name).is_some())
        {
            tracing::warn!(
                "{name} has no effect in this version: everything lies in the data directory"
            );
        }
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(|error| cannot_listen(listen, &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| cannot_listen(listen, &error))?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                "plain http beyond this computer: put a server with TLS in front of {address}"
            );
        }
        announce(context, address, &data)?;
        tracing::info!(%address, data = %data.display(), "listening");
        syncagent_server::serve(app, listener, told_to_end)
            .await
            .map_err(|error| Failure::new(Code::Server, format!("the server failed: {error}")))?;
        tracing::info!("ended in order");
        Ok(())
    })
}

fn announce(context: &Context, address: SocketAddr, data: &Path) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        url: &'a str,
        data: &'a Path,
    }
    let url = format!("http://{address}");
    context.output.result(&Answer { url: &url, data }, || {
        format!("listening on {url}, data in {}", data.display())
    })
}

fn invite(context: &Context, data: Option<&Path>) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        invitation: &'a str,
        expires_in_s: u64,
    }
    let data = data_dir(context, data)?;
    let invitation = syncagent_server::invite(&data, &*context.clock, &entropy(context))?.to_text();
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

/// Flag, then environment, then what the system suggests.
fn data_dir(context: &Context, flag: Option<&Path>) -> Result<PathBuf> {
    match flag
        .map(Path::to_owned)
        .or_else(|| context.variables.path("SYNCAGENT_DATA"))
    {
        Some(data) => Ok(context.absolute(&data)),
        None => directories::server_data(&context.variables),
    }
}

fn listen_address(context: &Context, flag: Option<SocketAddr>) -> Result<SocketAddr> {
    if let Some(listen) = flag {
        return Ok(listen);
    }
    let text = context
        .variables
        .get("SYNCAGENT_LISTEN")
        .map(|value| value.to_string_lossy().into_owned());
    let text = text.unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "SYNCAGENT_LISTEN is '{text}', not an address such as {DEFAULT_LISTEN}"
        ))
    })
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
