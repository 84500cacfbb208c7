//! What the server knows: who may come, how the log goes on, and where each chunk lies.
//!
//! A [`Catalog`] has few verbs and each is atomic: after a crash it happened whole or not at all. The
//! log's only lock is that a position of a vault can be taken once. Chunks themselves are kept by
//! [`crate::chunks`]; the catalog never holds their bytes.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod sqlite;

use std::ops::Range;

use futures_util::future::BoxFuture;
use syncagent_protocol::api::{Head, Machine, MachineReport};
use syncagent_protocol::commit::HEADER_LEN;
use syncagent_protocol::pack::ChunkKind;
use syncagent_protocol::{ChunkId, CommitHash, MachineId, VaultId};

use crate::chunks::PackId;

/// A vault's row: it exists from the first invitation on, its id only from the first commit on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultKey(pub i64);

/// Why a verb failed. Answers that a client may cause are no errors but outcomes.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No space is left for it.
    #[error("no space is left for the catalog")]
    Full,
    /// No space is left for what comes right after it.
    #[error("no space is left beside the catalog")]
    FullAfterwards,
    /// Others held it for too long.
    #[error("the catalog is busy")]
    Busy,
    /// Its disk failed, and nobody knows how much of it was done.
    #[error("the catalog could not be written or read: {0}")]
    Torn(String),
    /// Anything else, with its cause for the log. Nothing was done.
    #[error("the catalog failed: {0}")]
    Broken(String),
}

impl CatalogError {
    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy)
    }

    /// Whether a crash may bring it back all the same: it may have been written to its end, and only then something failed.
    pub fn may_come_back(&self) -> bool {
        matches!(self, Self::FullAfterwards | Self::Torn(_))
    }
}

/// The answer of a verb.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, CatalogError>>;

/// Who stands behind a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The vault's row.
    pub vault: VaultKey,
    /// The vault's id, once its first commit is made.
    pub vid: Option<VaultId>,
    /// The machine.
    pub machine: MachineId,
    /// Whether it was removed.
    pub revoked: bool,
}

/// A machine that comes with an invitation and has proved to hold its key.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Hash of the invitation's secret.
    pub invitation: [u8; 32],
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub name: String,
    /// Its operating system.
    pub platform: String,
    /// Hash of the token it will get.
    pub token: [u8; 32],
    /// The server's time.
    pub now_ms: u64,
}

/// How a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The token is good now.
    Done {
        /// The vault's row.
        vault: VaultKey,
        /// The vault's id, once its first commit is made.
        vid: Option<VaultId>,
    },
    /// Unknown, expired, or used by another key.
    NotInvited,
    /// Another machine of the vault has this name.
    NameTaken,
    /// The machine was removed from this vault.
    Revoked,
}

/// The last commit of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Its position.
    pub n: u64,
    /// Its hash.
    pub hash: CommitHash,
    /// Its header, to recognise it when it is posted again.
    pub header: [u8; HEADER_LEN],
}

/// A commit that passed every check which needs no catalog.
#[derive(Debug, Clone)]
pub struct NewCommit {
    /// The vault it names.
    pub vid: VaultId,
    /// Its position.
    pub n: u64,
    /// The hash it stands on.
    pub prev: CommitHash,
    /// Its own hash.
    pub hash: CommitHash,
    /// Who signed it.
    pub author: MachineId,
    /// Who posts it.
    pub poster: MachineId,
    /// Its header.
    pub header: [u8; HEADER_LEN],
    /// The whole, in served form.
    pub served: Vec<u8>,
    /// Every chunk it names.
    pub refs: Vec<ChunkId>,
    /// Every machine it removes.
    pub revokes: Vec<MachineId>,
    /// Whether it enrols its author.
    pub enrols: bool,
    /// Whether it is said to be one that the server had and lost: see [`Catalog::set_restored`].
    pub lost: bool,
    /// The server's time.
    pub now_ms: u64,
}

/// How an append ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is the head now.
    Done,
    /// It does not stand on this head.
    Stale(Option<Head>),
    /// It names another vault than this one.
    OtherVault,
    /// It is said to be one that was lost, and the vault is not marked as restored.
    NotRestored,
    /// Its author is no machine of this vault, or was removed.
    UnknownAuthor,
    /// The poster was removed in the meantime.
    PosterRevoked,
    /// Chunks are missing; these and perhaps more.
    Missing(Vec<ChunkId>),
    /// It reaches more chunks than one commit may.
    TooManyChunks,
}

/// A vault, as whoever looks after the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vault {
    /// Its row.
    pub key: VaultKey,
    /// Its id, once its first commit is made.
    pub vid: Option<VaultId>,
    /// Position of its last commit.
    pub n: u64,
    /// Until when it counts as restored from a backup, milliseconds since 1970; 0 if it does not.
    pub restored_until_ms: u64,
}

/// A commit as it can be seen without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRow {
    /// Its position.
    pub n: u64,
    /// Its author.
    pub author: MachineId,
    /// The name of that machine; empty if it never registered.
    pub name: String,
    /// When it came, milliseconds since 1970.
    pub appended_ms: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// A run of commits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commits {
    /// Position and served form of each, in order, together within the limit asked for.
    pub commits: Vec<(u64, Vec<u8>)>,
    /// If the first commit alone is over the limit: its length.
    pub too_long: Option<usize>,
}

/// A chunk as it lies in a new pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChunk {
    /// Its id.
    pub id: ChunkId,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
    /// What it holds.
    pub kind: ChunkKind,
    /// The ids of a list chunk, joined; empty for data.
    pub children: Vec<u8>,
}

/// A pack that is safely stored.
#[derive(Debug, Clone)]
pub struct NewPack {
    /// Its name in the chunk store.
    pub id: PackId,
    /// Its length in bytes.
    pub len: u64,
    /// What is in it.
    pub chunks: Vec<NewChunk>,
    /// Chunks that came along but were there already.
    pub renewed: Vec<ChunkId>,
    /// The server's time.
    pub now_ms: u64,
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// In which pack.
    pub pack: PackId,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
}

impl Location {
    /// The place, as a gap.
    pub fn gap(&self) -> Gap {
        Gap {
            pack: self.pack,
            bytes: self.offset..self.offset + u64::from(self.len),
        }
    }
}

/// A pack that was recorded, of whichever vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPack {
    /// Its name in the chunk store.
    pub id: PackId,
    /// Its length in bytes.
    pub len: u64,
    /// Whether its end is noted as missing.
    pub is_cut: bool,
}

/// A part of a recorded pack that the store cannot give any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The pack.
    pub pack: PackId,
    /// Which bytes of it.
    pub bytes: Range<u64>,
}

/// What lies in gaps, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// How many chunks.
    pub chunks: u64,
    /// In how many packs.
    pub packs: u64,
}

/// A key slot of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The slot that was put last.
    pub current: Vec<u8>,
    /// The one before it, if it was another.
    pub previous: Option<Vec<u8>>,
}

/// What the server knows.
pub trait Catalog: Send + Sync {
    /// Adds an invitation to the vault that is there, or to a new one if there is none.
    fn invite(&self, invitation: [u8; 32], now_ms: u64, expires_ms: u64) -> Answer<'_, VaultKey>;

    /// Uses up the invitation and takes the machine in, or does neither.
    ///
    /// The key that used an invitation may come again until it expires: its token is replaced.
    fn register(&self, registration: Registration) -> Answer<'_, Registered>;

    /// Who stands behind a token.
    fn authenticate(&self, token: [u8; 32]) -> Answer<'_, Option<Session>>;

    /// The machines of a vault by name, removed ones last.
    fn machines(&self, vault: VaultKey) -> Answer<'_, Vec<Machine>>;

    /// Ends a machine's token. Whether there is such a machine.
    fn revoke(&self, vault: VaultKey, machine: MachineId, now_ms: u64) -> Answer<'_, bool>;

    /// Keeps what a machine says of itself. Need not be durable at once.
    fn report(
        &self,
        vault: VaultKey,
        machine: MachineId,
        report: MachineReport,
        now_ms: u64,
    ) -> Answer<'_, ()>;

    /// The last commit.
    fn tip(&self, vault: VaultKey) -> Answer<'_, Option<Tip>>;

    /// The hash of the commit at position `n`.
    fn hash_at(&self, vault: VaultKey, n: u64) -> Answer<'_, Option<CommitHash>>;

    /// Appends `commit` if it stands on the head, its author is a machine of the vault and every chunk it
    /// reaches is there; ends the tokens of the machines it removes. All of it or nothing.
    fn append(&self, vault: VaultKey, commit: NewCommit) -> Answer<'_, Appended>;

    /// Every vault.
    fn vaults(&self) -> Answer<'_, Vec<Vault>>;

    /// Until `until_ms`, a commit that is said to be lost is taken although chunks are missing or its author is not
    /// registered, if that machine is enrolled in the log or by the commit itself. 0 ends it.
    fn set_restored(&self, vault: VaultKey, until_ms: u64) -> Answer<'_, ()>;

    /// The commits after `after` as they can be seen without a key, in order.
    fn tail(&self, vault: VaultKey, after: u64) -> Answer<'_, Vec<CommitRow>>;

    /// Removes the commits after `to`, all or none. Chunks, slots and machines stay as they are.
    fn cut(&self, vault: VaultKey, to: u64) -> Answer<'_, u64>;

    /// The commits after `after`, in order, as many as fit into `max_len` bytes.
    fn commits(&self, vault: VaultKey, after: u64, max_len: usize) -> Answer<'_, Commits>;

    /// Which of `ids` are there, in their order. A chunk in a gap is not.
    fn known(&self, vault: VaultKey, ids: Vec<ChunkId>) -> Answer<'_, Vec<bool>>;

    /// Makes a stored pack's chunks known. Chunks that are there already stay where they are; those in a gap are in this pack
    /// from now on. How many are new, or there again.
    fn record_pack(&self, vault: VaultKey, pack: NewPack) -> Answer<'_, u32>;

    /// Which of `ids` and their descendants are not there, each once, at most `max`; renews the others.
    fn missing(
        &self,
        vault: VaultKey,
        ids: Vec<ChunkId>,
        max: usize,
        now_ms: u64,
    ) -> Answer<'_, Vec<ChunkId>>;

    /// Where each of `ids` lies, in their order. One in a gap, too: it may be readable all the same.
    fn locate(&self, vault: VaultKey, ids: Vec<ChunkId>) -> Answer<'_, Vec<Option<Location>>>;

    /// The packs that are recorded, in order of id, from the one behind `after` on, at most `max`.
    fn packs(&self, after: Option<PackId>, max: usize) -> Answer<'_, Vec<KnownPack>>;

    /// Notes what cannot be read any more. Packs that are not recorded are passed over.
    fn open_gaps(&self, gaps: Vec<Gap>) -> Answer<'_, ()>;

    /// Forgets the gaps up to the end of these packs: they have their length again. What could not be read in the middle
    /// of them is a gap until it is sent again.
    fn close_gaps(&self, packs: Vec<PackId>) -> Answer<'_, ()>;

    /// How much lies in gaps.
    fn lost(&self) -> Answer<'_, Lost>;

    /// Replaces the slot of this type. The same slot again changes nothing.
    fn put_slot(&self, vault: VaultKey, kind: u8, slot: Vec<u8>, now_ms: u64) -> Answer<'_, ()>;

    /// The slot of this type.
    fn slot(&self, vault: VaultKey, kind: u8) -> Answer<'_, Option<Slot>>;
}
