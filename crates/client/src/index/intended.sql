-- What the last batch of steps was to bring: which version of which node to which place on this disk, none if it was to go;
-- the inode number of its content, if that was to be fetched; and of what has to leave the place it had for something else,
-- though the vault has it elsewhere.
CREATE TABLE intended (
    node    BLOB PRIMARY KEY,
    version BLOB NOT NULL,
    parent  BLOB,
    name    TEXT,
    fetched INTEGER,
    leaving INTEGER
) STRICT, WITHOUT ROWID;

-- The version of the row then: one that was written since says more. What an older program noted is of no version.
ALTER TABLE own_moves ADD COLUMN base BLOB;
