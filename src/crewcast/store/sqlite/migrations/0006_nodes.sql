-- Who is there, and what workers said of the crews that they serve. Lists are JSON texts.

CREATE TABLE node (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL,
    roles      TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    crews      TEXT    NOT NULL,
    draining   INTEGER NOT NULL CHECK (draining IN (0, 1)),
    url        TEXT
) STRICT, WITHOUT ROWID;

-- Outlives the nodes that served it, so that what waits for a worker can still be told of.
CREATE TABLE crew (
    name      TEXT    PRIMARY KEY,
    described BLOB    NOT NULL,
    at        INTEGER NOT NULL
) STRICT;
