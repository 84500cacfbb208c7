-- Nodes whose last PUT says what they lost against: conflict copies that nobody has resolved, made on any machine.
DROP TABLE conflicts;
CREATE TABLE conflicts (
    copy    BLOB PRIMARY KEY,
    node    BLOB NOT NULL,
    time_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
