-- Bytes of packs, from `first` to before `beyond`, that the store could not give any more. The chunks in them keep their
-- places, and count as missing until they are sent again or the bytes are back.
CREATE TABLE gaps (
    pack   INTEGER NOT NULL REFERENCES packs,
    first  INTEGER NOT NULL,
    beyond INTEGER NOT NULL,
    PRIMARY KEY (pack, first)
) STRICT, WITHOUT ROWID;
