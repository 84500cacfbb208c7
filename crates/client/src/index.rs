//! What this machine has observed, in SQLite: the log it verified, what disk and vault last agreed on.
//!
//! Losing it loses no file: the next pass finds everything again and unites both sides. Each method is
//! one transaction, durable when it returns (WAL, `synchronous=FULL`).

mod sums;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Value;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Row, Transaction, params, params_from_iter,
};
use rusqlite_migration::{M, Migrations};
use syncagent_protocol::api::Head;
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{
    Body, ChunkId, CommitHash, ContentHash, MachineId, Name, Node, NodeId, OpHash, TreePath,
};
use syncagent_sync::scan::Fingerprint;
use syncagent_sync::{Ancestor, AncestorNode, LastOp, LogEntry, LogTree, Tree};
use syncagent_vault::op::{KeyslotPin, MachineAdd, Put};
use syncagent_vault::slot::Slot;

use crate::error::ClientError;
use crate::folder::disk::Origin;

type Result<T> = std::result::Result<T, ClientError>;

/// Commits of the last positions are kept however old they are: a clock that jumps must not make a machine forget what a
/// server that is restored may lack.
const KEPT_AT_ANY_AGE: u64 = 64;

/// The index of one machine.
pub struct Index {
    db: Connection,
    origin: Origin,
}

/// A machine as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMachine {
    /// Derived from its key.
    pub id: MachineId,
    /// What it said of itself when it joined.
    pub add: MachineAdd,
    /// Position of the commit that enrolled it.
    pub added_n: u64,
    /// Position of the commit that removed it.
    pub revoked_n: Option<u64>,
}

/// One op about a node, as it is kept.
pub struct NodeOp {
    /// The node.
    pub node: NodeId,
    /// Names the op.
    pub op_hash: OpHash,
    /// What it does.
    pub kind: OpKind,
    /// The opened body of a PUT.
    pub put: Option<Vec<u8>>,
}

/// What an op in the history does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// A PUT that could not be read.
    Unreadable,
    /// A PUT.
    Put,
    /// Into the trash.
    Trash,
    /// Given up.
    Purge,
}

impl OpKind {
    fn number(self) -> u8 {
        match self {
            Self::Unreadable => 0,
            Self::Put => 1,
            Self::Trash => 2,
            Self::Purge => 3,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Put,
            2 => Self::Trash,
            3 => Self::Purge,
            _ => Self::Unreadable,
        }
    }
}

/// Everything one verified commit adds.
pub struct Applied {
    /// Position.
    pub n: u64,
    /// Hash.
    pub hash: CommitHash,
    /// Author.
    pub machine: MachineId,
    /// Time it carries, milliseconds since 1970.
    pub time_ms: u64,
    /// What it says of nodes.
    pub ops: Vec<NodeOp>,
    /// A machine it enrols.
    pub added: Option<MachineAdd>,
    /// Machines it removes.
    pub revoked: Vec<MachineId>,
    /// Slots it pins.
    pub keyslots: Vec<KeyslotPin>,
    /// The vault's choices, if it opens the vault.
    pub genesis: Option<Vec<u8>>,
    /// The whole, as it was served.
    pub served: bytes::Bytes,
}

/// A commit that this machine verified, as `recover` sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastCommit {
    /// Position.
    pub n: u64,
    /// Hash.
    pub hash: CommitHash,
    /// Author.
    pub machine: MachineId,
    /// Time it carries, milliseconds since 1970.
    pub time_ms: u64,
    /// Whether its bytes are still here.
    pub held: bool,
}

/// One version of a file.
#[derive(Debug, Clone)]
pub struct Version {
    /// Position of its commit.
    pub n: u64,
    /// Names the op.
    pub op_hash: OpHash,
    /// What the op did.
    pub kind: OpKind,
    /// The opened body of a PUT, if it is still there.
    pub put: Option<Vec<u8>>,
    /// Author of the commit.
    pub machine: MachineId,
    /// Time the commit carries, milliseconds since 1970.
    pub time_ms: u64,
}

/// What a commit of this machine leaves in the ancestor once it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// Whose row.
    pub node: NodeId,
    /// The row; none if it goes.
    pub row: Option<AncestorNode>,
    /// The path whose pending id is done with.
    pub settled: Option<TreePath>,
}

/// A conflict that nobody has resolved yet: the last PUT of the copy still says what it lost against, and both are placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConflict {
    /// The copy.
    pub copy: NodeId,
    /// What kept the name.
    pub node: NodeId,
    /// The name both wanted, as it is now.
    pub path: TreePath,
    /// The copy's name.
    pub copy_path: TreePath,
    /// Time of the commit that brought the copy, milliseconds since 1970.
    pub time_ms: u64,
    /// What the vault has under the name.
    pub theirs: Side,
    /// What the vault has of the copy.
    pub mine: Side,
}

/// The last version of one of the two files of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// Position of its commit.
    pub n: u64,
    /// Author of the commit.
    pub machine: MachineId,
    /// Time the commit carries, milliseconds since 1970.
    pub time_ms: u64,
}

/// A conflict copy that is made here, until a commit says what it lost against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The directory it hangs in.
    pub parent: NodeId,
    /// Its name there: a file that takes another one is no copy any more.
    pub name: Name,
    /// The node that kept the name, and its version then.
    pub against: (NodeId, OpHash),
    /// The version that both started from.
    pub base: Option<OpHash>,
}

/// What a batch of steps brings to this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// Of which node.
    pub node: NodeId,
    /// Which version: the op.
    pub version: OpHash,
    /// Directory and name on this disk; none if it goes.
    pub place: Option<(NodeId, Name)>,
    /// The inode number of what is fetched for it, with its bit and its time.
    pub fetched: Option<u64>,
    /// The inode number of what has to leave its place for something else, though the vault has it elsewhere.
    pub leaving: Option<u64>,
}

/// Where this machine was about to move what, and the version that the row was of.
pub type OwnMoves = BTreeMap<TreePath, (NodeId, OpHash)>;

impl Index {
    /// Opens or makes the index at `path`. One that no longer says what was written into it is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || Self::with(Connection::open(path)?);
        // Two processes may be about to make it: whoever comes second fails, and then finds it made.
        let index = open().or_else(|_| open())?;
        Ok(index.of_file(path))
    }

    /// An index in memory, for simulated worlds.
    pub fn in_memory() -> Result<Self> {
        Self::with(Connection::open_in_memory()?)
    }

    /// A copy in memory of the index at `path`, which stays as it is; an empty one if there is none.
    pub fn copy_of(path: &Path) -> Result<Self> {
        let mut db = Connection::open_in_memory()?;
        if path.exists() {
            let source = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            // All pages in one step, so that they are of one moment.
            if Backup::new(&source, &mut db)?.step(-1)? != StepResult::Done {
                return Err(ClientError::Busy(
                    "the state of this machine is being written: try again".into(),
                ));
            }
        }
        Ok(Self::with(db)?.of_file(path))
    }

    fn of_file(mut self, path: &Path) -> Self {
        let file = path.symlink_metadata().ok();
        self.origin = file.map_or(Origin::default(), |file| Origin::of(&file));
        self
    }

    /// By what its file is known from copies of it. It is written to, so when it last changed says nothing. In memory there is
    /// none.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    fn with(mut db: Connection) -> Result<Self> {
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        // Anything over a few MiB of cache only repeats what the engine holds in memory.
        db.pragma_update(None, "cache_size", -2048)?;
        // On macOS a flush ends in the drive's own memory unless it is asked for like this; elsewhere this changes nothing.
        db.pragma_update(None, "fullfsync", true)?;
        db.pragma_update(None, "checkpoint_fullfsync", true)?;
        // Else what `INSERT OR REPLACE` replaces would stay in the sums.
        db.pragma_update(None, "recursive_triggers", true)?;
        sums::add_functions(&db)?;
        Migrations::new(vec![
            M::up(include_str!("index/schema.sql")),
            M::up(include_str!("index/own_moves.sql")),
            M::up(include_str!("index/sealed_rows.sql")),
            M::up(include_str!("index/pending_by_node.sql")),
            M::up(include_str!("index/sealed_by_n.sql")),
            M::up_with_hook(
                include_str!("index/conflicts_of_log.sql"),
                |tx: &Transaction<'_>| Ok(find_conflicts(tx)?),
            ),
            M::up(include_str!("index/kept.sql")),
            M::up(include_str!("index/slots.sql")),
            M::up(include_str!("index/set_aside.sql")),
            M::up(include_str!("index/intended.sql")),
            M::up_with_hook(include_str!("index/sums.sql"), |tx: &Transaction<'_>| {
                Ok(sums::begin(tx)?)
            }),
        ])
        .to_latest(&mut db)?;
        sums::check(&db)?;
        Ok(Self {
            db,
            origin: Origin::default(),
        })
    }

    /// Reads the whole state that the engine works on.
    pub fn load(&self) -> Result<(LogTree, Ancestor)> {
        // With the sums of the same moment.
        let _reading = self.db.unchecked_transaction()?;
        Ok((self.log_tree()?, self.ancestor()?))
    }

    fn log_tree(&self) -> Result<LogTree> {
        // A node whose op is gone must not look like one that never was.
        let mut statement = self.db.prepare(
            "SELECT l.node, l.n, l.sum, o.op_hash, o.kind, o.put FROM nodes l LEFT JOIN ops o USING (node, n)",
        )?;
        let mut rows = statement.query([])?;
        let (mut nodes, mut sum) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            sum ^= sums::sum_of(row, 3)?;
            let op_values = [0, 1, 3, 4, 5].map(|column| row.get_ref(column));
            let op_values = op_values
                .into_iter()
                .collect::<rusqlite::Result<Vec<_>>>()?;
            if row.get::<_, i64>(2)? != sums::row_sum(op_values.into_iter()) {
                return Err(sums::damaged());
            }
            let node = NodeId(row.get(0)?);
            let put = row.get_ref(5)?.as_blob_or_null();
            let put = put.map_err(rusqlite::Error::from)?;
            let op = last_op(node, OpKind::from_number(row.get(4)?), put);
            nodes.push((
                node,
                LogEntry {
                    op,
                    n: u64_of(row, 1)?,
                    op_hash: OpHash(row.get(3)?),
                },
            ));
        }
        sums::compare(&self.db, "nodes", sum)?;
        Ok(LogTree::restore(
            self.position()?.map_or(0, |head| head.n),
            nodes,
        ))
    }

    fn ancestor(&self) -> Result<Ancestor> {
        let mut statement = self
            .db
            .prepare(&format!("SELECT {ANCESTOR_COLUMNS} FROM ancestor"))?;
        let mut rows = statement.query([])?;
        let (mut ancestor, mut sum) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            sum ^= sums::sum_of(row, ANCESTOR_COLUMN_COUNT)?;
            ancestor.push((NodeId(row.get(0)?), ancestor_row(row)?));
        }
        sums::compare(&self.db, "ancestor", sum)?;
        Ok(ancestor.into_iter().collect())
    }

    /// The last verified position of the log; none before the first commit.
    pub fn position(&self) -> Result<Option<Head>> {
        let row = self.db.query_row(
            "SELECT n, hash FROM commits ORDER BY n DESC LIMIT 1",
            [],
            |row| {
                Ok(Head {
                    n: u64_of(row, 0)?,
                    hash: CommitHash(row.get(1)?),
                })
            },
        );
        Ok(row.optional()?)
    }

    /// The hash this machine verified at position `n`.
    pub fn hash_at(&self, n: u64) -> Result<Option<CommitHash>> {
        let row = self
            .db
            .query_row("SELECT hash FROM commits WHERE n = ?1", [sql(n)], |row| {
                row.get(0).map(CommitHash)
            });
        Ok(row.optional()?)
    }

    /// Time of the last verified commit, milliseconds since 1970; 0 before the first.
    pub fn last_time_ms(&self) -> Result<u64> {
        let row = self.db.query_row(
            "SELECT time_ms FROM commits ORDER BY n DESC LIMIT 1",
            [],
            |row| u64_of(row, 0),
        );
        Ok(row.optional()?.unwrap_or(0))
    }

    /// Stores what verified commits say, all or nothing; returns the rows that commits of this machine left.
    pub fn apply(&mut self, commits: &[Applied]) -> Result<Vec<SealedRow>> {
        let mut left = Vec::new();
        let tx = self.db.transaction()?;
        {
            let mut rows = tx.prepare_cached(&format!(
                "SELECT {ANCESTOR_COLUMNS}, settled FROM sealed_rows WHERE commit_hash = ?1"
            ))?;
            let mut commit = tx.prepare_cached("INSERT INTO commits VALUES (?1, ?2, ?3, ?4)")?;
            let mut op =
                tx.prepare_cached("INSERT OR REPLACE INTO ops VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut last = tx.prepare_cached(
                "INSERT OR REPLACE INTO nodes VALUES (?1, ?2, mixed(0, ?1, ?2, ?3, ?4, ?5))",
            )?;
            let mut lost = tx.prepare_cached(ADD_CONFLICT)?;
            let mut resolved = tx.prepare_cached("DELETE FROM conflicts WHERE copy = ?1")?;
            for applied in commits {
                let n = sql(applied.n);
                commit.execute(params![
                    n,
                    applied.hash.0,
                    applied.machine.0,
                    sql(applied.time_ms)
                ])?;
                for row in &applied.ops {
                    let kind = row.kind.number();
                    let values = params![row.node.0, n, row.op_hash.0, kind, row.put];
                    op.execute(values)?;
                    last.execute(values)?;
                    match row.put.as_deref().and_then(Put::lost_against) {
                        Some((against, _)) => {
                            lost.execute(params![row.node.0, against.0, sql(applied.time_ms)])?
                        }
                        None => resolved.execute([row.node.0])?,
                    };
                }
                if let Some(add) = &applied.added {
                    tx.execute(
                        "INSERT INTO machines VALUES (?1, ?2, ?3, ?4, ?5, NULL)",
                        params![applied.machine.0, add.public_key, add.name, add.platform, n],
                    )?;
                }
                for machine in &applied.revoked {
                    tx.execute(
                        "UPDATE machines SET revoked_n = ?2 WHERE id = ?1 AND revoked_n IS NULL",
                        params![machine.0, n],
                    )?;
                    // Also of one that never was enrolled: it must not be later.
                    tx.execute(
                        "INSERT OR IGNORE INTO meta VALUES (?1, ?2)",
                        params![revoked_key(*machine), applied.n.to_be_bytes()],
                    )?;
                }
                for pin in &applied.keyslots {
                    // What it replaces was left behind, wherever it turns up again.
                    tx.execute(
                        "INSERT OR IGNORE INTO slots SELECT hash, NULL FROM keyslots WHERE type = ?1 AND hash <> ?2",
                        params![pin.slot_type, pin.hash],
                    )?;
                    tx.execute(
                        "INSERT OR REPLACE INTO keyslots VALUES (?1, ?2, ?3, ?4)",
                        params![pin.slot_type, pin.hash, pin.slot_id, n],
                    )?;
                }
                if let Some(genesis) = &applied.genesis {
                    tx.execute(
                        "INSERT OR REPLACE INTO meta VALUES ('genesis', ?1)",
                        [genesis],
                    )?;
                }
                let own = rows.query_map([applied.hash.0], sealed_row)?;
                let own = own.collect::<rusqlite::Result<Vec<_>>>()?;
                if !own.is_empty() {
                    let settled = own.iter().filter_map(|row| row.settled.as_ref());
                    write_rows(&tx, own.iter().map(|row| (row.node, &row.row)), settled)?;
                    tx.execute(
                        "DELETE FROM sealed_rows WHERE commit_hash = ?1",
                        [applied.hash.0],
                    )?;
                    left.extend(own);
                }
            }
        }
        point(Point::CommitsKeeping);
        tx.commit()?;
        point(Point::CommitsKept);
        Ok(left)
    }

    /// The vault's fixed choices, as the first commit told.
    pub fn genesis(&self) -> Result<Option<Vec<u8>>> {
        self.meta("genesis")
    }

    /// A small value kept by the engine.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self
            .db
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()?)
    }

    /// Keeps a small value.
    pub fn set_meta(&self, key: &str, value: &[u8]) -> Result<()> {
        self.db.execute(
            "INSERT OR REPLACE INTO meta VALUES (?1, ?2)",
            params![key, value],
        )?;
        Ok(())
    }

    /// Forgets a small value.
    pub fn drop_meta(&self, key: &str) -> Result<()> {
        self.db.execute("DELETE FROM meta WHERE key = ?1", [key])?;
        Ok(())
    }

    /// Every machine the log ever enrolled.
    pub fn machines(&self) -> Result<Vec<KnownMachine>> {
        let mut statement = self
            .db
            .prepare("SELECT id, public_key, name, platform, added_n, revoked_n FROM machines ORDER BY added_n, id")?;
        let rows = statement.query_map([], |row| {
            Ok(KnownMachine {
                id: MachineId(row.get(0)?),
                add: MachineAdd {
                    public_key: row.get(1)?,
                    name: row.get(2)?,
                    platform: row.get(3)?,
                    web: false,
                },
                added_n: u64_of(row, 4)?,
                revoked_n: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Position of the commit that removed a machine, whether or not it had ever been enrolled.
    pub fn revoked_n(&self, machine: MachineId) -> Result<Option<u64>> {
        let n = self.meta(&revoked_key(machine))?;
        Ok(n.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?))))
    }

    /// The machines that were removed after position `after`.
    pub fn revoked_after(&self, after: u64) -> Result<Vec<MachineId>> {
        let mut statement = self.db.prepare(
            "SELECT key FROM meta WHERE key LIKE 'revoked/%' AND value > ?1 ORDER BY value, key",
        )?;
        // Positions as they are written there compare as numbers do.
        let keys = statement.query_map([after.to_be_bytes()], |row| row.get::<_, String>(0))?;
        let mut machines = Vec::new();
        for key in keys {
            let id = key?.trim_start_matches("revoked/").parse();
            let id = id.map_err(|_| ClientError::State("a removed machine without id".into()))?;
            machines.push(id);
        }
        Ok(machines)
    }

    /// The hash that the last KEYSLOT op of a type pins.
    pub fn keyslot(&self, slot_type: u8) -> Result<Option<[u8; 32]>> {
        let row = self.db.query_row(
            "SELECT hash FROM keyslots WHERE type = ?1",
            [slot_type],
            |row| row.get(0),
        );
        Ok(row.optional()?)
    }

    /// Types and hashes of the slots that the log pins and of which nobody has looked for a copy.
    pub fn slots_without_copy(&self) -> Result<Vec<(u8, [u8; 32])>> {
        let mut statement = self.db.prepare_cached(
            "SELECT type, hash FROM keyslots WHERE hash NOT IN (SELECT hash FROM slots)",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Keeps a copy of the slot with this hash, or notes that there is none. Of those that the log no longer pins only the
    /// hash is kept: that they were left behind.
    pub fn keep_slot(&mut self, hash: &[u8; 32], slot: Option<&[u8]>) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute(
            "INSERT OR REPLACE INTO slots VALUES (?1, ?2)",
            params![hash, slot],
        )?;
        tx.execute(
            "UPDATE slots SET slot = NULL WHERE hash <> ?1 AND hash NOT IN (SELECT hash FROM keyslots)",
            [hash],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// Whether the slot with this hash was pinned once, as far as this index knows.
    pub fn was_pinned(&self, hash: &[u8; 32]) -> Result<bool> {
        let row = self
            .db
            .query_row("SELECT 1 FROM slots WHERE hash = ?1", [hash], |_| Ok(()));
        Ok(row.optional()?.is_some())
    }

    /// Forgets that the server had no copy of a slot that the log pins.
    pub fn look_for_slots_again(&self) -> Result<()> {
        self.db.execute(
            "DELETE FROM slots WHERE slot IS NULL AND hash IN (SELECT hash FROM keyslots)",
            [],
        )?;
        Ok(())
    }

    /// Copies of the slots that the log pins, as far as they were pinned after position `n` or nobody knows where, or all.
    pub fn slots_kept(&self, after: Option<u64>) -> Result<Vec<Slot>> {
        let mut statement = self.db.prepare(
            "SELECT slot FROM keyslots JOIN slots USING (hash) WHERE slot IS NOT NULL AND (n > ?1 OR n = 0) ORDER BY type",
        )?;
        let after = after.map_or(-1, sql);
        let rows = statement.query_map([after], |row| row.get::<_, Vec<u8>>(0))?;
        let copies = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(copies
            .iter()
            .filter_map(|copy| Slot::parse(copy).ok())
            .collect())
    }

    /// Stores a sealed commit before it is first posted, with the rows it will leave.
    pub fn store_sealed(
        &mut self,
        n: u64,
        hash: CommitHash,
        bytes: &[u8],
        rows: &[SealedRow],
        now_ms: u64,
    ) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute(
            "INSERT INTO sealed VALUES (?1, ?2, ?3, ?4)",
            params![hash.0, sql(n), bytes, sql(now_ms)],
        )?;
        {
            let mut write = tx.prepare_cached(&format!(
                "INSERT OR REPLACE INTO sealed_rows ({ANCESTOR_COLUMNS}, settled, commit_hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
            ))?;
            for row in rows {
                let mut values = match &row.row {
                    Some(ancestor) => ancestor_values(row.node, ancestor).to_vec(),
                    None => {
                        let mut values = vec![Value::Null; ANCESTOR_COLUMN_COUNT];
                        values[0] = Value::Blob(row.node.0.to_vec());
                        values
                    }
                };
                values.push(text(row.settled.as_ref().map(TreePath::as_str)));
                values.push(Value::Blob(hash.0.to_vec()));
                write.execute(params_from_iter(values))?;
            }
        }
        point(Point::CommitSealing);
        tx.commit()?;
        Ok(())
    }

    /// Whether a commit is one this machine sealed.
    pub fn is_own(&self, hash: CommitHash) -> Result<bool> {
        Ok(self
            .db
            .query_row("SELECT 1 FROM sealed WHERE hash = ?1", [hash.0], |_| Ok(()))
            .optional()?
            .is_some())
    }

    /// The newest sealed commit at `n`, if its fate is unknown.
    pub fn sealed_at(&self, n: u64) -> Result<Option<(CommitHash, Vec<u8>)>> {
        let row = self.db.query_row(
            "SELECT hash, bytes FROM sealed WHERE n = ?1 ORDER BY time_ms DESC LIMIT 1",
            [sql(n)],
            |row| Ok((CommitHash(row.get(0)?), row.get(1)?)),
        );
        Ok(row.optional()?)
    }

    /// A sealed commit that the server will not take as it is: known for this machine's own if the log should show it
    /// after all, because a copy of it was on its way, and not posted again.
    pub fn give_up_sealed(&self, hash: CommitHash) -> Result<()> {
        // No commit stands at position 0.
        self.db
            .execute("UPDATE sealed SET n = 0 WHERE hash = ?1", [hash.0])?;
        Ok(())
    }

    /// Forgets sealed commits that lost their place between two positions, and those older than `before_ms`, but for the
    /// last positions.
    pub fn drop_sealed(&mut self, from: u64, to: u64, before_ms: u64) -> Result<()> {
        let tx = self.db.transaction()?;
        let mut doomed: Vec<[u8; 32]> = Vec::new();
        {
            let mut lost = tx.prepare_cached(
                "SELECT s.hash FROM sealed s LEFT JOIN commits c ON c.n = s.n
                 WHERE s.n BETWEEN ?1 AND ?2 AND c.hash IS NOT s.hash",
            )?;
            let rows = lost.query_map([sql(from), sql(to)], |row| row.get(0))?;
            doomed.extend(rows.collect::<rusqlite::Result<Vec<[u8; 32]>>>()?);
            let mut old =
                tx.prepare_cached("SELECT hash FROM sealed WHERE time_ms < ?1 AND n <= ?2")?;
            let last = to.saturating_sub(KEPT_AT_ANY_AGE);
            let rows = old.query_map([sql(before_ms), sql(last)], |row| row.get(0))?;
            doomed.extend(rows.collect::<rusqlite::Result<Vec<[u8; 32]>>>()?);
            let mut commit = tx.prepare_cached("DELETE FROM sealed WHERE hash = ?1")?;
            let mut rows = tx.prepare_cached("DELETE FROM sealed_rows WHERE commit_hash = ?1")?;
            for hash in doomed {
                commit.execute([hash])?;
                rows.execute([hash])?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Keeps commits of other machines as they were served. How many bytes that is.
    pub fn keep<'a>(
        &mut self,
        commits: impl Iterator<Item = &'a Applied>,
        now_ms: u64,
    ) -> Result<u64> {
        let mut kept = 0;
        let tx = self.db.transaction()?;
        {
            let mut own = tx.prepare_cached("SELECT 1 FROM sealed WHERE hash = ?1")?;
            let mut insert =
                tx.prepare_cached("INSERT OR REPLACE INTO kept VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for commit in commits {
                if own.exists([commit.hash.0])? {
                    continue;
                }
                let served: &[u8] = &commit.served;
                let len = served.len() as u64;
                insert.execute(params![
                    sql(commit.n),
                    commit.hash.0,
                    sql(now_ms),
                    sql(len),
                    served
                ])?;
                kept += len;
            }
        }
        tx.commit()?;
        Ok(kept)
    }

    /// Bytes of other machines' commits that are kept.
    pub fn kept_len(&self) -> Result<u64> {
        let sum = self
            .db
            .query_row("SELECT coalesce(sum(len), 0) FROM kept", [], |row| {
                u64_of(row, 0)
            });
        Ok(sum?)
    }

    /// Lets go of other machines' commits: those older than `before_ms`, and the first ones until at most `max_len`
    /// bytes are left. How many bytes are.
    pub fn drop_kept(&mut self, before_ms: u64, max_len: u64) -> Result<u64> {
        let tx = self.db.transaction()?;
        tx.execute(
            "DELETE FROM kept WHERE time_ms < ?1 AND n <= (SELECT max(n) FROM commits) - ?2",
            [sql(before_ms), sql(KEPT_AT_ANY_AGE)],
        )?;
        let mut left = 0;
        let mut doomed = None;
        {
            let mut sizes = tx.prepare("SELECT n, len FROM kept ORDER BY n DESC")?;
            let mut rows = sizes.query([])?;
            while let Some(row) = rows.next()? {
                let len = u64_of(row, 1)?;
                if left + len > max_len {
                    doomed = Some(u64_of(row, 0)?);
                    break;
                }
                left += len;
            }
        }
        if let Some(n) = doomed {
            tx.execute("DELETE FROM kept WHERE n <= ?1", [sql(n)])?;
        }
        tx.commit()?;
        Ok(left)
    }

    /// The verified commits after `after`, in order.
    pub fn commits_after(&self, after: u64) -> Result<Vec<PastCommit>> {
        let mut statement = self.db.prepare(
            "SELECT c.n, c.hash, c.machine, c.time_ms,
                    EXISTS (SELECT 1 FROM sealed s WHERE s.hash = c.hash)
                    OR EXISTS (SELECT 1 FROM kept k WHERE k.n = c.n AND k.hash = c.hash)
             FROM commits c WHERE c.n > ?1 ORDER BY c.n",
        )?;
        let rows = statement.query_map([sql(after)], |row| {
            Ok(PastCommit {
                n: u64_of(row, 0)?,
                hash: CommitHash(row.get(1)?),
                machine: MachineId(row.get(2)?),
                time_ms: u64_of(row, 3)?,
                held: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The bytes of a verified commit in served form, if they are still here.
    pub fn served(&self, n: u64, hash: CommitHash) -> Result<Option<Vec<u8>>> {
        let kept = self.db.query_row(
            "SELECT served FROM kept WHERE n = ?1 AND hash = ?2",
            params![sql(n), hash.0],
            |row| row.get(0),
        );
        if let Some(served) = kept.optional()? {
            return Ok(Some(served));
        }
        let sealed = self
            .db
            .query_row(
                "SELECT bytes FROM sealed WHERE hash = ?1",
                [hash.0],
                |row| row.get::<_, Vec<u8>>(0),
            )
            .optional()?;
        let served = |bytes: Vec<u8>| {
            let commit = syncagent_protocol::commit::Commit::parse(&bytes).ok()?;
            Some(commit.to_served())
        };
        Ok(sealed.and_then(served))
    }

    /// What the commits after `after` say of nodes: position, and the op.
    pub fn ops_after(&self, after: u64) -> Result<Vec<(u64, NodeOp)>> {
        let mut statement = self
            .db
            .prepare("SELECT n, node, op_hash, kind, put FROM ops WHERE n > ?1 ORDER BY n, node")?;
        let rows = statement.query_map([sql(after)], |row| {
            let op = NodeOp {
                node: NodeId(row.get(1)?),
                op_hash: OpHash(row.get(2)?),
                kind: OpKind::from_number(row.get(3)?),
                put: row.get(4)?,
            };
            Ok((u64_of(row, 0)?, op))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Forgets the log after `to` and everything that came of it, writes these rows of the ancestor, and sets a note.
    /// Commits of this machine's own from there are known for its own if the log should ever show them, and not posted.
    pub fn rewind(
        &mut self,
        to: u64,
        rows: &[(NodeId, Option<AncestorNode>)],
        (key, note): (&str, &[u8]),
    ) -> Result<()> {
        let tx = self.db.transaction()?;
        let n = sql(to);
        note_set_aside(&tx, set_aside_after(&tx, n)?)?;
        for statement in [
            "DELETE FROM commits WHERE n > ?1",
            "DELETE FROM kept WHERE n > ?1",
            "DELETE FROM ops WHERE n > ?1",
            // No commit stands at position 0.
            "UPDATE sealed SET n = 0 WHERE n > ?1",
            "DELETE FROM machines WHERE added_n > ?1",
            "UPDATE machines SET revoked_n = NULL WHERE revoked_n > ?1",
            // The others are pinned again by whoever has them. Of these nobody may.
            "DELETE FROM keyslots WHERE (n > ?1 OR n = 0) AND hash IN (SELECT hash FROM slots WHERE slot IS NOT NULL)",
        ] {
            tx.execute(statement, [n])?;
        }
        // What was on its way was of commits that are no more.
        tx.execute_batch("DELETE FROM own_moves; DELETE FROM intended;")?;
        // Positions as they are written there compare as numbers do.
        tx.execute(
            "DELETE FROM meta WHERE key LIKE 'revoked/%' AND value > ?1",
            [to.to_be_bytes()],
        )?;
        tx.execute("DELETE FROM nodes", [])?;
        tx.execute(
            // The other columns are those of the row that has the most (sqlite.org/lang_select.html, 2.5).
            "INSERT INTO nodes SELECT node, max(n), mixed(0, node, n, op_hash, kind, put) FROM ops GROUP BY node",
            [],
        )?;
        tx.execute("DELETE FROM conflicts", [])?;
        find_conflicts(&tx)?;
        tx.execute("DELETE FROM acknowledged", [])?;
        tx.execute(
            "INSERT OR REPLACE INTO meta VALUES (?1, ?2)",
            params![key, note],
        )?;
        write_rows(&tx, rows.iter().map(|(node, row)| (*node, row)), [])?;
        tx.commit()?;
        Ok(())
    }

    /// The opened body of a PUT of `node`, by op.
    pub fn put(&self, node: NodeId, op_hash: OpHash) -> Result<Option<Put>> {
        let row = self.db.query_row(
            "SELECT put FROM ops WHERE node = ?1 AND op_hash = ?2",
            params![node.0, op_hash.0],
            |row| row.get::<_, Option<Vec<u8>>>(0),
        );
        match row.optional()?.flatten() {
            Some(bytes) => Ok(Some(Put::parse(&bytes, node)?)),
            None => Ok(None),
        }
    }

    /// What the known versions of `node` held, oldest first.
    pub fn contents(&self, node: NodeId) -> Result<Vec<Body>> {
        let mut statement = self
            .db
            .prepare_cached("SELECT put FROM ops WHERE node = ?1 AND put IS NOT NULL ORDER BY n")?;
        let rows = statement.query_map([node.0], |row| row.get::<_, Vec<u8>>(0))?;
        let mut contents = Vec::new();
        for put in rows {
            if let Ok(put) = Put::parse(&put?, node) {
                contents.push(put.node().body.clone());
            }
        }
        Ok(contents)
    }

    /// The opened body of every PUT that is known: node, position, body.
    pub fn puts(&self) -> Result<Vec<(NodeId, u64, Vec<u8>)>> {
        let mut statement = self
            .db
            .prepare("SELECT node, n, put FROM ops WHERE put IS NOT NULL")?;
        let rows = statement.query_map([], |row| {
            Ok((NodeId(row.get(0)?), u64_of(row, 1)?, row.get(2)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The history of a node, newest first.
    pub fn versions(&self, node: NodeId) -> Result<Vec<Version>> {
        let mut statement = self.db.prepare_cached(
            "SELECT o.n, o.op_hash, o.kind, o.put, c.machine, c.time_ms FROM ops o JOIN commits c USING (n)
             WHERE o.node = ?1 ORDER BY o.n DESC",
        )?;
        let rows = statement.query_map([node.0], version_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Nodes whose last op is a TRASH, with the last PUT before it, newest first.
    pub fn trash(&self) -> Result<Vec<(NodeId, u64, Version)>> {
        let mut statement = self.db.prepare(
            "SELECT p.n, p.op_hash, p.kind, p.put, c.machine, c.time_ms, t.node, t.n
             FROM nodes JOIN ops t USING (node, n)
             JOIN ops p ON p.node = t.node AND p.n = (SELECT max(n) FROM ops WHERE node = t.node AND kind = 1)
             JOIN commits c ON c.n = t.n
             WHERE t.kind = 2 AND p.put IS NOT NULL ORDER BY t.n DESC, t.node",
        )?;
        let rows = statement.query_map([], |row| {
            Ok((NodeId(row.get(6)?), u64_of(row, 7)?, version_row(row)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Writes and drops ancestor rows, and forgets the pending ids of what now has one, by node and by path.
    pub fn record(
        &mut self,
        rows: &[(NodeId, Option<AncestorNode>)],
        settled: &[TreePath],
    ) -> Result<()> {
        if rows.is_empty() && settled.is_empty() {
            return Ok(());
        }
        commit_rows(self.db.transaction()?, rows, settled)
    }

    /// After a batch of steps: rows, and what is left of what it was to bring and move.
    pub fn finish(
        &mut self,
        rows: &[(NodeId, Option<AncestorNode>)],
        settled: &[TreePath],
        (left, moves): (&[Intended], &OwnMoves),
    ) -> Result<()> {
        let tx = self.db.transaction()?;
        write_intended(&tx, left)?;
        write_own_moves(&tx, moves)?;
        commit_rows(tx, rows, settled)
    }

    /// Ids given to new things on disk.
    pub fn pending_ids(&self) -> Result<BTreeMap<TreePath, NodeId>> {
        let mut statement = self.db.prepare("SELECT path, node FROM pending_ids")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, NodeId(row.get(1)?)))
        })?;
        let mut ids = BTreeMap::new();
        for row in rows {
            let (path, node) = row?;
            if let Ok(path) = TreePath::parse(&path) {
                ids.insert(path, node);
            }
        }
        Ok(ids)
    }

    /// Remembers ids given to new things on disk.
    pub fn add_pending_ids<'a>(
        &mut self,
        ids: impl IntoIterator<Item = (&'a TreePath, &'a NodeId)>,
    ) -> Result<()> {
        let tx = self.db.transaction()?;
        note_ids(&tx, ids)?;
        tx.commit()?;
        Ok(())
    }

    /// Before a batch of steps: ids of what will be new on disk, what will be set aside there, and what the batch brings, in
    /// place of what the last one did.
    pub fn prepare<'a>(
        &mut self,
        ids: impl IntoIterator<Item = (&'a TreePath, &'a NodeId)>,
        copies: impl IntoIterator<Item = SetAside>,
        intended: &[Intended],
    ) -> Result<()> {
        let tx = self.db.transaction()?;
        note_ids(&tx, ids)?;
        note_set_aside(&tx, copies)?;
        write_intended(&tx, intended)?;
        tx.commit()?;
        Ok(())
    }

    /// What the last batch of steps was to bring.
    pub fn intended(&self) -> Result<Vec<Intended>> {
        let mut statement = { &self.db }
            .prepare("SELECT node, version, parent, name, fetched, leaving FROM intended")?;
        let rows = statement.query_map([], |row| {
            let (parent, name): (Option<[u8; 16]>, Option<String>) = (row.get(2)?, row.get(3)?);
            Ok((
                NodeId(row.get(0)?),
                OpHash(row.get(1)?),
                parent.zip(name),
                row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
            ))
        })?;
        let mut intended = Vec::new();
        for row in rows {
            let (node, version, place, fetched, leaving) = row?;
            let place = match place {
                Some((parent, name)) => match Name::parse(&name) {
                    Ok(name) => Some((NodeId(parent), name)),
                    Err(_) => continue,
                },
                None => None,
            };
            intended.push(Intended {
                node,
                version,
                place,
                fetched,
                leaving,
            });
        }
        Ok(intended)
    }

    /// Conflict copies that were to be made here, and of which no commit has said what they lost against.
    pub fn set_aside(&self) -> Result<Vec<SetAside>> {
        let mut statement = self
            .db
            .prepare_cached("SELECT parent, name, node, version, base FROM set_aside")?;
        let rows = statement.query_map([], |row| {
            let (name, base): (String, Option<[u8; 32]>) = (row.get(1)?, row.get(4)?);
            Ok((
                NodeId(row.get(0)?),
                name,
                NodeId(row.get(2)?),
                OpHash(row.get(3)?),
                base,
            ))
        })?;
        let mut copies = Vec::new();
        for row in rows {
            let (parent, name, node, version, base) = row?;
            if let Ok(name) = Name::parse(&name) {
                copies.push(SetAside {
                    parent,
                    name,
                    against: (node, version),
                    base: base.map(OpHash),
                });
            }
        }
        Ok(copies)
    }

    /// Forgets those of which nothing has come.
    pub fn forget_set_aside(&mut self, copies: &[SetAside]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let tx = self.db.transaction()?;
        for copy in copies {
            tx.execute(FORGET_SET_ASIDE, params![copy.parent.0, copy.name.as_str()])?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Moves that this machine was about to make on its own disk, by where they lead, with the version that the row was of.
    pub fn own_moves(&self) -> Result<OwnMoves> {
        let mut statement = { &self.db }
            .prepare("SELECT path, node, base FROM own_moves WHERE base IS NOT NULL")?;
        let rows = statement.query_map([], |row| {
            let moved = (NodeId(row.get(1)?), OpHash(row.get(2)?));
            Ok((row.get::<_, String>(0)?, moved))
        })?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(rows
            .into_iter()
            .filter_map(|(path, moved)| Some((TreePath::parse(&path).ok()?, moved)))
            .collect())
    }

    /// Keeps the moves of the next batch in place of those of the last.
    pub fn set_own_moves(&mut self, moves: &OwnMoves) -> Result<()> {
        let tx = self.db.transaction()?;
        write_own_moves(&tx, moves)?;
        tx.commit()?;
        Ok(())
    }

    /// Forgets what was agreed on for what stands in the folder, and sets a note. What is not here on purpose stays so.
    pub fn forget_folder(&mut self, (key, note): (&str, &[u8])) -> Result<()> {
        let tx = self.db.transaction()?;
        for statement in [
            "DELETE FROM ancestor WHERE not_here = 0",
            "DELETE FROM sealed_rows",
            "DELETE FROM pending_ids",
            "DELETE FROM own_moves",
            "DELETE FROM intended",
        ] {
            tx.execute(statement, [])?;
        }
        tx.execute(
            "INSERT OR REPLACE INTO meta VALUES (?1, ?2)",
            params![key, note],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// Folder and index are both copies: forgets what is known by numbers of files, sets a note, and another that they are to
    /// be compared. What was agreed on stays, and what a commit without an answer leaves, until they were.
    pub fn begin_copies(&mut self, (key, note): (&str, &[u8]), copied: &str) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute_batch("DELETE FROM pending_ids; DELETE FROM own_moves; DELETE FROM intended;")?;
        for (key, note) in [(key, note), (copied, b"")] {
            tx.execute(
                "INSERT OR REPLACE INTO meta VALUES (?1, ?2)",
                params![key, note],
            )?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Folder and index were compared.
    pub fn end_copies(&mut self, copied: &str) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute("DELETE FROM sealed_rows", [])?;
        tx.execute("DELETE FROM meta WHERE key = ?1", [copied])?;
        tx.commit()?;
        Ok(())
    }

    /// The data chunks of a file's version, if they were kept: ids and lengths without keys do not stand alone. None, too, if
    /// they are no longer what was kept.
    pub fn leaves(&self, node: NodeId, op_hash: OpHash) -> Result<Option<Vec<u8>>> {
        let row = self.db.query_row(
            "SELECT entries FROM leaves WHERE node = ?1 AND op_hash = ?2 AND sum = mixed(0, node, op_hash, entries)",
            params![node.0, op_hash.0],
            |row| row.get(0),
        );
        Ok(row.optional()?)
    }

    /// Keeps the data chunks of a file's version.
    pub fn set_leaves(&self, node: NodeId, op_hash: OpHash, entries: &[u8]) -> Result<()> {
        self.db.execute(
            "INSERT OR REPLACE INTO leaves VALUES (?1, ?2, ?3, mixed(0, ?1, ?2, ?3))",
            params![node.0, op_hash.0, entries],
        )?;
        Ok(())
    }

    /// Notes chunks that the server has acknowledged.
    pub fn acknowledge(&mut self, chunks: &[ChunkId], now_ms: u64) -> Result<()> {
        let tx = self.db.transaction()?;
        {
            let mut insert =
                tx.prepare_cached("INSERT OR REPLACE INTO acknowledged VALUES (?1, ?2)")?;
            for chunk in chunks {
                insert.execute(params![chunk.0, sql(now_ms)])?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Whether the server acknowledged a chunk after `since_ms`.
    pub fn is_acknowledged(&self, chunk: ChunkId, since_ms: u64) -> Result<bool> {
        let mut statement = self
            .db
            .prepare_cached("SELECT 1 FROM acknowledged WHERE chunk = ?1 AND time_ms >= ?2")?;
        Ok(statement.exists(params![chunk.0, sql(since_ms)])?)
    }

    /// Forgets acknowledgements: of all chunks once nothing is being uploaded, or of those the server lost.
    pub fn forget_acknowledged(&mut self, chunks: Option<&[ChunkId]>) -> Result<()> {
        let tx = self.db.transaction()?;
        match chunks {
            None => {
                tx.execute("DELETE FROM acknowledged", [])?;
            }
            Some(chunks) => {
                let mut delete = tx.prepare_cached("DELETE FROM acknowledged WHERE chunk = ?1")?;
                for chunk in chunks {
                    delete.execute([chunk.0])?;
                }
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Conflicts that nobody has resolved, oldest first; `tree` is what the log leads to.
    pub fn open_conflicts(&self, tree: &Tree) -> Result<Vec<OpenConflict>> {
        let mut statement = self.db.prepare_cached(
            "SELECT k.copy, k.node, k.time_ms, t.n, t.machine, t.time_ms, m.n, m.machine, m.time_ms FROM conflicts k
             JOIN nodes theirs ON theirs.node = k.node JOIN commits t ON t.n = theirs.n
             JOIN nodes mine ON mine.node = k.copy JOIN commits m ON m.n = mine.n
             ORDER BY k.time_ms, k.copy",
        )?;
        let side = |row: &Row<'_>, from: usize| -> rusqlite::Result<Side> {
            Ok(Side {
                n: u64_of(row, from)?,
                machine: MachineId(row.get(from + 1)?),
                time_ms: u64_of(row, from + 2)?,
            })
        };
        let rows = statement.query_map([], |row| {
            let ids = (NodeId(row.get(0)?), NodeId(row.get(1)?));
            Ok((ids, u64_of(row, 2)?, side(row, 3)?, side(row, 6)?))
        })?;
        let mut open = Vec::new();
        for row in rows {
            let ((copy, node), time_ms, theirs, mine) = row?;
            if node != NodeId::ROOT
                && let (Some(path), Some(copy_path)) = (tree.path_of(node), tree.path_of(copy))
            {
                open.push(OpenConflict {
                    copy,
                    node,
                    path,
                    copy_path,
                    time_ms,
                    theirs,
                    mine,
                });
            }
        }
        Ok(open)
    }

    /// The version of `node` that it and its conflict copy both started from, if that is known.
    pub fn common_version(&self, copy: NodeId, node: NodeId) -> Result<Option<Version>> {
        let of_node = self.versions(node)?;
        // An edit of the copy is based on the copy; what made it one is based on what both had.
        for version in self.versions(copy)? {
            let put = version.put.as_deref().map(|bytes| Put::parse(bytes, copy));
            if let Some(Ok(put)) = put
                && put.conflict_of.is_some_and(|(won, _)| won == node)
                && let Some(base) = put.based_on
                && let Some(found) = of_node.iter().find(|version| version.op_hash == base)
            {
                return Ok(Some(found.clone()));
            }
        }
        Ok(None)
    }
}

const FORGET_SET_ASIDE: &str = "DELETE FROM set_aside WHERE parent = ?1 AND name = ?2";

/// Notes what conflict copies lost against: until a commit stands nothing else says so.
fn note_set_aside(
    tx: &Transaction<'_>,
    copies: impl IntoIterator<Item = SetAside>,
) -> rusqlite::Result<()> {
    let mut insert =
        tx.prepare_cached("INSERT OR REPLACE INTO set_aside VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for copy in copies {
        let (node, version) = copy.against;
        let base = copy.base.map(|base| base.0);
        insert.execute(params![
            copy.parent.0,
            copy.name.as_str(),
            node.0,
            version.0,
            base
        ])?;
    }
    Ok(())
}

/// The conflict copies that nobody has resolved and that a commit after `n` made such.
fn set_aside_after(tx: &Transaction<'_>, n: i64) -> rusqlite::Result<Vec<SetAside>> {
    let mut puts = tx.prepare(
        "SELECT o.node, o.put FROM nodes JOIN ops o USING (node, n) WHERE o.n > ?1 AND o.put IS NOT NULL",
    )?;
    let rows = puts.query_map([n], |row| {
        Ok((NodeId(row.get(0)?), row.get::<_, Vec<u8>>(1)?))
    })?;
    let mut versions =
        tx.prepare("SELECT put FROM ops WHERE node = ?1 AND put IS NOT NULL ORDER BY n DESC")?;
    let mut copies = Vec::new();
    for row in rows {
        let (node, put) = row?;
        let Ok(put) = Put::parse(&put, node) else {
            continue;
        };
        let Some(against) = put.conflict_of else {
            continue;
        };
        // An edit of the copy is based on the copy; what made it one is based on what both had.
        let mut base = put.based_on;
        for earlier in versions.query_map([node.0], |row| row.get::<_, Vec<u8>>(0))? {
            match Put::parse(&earlier?, node) {
                Ok(earlier) if earlier.conflict_of.is_some_and(|(won, _)| won == against.0) => {
                    base = earlier.based_on;
                }
                _ => break,
            }
        }
        copies.push(SetAside {
            parent: put.parent,
            name: put.name,
            against,
            base,
        });
    }
    Ok(copies)
}

/// A copy keeps the time at which it became one.
const ADD_CONFLICT: &str = "INSERT INTO conflicts VALUES (?1, ?2, ?3)
     ON CONFLICT (copy) DO UPDATE SET node = excluded.node";

/// Fills the table of conflicts from the log that is there already.
fn find_conflicts(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut puts = tx.prepare(
        "SELECT o.node, o.put, c.time_ms FROM nodes JOIN ops o USING (node, n) JOIN commits c USING (n)
         WHERE o.put IS NOT NULL",
    )?;
    let mut add = tx.prepare(ADD_CONFLICT)?;
    let mut rows = puts.query([])?;
    while let Some(row) = rows.next()? {
        let (copy, put, time_ms): ([u8; 16], Vec<u8>, i64) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Some((against, _)) = Put::lost_against(&put) {
            add.execute(params![copy, against.0, time_ms])?;
        }
    }
    Ok(())
}

/// SQLite's integers are signed; what is stored here stays below 2^63 or is compared for equality only.
fn sql(value: u64) -> i64 {
    value.cast_signed()
}

fn u64_of(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn revoked_key(machine: MachineId) -> String {
    format!("revoked/{machine}")
}

fn last_op(node: NodeId, kind: OpKind, put: Option<&[u8]>) -> LastOp {
    match kind {
        OpKind::Trash => LastOp::Trashed,
        OpKind::Purge => LastOp::Purged,
        OpKind::Put => match put.map(|bytes| Put::parse(bytes, node)) {
            Some(Ok(put)) => LastOp::Put(put.node().into()),
            _ => LastOp::Unreadable,
        },
        OpKind::Unreadable => LastOp::Unreadable,
    }
}

fn version_row(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        n: u64_of(row, 0)?,
        op_hash: OpHash(row.get(1)?),
        kind: OpKind::from_number(row.get(2)?),
        put: row.get(3)?,
        machine: MachineId(row.get(4)?),
        time_ms: u64_of(row, 5)?,
    })
}

/// The columns of `ancestor`, in the order of [`ancestor_row`] and [`ancestor_values`].
const ANCESTOR_COLUMNS: &str =
    "node, parent, name, kind, size, hash, exec, target, mtime_ns, op_hash,
    fp_size, fp_mtime, fp_ctime, fp_inode, inode, not_here";
const ANCESTOR_COLUMN_COUNT: usize = 16;

/// Notes ids given to new things on disk.
fn note_ids<'a>(
    tx: &Transaction<'_>,
    ids: impl IntoIterator<Item = (&'a TreePath, &'a NodeId)>,
) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO pending_ids VALUES (?1, ?2)")?;
    for (path, node) in ids {
        insert.execute(params![path.as_str(), node.0])?;
    }
    Ok(())
}

/// In place of what was noted before.
fn write_own_moves(tx: &Transaction<'_>, moves: &OwnMoves) -> Result<()> {
    tx.execute("DELETE FROM own_moves", [])?;
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO own_moves VALUES (?1, ?2, ?3)")?;
    for (path, (node, base)) in moves {
        insert.execute(params![path.as_str(), node.0, base.0])?;
    }
    Ok(())
}

/// In place of what was noted before.
fn write_intended(tx: &Transaction<'_>, intended: &[Intended]) -> Result<()> {
    tx.execute("DELETE FROM intended", [])?;
    let mut insert = tx.prepare_cached("INSERT INTO intended VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for Intended {
        node,
        version,
        place,
        fetched,
        leaving,
    } in intended
    {
        let place = place.as_ref();
        let (parent, name) = place
            .map(|(parent, name)| (parent.0, name.as_str()))
            .unzip();
        let (fetched, leaving) = (fetched.map(sql), leaving.map(sql));
        insert.execute(params![node.0, version.0, parent, name, fetched, leaving])?;
    }
    Ok(())
}

/// With what else the transaction has written.
fn commit_rows(
    tx: Transaction<'_>,
    rows: &[(NodeId, Option<AncestorNode>)],
    settled: &[TreePath],
) -> Result<()> {
    write_rows(&tx, rows.iter().map(|(node, row)| (*node, row)), settled)?;
    point(Point::RowsWriting);
    tx.commit()?;
    point(Point::RowsWritten);
    Ok(())
}

/// Writes and drops ancestor rows and forgets pending ids.
fn write_rows<'a>(
    tx: &Transaction<'_>,
    rows: impl Iterator<Item = (NodeId, &'a Option<AncestorNode>)>,
    settled: impl IntoIterator<Item = &'a TreePath>,
) -> Result<()> {
    let mut write = tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO ancestor ({ANCESTOR_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
    ))?;
    let mut drop_row = tx.prepare_cached("DELETE FROM ancestor WHERE node = ?1")?;
    let mut settle = tx.prepare_cached("DELETE FROM pending_ids WHERE path = ?1")?;
    let mut known = tx.prepare_cached("DELETE FROM pending_ids WHERE node = ?1")?;
    let mut told = tx.prepare_cached(FORGET_SET_ASIDE)?;
    for (node, row) in rows {
        match row {
            Some(row) => {
                write.execute(params_from_iter(ancestor_values(node, row)))?;
                known.execute([node.0])?;
                told.execute(params![row.node.parent.0, row.node.name.as_str()])?
            }
            None => drop_row.execute([node.0])?,
        };
    }
    for path in settled {
        settle.execute([path.as_str()])?;
    }
    Ok(())
}

fn text(value: Option<&str>) -> Value {
    value.map_or(Value::Null, |value| Value::Text(value.to_owned()))
}

fn ancestor_values(node: NodeId, row: &AncestorNode) -> [Value; ANCESTOR_COLUMN_COUNT] {
    let integer = |value: Option<i64>| value.map_or(Value::Null, Value::Integer);
    let (kind, size, hash, exec, target) = match &row.node.body {
        Body::File { hash, size, exec } => (1, *size, Some(hash.0), *exec, None),
        Body::Directory => (2, 0, None, false, None),
        Body::Symlink { target } => (3, 0, None, false, Some(target.as_str())),
    };
    let print = row.fingerprint;
    [
        Value::Blob(node.0.to_vec()),
        Value::Blob(row.node.parent.0.to_vec()),
        Value::Text(row.node.name.as_str().to_owned()),
        Value::Integer(kind),
        Value::Integer(sql(size)),
        hash.map_or(Value::Null, |hash| Value::Blob(hash.to_vec())),
        Value::Integer(exec.into()),
        text(target),
        Value::Integer(row.node.mtime_ns),
        Value::Blob(row.op_hash.0.to_vec()),
        integer(print.map(|print| sql(print.size))),
        integer(print.map(|print| print.mtime_ns)),
        integer(print.map(|print| print.ctime_ns)),
        integer(print.map(|print| sql(print.inode))),
        Value::Integer(sql(row.inode)),
        Value::Integer(row.not_here.into()),
    ]
}

fn sealed_row(row: &Row<'_>) -> rusqlite::Result<SealedRow> {
    let stays = row.get::<_, Option<[u8; 16]>>(1)?.is_some();
    let settled: Option<String> = row.get(ANCESTOR_COLUMN_COUNT)?;
    Ok(SealedRow {
        node: NodeId(row.get(0)?),
        row: stays.then(|| ancestor_row(row)).transpose()?,
        settled: settled.and_then(|path| TreePath::parse(&path).ok()),
    })
}

fn ancestor_row(row: &Row<'_>) -> rusqlite::Result<AncestorNode> {
    let invalid = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let name: String = row.get(2)?;
    let body = match row.get::<_, u8>(3)? {
        1 => Body::File {
            hash: ContentHash(row.get(5)?),
            size: u64_of(row, 4)?,
            exec: row.get(6)?,
        },
        2 => Body::Directory,
        _ => Body::Symlink {
            target: row.get(7)?,
        },
    };
    let fingerprint = match row.get::<_, Option<i64>>(10)? {
        Some(size) => Some(Fingerprint {
            size: size.cast_unsigned(),
            mtime_ns: row.get(11)?,
            ctime_ns: row.get(12)?,
            inode: u64_of(row, 13)?,
        }),
        None => None,
    };
    Ok(AncestorNode {
        node: Node {
            parent: NodeId(row.get(1)?),
            name: Name::parse(&name).map_err(|error| invalid(2, Box::new(error)))?,
            mtime_ns: row.get(8)?,
            body,
        },
        op_hash: OpHash(row.get(9)?),
        fingerprint,
        inode: u64_of(row, 14)?,
        not_here: row.get(15)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_survives_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("state.db")).unwrap();
        // Of what SQLite offers, only this flushes its journal before a transaction ends (sqlite.org/pragma.html): 2 is
        // FULL. With NORMAL, the last rows may be gone after a power cut, and what they vouched for is decided anew.
        let asked = |pragma| -> i64 {
            let asked = index.db.pragma_query_value(None, pragma, |row| row.get(0));
            asked.unwrap()
        };
        assert_eq!(asked("synchronous"), 2);
        // And on macOS down to the disk itself, where a plain flush ends in the drive's own memory.
        assert_eq!((asked("fullfsync"), asked("checkpoint_fullfsync")), (1, 1));
    }

    #[test]
    fn ancestor_rows_come_back_as_they_were() {
        let mut index = Index::in_memory().unwrap();
        let row = |body, fingerprint| AncestorNode {
            node: Node {
                parent: NodeId([2; 16]),
                name: Name::parse("é\n").unwrap(),
                mtime_ns: -7,
                body,
            },
            op_hash: OpHash([5; 32]),
            fingerprint,
            inode: u64::MAX,
            not_here: false,
        };
        let print = Fingerprint {
            size: 3,
            mtime_ns: -1,
            ctime_ns: 2,
            inode: u64::MAX,
        };
        let rows = [
            (
                NodeId([1; 16]),
                row(
                    Body::File {
                        hash: ContentHash([9; 32]),
                        size: 3,
                        exec: true,
                    },
                    Some(print),
                ),
            ),
            (NodeId([3; 16]), row(Body::Directory, None)),
            (
                NodeId([4; 16]),
                row(
                    Body::Symlink {
                        target: "../x".into(),
                    },
                    None,
                ),
            ),
        ];
        let writes: Vec<_> = rows
            .iter()
            .map(|(id, row)| (*id, Some(row.clone())))
            .collect();
        index.record(&writes, &[]).unwrap();
        let (_, ancestor) = index.load().unwrap();
        for (id, row) in &rows {
            assert_eq!(ancestor.get(*id), Some(row));
        }
        index.record(&[(NodeId([3; 16]), None)], &[]).unwrap();
        assert!(index.load().unwrap().1.get(NodeId([3; 16])).is_none());
    }

    #[test]
    fn the_rows_of_a_commit_are_written_when_it_stands() {
        let mut index = Index::in_memory().unwrap();
        let row = AncestorNode {
            node: Node {
                parent: NodeId::ROOT,
                name: Name::parse("f").unwrap(),
                mtime_ns: 7,
                body: Body::Directory,
            },
            op_hash: OpHash([5; 32]),
            fingerprint: None,
            inode: 9,
            not_here: false,
        };
        let path = TreePath::parse("f").unwrap();
        let left = vec![
            SealedRow {
                node: NodeId([1; 16]),
                row: Some(row.clone()),
                settled: Some(path.clone()),
            },
            SealedRow {
                node: NodeId([2; 16]),
                row: None,
                settled: None,
            },
        ];
        index
            .record(&[(NodeId([2; 16]), Some(row.clone()))], &[])
            .unwrap();
        index.add_pending_ids([(&path, &NodeId([1; 16]))]).unwrap();
        let (stands, lost) = (CommitHash([1; 32]), CommitHash([2; 32]));
        for hash in [stands, lost] {
            index.store_sealed(1, hash, b"bytes", &left, 0).unwrap();
        }
        assert!(index.load().unwrap().1.get(NodeId([1; 16])).is_none());
        let commit = Applied {
            n: 1,
            hash: stands,
            machine: MachineId([3; 16]),
            time_ms: 0,
            ops: Vec::new(),
            added: None,
            revoked: Vec::new(),
            keyslots: Vec::new(),
            genesis: None,
            served: bytes::Bytes::new(),
        };
        assert_eq!(index.apply(&[commit]).unwrap(), left);
        let (_, ancestor) = index.load().unwrap();
        assert_eq!(ancestor.get(NodeId([1; 16])), Some(&row));
        assert!(ancestor.get(NodeId([2; 16])).is_none());
        assert!(index.pending_ids().unwrap().is_empty());
        // What was sealed for the same position and lost leaves nothing.
        index.drop_sealed(1, 1, 0).unwrap();
        let rest = index
            .db
            .query_row("SELECT count(*) FROM sealed_rows", [], |row| row.get(0));
        assert_eq!(rest, Ok(0));
    }

    #[test]
    fn what_a_copy_lost_against_is_known_until_its_row_is_written() {
        let mut index = Index::in_memory().unwrap();
        let copy = |name: &str| SetAside {
            parent: NodeId::ROOT,
            name: Name::parse(name).unwrap(),
            against: (NodeId([2; 16]), OpHash([3; 32])),
            base: Some(OpHash([4; 32])),
        };
        index.prepare([], ["a", "b", "c"].map(copy), &[]).unwrap();
        let mut again = copy("b");
        again.base = None;
        index.prepare([], [again.clone()], &[]).unwrap();
        let row = AncestorNode {
            node: Node {
                parent: NodeId::ROOT,
                name: Name::parse("a").unwrap(),
                mtime_ns: 0,
                body: Body::Directory,
            },
            op_hash: OpHash([5; 32]),
            fingerprint: None,
            inode: 0,
            not_here: false,
        };
        index.record(&[(NodeId([1; 16]), Some(row))], &[]).unwrap();
        assert_eq!(index.set_aside().unwrap(), [again.clone(), copy("c")]);
        index.forget_set_aside(&[copy("c"), copy("d")]).unwrap();
        assert_eq!(index.set_aside().unwrap(), [again.clone()]);
        index.forget_set_aside(&[again]).unwrap();
        assert_eq!(index.set_aside().unwrap(), []);
    }

    #[test]
    fn what_the_server_will_not_take_is_known_and_not_posted_again() {
        let mut index = Index::in_memory().unwrap();
        let (old, new) = (CommitHash([1; 32]), CommitHash([2; 32]));
        index.store_sealed(1, old, b"old", &[], 0).unwrap();
        index.store_sealed(1, new, b"new", &[], 1).unwrap();
        index.give_up_sealed(new).unwrap();
        assert_eq!(index.sealed_at(1).unwrap(), Some((old, b"old".to_vec())));
        index.give_up_sealed(old).unwrap();
        assert_eq!(index.sealed_at(1).unwrap(), None);
        assert!(index.is_own(old).unwrap() && index.is_own(new).unwrap());
    }

    #[test]
    fn conflicts_of_a_log_that_was_there_before_are_found() {
        let mut index = Index::in_memory().unwrap();
        let put = |against: Option<NodeId>| {
            Put {
                parent: NodeId::ROOT,
                name: Name::parse("f").unwrap(),
                mtime_ns: 0,
                body: syncagent_vault::op::PutBody::Directory,
                based_on: None,
                conflict_of: against.map(|node| (node, OpHash([7; 32]))),
            }
            .encode()
        };
        let (copy, node) = (NodeId([1; 16]), NodeId([2; 16]));
        let op = |node, put| NodeOp {
            node,
            op_hash: OpHash([5; 32]),
            kind: OpKind::Put,
            put: Some(put),
        };
        let commit = |n: u64, ops| Applied {
            n,
            hash: CommitHash([n as u8; 32]),
            machine: MachineId([3; 16]),
            time_ms: 40 + n,
            ops,
            added: None,
            revoked: Vec::new(),
            keyslots: Vec::new(),
            genesis: None,
            served: bytes::Bytes::new(),
        };
        let rows = |index: &Index| -> i64 {
            let count = "SELECT count(*) FROM conflicts WHERE time_ms = 41";
            index.db.query_row(count, [], |row| row.get(0)).unwrap()
        };
        let all = |index: &Index| -> i64 {
            let count = "SELECT count(*) FROM conflicts";
            index.db.query_row(count, [], |row| row.get(0)).unwrap()
        };
        let first = vec![op(copy, put(Some(node))), op(node, put(None))];
        index.apply(&[commit(1, first)]).unwrap();
        assert_eq!(rows(&index), 1);
        // As an index of before has it.
        index.db.execute("DELETE FROM conflicts", []).unwrap();
        let tx = index.db.transaction().unwrap();
        find_conflicts(&tx).unwrap();
        tx.commit().unwrap();
        assert_eq!(rows(&index), 1);
        // Said again, it is the same conflict; said no more, it is none.
        index
            .apply(&[commit(2, vec![op(copy, put(Some(node)))])])
            .unwrap();
        assert_eq!(rows(&index), 1);
        index
            .apply(&[commit(3, vec![op(copy, put(None))])])
            .unwrap();
        assert_eq!(rows(&index), 0);
        // What said so is gone with the log's end.
        index.rewind(2, &[], ("why", b"")).unwrap();
        assert_eq!(all(&index), 1);
        index.rewind(0, &[], ("why", b"")).unwrap();
        assert_eq!(all(&index), 0);
    }

    #[test]
    fn acknowledgements_age() {
        let mut index = Index::in_memory().unwrap();
        index.acknowledge(&[ChunkId([1; 32])], 100).unwrap();
        assert!(index.is_acknowledged(ChunkId([1; 32]), 100).unwrap());
        assert!(!index.is_acknowledged(ChunkId([1; 32]), 101).unwrap());
        assert!(!index.is_acknowledged(ChunkId([2; 32]), 0).unwrap());
    }

    fn commit(n: u64, ops: Vec<NodeOp>, revoked: Vec<MachineId>) -> Applied {
        Applied {
            n,
            hash: CommitHash([n as u8; 32]),
            machine: MachineId([3; 16]),
            time_ms: n,
            ops,
            added: None,
            revoked,
            keyslots: Vec::new(),
            genesis: None,
            served: vec![n as u8; 100].into(),
        }
    }

    #[test]
    fn of_others_commits_the_last_ones_are_kept_within_the_bound() {
        let mut index = Index::in_memory().unwrap();
        let commits: Vec<Applied> = (1..=70)
            .map(|n| commit(n, Vec::new(), Vec::new()))
            .collect();
        // The second is this machine's own, and kept elsewhere.
        index
            .store_sealed(2, CommitHash([2; 32]), b"own", &[], 0)
            .unwrap();
        index.apply(&commits).unwrap();
        assert_eq!(index.keep(commits.iter().take(3), 10).unwrap(), 200);
        assert_eq!(index.keep(commits.iter().skip(3), 20).unwrap(), 6700);
        assert_eq!(index.kept_len().unwrap(), 6900);
        let held = |index: &Index| {
            let all = index.commits_after(0).unwrap().into_iter();
            all.filter(|commit| commit.held)
                .map(|commit| commit.n)
                .collect::<Vec<_>>()
        };
        assert_eq!(held(&index), (1..=70).collect::<Vec<_>>());
        assert_eq!(index.drop_kept(15, 10_000).unwrap(), 6700);
        // However old, the last ones stay.
        assert_eq!(index.drop_kept(99, 10_000).unwrap(), 6400);
        assert_eq!(held(&index)[..2], [2, 7]);
        assert_eq!(index.drop_kept(0, 399).unwrap(), 300);
        assert_eq!(held(&index), [2, 68, 69, 70]);
        let served = index.served(69, CommitHash([69; 32])).unwrap().unwrap();
        assert_eq!(served, [69; 100]);
        // Another commit at that position is another commit.
        assert_eq!(index.served(69, CommitHash([9; 32])).unwrap(), None);
    }

    #[test]
    fn going_back_forgets_what_came_after_and_nothing_else() {
        let mut index = Index::in_memory().unwrap();
        let op = |node: u8, n: u8, kind| NodeOp {
            node: NodeId([node; 16]),
            op_hash: OpHash([n; 32]),
            kind,
            put: None,
        };
        let machine = |n: u8| MachineId([n; 16]);
        let commits = [
            commit(
                1,
                vec![op(1, 1, OpKind::Unreadable), op(2, 1, OpKind::Unreadable)],
                vec![machine(7)],
            ),
            commit(
                300,
                vec![op(1, 2, OpKind::Trash), op(3, 2, OpKind::Unreadable)],
                vec![machine(8)],
            ),
        ];
        index.apply(&commits).unwrap();
        index.keep(commits.iter(), 0).unwrap();
        index.acknowledge(&[ChunkId([1; 32])], 5).unwrap();
        let own = |n: u8| CommitHash([n; 32]);
        for n in [1, 2] {
            index
                .store_sealed(n.into(), own(n), b"commit", &[], 5)
                .unwrap();
        }
        index.rewind(1, &[], ("why", b"note")).unwrap();
        assert_eq!(index.position().unwrap().unwrap().n, 1);
        let (log, _) = index.load().unwrap();
        let last = |node: u8| log.get(NodeId([node; 16])).map(|entry| entry.n);
        assert_eq!((last(1), last(2), last(3)), (Some(1), Some(1), None));
        assert_eq!(index.kept_len().unwrap(), 100);
        assert_eq!(index.revoked_n(machine(7)).unwrap(), Some(1));
        assert_eq!(index.revoked_n(machine(8)).unwrap(), None);
        assert!(!index.is_acknowledged(ChunkId([1; 32]), 0).unwrap());
        assert_eq!(index.meta("why").unwrap().as_deref(), Some(&b"note"[..]));
        // What is not given back is not posted by itself, either.
        assert!(index.sealed_at(1).unwrap().is_some());
        assert_eq!(index.sealed_at(2).unwrap(), None);
        assert!(index.is_own(own(2)).unwrap());
        index.drop_meta("why").unwrap();
        assert_eq!(index.meta("why").unwrap(), None);
    }

    #[test]
    fn what_a_batch_brings_takes_the_place_of_what_the_last_one_did() {
        let mut index = Index::in_memory().unwrap();
        let intended = |id: u8, name: Option<&str>, fetched| Intended {
            node: NodeId([id; 16]),
            version: OpHash([id; 32]),
            place: name.map(|name| (NodeId([9; 16]), Name::parse(name).unwrap())),
            fetched,
            leaving: fetched.map(|inode| inode - 1),
        };
        let first = [
            intended(1, Some("a"), Some(u64::MAX)),
            intended(2, Some("b"), None),
            intended(3, None, None),
        ];
        index.prepare([], [], &first).unwrap();
        assert_eq!(index.intended().unwrap(), first);
        index.prepare([], [], &first[1..2]).unwrap();
        assert_eq!(index.intended().unwrap(), first[1..2]);
        index.forget_folder(("why", b"")).unwrap();
        assert_eq!(index.intended().unwrap(), []);
    }
}
