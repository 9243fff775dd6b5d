-- Redelivery, split lanes, dead letters across runs, the health of origins, retention.

-- A hidden run is unknown to every reader; its rows go in slices, this one last.
ALTER TABLE run ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0 CHECK (hidden = 0 OR (hidden = 1 AND state <> 'running'));

CREATE INDEX run_ended ON run (finished_at) WHERE finished_at IS NOT NULL AND hidden = 0;
CREATE INDEX run_hidden ON run (key) WHERE hidden = 1;

ALTER TABLE lane ADD COLUMN replay_of INTEGER;
ALTER TABLE lane ADD COLUMN dead_only INTEGER NOT NULL DEFAULT 0 CHECK (dead_only = 0 OR replay_of IS NOT NULL);
ALTER TABLE lane ADD COLUMN ordered INTEGER NOT NULL DEFAULT 1;
ALTER TABLE lane ADD COLUMN auth BLOB;
ALTER TABLE lane ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0 CHECK (refusals >= 0 AND refusals <= tries);
ALTER TABLE lane ADD COLUMN split_of INTEGER;
ALTER TABLE lane ADD COLUMN total INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN asked_at INTEGER CHECK ((asked_at IS NULL) = (replay_of IS NULL));
-- The last attempt when a replay was asked for: it decides which dead letters there were, and which of them
-- were redelivered, without a clock.
ALTER TABLE lane ADD COLUMN born INTEGER;

UPDATE lane SET total = settled;
UPDATE lane
SET total = settled + (
    SELECT count(*) FROM event
    WHERE event.run = lane.run AND event.seq > lane.cursor AND event.channel & lane.channels
)
WHERE cursor < tail;

-- Both cover what a claim asks in passing over lanes: origin and time, and the two that are always NULL here,
-- because a condition that the index implies is still read from the table by older versions of SQLite.
DROP INDEX lane_due;
CREATE INDEX lane_due ON lane (due_at, origin, lease_token, closed)
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL;
CREATE INDEX lane_origin ON lane (origin, due_at, lease_token, closed)
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL;

-- The lanes that an append moves, however many replays and split lanes lie beside them.
CREATE INDEX lane_live ON lane (run) WHERE replay_of IS NULL AND split_of IS NULL;

-- `id` is the order of giving up. `attempt` is the one that gave the event up, `redelivered` the one of a
-- replay that was accepted. What a split lane gives up has the number of the lane that it left.
ALTER TABLE dead_letter RENAME TO dead_letter_1;
CREATE TABLE dead_letter (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    run         INTEGER NOT NULL,
    lane        INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    origin      TEXT    NOT NULL,
    lane_seq    INTEGER NOT NULL CHECK (lane_seq >= 1),
    attempt     INTEGER,
    redelivered INTEGER,
    UNIQUE (run, seq, lane),
    FOREIGN KEY (run, seq) REFERENCES event (run, seq)
) STRICT;

INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq)
SELECT letter.run, letter.lane, letter.seq, letter.at, letter.reason, place.origin, place.lane_seq
FROM dead_letter_1 AS letter
JOIN (
    SELECT lane.run, lane.number, lane.origin, event.seq,
           row_number() OVER (PARTITION BY lane.run, lane.number ORDER BY event.seq) AS lane_seq
    FROM lane JOIN event ON event.run = lane.run AND event.channel & lane.channels
    WHERE (lane.run, lane.number) IN (SELECT run, lane FROM dead_letter_1)
) AS place ON place.run = letter.run AND place.number = letter.lane AND place.seq = letter.seq
ORDER BY letter.at, letter.run, letter.seq, letter.lane;

DROP TABLE dead_letter_1;

CREATE INDEX dead_letter_origin ON dead_letter (origin) WHERE redelivered IS NULL;
CREATE INDEX dead_letter_lane ON dead_letter (origin, run, lane, at) WHERE redelivered IS NULL;

-- Only origins that are not well have a row.
CREATE TABLE origin (
    origin       TEXT    NOT NULL PRIMARY KEY,
    state        TEXT    NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures     INTEGER NOT NULL CHECK (failures >= 0),
    openings     INTEGER NOT NULL CHECK (openings >= 0),
    opened_at    INTEGER,
    retry_at     INTEGER,
    paused_until INTEGER,
    reason       TEXT,
    CHECK ((state = 'closed') = (retry_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Numbers are not drawn twice, also when the rows that had the highest are removed.
CREATE TABLE high_water (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
