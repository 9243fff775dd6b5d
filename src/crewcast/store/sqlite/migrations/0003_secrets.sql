-- Rotations of signing secrets, and which master key they derive from. No secret is stored.

-- `number` is the generation that begins; `origin` is '' for all. Older ones end at `until` at the latest.
CREATE TABLE rotation (
    number INTEGER PRIMARY KEY CHECK (number >= 1),
    origin TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    until  INTEGER NOT NULL CHECK (until >= at)
) STRICT;

CREATE TRIGGER rotation_is_append_only BEFORE UPDATE ON rotation
BEGIN
    SELECT raise(ABORT, 'rotations are append-only');
END;

-- A fingerprint, so that a restored database meets its own key or is told.
CREATE TABLE master_key (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    id       BLOB NOT NULL
) STRICT;
