-- The ancestor rows that a sealed commit leaves once it stands: if its answer was lost, they are written when it is
-- found in the log. No parent: the row goes. `settled` is the path whose pending id is done with.
CREATE TABLE sealed_rows (
    node        BLOB NOT NULL,
    parent      BLOB,
    name        TEXT,
    kind        INTEGER,
    size        INTEGER,
    hash        BLOB,
    exec        INTEGER,
    target      TEXT,
    mtime_ns    INTEGER,
    op_hash     BLOB,
    fp_size     INTEGER,
    fp_mtime    INTEGER,
    fp_ctime    INTEGER,
    fp_inode    INTEGER,
    inode       INTEGER,
    not_here    INTEGER,
    settled     TEXT,
    commit_hash BLOB NOT NULL,
    PRIMARY KEY (commit_hash, node)
) STRICT, WITHOUT ROWID;
