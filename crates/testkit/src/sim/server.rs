//! The real server, with its catalog within reach: it loses chunks, and is put back to a backup.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use syncagent_protocol::CommitHash;
use syncagent_server::catalog::sqlite::SqliteCatalog;
use syncagent_server::chunks::memory::MemoryStore;
use syncagent_server::{App, Entropy, Parts, Work};

use super::clock::SimClock;
use super::dice::Dice;

/// How far a server was at some moment: what a backup made then would hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Position of the log.
    pub n: u64,
    /// The newest pack.
    pack: i64,
}

/// A server in memory. Clones are the same one.
#[derive(Clone)]
pub struct SimServer {
    /// What answers requests.
    pub app: App,
    /// A connection of our own to its catalog.
    db: Arc<Mutex<Connection>>,
}

type Sql<T> = rusqlite::Result<T>;

impl SimServer {
    /// An empty server.
    pub fn new(clock: SimClock, entropy: Entropy) -> Result<Self, String> {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "file:server-{}?mode=memory&cache=shared",
            SERVERS.fetch_add(1, Ordering::Relaxed)
        );
        let db = Connection::open(&name).map_err(|error| error.to_string())?;
        let catalog = SqliteCatalog::open(Path::new(&name), Work::Inline)
            .map_err(|error| error.to_string())?;
        db.execute_batch(
            "CREATE TEMP TABLE cut_commits AS SELECT * FROM commits;
             CREATE TEMP TABLE cut_chunks AS SELECT * FROM chunks;
             CREATE TEMP TABLE cut_lists AS SELECT * FROM lists;
             CREATE TEMP TABLE lost_chunks AS SELECT * FROM chunks;",
        )
        .map_err(|error| error.to_string())?;
        let app = App::new(Parts {
            catalog: Arc::new(catalog),
            chunks: Arc::new(MemoryStore::default()),
            clock: Arc::new(clock),
            entropy,
            work: Work::Inline,
        });
        let db = Arc::new(Mutex::new(db));
        Ok(Self { app, db })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the server is now.
    pub fn mark(&self) -> Sql<Mark> {
        let sql = "SELECT (SELECT coalesce(max(n), 0) FROM commits), (SELECT coalesce(max(key), 0) FROM packs)";
        self.db().query_row(sql, [], |row| {
            Ok(Mark {
                n: row.get::<_, i64>(0)?.unsigned_abs(),
                pack: row.get(1)?,
            })
        })
    }

    /// The hash at a position.
    pub fn hash_at(&self, n: u64) -> Sql<Option<CommitHash>> {
        let db = self.db();
        let mut statement = db.prepare_cached("SELECT hash FROM commits WHERE n = ?1")?;
        let mut rows = statement.query_map([n.cast_signed()], |row| row.get(0).map(CommitHash))?;
        rows.next().transpose()
    }

    /// Forgets the chunks that came after the last commit: acknowledged, and named by nobody yet. They never come
    /// back by themselves, but for what a commit names that [`SimServer::put_back`] took. How many there were.
    pub fn lose_fresh(&self) -> Sql<usize> {
        let fresh = "pack IN (SELECT key FROM packs
                     WHERE created_ms > (SELECT coalesce(max(appended_ms), 0) FROM commits))";
        let lists = format!("FROM lists WHERE id IN (SELECT id FROM chunks WHERE {fresh})");
        let is_cut = "EXISTS (SELECT 1 FROM cut_commits)";
        let db = self.db();
        db.execute_batch(&format!(
            "INSERT INTO cut_chunks SELECT * FROM chunks WHERE {fresh} AND {is_cut};
             INSERT INTO cut_lists SELECT * {lists} AND {is_cut};"
        ))?;
        db.execute(&format!("DELETE {lists}"), [])?;
        db.execute(&format!("DELETE FROM chunks WHERE {fresh}"), [])
    }

    /// Loses some chunks of whatever it has, until [`SimServer::find_lost`]. How many.
    pub fn lose_some(&self, dice: &mut Dice) -> Sql<usize> {
        let db = self.db();
        let mut statement = db.prepare_cached("SELECT id FROM chunks ORDER BY id")?;
        let ids: Vec<Vec<u8>> = statement
            .query_map([], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        let mut lost = 0;
        for _ in 0..=dice.below(3) {
            let Some(id) = dice.pick(&ids) else { break };
            db.execute(
                "INSERT INTO lost_chunks SELECT * FROM chunks WHERE id = ?1",
                [id],
            )?;
            lost += db.execute("DELETE FROM chunks WHERE id = ?1", [id])?;
        }
        Ok(lost)
    }

    /// Somebody finds the lost chunks again.
    pub fn find_lost(&self) -> Sql<()> {
        self.db().execute_batch(
            "INSERT OR IGNORE INTO chunks SELECT * FROM lost_chunks; DELETE FROM lost_chunks;",
        )
    }

    /// The server goes on from a backup.
    pub fn put_back(&self, to: Mark) -> Sql<()> {
        let db = self.db();
        let newer = "SELECT id FROM chunks WHERE pack > ?1";
        db.execute(
            "INSERT INTO cut_commits SELECT * FROM commits WHERE n > ?1",
            [to.n.cast_signed()],
        )?;
        db.execute(
            "INSERT INTO cut_chunks SELECT * FROM chunks WHERE pack > ?1",
            [to.pack],
        )?;
        db.execute(
            &format!("INSERT INTO cut_lists SELECT * FROM lists WHERE id IN ({newer})"),
            [to.pack],
        )?;
        db.execute("DELETE FROM commits WHERE n > ?1", [to.n.cast_signed()])?;
        db.execute(
            &format!("DELETE FROM lists WHERE id IN ({newer})"),
            [to.pack],
        )?;
        db.execute("DELETE FROM chunks WHERE pack > ?1", [to.pack])?;
        Ok(())
    }

    /// The chunks are there again that [`SimServer::put_back`] took, and the log is not.
    pub fn bring_chunks_back(&self) -> Sql<()> {
        self.db().execute_batch(
            "INSERT OR IGNORE INTO chunks SELECT * FROM cut_chunks;
             INSERT OR IGNORE INTO lists SELECT * FROM cut_lists;
             DELETE FROM cut_commits; DELETE FROM cut_chunks; DELETE FROM cut_lists;",
        )
    }

    /// What [`SimServer::put_back`] took is gone for good.
    pub fn forget_cut(&self) -> Sql<()> {
        self.db().execute_batch(
            "DELETE FROM cut_commits; DELETE FROM cut_chunks; DELETE FROM cut_lists;",
        )
    }

    /// The whole log is there again; what was appended since [`SimServer::put_back`] is not.
    pub fn bring_back(&self, to: Mark) -> Sql<()> {
        let db = self.db();
        db.execute("DELETE FROM commits WHERE n > ?1", [to.n.cast_signed()])?;
        // By position: a key may have been handed out again.
        db.execute_batch(
            "INSERT INTO commits (vault, n, hash, author, header, appended_ms, len, served)
                 SELECT vault, n, hash, author, header, appended_ms, len, served FROM cut_commits ORDER BY n;
             INSERT OR IGNORE INTO chunks SELECT * FROM cut_chunks;
             INSERT OR IGNORE INTO lists SELECT * FROM cut_lists;
             DELETE FROM cut_commits; DELETE FROM cut_chunks; DELETE FROM cut_lists;",
        )
    }
}
