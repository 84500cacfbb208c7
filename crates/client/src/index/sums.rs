//! Whether the index still says what was written into it.
//!
//! SQLite notices pages that are none. It does not notice a byte that changed inside a row, a page that is of another time, or
//! a journal of another time that it played back: all of these are databases, and what they say is wrong. A deletion that
//! nobody made, or an older version taken for the last one, would come of it. So each table from which anything is decided has
//! a sum over its rows, which triggers change in the transaction that changes a row, and which is compared when the index
//! is opened and read (docs/decisions/0015).
//!
//! A sum is the exclusive or of a hash of each row. One value that changed in one row is always noticed: each
//! step of the hash is a bijection. Anything else escapes once in 2^64. It is no defence against somebody who may write the
//! file, and need not be one: they may write the folder, too.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Transaction};

use crate::error::ClientError;

/// Tables that are compared when the index is opened, with their columns. The triggers of an index are of the migration that
/// made them: another one that adds a column to a table here makes that table's triggers and sum anew.
const AT_OPEN: [(&str, &str); 11] = [
    ("meta", "key, value"),
    ("commits", "n, hash, machine, time_ms"),
    (
        "machines",
        "id, public_key, name, platform, added_n, revoked_n",
    ),
    ("keyslots", "type, hash, slot_id, n"),
    ("pending_ids", "path, node"),
    ("own_moves", "path, node, base"),
    ("intended", "node, version, parent, name, fetched, leaving"),
    ("set_aside", "parent, name, node, version, base"),
    ("conflicts", "copy, node, time_ms"),
    (
        "sealed_rows",
        "node, parent, name, kind, size, hash, exec, target, mtime_ns, op_hash,
         fp_size, fp_mtime, fp_ctime, fp_inode, inode, not_here, settled, commit_hash",
    ),
    // What it holds is long, and is compared with its name when it is used. To read what stands behind that, it would be read.
    ("sealed", "hash, n"),
];

/// Tables that are compared when they are read as a whole.
const AT_LOAD: [(&str, &str); 2] = [
    ("ancestor", super::ANCESTOR_COLUMNS),
    ("nodes", "node, n, sum"),
];

/// Makes the functions that the triggers call. Without them nothing can be written.
pub(super) fn add_functions(db: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    db.create_scalar_function("mixed", -1, flags, |values| {
        let before: i64 = values.get(0)?;
        let row = (1..values.len()).map(|column| values.get_raw(column));
        Ok(before ^ row_sum(row))
    })
}

/// Makes the triggers, and the sums of what is there already.
pub(super) fn begin(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, columns) in AT_OPEN.into_iter().chain(AT_LOAD) {
        let of = |row: &str| {
            let columns: Vec<String> = columns
                .split(',')
                .map(|column| format!("{row}.{}", column.trim()))
                .collect();
            columns.join(", ")
        };
        let (old, new) = (of("old"), of("new"));
        let change = |sum: &str| format!("UPDATE sums SET sum = {sum} WHERE name = '{table}';");
        tx.execute_batch(&format!(
            "CREATE TRIGGER {table}_in AFTER INSERT ON {table} BEGIN {} END;
             CREATE TRIGGER {table}_out AFTER DELETE ON {table} BEGIN {} END;
             CREATE TRIGGER {table}_on AFTER UPDATE ON {table} BEGIN {} END;",
            change(&format!("mixed(sum, {new})")),
            change(&format!("mixed(sum, {old})")),
            change(&format!("mixed(mixed(sum, {old}), {new})")),
        ))?;
        tx.execute(
            "INSERT INTO sums VALUES (?1, ?2)",
            (table, sum_now(tx, table, columns)?),
        )?;
    }
    Ok(())
}

/// Compares what is small or read by pieces. Call it before anything is believed.
pub(super) fn check(db: &Connection) -> Result<(), ClientError> {
    // All of one moment: a `sync` may be writing.
    let tx = db.unchecked_transaction()?;
    for (table, columns) in AT_OPEN {
        compare(&tx, table, sum_now(&tx, table, columns)?)?;
    }
    Ok(())
}

/// Compares what the rows of a table add up to with what they did when they were written.
pub(super) fn compare(db: &Connection, table: &str, found: i64) -> Result<(), ClientError> {
    let written = db.query_row("SELECT sum FROM sums WHERE name = ?1", [table], |row| {
        row.get::<_, i64>(0)
    });
    match written {
        Ok(written) if written == found => Ok(()),
        Ok(_) | Err(rusqlite::Error::QueryReturnedNoRows) => Err(damaged()),
        Err(error) => Err(error.into()),
    }
}

/// The index is not what was written.
pub(super) fn damaged() -> ClientError {
    ClientError::State("state.db is damaged, or a part of it is of another time".into())
}

fn sum_now(db: &Connection, table: &str, columns: &str) -> rusqlite::Result<i64> {
    let mut statement = db.prepare(&format!("SELECT {columns} FROM {table}"))?;
    let count = statement.column_count();
    let mut rows = statement.query([])?;
    let mut sum = 0;
    while let Some(row) = rows.next()? {
        sum ^= sum_of(row, count)?;
    }
    Ok(sum)
}

/// The sum of the first columns of a row.
pub(super) fn sum_of(row: &Row<'_>, columns: usize) -> rusqlite::Result<i64> {
    let mut values = [ValueRef::Null; 18];
    for (column, value) in values.iter_mut().enumerate().take(columns) {
        *value = row.get_ref(column)?;
    }
    Ok(row_sum(values.into_iter().take(columns)))
}

/// The sum of one row.
pub(super) fn row_sum<'a>(values: impl Iterator<Item = ValueRef<'a>>) -> i64 {
    let mut hash = Hash(0);
    for value in values {
        match value {
            ValueRef::Null => hash.add(0),
            ValueRef::Integer(integer) => {
                hash.add(1);
                hash.add(integer.cast_unsigned());
            }
            ValueRef::Real(real) => {
                hash.add(2);
                hash.add(real.to_bits());
            }
            ValueRef::Text(bytes) => hash.add_bytes(3, bytes),
            ValueRef::Blob(bytes) => hash.add_bytes(4, bytes),
        }
    }
    hash.end()
}

/// Eight bytes at a time, because a start reads all rows: with a cryptographic hash of each it would be felt.
struct Hash(u64);

impl Hash {
    // Each step is a bijection of the state for a given word, and of the word for a given state.
    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    fn add_bytes(&mut self, kind: u64, bytes: &[u8]) {
        self.add(kind | (bytes.len() as u64) << 3);
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }

    // The end of MurmurHash3, also a bijection: without it, bits of the last words would meet those of other rows.
    fn end(self) -> i64 {
        let mut hash = self.0 ^ self.0 >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (hash ^ hash >> 33).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::config::DbConfig;
    use syncagent_protocol::{
        Body, CommitHash, ContentHash, MachineId, Name, Node, NodeId, OpHash, TreePath,
    };
    use syncagent_sync::AncestorNode;
    use syncagent_vault::op::{KeyslotPin, MachineAdd};

    use super::super::{Applied, Index, Intended, NodeOp, OpKind, SealedRow, SetAside};
    use super::*;

    fn row(name: &str) -> AncestorNode {
        AncestorNode {
            node: Node {
                parent: NodeId::ROOT,
                name: Name::parse(name).unwrap(),
                mtime_ns: 7,
                body: Body::File {
                    hash: ContentHash([9; 32]),
                    size: 3,
                    exec: false,
                },
            },
            op_hash: OpHash([5; 32]),
            fingerprint: None,
            inode: 9,
            not_here: true,
        }
    }

    fn commit(n: u8, kind: OpKind) -> Applied {
        Applied {
            n: n.into(),
            hash: CommitHash([n; 32]),
            machine: MachineId([n; 16]),
            time_ms: 0,
            ops: vec![NodeOp {
                node: NodeId([1; 16]),
                op_hash: OpHash([n; 32]),
                kind,
                put: None,
            }],
            added: Some(MachineAdd {
                public_key: [n; 32],
                name: "a".into(),
                platform: "p".into(),
                web: false,
            }),
            revoked: Vec::new(),
            keyslots: vec![KeyslotPin {
                slot_type: 1,
                hash: [n; 32],
                slot_id: [n; 16],
            }],
            genesis: None,
            served: bytes::Bytes::new(),
        }
    }

    /// An index that was written to in each way there is, with a row in each table that has a sum.
    fn written() -> Index {
        let mut index = Index::in_memory().unwrap();
        let path = TreePath::parse("f").unwrap();
        for note in [b"1", b"2"] {
            index.set_meta("note", note).unwrap();
            index.set_meta("dropped", note).unwrap();
        }
        index.drop_meta("dropped").unwrap();
        let left = SealedRow {
            node: NodeId([2; 16]),
            row: Some(row("left")),
            settled: Some(path.clone()),
        };
        for n in [2, 3, 9] {
            let sealed = index.store_sealed(
                n.into(),
                CommitHash([n; 32]),
                b"",
                std::slice::from_ref(&left),
                0,
            );
            sealed.unwrap();
        }
        index.give_up_sealed(CommitHash([9; 32])).unwrap();
        let commits = [OpKind::Put, OpKind::Unreadable, OpKind::Trash];
        for (n, kind) in (1..).zip(commits) {
            index.apply(&[commit(n, kind)]).unwrap();
        }
        index.rewind(2, &[], ("went back", b"")).unwrap();
        index.drop_sealed(1, 2, 0).unwrap();
        for name in ["a", "b"] {
            let rows = [3, 4].map(|id| (NodeId([id; 16]), Some(row(name))));
            index.record(&rows, &[]).unwrap();
        }
        index.record(&[(NodeId([4; 16]), None)], &[]).unwrap();
        let copy = SetAside {
            parent: NodeId::ROOT,
            name: Name::parse("copy").unwrap(),
            against: (NodeId([2; 16]), OpHash([3; 32])),
            base: None,
        };
        let intended = Intended {
            node: NodeId([8; 16]),
            version: OpHash([9; 32]),
            place: Some((NodeId::ROOT, Name::parse("to").unwrap())),
            fetched: Some(10),
            leaving: None,
        };
        let pending = [(&path, &NodeId([5; 16]))];
        index
            .prepare(pending, [copy.clone(), copy], &[intended])
            .unwrap();
        for id in [6, 7] {
            let moves = [(path.clone(), (NodeId([id; 16]), OpHash([id; 32])))].into();
            index.set_own_moves(&moves).unwrap();
        }
        let conflict = "INSERT INTO conflicts VALUES (x'01', x'02', 3)";
        index.db.execute(conflict, []).unwrap();
        index
    }

    fn read(index: &Index) -> Result<(), ClientError> {
        check(&index.db)?;
        index.load().map(drop)
    }

    #[test]
    fn whatever_is_written_adds_up() {
        let mut index = written();
        read(&index).unwrap();
        index.forget_folder(("why", b"")).unwrap();
        read(&index).unwrap();
    }

    #[test]
    fn an_index_from_before_adds_up_once_it_is_opened() {
        let index = written();
        for (table, _) in AT_OPEN.into_iter().chain(AT_LOAD) {
            let drop = format!(
                "DROP TRIGGER {table}_in; DROP TRIGGER {table}_out; DROP TRIGGER {table}_on;"
            );
            index.db.execute_batch(&drop).unwrap();
        }
        let back = "DROP TABLE sums; ALTER TABLE nodes DROP COLUMN sum; ALTER TABLE leaves DROP COLUMN sum;
                    INSERT INTO leaves VALUES (x'01010101010101010101010101010101',
                        x'0202020202020202020202020202020202020202020202020202020202020202', x'03');
                    PRAGMA user_version = 10;";
        index.db.execute_batch(back).unwrap();
        let index = Index::with(index.db).unwrap();
        read(&index).unwrap();
        let kept = index.leaves(NodeId([1; 16]), OpHash([2; 32])).unwrap();
        assert_eq!(kept.as_deref(), Some(&[3][..]));
    }

    #[test]
    fn a_row_that_changed_or_went_by_itself_is_noticed() {
        let changes = [
            "UPDATE meta SET value = x'31' WHERE key = 'note'",
            "UPDATE commits SET n = n + 256 WHERE n = 2",
            "UPDATE machines SET revoked_n = 1",
            "UPDATE keyslots SET hash = zeroblob(32)",
            "UPDATE pending_ids SET path = 'g'",
            "UPDATE own_moves SET path = 'g'",
            "UPDATE own_moves SET base = NULL",
            "UPDATE intended SET version = zeroblob(32)",
            "UPDATE set_aside SET name = 'g'",
            "UPDATE conflicts SET time_ms = 4",
            "UPDATE sealed SET n = 7",
            "UPDATE sealed_rows SET parent = NULL",
            "UPDATE ancestor SET not_here = 0",
            "UPDATE ancestor SET hash = zeroblob(32)",
            "UPDATE nodes SET n = 1",
            "UPDATE ops SET kind = 2 WHERE n = 2",
            "UPDATE ops SET put = x'00' WHERE n = 2",
            "UPDATE sums SET sum = sum + 1 WHERE name = 'meta'",
            "DELETE FROM ancestor",
            "DELETE FROM nodes",
            "DELETE FROM ops",
            "DELETE FROM commits WHERE n = 2",
            "DELETE FROM sums WHERE name = 'nodes'",
        ];
        for change in changes {
            let index = written();
            let by_itself = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
            index.db.set_db_config(by_itself, false).unwrap();
            assert!(index.db.execute(change, []).unwrap() > 0, "{change}");
            let refused = read(&index).unwrap_err();
            assert!(matches!(refused, ClientError::State(_)), "{change}");
        }
    }

    #[test]
    fn leaves_that_changed_by_themselves_are_none() {
        let index = Index::in_memory().unwrap();
        let (node, version) = (NodeId([1; 16]), OpHash([2; 32]));
        index.set_leaves(node, version, b"leaves").unwrap();
        assert!(index.leaves(node, version).unwrap().is_some());
        index
            .db
            .execute("UPDATE leaves SET entries = x'00'", [])
            .unwrap();
        assert!(index.leaves(node, version).unwrap().is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_row_changes_its_sum() {
        let sum = |blob: &[u8], number: i64| {
            let values = [
                ValueRef::Blob(blob),
                ValueRef::Integer(number),
                ValueRef::Null,
            ];
            row_sum(values.into_iter())
        };
        let blob: Vec<u8> = (0..21).collect();
        let whole = sum(&blob, 5);
        for bit in 0..blob.len() * 8 {
            let mut blob = blob.clone();
            blob[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&blob, 5), whole, "{bit}");
        }
        for bit in 0..64 {
            assert_ne!(sum(&blob, 5 ^ 1 << bit), whole, "{bit}");
        }
        assert_ne!(sum(&blob[..20], 5), whole);
        // Types and lengths count: no value runs into the next.
        let texts = |a, b| row_sum([ValueRef::Text(a), ValueRef::Text(b)].into_iter());
        assert_ne!(texts(b"ab", b"c"), texts(b"a", b"bc"));
        assert_ne!(
            row_sum([ValueRef::Text(b"a")].into_iter()),
            row_sum([ValueRef::Blob(b"a")].into_iter())
        );
    }
}
