//! The control socket: one line of JSON asks, lines of JSON answer.
//!
//! Whoever may open the socket is the user: it stands in a directory that only they may enter.

#[cfg(unix)]
#[path = "control/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "control/windows.rs"]
mod system;

use std::path::PathBuf;

use interprocess::local_socket::tokio::{Stream, prelude::*};
use serde::{Deserialize, Serialize};
use syncagent_protocol::MachineId;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{Course, Resolve, Restore, Status};
use crate::error::ClientError;
use crate::home::Home;

/// The longest line either side sends.
const MAX_LINE_LEN: u64 = 16 * 1024 * 1024;

/// What the engine is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verb", content = "with")]
pub enum Command {
    /// Stop until `Resume`.
    Pause,
    /// Go on.
    Resume,
    /// Look at everything at once.
    Now,
    /// Look at everything at once, and make the change of very many files that waits for a yes now, and no other. The
    /// answer is of how many files that is; 0 if none waits.
    Approve,
    /// Bring something back.
    Restore(Restore),
    /// End a conflict.
    Resolve(Resolve),
    /// Take a machine out of the vault.
    Remove(MachineId),
    /// Bring a server that went back and this machine together again, as somebody agreed to.
    Recover(Course),
    /// Drop the key, whatever is going on, until `Unlock`.
    Lock,
    /// Get the key from where `unlock` keeps it, and go on.
    Unlock,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Status,
    Watch,
    Do(Command),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Done(serde_json::Value),
    Failed {
        code: syncagent_protocol::Code,
        message: String,
    },
}

/// A command on its way to the engine.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<serde_json::Value, ClientError>>,
}

/// Where requests go. A lock does not wait for its turn.
#[derive(Clone)]
pub(super) struct Mailbox {
    commands: mpsc::Sender<Request>,
    locks: mpsc::Sender<Request>,
}

/// What comes in there.
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Request>,
    pub(super) locks: mpsc::Receiver<Request>,
}

impl Mailbox {
    pub(super) fn new() -> (Self, Inbox) {
        let (commands, command_inbox) = mpsc::channel(16);
        let (locks, lock_inbox) = mpsc::channel(16);
        let inbox = Inbox {
            commands: command_inbox,
            locks: lock_inbox,
        };
        (Self { commands, locks }, inbox)
    }
}

/// The socket, as long as it is held.
pub(super) struct Control {
    task: tokio::task::JoinHandle<()>,
    path: PathBuf,
}

impl Control {
    /// Closes the socket and waits until it is: the one that listens there next keeps its own name.
    pub(super) async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket. The home's lock is held: a socket that is there already is a dead one's.
pub(super) fn listen(
    home: &Home,
    mailbox: Mailbox,
    status: watch::Receiver<Status>,
) -> Result<Control, ClientError> {
    let path = home.socket_path();
    let _ = std::fs::remove_file(&path);
    let listener = system::listen(&path).map_err(ClientError::io("listen on", &path))?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    let (mailbox, status) = (mailbox.clone(), status.clone());
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, mailbox, status).await {
                            tracing::debug!(%error, "a control connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(Control { task, path })
}

async fn serve(
    stream: Stream,
    mailbox: Mailbox,
    mut status: watch::Receiver<Status>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    (&mut reader)
        .take(MAX_LINE_LEN)
        .read_line(&mut line)
        .await?;
    let mut writer = reader.into_inner();
    match serde_json::from_str(&line)? {
        Line::Status => {
            let now = status.borrow().clone();
            write_line(&mut writer, &now).await
        }
        Line::Watch => loop {
            let now = status.borrow_and_update().clone();
            write_line(&mut writer, &now).await?;
            if status.changed().await.is_err() {
                return Ok(());
            }
        },
        Line::Do(command) => {
            let (answer, reply) = oneshot::channel();
            let gone = || ClientError::Busy("the daemon is stopping".into());
            let inbox = match command {
                Command::Lock => &mailbox.locks,
                _ => &mailbox.commands,
            };
            let result = match inbox.send(Request { command, answer }).await {
                Ok(()) => reply.await.unwrap_or_else(|_| Err(gone())),
                Err(_) => Err(gone()),
            };
            let reply = match result {
                Ok(value) => Reply::Done(value),
                Err(error) => Reply::Failed {
                    code: error.code(),
                    message: error.to_string(),
                },
            };
            write_line(&mut writer, &reply).await
        }
    }
}

async fn write_line(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    value: &impl Serialize,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

/// A connection to the daemon of a home.
pub struct Client {
    stream: Stream,
}

impl Client {
    /// Connects; none if no daemon runs.
    pub async fn connect(home: &Home) -> Option<Self> {
        let stream = system::connect(&home.socket_path()).await.ok()?;
        Some(Self { stream })
    }

    /// How the machine does.
    pub async fn status(self) -> Result<Status, ClientError> {
        let mut lines = self.ask(&Line::Status).await?;
        lines.next().await?.ok_or_else(gone)
    }

    /// How the machine does, now and after every change.
    pub async fn watch(self) -> Result<StatusLines, ClientError> {
        self.ask(&Line::Watch).await
    }

    /// Tells the engine something and waits until it has done so.
    pub async fn tell(self, command: Command) -> Result<serde_json::Value, ClientError> {
        let mut lines = self.ask(&Line::Do(command)).await?;
        match lines.next_as::<Reply>().await?.ok_or_else(gone)? {
            Reply::Done(value) => Ok(value),
            Reply::Failed { code, message } => Err(ClientError::File {
                path: syncagent_protocol::TreePath::ROOT,
                code,
                message,
            }),
        }
    }

    /// Tells the daemon to drop its key, and waits until it has: it says so, or the process that had it is no more.
    pub async fn lock(self) -> Result<(), ClientError> {
        let mut lines = self.ask(&Line::Do(Command::Lock)).await?;
        match lines.next_as::<Reply>().await {
            Ok(Some(Reply::Failed { code, message })) => Err(ClientError::File {
                path: syncagent_protocol::TreePath::ROOT,
                code,
                message,
            }),
            Ok(Some(Reply::Done(_)) | None) => Ok(()),
            // The connection broke, as it does when the process ends.
            Err(_) => Ok(()),
        }
    }

    async fn ask(self, line: &Line) -> Result<StatusLines, ClientError> {
        let mut stream = self.stream;
        write_line(&mut stream, line).await.map_err(|_| gone())?;
        Ok(StatusLines(BufReader::new(stream)))
    }
}

/// What the daemon says, line by line.
pub struct StatusLines(BufReader<Stream>);

impl StatusLines {
    /// The next state; none when the daemon ends.
    pub async fn next(&mut self) -> Result<Option<Status>, ClientError> {
        self.next_as().await
    }

    async fn next_as<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_str(&line).map(Some).map_err(|_| {
                ClientError::Busy("the daemon speaks another version: restart it".into())
            }),
            Err(_) => Err(gone()),
        }
    }
}

fn gone() -> ClientError {
    ClientError::Busy("the daemon ended while it was asked: try again".into())
}
