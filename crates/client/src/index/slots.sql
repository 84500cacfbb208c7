-- Where a slot was pinned; 0 for what was pinned before this was noted. `recover` goes back behind later ones.
ALTER TABLE keyslots ADD COLUMN n INTEGER NOT NULL DEFAULT 0;

-- Copies of the slots that the log pins, sealed as they are: `recover` gives them back to a server that lost them. None where
-- the server did not have it any more when it was looked for.
CREATE TABLE slots (
    hash BLOB PRIMARY KEY,
    slot BLOB
) STRICT;
