-- Where this machine was about to move what on its own disk: a crash must not make a person's rename of it.
CREATE TABLE own_moves (
    path TEXT PRIMARY KEY,
    node BLOB NOT NULL
) STRICT, WITHOUT ROWID;
