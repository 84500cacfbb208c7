//! The catalog in one SQLite file: write-ahead log, one writer, a few readers.
//!
//! `synchronous=FULL`: what a verb has answered survives a power cut. Only reports of machines, which are
//! pictures and no promises, are left to the next durable write.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params,
};
use rusqlite_migration::{M, Migrations};
use syncagent_protocol::api::{Head, Machine, MachineReport};
use syncagent_protocol::commit::{Commit, OpKind};
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::pack::{ChunkKind, MAX_IDS_PER_REQUEST};
use syncagent_protocol::{ChunkId, CommitHash, MachineId, VaultId};
use tokio::sync::Semaphore;

use super::{
    Answer, Appended, Catalog, CatalogError, CommitRow, Commits, Gap, KnownPack, Location, Lost,
    NewCommit, NewPack, Registered, Registration, Session, Slot, Tip, Vault, VaultKey,
};
use crate::chunks::PackId;
use crate::work::Work;

/// Connections that read at once.
const READERS: usize = 4;
/// How long one process waits for another (`invite` beside a server).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A chunk renewed less than this ago is not written again: a write for each look would cost more than it keeps.
const RENEWAL_MS: u64 = 60 * 60 * 1000;
/// Chunks that one commit or question may reach through its list chunks: more than 8 TiB of files.
const MAX_REACHED: usize = 4_000_000;

/// The shapes the file went through. A shape that was released is never edited, only followed.
const STEPS: &[M<'static>] = &[
    M::up(include_str!("migrations/0001.sql")),
    M::up(include_str!("migrations/0002.sql")),
    M::up(include_str!("migrations/0003.sql")),
];

type Sql<T> = Result<T, rusqlite::Error>;

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        // Also the file beside the catalog that its connections share, and that cannot grow.
        let cannot_grow = error
            .sqlite_error()
            .is_some_and(|failure| failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            // It grows after the journal was written and flushed.
            _ if cannot_grow => Self::FullAfterwards,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::SystemIoFailure) => Self::Torn(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<rusqlite_migration::Error> for CatalogError {
    fn from(error: rusqlite_migration::Error) -> Self {
        match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
            error => Self::Broken(error.to_string()),
        }
    }
}

/// See the module.
pub struct SqliteCatalog {
    work: Work,
    inner: Arc<Inner>,
    /// Turns, taken before a thread is: waiting costs no thread.
    writer_turn: Arc<Semaphore>,
    reader_turns: Arc<Semaphore>,
}

struct Inner {
    writer: Mutex<Connection>,
    /// Idle readers; none in memory, where the writer's connection is the only one that sees anything.
    readers: Mutex<Vec<Connection>>,
    path: Option<PathBuf>,
}

impl SqliteCatalog {
    /// Opens the file, making it and bringing it to the newest shape if need be.
    pub fn open(path: &Path, work: Work) -> Result<Self, CatalogError> {
        let mut writer = Connection::open(path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        Self::set_up(&mut writer)?;
        Ok(Self::with(writer, Some(path.to_owned()), work))
    }

    /// A catalog that is gone with the process, for tests and simulated worlds.
    pub fn in_memory(work: Work) -> Result<Self, CatalogError> {
        let mut writer = Connection::open_in_memory()?;
        Self::set_up(&mut writer)?;
        Ok(Self::with(writer, None, work))
    }

    fn set_up(writer: &mut Connection) -> Result<(), CatalogError> {
        settings(writer)?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        Ok(Migrations::from_slice(STEPS).to_latest(writer)?)
    }

    fn with(writer: Connection, path: Option<PathBuf>, work: Work) -> Self {
        let inner = Inner {
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            path,
        };
        Self {
            work,
            inner: Arc::new(inner),
            writer_turn: Arc::new(Semaphore::new(1)),
            reader_turns: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Runs `job` in a transaction that is kept if it answers `Ok`.
    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Sql<Decision<T>> + Send + 'static,
    ) -> Answer<'_, T> {
        self.on_writer(move |writer| transact(writer, job))
    }

    fn on_writer<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Sql<T> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let turn = Arc::clone(&self.writer_turn).acquire_owned().await;
            let inner = Arc::clone(&self.inner);
            let done = self.work.run(move || {
                let _turn = turn;
                job(&mut inner.writer.lock().unwrap_or_else(PoisonError::into_inner))
            });
            Ok(done
                .await
                .map_err(|lost| CatalogError::Torn(lost.to_string()))??)
        })
    }

    /// Runs `job` on a view of the catalog that does not change under it.
    fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Sql<T> + Send + 'static,
    ) -> Answer<'_, T> {
        if self.inner.path.is_none() {
            return self.on_writer(|writer| job(writer));
        }
        Box::pin(async move {
            let turn = Arc::clone(&self.reader_turns).acquire_owned().await;
            let inner = Arc::clone(&self.inner);
            let done = self.work.run(move || {
                let _turn = turn;
                inner.with_reader(job)
            });
            Ok(done
                .await
                .map_err(|lost| CatalogError::Broken(lost.to_string()))??)
        })
    }
}

impl Inner {
    fn with_reader<T>(&self, job: impl FnOnce(&Connection) -> Sql<T>) -> Sql<T> {
        let idle = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let reader = match (idle, &self.path) {
            (Some(reader), _) => reader,
            (None, Some(path)) => {
                let reader = Connection::open(path)?;
                settings(&reader)?;
                reader.pragma_update(None, "query_only", true)?;
                reader
            }
            (None, None) => {
                return job(&self.writer.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        let result = reader.unchecked_transaction().and_then(|tx| job(&tx));
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reader);
        result
    }
}

fn settings(connection: &Connection) -> Sql<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    // On macOS a flush ends in the drive's own memory unless it is asked for like this; elsewhere this changes nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Whether a transaction's changes are kept.
enum Decision<T> {
    Keep(T),
    Undo(T),
}

use Decision::{Keep, Undo};

fn transact<T>(
    writer: &mut Connection,
    job: impl FnOnce(&Transaction<'_>) -> Sql<Decision<T>>,
) -> Sql<T> {
    // Immediate: a reader that wants to write later may find the base changed, a writer from the start never.
    let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match job(&tx)? {
        Keep(value) => {
            tx.commit()?;
            Ok(value)
        }
        Undo(value) => {
            tx.rollback()?;
            Ok(value)
        }
    }
}

/// A blob of exactly `N` bytes. The schema's writers are all in this file, so another length is a damaged file.
fn array<const N: usize>(row: &Row<'_>, column: usize) -> Sql<[u8; N]> {
    row.get::<_, [u8; N]>(column)
}

/// A number that was stored by [`signed`].
fn unsigned(row: &Row<'_>, column: usize) -> Sql<u64> {
    row.get::<_, i64>(column)
        .map(|value| u64::try_from(value).unwrap_or(0))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn tip(db: &Connection, vault: VaultKey) -> Sql<Option<Tip>> {
    db.prepare_cached(
        "SELECT n, hash, header FROM commits WHERE vault = ?1 ORDER BY n DESC LIMIT 1",
    )?
    .query_row([vault.0], |row| {
        Ok(Tip {
            n: unsigned(row, 0)?,
            hash: CommitHash(array(row, 1)?),
            header: array(row, 2)?,
        })
    })
    .optional()
}

fn vid(db: &Connection, vault: VaultKey) -> Sql<Option<VaultId>> {
    db.prepare_cached("SELECT vid FROM vaults WHERE key = ?1")?
        .query_row([vault.0], |row| {
            Ok(row.get::<_, Option<[u8; 16]>>(0)?.map(VaultId))
        })
}

/// Whether the machine is registered here; if so, whether it was removed.
fn is_revoked(db: &Connection, vault: VaultKey, machine: MachineId) -> Sql<Option<bool>> {
    db.prepare_cached("SELECT revoked_ms IS NOT NULL FROM machines WHERE vault = ?1 AND id = ?2")?
        .query_row(params![vault.0, machine.0], |row| row.get(0))
        .optional()
}

fn revoke(db: &Connection, vault: VaultKey, machine: MachineId, now_ms: u64) -> Sql<()> {
    // A machine that never registered gets its row too: its key must never be taken in later.
    db.prepare_cached(
        "INSERT INTO machines (vault, id, name, platform, registered_ms, last_seen_ms, revoked_ms)
         VALUES (?1, ?2, '', '', ?3, ?3, ?3)
         ON CONFLICT (vault, id) DO UPDATE SET revoked_ms = coalesce(revoked_ms, excluded.revoked_ms)",
    )?
    .execute(params![vault.0, machine.0, signed(now_ms)])?;
    Ok(())
}

/// Whether the chunk `c` lies in a gap. There are hardly ever any, so this is a look into an empty table.
macro_rules! in_gap {
    () => {
        "EXISTS (SELECT 1 FROM gaps AS g
                 WHERE g.pack = c.pack AND g.first < c.offset + c.len AND g.beyond > c.offset)"
    };
}

/// What a walk from some chunks down through list chunks found.
#[derive(Default)]
struct Reached {
    missing: Vec<ChunkId>,
    /// Present, but not renewed for a while.
    stale: Vec<ChunkId>,
    /// The walk was broken off.
    too_many: bool,
}

/// Walks `roots` and all their descendants. Stops early once `max` are missing.
fn reach(
    db: &Connection,
    vault: VaultKey,
    roots: &[ChunkId],
    max: usize,
    stale_before_ms: u64,
) -> Sql<Reached> {
    let mut chunk = db.prepare_cached(concat!(
        "SELECT kind, renewed_ms FROM chunks AS c WHERE vault = ?1 AND id = ?2 AND NOT ",
        in_gap!()
    ))?;
    let mut list = db.prepare_cached("SELECT children FROM lists WHERE vault = ?1 AND id = ?2")?;
    let mut reached = Reached::default();
    let mut missing_seen = HashSet::new();
    // Only list chunks can lead to a place twice: remembering them alone ends every walk and stays small.
    let mut lists_seen = HashSet::new();
    // A stack: what is to be looked at next comes last.
    let mut walk: Vec<ChunkId> = roots.iter().rev().copied().collect();
    let mut looked_at = 0;
    while let Some(id) = walk.pop() {
        looked_at += 1;
        if looked_at > MAX_REACHED {
            reached.too_many = true;
            break;
        }
        let found: Option<(u8, i64)> = chunk
            .query_row(params![vault.0, id.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((kind, renewed_ms)) = found else {
            if missing_seen.insert(id) {
                reached.missing.push(id);
                if reached.missing.len() >= max {
                    break;
                }
            }
            continue;
        };
        if renewed_ms < signed(stale_before_ms) {
            reached.stale.push(id);
        }
        if kind == 1 && lists_seen.insert(id) {
            list.query_row(params![vault.0, id.0], |row| {
                let (children, _) = row.get_ref(0)?.as_blob()?.as_chunks::<32>();
                walk.extend(children.iter().rev().map(|id| ChunkId(*id)));
                Ok(())
            })?;
        }
    }
    Ok(reached)
}

fn renew(db: &Connection, vault: VaultKey, ids: &[ChunkId], now_ms: u64) -> Sql<()> {
    let mut update = db.prepare_cached(
        "UPDATE chunks SET renewed_ms = ?3 WHERE vault = ?1 AND id = ?2 AND renewed_ms < ?4",
    )?;
    for id in ids {
        update.execute(params![
            vault.0,
            id.0,
            signed(now_ms),
            signed(now_ms.saturating_sub(RENEWAL_MS))
        ])?;
    }
    Ok(())
}

fn register(tx: &Transaction<'_>, r: &Registration) -> Sql<Decision<Registered>> {
    let invitation: Option<(i64, u64, Option<[u8; 16]>)> = tx
        .prepare_cached("SELECT vault, expires_ms, used_by FROM invitations WHERE hash = ?1")?
        .query_row([r.invitation], |row| {
            Ok((row.get(0)?, unsigned(row, 1)?, row.get(2)?))
        })
        .optional()?;
    let Some((vault, expires_ms, used_by)) = invitation else {
        return Ok(Undo(Registered::NotInvited));
    };
    let vault = VaultKey(vault);
    if r.now_ms >= expires_ms || used_by.is_some_and(|by| by != r.machine.0) {
        return Ok(Undo(Registered::NotInvited));
    }
    if is_revoked(tx, vault, r.machine)? == Some(true) {
        return Ok(Undo(Registered::Revoked));
    }
    let name_taken: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM machines WHERE vault = ?1 AND name = ?2 AND id <> ?3 AND revoked_ms IS NULL)",
        )?
        .query_row(params![vault.0, r.name, r.machine.0], |row| row.get(0))?;
    if name_taken {
        return Ok(Undo(Registered::NameTaken));
    }
    tx.execute(
        "UPDATE invitations SET used_by = ?2 WHERE hash = ?1",
        params![r.invitation, r.machine.0],
    )?;
    tx.execute(
        "INSERT INTO machines (vault, id, name, platform, token, registered_ms, last_seen_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
         ON CONFLICT (vault, id) DO UPDATE SET name = ?3, platform = ?4, token = ?5, last_seen_ms = ?6",
        params![vault.0, r.machine.0, r.name, r.platform, r.token, signed(r.now_ms)],
    )?;
    Ok(Keep(Registered::Done {
        vault,
        vid: vid(tx, vault)?,
    }))
}

fn restored_ms(db: &Connection, vault: VaultKey) -> Sql<u64> {
    db.prepare_cached("SELECT restored_ms FROM vaults WHERE key = ?1")?
        .query_row([vault.0], |row| unsigned(row, 0))
}

/// Whether the log enrols the machine: it does so itself, in its first commit.
fn is_enrolled(db: &Connection, vault: VaultKey, machine: MachineId) -> Sql<bool> {
    let first: Option<Vec<u8>> = db
        .prepare_cached(
            "SELECT served FROM commits WHERE vault = ?1 AND author = ?2 ORDER BY n LIMIT 1",
        )?
        .query_row(params![vault.0, machine.0], |row| row.get(0))
        .optional()?;
    let enrols = |served: Vec<u8>| {
        let commit = Commit::parse_served(&served).ok()?;
        let mut ops = commit.ops.iter();
        Some(ops.any(|op| op.head.kind == OpKind::MachineAdd))
    };
    Ok(first.and_then(enrols).unwrap_or(false))
}

/// A row for a machine that has no token.
fn enter(db: &Connection, vault: VaultKey, machine: MachineId, now_ms: u64) -> Sql<()> {
    db.prepare_cached(
        "INSERT INTO machines (vault, id, name, platform, registered_ms, last_seen_ms)
         VALUES (?1, ?2, '', '', ?3, 0)",
    )?
    .execute(params![vault.0, machine.0, signed(now_ms)])?;
    Ok(())
}

fn append(tx: &Transaction<'_>, vault: VaultKey, c: &NewCommit) -> Sql<Decision<Appended>> {
    match vid(tx, vault)? {
        Some(known) if known != c.vid => return Ok(Undo(Appended::OtherVault)),
        Some(_) => {}
        None => {
            let taken: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM vaults WHERE vid = ?1)")?
                .query_row([c.vid.0], |row| row.get(0))?;
            if taken {
                return Ok(Undo(Appended::OtherVault));
            }
        }
    }
    let head = tip(tx, vault)?;
    let (n, hash) = head
        .as_ref()
        .map_or((0, CommitHash::genesis(c.vid)), |head| (head.n, head.hash));
    if c.n != n + 1 || c.prev != hash {
        let head = head.map(|tip| Head {
            n: tip.n,
            hash: tip.hash,
        });
        return Ok(Undo(Appended::Stale(head)));
    }
    if is_revoked(tx, vault, c.poster)? != Some(false) {
        return Ok(Undo(Appended::PosterRevoked));
    }
    if c.lost && restored_ms(tx, vault)? <= c.now_ms {
        return Ok(Undo(Appended::NotRestored));
    }
    match is_revoked(tx, vault, c.author)? {
        Some(false) => {}
        // It registered after the backup was made. Its token was lost; with its key it gets another one.
        None if c.lost && (c.enrols || is_enrolled(tx, vault, c.author)?) => {
            enter(tx, vault, c.author, c.now_ms)?;
        }
        _ => return Ok(Undo(Appended::UnknownAuthor)),
    }
    if !c.lost {
        let reached = reach(tx, vault, &c.refs, MAX_IDS_PER_REQUEST, 0)?;
        if reached.too_many {
            return Ok(Undo(Appended::TooManyChunks));
        }
        if !reached.missing.is_empty() {
            return Ok(Undo(Appended::Missing(reached.missing)));
        }
    }
    if c.n == 1 {
        tx.execute(
            "UPDATE vaults SET vid = ?2 WHERE key = ?1",
            params![vault.0, c.vid.0],
        )?;
    }
    tx.prepare_cached(
        "INSERT INTO commits (vault, n, hash, author, header, appended_ms, len, served)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        vault.0,
        signed(c.n),
        c.hash.0,
        c.author.0,
        c.header,
        signed(c.now_ms),
        signed(c.served.len() as u64),
        c.served
    ])?;
    for &machine in &c.revokes {
        revoke(tx, vault, machine, c.now_ms)?;
    }
    tx.prepare_cached(
        "UPDATE machines SET last_seen_ms = max(last_seen_ms, ?3) WHERE vault = ?1 AND id = ?2",
    )?
    .execute(params![vault.0, c.poster.0, signed(c.now_ms)])?;
    point(Point::CommitAppending);
    Ok(Keep(Appended::Done))
}

fn commits(db: &Connection, vault: VaultKey, after: u64, max_len: usize) -> Sql<Commits> {
    let mut found = Commits::default();
    let mut statement = db.prepare_cached(
        "SELECT n, len, served FROM commits WHERE vault = ?1 AND n > ?2 ORDER BY n",
    )?;
    let mut rows = statement.query(params![vault.0, signed(after)])?;
    let mut room = max_len;
    while let Some(row) = rows.next()? {
        let len = unsigned(row, 1)? as usize;
        if len > room {
            found.too_long = found.commits.is_empty().then_some(len);
            break;
        }
        room -= len;
        found.commits.push((unsigned(row, 0)?, row.get(2)?));
    }
    Ok(found)
}

fn record_pack(tx: &Transaction<'_>, vault: VaultKey, pack: &NewPack) -> Sql<Decision<u32>> {
    tx.prepare_cached("INSERT INTO packs (vault, id, len, created_ms) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            vault.0,
            pack.id.0,
            signed(pack.len),
            signed(pack.now_ms)
        ])?;
    let key = tx.last_insert_rowid();
    let mut insert = tx.prepare_cached(concat!(
        "INSERT INTO chunks AS c (vault, id, pack, offset, len, kind, renewed_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (vault, id) DO UPDATE
         SET pack = ?3, offset = ?4, len = ?5, kind = ?6, renewed_ms = ?7 WHERE ",
        in_gap!()
    ))?;
    let mut insert_list = tx.prepare_cached(
        "INSERT INTO lists (vault, id, children) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    let mut stored = 0;
    let mut known = Vec::new();
    for chunk in &pack.chunks {
        let kind = u8::from(chunk.kind == ChunkKind::List);
        let row = params![
            vault.0,
            chunk.id.0,
            key,
            signed(chunk.offset),
            chunk.len,
            kind,
            signed(pack.now_ms)
        ];
        if insert.execute(row)? == 0 {
            known.push(chunk.id);
            continue;
        }
        stored += 1;
        if chunk.kind == ChunkKind::List {
            insert_list.execute(params![vault.0, chunk.id.0, chunk.children])?;
        }
    }
    renew(tx, vault, &known, pack.now_ms)?;
    renew(tx, vault, &pack.renewed, pack.now_ms)?;
    point(Point::PackRecording);
    if stored == 0 {
        // Nobody will look for this pack: it must not be known either.
        tx.execute("DELETE FROM packs WHERE key = ?1", [key])?;
    }
    Ok(Keep(stored))
}

fn machines(db: &Connection, vault: VaultKey) -> Sql<Vec<Machine>> {
    db.prepare_cached(
        "SELECT id, name, platform, last_seen_ms, revoked_ms IS NOT NULL, state, synced_n, files FROM machines
         WHERE vault = ?1 AND name <> '' ORDER BY revoked_ms IS NOT NULL, name, id",
    )?
    .query_map([vault.0], |row| {
        Ok(Machine {
            id: MachineId(array(row, 0)?),
            name: row.get(1)?,
            platform: row.get(2)?,
            last_seen_ms: unsigned(row, 3)?,
            revoked: row.get(4)?,
            state: row.get(5)?,
            synced_n: unsigned(row, 6)?,
            files: unsigned(row, 7)?,
        })
    })?
    .collect()
}

impl Catalog for SqliteCatalog {
    fn invite(&self, invitation: [u8; 32], now_ms: u64, expires_ms: u64) -> Answer<'_, VaultKey> {
        self.write(move |tx| {
            let there: Option<i64> =
                tx.query_row("SELECT key FROM vaults ORDER BY key LIMIT 1", [], |row| row.get(0)).optional()?;
            let vault = match there {
                Some(key) => key,
                None => {
                    tx.execute("INSERT INTO vaults (created_ms) VALUES (?1)", [signed(now_ms)])?;
                    tx.last_insert_rowid()
                }
            };
            tx.execute(
                "INSERT INTO invitations (hash, vault, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4)",
                params![invitation, vault, signed(now_ms), signed(expires_ms)],
            )?;
            Ok(Keep(VaultKey(vault)))
        })
    }

    fn register(&self, registration: Registration) -> Answer<'_, Registered> {
        self.write(move |tx| register(tx, &registration))
    }

    fn authenticate(&self, token: [u8; 32]) -> Answer<'_, Option<Session>> {
        self.read(move |db| {
            db.prepare_cached(
                "SELECT m.vault, v.vid, m.id, m.revoked_ms IS NOT NULL
                 FROM machines m JOIN vaults v ON v.key = m.vault WHERE m.token = ?1",
            )?
            .query_row([token], |row| {
                Ok(Session {
                    vault: VaultKey(row.get(0)?),
                    vid: row.get::<_, Option<[u8; 16]>>(1)?.map(VaultId),
                    machine: MachineId(array(row, 2)?),
                    revoked: row.get(3)?,
                })
            })
            .optional()
        })
    }

    fn machines(&self, vault: VaultKey) -> Answer<'_, Vec<Machine>> {
        self.read(move |db| machines(db, vault))
    }

    fn revoke(&self, vault: VaultKey, machine: MachineId, now_ms: u64) -> Answer<'_, bool> {
        self.write(move |tx| {
            if is_revoked(tx, vault, machine)?.is_none() {
                return Ok(Undo(false));
            }
            revoke(tx, vault, machine, now_ms)?;
            Ok(Keep(true))
        })
    }

    fn report(
        &self,
        vault: VaultKey,
        machine: MachineId,
        report: MachineReport,
        now_ms: u64,
    ) -> Answer<'_, ()> {
        self.on_writer(move |writer| {
            // No fsync of its own: the next durable write carries it along.
            writer.pragma_update(None, "synchronous", "NORMAL")?;
            let done = writer.execute(
                "UPDATE machines SET state = ?3, synced_n = ?4, files = ?5, last_seen_ms = max(last_seen_ms, ?6)
                 WHERE vault = ?1 AND id = ?2",
                params![
                    vault.0,
                    machine.0,
                    report.state,
                    signed(report.synced_n),
                    signed(report.files),
                    signed(now_ms)
                ],
            );
            writer.pragma_update(None, "synchronous", "FULL")?;
            done.map(drop)
        })
    }

    fn tip(&self, vault: VaultKey) -> Answer<'_, Option<Tip>> {
        self.read(move |db| tip(db, vault))
    }

    fn hash_at(&self, vault: VaultKey, n: u64) -> Answer<'_, Option<CommitHash>> {
        self.read(move |db| {
            db.prepare_cached("SELECT hash FROM commits WHERE vault = ?1 AND n = ?2")?
                .query_row(params![vault.0, signed(n)], |row| {
                    Ok(CommitHash(array(row, 0)?))
                })
                .optional()
        })
    }

    fn append(&self, vault: VaultKey, commit: NewCommit) -> Answer<'_, Appended> {
        self.write(move |tx| append(tx, vault, &commit))
    }

    fn vaults(&self) -> Answer<'_, Vec<Vault>> {
        self.read(move |db| {
            db.prepare_cached(
                "SELECT v.key, v.vid, v.restored_ms, coalesce((SELECT max(c.n) FROM commits c WHERE c.vault = v.key), 0)
                 FROM vaults v ORDER BY v.key",
            )?
            .query_map([], |row| {
                Ok(Vault {
                    key: VaultKey(row.get(0)?),
                    vid: row.get::<_, Option<[u8; 16]>>(1)?.map(VaultId),
                    restored_until_ms: unsigned(row, 2)?,
                    n: unsigned(row, 3)?,
                })
            })?
            .collect()
        })
    }

    fn set_restored(&self, vault: VaultKey, until_ms: u64) -> Answer<'_, ()> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE vaults SET restored_ms = ?2 WHERE key = ?1",
                params![vault.0, signed(until_ms)],
            )?;
            Ok(Keep(()))
        })
    }

    fn tail(&self, vault: VaultKey, after: u64) -> Answer<'_, Vec<CommitRow>> {
        self.read(move |db| {
            db.prepare_cached(
                "SELECT c.n, c.author, coalesce(m.name, ''), c.appended_ms, c.len
                 FROM commits c LEFT JOIN machines m ON m.vault = c.vault AND m.id = c.author
                 WHERE c.vault = ?1 AND c.n > ?2 ORDER BY c.n",
            )?
            .query_map(params![vault.0, signed(after)], |row| {
                Ok(CommitRow {
                    n: unsigned(row, 0)?,
                    author: MachineId(array(row, 1)?),
                    name: row.get(2)?,
                    appended_ms: unsigned(row, 3)?,
                    len: unsigned(row, 4)?,
                })
            })?
            .collect()
        })
    }

    fn cut(&self, vault: VaultKey, to: u64) -> Answer<'_, u64> {
        self.write(move |tx| {
            let cut = tx.execute(
                "DELETE FROM commits WHERE vault = ?1 AND n > ?2",
                params![vault.0, signed(to)],
            )?;
            Ok(Keep(cut as u64))
        })
    }

    fn commits(&self, vault: VaultKey, after: u64, max_len: usize) -> Answer<'_, Commits> {
        self.read(move |db| commits(db, vault, after, max_len))
    }

    fn known(&self, vault: VaultKey, ids: Vec<ChunkId>) -> Answer<'_, Vec<bool>> {
        self.read(move |db| {
            let mut there = db.prepare_cached(concat!(
                "SELECT 1 FROM chunks AS c WHERE vault = ?1 AND id = ?2 AND NOT ",
                in_gap!()
            ))?;
            ids.iter()
                .map(|id| there.exists(params![vault.0, id.0]))
                .collect()
        })
    }

    fn record_pack(&self, vault: VaultKey, pack: NewPack) -> Answer<'_, u32> {
        self.write(move |tx| record_pack(tx, vault, &pack))
    }

    fn missing(
        &self,
        vault: VaultKey,
        ids: Vec<ChunkId>,
        max: usize,
        now_ms: u64,
    ) -> Answer<'_, Vec<ChunkId>> {
        Box::pin(async move {
            let stale_before_ms = now_ms.saturating_sub(RENEWAL_MS);
            let reached = self
                .read(move |db| reach(db, vault, &ids, max, stale_before_ms))
                .await?;
            if !reached.stale.is_empty() {
                self.write(move |tx| renew(tx, vault, &reached.stale, now_ms).map(Keep))
                    .await?;
            }
            Ok(reached.missing)
        })
    }

    fn locate(&self, vault: VaultKey, ids: Vec<ChunkId>) -> Answer<'_, Vec<Option<Location>>> {
        self.read(move |db| {
            let mut find = db.prepare_cached(
                "SELECT p.id, c.offset, c.len FROM chunks c JOIN packs p ON p.key = c.pack
                 WHERE c.vault = ?1 AND c.id = ?2",
            )?;
            ids.iter()
                .map(|id| {
                    find.query_row(params![vault.0, id.0], |row| {
                        Ok(Location {
                            pack: PackId(array(row, 0)?),
                            offset: unsigned(row, 1)?,
                            len: row.get(2)?,
                        })
                    })
                    .optional()
                })
                .collect()
        })
    }

    fn packs(&self, after: Option<PackId>, max: usize) -> Answer<'_, Vec<KnownPack>> {
        self.read(move |db| {
            // Every id is longer than none.
            let after = after.map_or(Vec::new(), |id| id.0.to_vec());
            db.prepare_cached(
                "SELECT id, len, EXISTS (SELECT 1 FROM gaps WHERE pack = key AND beyond >= len) FROM packs
                 WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![after, signed(max as u64)], |row| {
                Ok(KnownPack {
                    id: PackId(array(row, 0)?),
                    len: unsigned(row, 1)?,
                    is_cut: row.get(2)?,
                })
            })?
            .collect()
        })
    }

    fn open_gaps(&self, gaps: Vec<Gap>) -> Answer<'_, ()> {
        self.write(move |tx| {
            let mut open = tx.prepare_cached(
                "INSERT INTO gaps (pack, first, beyond) SELECT key, ?2, ?3 FROM packs WHERE id = ?1
                 ON CONFLICT (pack, first) DO UPDATE SET beyond = excluded.beyond WHERE beyond < excluded.beyond",
            )?;
            for Gap { pack, bytes } in gaps {
                open.execute(params![pack.0, signed(bytes.start), signed(bytes.end)])?;
            }
            Ok(Keep(()))
        })
    }

    fn close_gaps(&self, packs: Vec<PackId>) -> Answer<'_, ()> {
        self.write(move |tx| {
            let mut close = tx.prepare_cached(
                "DELETE FROM gaps WHERE EXISTS
                 (SELECT 1 FROM packs WHERE key = gaps.pack AND id = ?1 AND gaps.beyond >= len)",
            )?;
            for pack in packs {
                close.execute([pack.0])?;
            }
            Ok(Keep(()))
        })
    }

    fn lost(&self) -> Answer<'_, Lost> {
        self.read(|db| {
            let any: bool =
                db.query_row("SELECT EXISTS (SELECT 1 FROM gaps)", [], |row| row.get(0))?;
            if !any {
                return Ok(Lost::default());
            }
            // Through all chunks, once: there is no index by pack, which every upload would have to pay for.
            db.query_row(
                concat!(
                    "SELECT count(*), count(DISTINCT pack) FROM chunks AS c WHERE ",
                    in_gap!()
                ),
                [],
                |row| {
                    Ok(Lost {
                        chunks: unsigned(row, 0)?,
                        packs: unsigned(row, 1)?,
                    })
                },
            )
        })
    }

    fn put_slot(&self, vault: VaultKey, kind: u8, slot: Vec<u8>, now_ms: u64) -> Answer<'_, ()> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO slots (vault, kind, slot, put_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (vault, kind) DO UPDATE SET previous = slots.slot, slot = excluded.slot, put_ms = excluded.put_ms
                 WHERE slots.slot <> excluded.slot",
                params![vault.0, kind, slot, signed(now_ms)],
            )?;
            Ok(Keep(()))
        })
    }

    fn slot(&self, vault: VaultKey, kind: u8) -> Answer<'_, Option<Slot>> {
        self.read(move |db| {
            db.prepare_cached("SELECT slot, previous FROM slots WHERE vault = ?1 AND kind = ?2")?
                .query_row(params![vault.0, kind], |row| {
                    Ok(Slot {
                        current: row.get(0)?,
                        previous: row.get(1)?,
                    })
                })
                .optional()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::catalog::conformance;

    /// What a commit may have left in the journal before it failed: a crash could replay it.
    #[test]
    fn only_a_failing_disk_leaves_what_may_come_back() {
        for (code, may_come_back) in [
            (ffi::SQLITE_IOERR_FSYNC, true),
            (ffi::SQLITE_IOERR_WRITE, true),
            (ffi::SQLITE_IOERR_SHMSIZE, true),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_READONLY, false),
            (ffi::SQLITE_CORRUPT, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_CONSTRAINT, false),
        ] {
            let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let error = CatalogError::from(failure);
            assert_eq!(error.may_come_back(), may_come_back, "{code}: {error}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_file_passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        let next = AtomicU32::new(0);
        conformance::check(|| {
            let name = format!("{}.db", next.fetch_add(1, Ordering::Relaxed));
            Arc::new(SqliteCatalog::open(&dir.path().join(name), Work::Pool).unwrap())
        })
        .await;
    }

    #[tokio::test]
    async fn memory_passes_the_suite_on_one_thread() {
        conformance::check(|| Arc::new(SqliteCatalog::in_memory(Work::Inline).unwrap())).await;
    }

    #[tokio::test]
    async fn what_was_answered_survives_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&dir.path().join("x.db"), Work::Inline).unwrap();
        let asked = |db: &Connection, pragma| -> i64 {
            db.pragma_query_value(None, pragma, |row| row.get(0))
                .unwrap()
        };
        let flushes =
            |catalog: &SqliteCatalog| asked(&catalog.inner.writer.lock().unwrap(), "synchronous");
        // 2 is FULL: the journal is flushed before a transaction ends (sqlite.org/pragma.html).
        assert_eq!(flushes(&catalog), 2);
        // And on macOS down to the disk itself, also by a reader: whoever closes last brings the journal home.
        for pragma in ["fullfsync", "checkpoint_fullfsync"] {
            let writer = asked(&catalog.inner.writer.lock().unwrap(), pragma);
            let reader = catalog
                .inner
                .with_reader(|db| Ok(asked(db, pragma)))
                .unwrap();
            assert_eq!((writer, reader), (1, 1), "{pragma}");
        }
        // Reports are pictures: they may be lost, and what is answered after one must not.
        let vault = catalog.invite([1; 32], 0, 1).await.unwrap();
        let report = MachineReport {
            state: "idle".to_owned(),
            synced_n: 1,
            files: 1,
        };
        let machine = MachineId([1; 16]);
        catalog.report(vault, machine, report, 1).await.unwrap();
        assert_eq!(flushes(&catalog), 2);
    }

    #[test]
    fn the_steps_are_sound() {
        Migrations::from_slice(STEPS).validate().unwrap();
    }

    #[tokio::test]
    async fn renewal_is_written_once_an_hour() {
        let catalog = SqliteCatalog::in_memory(Work::Inline).unwrap();
        let vault = catalog.invite([1; 32], 0, 1).await.unwrap();
        let id = ChunkId([1; 32]);
        let chunk = crate::catalog::NewChunk {
            id,
            offset: 0,
            len: 1,
            kind: ChunkKind::Data,
            children: Vec::new(),
        };
        let at = |now_ms| NewPack {
            id: PackId([now_ms as u8; 16]),
            len: 1,
            chunks: vec![chunk.clone()],
            renewed: Vec::new(),
            now_ms,
        };
        catalog.record_pack(vault, at(1)).await.unwrap();
        let renewed = async || {
            let sql = "SELECT renewed_ms FROM chunks";
            catalog
                .read(move |db| db.query_row(sql, [], |row| row.get::<_, i64>(0)))
                .await
                .unwrap()
        };
        for (now_ms, want) in [
            (RENEWAL_MS, 1),
            (RENEWAL_MS + 2, RENEWAL_MS + 2),
            (2 * RENEWAL_MS, RENEWAL_MS + 2),
        ] {
            catalog.missing(vault, vec![id], 1, now_ms).await.unwrap();
            assert_eq!(renewed().await, want as i64);
        }
        // A second upload renews too.
        catalog
            .record_pack(vault, at(9 * RENEWAL_MS))
            .await
            .unwrap();
        assert_eq!(renewed().await, 9 * RENEWAL_MS as i64);
    }
}
