//! The server as the engine sees it.
//!
//! [`Remote`] is a seam: [`http::HttpRemote`] speaks the protocol of docs/protocol.md over any
//! [`http::Transport`], which is the network in a daemon and the server's router in a simulated world.

pub mod http;
pub mod reqwest;
pub mod tls;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use syncagent_protocol::api::{Event, Head, Machine, MachineReport};
use syncagent_protocol::{ChunkId, Code, CommitHash, MachineId};

/// Why the server did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// No answer, or half of one. The server may have done what it was asked.
    #[error("cannot reach the server: {0}")]
    Offline(String),
    /// No connection came about: nothing of the request left this machine.
    #[error("cannot reach the server: {0}")]
    Unreached(String),
    /// Whoever answers at the address does not prove to be the server. Nothing was sent to it.
    #[error("{0}")]
    Untrusted(String),
    /// An answer with a code.
    #[error("{message}")]
    Refused {
        /// The stable code.
        code: Code,
        /// The server's sentence.
        message: String,
    },
    /// An answer that is none of this protocol.
    #[error(
        "the server's answer is not SyncAgent's ({0}): is the address right, or does a captive portal answer?"
    )]
    Protocol(String),
    /// An answer beyond what any honest server sends.
    #[error("the server's answer is beyond the limits ({0})")]
    Limit(&'static str),
}

impl RemoteError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Offline(_) | Self::Unreached(_) | Self::Protocol(_) => Code::Offline,
            Self::Untrusted(_) => Code::Certificate,
            Self::Refused { code, .. } => *code,
            Self::Limit(_) => Code::Limit,
        }
    }

    /// Whether the same request may work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Offline(_) | Self::Unreached(_) | Self::Protocol(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Server | Code::Busy | Code::DiskFull | Code::Offline
            ),
            Self::Untrusted(_) | Self::Limit(_) => false,
        }
    }
}

/// What came of posting a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It stands, now or already before.
    Accepted,
    /// Somebody was first.
    Conflict(Head),
    /// Chunks to upload first.
    Missing(Vec<ChunkId>),
}

/// A part of the log.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Commits in their served form, in order.
    pub commits: Vec<Bytes>,
    /// Position of the last commit of the log when the page began.
    pub head: u64,
    /// The hash of the commit after which was asked, if the server says it.
    pub after: Option<CommitHash>,
}

/// One server, one vault, one machine's token.
pub trait Remote: Send + Sync {
    /// The commits after `n`.
    fn commits(&self, after: u64) -> BoxFuture<'_, Result<Page, RemoteError>>;
    /// Posts a sealed commit.
    fn post_commit(&self, commit: Bytes) -> BoxFuture<'_, Result<Posted, RemoteError>>;
    /// Posts a commit, in served form, as one that the server had and lost. A vault that is marked as restored takes it
    /// although chunks are missing, bodies were dropped, or its author is not registered any more.
    fn post_lost(&self, commit: Bytes) -> BoxFuture<'_, Result<Posted, RemoteError>>;
    /// Uploads a pack; when it returns, the chunks are durable.
    fn post_pack(&self, pack: Bytes) -> BoxFuture<'_, Result<(), RemoteError>>;
    /// Those of `ids`, and of what they list, that the server lacks.
    fn missing(&self, ids: Vec<ChunkId>) -> BoxFuture<'_, Result<Vec<ChunkId>, RemoteError>>;
    /// The chunks in the order of `ids`; none where the server has no such chunk.
    fn fetch(&self, ids: Vec<ChunkId>) -> BoxStream<'_, Result<Option<Vec<u8>>, RemoteError>>;
    /// The slot of a type, or the one before it.
    fn slot(
        &self,
        slot_type: u8,
        previous: bool,
    ) -> BoxFuture<'_, Result<Option<Bytes>, RemoteError>>;
    /// Puts a slot.
    fn put_slot(&self, slot_type: u8, slot: Bytes) -> BoxFuture<'_, Result<(), RemoteError>>;
    /// The machines of the vault.
    fn machines(&self) -> BoxFuture<'_, Result<Vec<Machine>, RemoteError>>;
    /// Ends a machine's token.
    fn remove_machine(&self, machine: MachineId) -> BoxFuture<'_, Result<(), RemoteError>>;
    /// Says how this machine does.
    fn report(&self, report: MachineReport) -> BoxFuture<'_, Result<(), RemoteError>>;
    /// Hints that the log has grown. Ends when the connection does.
    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>>;
}
