-- What one machine has observed. Nothing here is pending work: everything can be found again from the
-- folder and the log, except which commits are this machine's own (sealed).

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Every verified commit: position, hash, author, time.
CREATE TABLE commits (
    n       INTEGER PRIMARY KEY,
    hash    BLOB NOT NULL,
    machine BLOB NOT NULL,
    time_ms INTEGER NOT NULL
) STRICT;

-- Commits of this machine, stored before they are first posted; only these bytes are ever posted.
CREATE TABLE sealed (
    hash    BLOB PRIMARY KEY,
    n       INTEGER NOT NULL,
    bytes   BLOB NOT NULL,
    time_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every op about a node that the log held: its history. kind 1 PUT, 2 TRASH, 3 PURGE, 0 unreadable PUT.
-- `put` is the opened body of a PUT; none once retention dropped it.
CREATE TABLE ops (
    node    BLOB NOT NULL,
    n       INTEGER NOT NULL,
    op_hash BLOB NOT NULL,
    kind    INTEGER NOT NULL,
    put     BLOB,
    PRIMARY KEY (node, n)
) STRICT, WITHOUT ROWID;

-- Position of the last op of each node.
CREATE TABLE nodes (
    node BLOB PRIMARY KEY,
    n    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE machines (
    id         BLOB PRIMARY KEY,
    public_key BLOB NOT NULL,
    name       TEXT NOT NULL,
    platform   TEXT NOT NULL,
    added_n    INTEGER NOT NULL,
    revoked_n  INTEGER
) STRICT, WITHOUT ROWID;

-- The last KEYSLOT op of each type.
CREATE TABLE keyslots (
    type    INTEGER PRIMARY KEY,
    hash    BLOB NOT NULL,
    slot_id BLOB NOT NULL
) STRICT;

-- What disk and vault last agreed on.
CREATE TABLE ancestor (
    node     BLOB PRIMARY KEY,
    parent   BLOB NOT NULL,
    name     TEXT NOT NULL,
    kind     INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    hash     BLOB,
    exec     INTEGER NOT NULL,
    target   TEXT,
    mtime_ns INTEGER NOT NULL,
    op_hash  BLOB NOT NULL,
    fp_size  INTEGER,
    fp_mtime INTEGER,
    fp_ctime INTEGER,
    fp_inode INTEGER,
    inode    INTEGER NOT NULL,
    not_here INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids given to things on disk that have no ancestor row yet, so that a retry does not make strangers of them.
CREATE TABLE pending_ids (
    path TEXT PRIMARY KEY,
    node BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The data chunks of files whose op holds lists, as last sent or fetched.
CREATE TABLE leaves (
    node    BLOB PRIMARY KEY,
    op_hash BLOB NOT NULL,
    entries BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Chunks the server has acknowledged and no commit of this machine names yet.
CREATE TABLE acknowledged (
    chunk   BLOB PRIMARY KEY,
    time_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Conflict copies made here, until the copy or the conflict is gone.
CREATE TABLE conflicts (
    copy      BLOB PRIMARY KEY,
    node      BLOB NOT NULL,
    path      TEXT NOT NULL,
    copy_path TEXT NOT NULL,
    time_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
