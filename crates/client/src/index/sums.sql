-- What the rows of a table add up to, kept by triggers in the transaction that changes them. See `sums.rs`.
CREATE TABLE sums (
    name TEXT PRIMARY KEY,
    sum  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The same of one op, the last one of the node: the history before it is never read at a start.
ALTER TABLE nodes ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
UPDATE nodes SET sum = (
    SELECT mixed(0, o.node, o.n, o.op_hash, o.kind, o.put) FROM ops o WHERE o.node = nodes.node AND o.n = nodes.n
);

-- And of the chunks of one file's version.
ALTER TABLE leaves ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
UPDATE leaves SET sum = mixed(0, node, op_hash, entries);
