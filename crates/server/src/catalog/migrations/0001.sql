CREATE TABLE vaults (
    key        INTEGER PRIMARY KEY,
    vid        BLOB UNIQUE,              -- null until the first commit
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE invitations (
    hash       BLOB PRIMARY KEY,
    vault      INTEGER NOT NULL REFERENCES vaults,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_by    BLOB                      -- machine id
) STRICT, WITHOUT ROWID;

-- A machine that was removed before it ever registered stands here without a name, so that it never can.
CREATE TABLE machines (
    vault         INTEGER NOT NULL REFERENCES vaults,
    id            BLOB NOT NULL,
    name          TEXT NOT NULL,
    platform      TEXT NOT NULL,
    token         BLOB UNIQUE,           -- hash
    registered_ms INTEGER NOT NULL,
    last_seen_ms  INTEGER NOT NULL,
    revoked_ms    INTEGER,
    state         TEXT NOT NULL DEFAULT '',
    synced_n      INTEGER NOT NULL DEFAULT 0,
    files         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (vault, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX machine_names ON machines (vault, name) WHERE revoked_ms IS NULL;

-- The unique position is the log's only lock. The served form comes last: a look at the other columns never
-- walks its pages.
CREATE TABLE commits (
    key         INTEGER PRIMARY KEY,
    vault       INTEGER NOT NULL REFERENCES vaults,
    n           INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    author      BLOB NOT NULL,
    header      BLOB NOT NULL,
    appended_ms INTEGER NOT NULL,
    len         INTEGER NOT NULL,
    served      BLOB NOT NULL,
    UNIQUE (vault, n)
) STRICT;

CREATE TABLE packs (
    key        INTEGER PRIMARY KEY,
    vault      INTEGER NOT NULL REFERENCES vaults,
    id         BLOB NOT NULL UNIQUE,
    len        INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE chunks (
    vault      INTEGER NOT NULL,
    id         BLOB NOT NULL,
    pack       INTEGER NOT NULL REFERENCES packs,
    offset     INTEGER NOT NULL,
    len        INTEGER NOT NULL,
    kind       INTEGER NOT NULL,         -- 0 data, 1 list
    renewed_ms INTEGER NOT NULL,
    PRIMARY KEY (vault, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE lists (
    vault    INTEGER NOT NULL,
    id       BLOB NOT NULL,
    children BLOB NOT NULL,              -- ids, joined
    PRIMARY KEY (vault, id)
) STRICT;

CREATE TABLE slots (
    vault    INTEGER NOT NULL REFERENCES vaults,
    kind     INTEGER NOT NULL,
    slot     BLOB NOT NULL,
    previous BLOB,
    put_ms   INTEGER NOT NULL,
    PRIMARY KEY (vault, kind)
) STRICT;
