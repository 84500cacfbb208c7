-- What the last batch of steps was to bring: which version of which node to which place on this disk, none if it was to go;
-- and the inode number of its content, if that was to be fetched.
CREATE TABLE intended (
    node    BLOB PRIMARY KEY,
    version BLOB NOT NULL,
    parent  BLOB,
    name    TEXT,
    fetched INTEGER
) STRICT, WITHOUT ROWID;

-- The version of the row then: one that was written since says more. What an older program noted is of no version.
ALTER TABLE own_moves ADD COLUMN base BLOB;
