-- What conflict copies lost against, from before they are made here until a commit says it: directory and name of the copy;
-- node, version, and the version that both started from.
CREATE TABLE set_aside (
    parent  BLOB NOT NULL,
    name    TEXT NOT NULL,
    node    BLOB NOT NULL,
    version BLOB NOT NULL,
    base    BLOB,
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
