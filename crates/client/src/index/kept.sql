-- Commits of other machines as the server showed them, of the last weeks: `recover` gives them back to a server that lost
-- them. This machine's own stand in `sealed`. `time_ms` is when they were taken in; `len` comes before the bytes, so that
-- adding lengths up never walks those.
CREATE TABLE kept (
    n       INTEGER PRIMARY KEY,
    hash    BLOB NOT NULL,
    time_ms INTEGER NOT NULL,
    len     INTEGER NOT NULL,
    served  BLOB NOT NULL
) STRICT;
