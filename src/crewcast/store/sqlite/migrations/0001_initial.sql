-- The first schema. Times are microseconds UTC; `run` columns elsewhere hold run.key.
--
-- A run has a small integer key inside, its UUID is in one place only: every index entry is a few bytes,
-- and no index of random text is written for each event. Foreign keys are declared for the reader and not
-- enforced: every write names its parent by a key that it has just guarded.

CREATE TABLE migration (
    number INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    sha256 TEXT NOT NULL
) STRICT;

-- The columns that change while a run works. Each append rewrites this row, so it stays small.
CREATE TABLE run (
    key             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    crew            TEXT    NOT NULL,
    state           TEXT    NOT NULL
                    CHECK (state IN ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    attempt         INTEGER NOT NULL CHECK (attempt >= 0),
    seq             INTEGER NOT NULL CHECK (seq >= 0),
    total_tasks     INTEGER,
    completed_tasks INTEGER NOT NULL,
    current_task    TEXT,
    lease_token     TEXT,
    lease_until     INTEGER,
    error           TEXT,
    error_detail    TEXT,
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK ((state = 'running') = (lease_token IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
) STRICT;

-- In the order of creation, whatever the clock said; a resumed run keeps its place.
CREATE INDEX run_queued ON run (key, crew) WHERE state = 'queued';
CREATE INDEX run_running ON run (lease_token) WHERE state = 'running';

-- What the kickoff said: written once, read when a run is claimed or shown.
CREATE TABLE kickoff (
    run     INTEGER PRIMARY KEY REFERENCES run (key),
    inputs  BLOB NOT NULL,
    meta    BLOB,
    options BLOB,
    token   TEXT NOT NULL
) STRICT;

-- A rowid table with an index beside it: bodies are appended at the end of the file. Clustered by
-- (run, seq), each event of many concurrent runs dirties a page of its own, which costs four times as much.
CREATE TABLE event (
    id          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL REFERENCES run (key),
    seq         INTEGER NOT NULL CHECK (seq >= 1),
    channel     INTEGER NOT NULL CHECK (channel > 0),
    type        TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL,
    task_id     TEXT,
    body        BLOB    NOT NULL,
    whole       BLOB,
    UNIQUE (run, seq)
) STRICT;

CREATE TRIGGER event_is_append_only BEFORE UPDATE ON event
BEGIN
    SELECT raise(ABORT, 'events are append-only');
END;

CREATE TABLE lane (
    run         INTEGER NOT NULL REFERENCES run (key),
    number      INTEGER NOT NULL CHECK (number >= 1),
    url         TEXT    NOT NULL,
    origin      TEXT    NOT NULL,
    channels    INTEGER NOT NULL,
    cursor      INTEGER NOT NULL CHECK (cursor >= 0),
    tail        INTEGER NOT NULL,
    settled     INTEGER NOT NULL CHECK (settled >= 0),
    tries       INTEGER NOT NULL CHECK (tries >= 0),
    due_at      INTEGER,
    closed      TEXT,
    lease_token TEXT,
    lease_until INTEGER,
    last_attempt INTEGER REFERENCES attempt (id),
    PRIMARY KEY (run, number),
    CHECK (cursor <= tail),
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    -- No lane with work is ever forgotten, and none without work is looked at.
    CHECK (lease_token IS NOT NULL OR (due_at IS NOT NULL) = (cursor < tail AND closed IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX lane_due ON lane (due_at)
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL;
CREATE INDEX lane_leased ON lane (lease_until) WHERE lease_token IS NOT NULL;
CREATE INDEX lane_closed ON lane (run) WHERE closed IS NOT NULL;

-- Each attempt names the one before it in its lane, and the lane names its last: the way back is the index.
-- A real one by run would dirty a page for each run at work in every commit, for rows that are seldom read.
CREATE TABLE attempt (
    id          INTEGER PRIMARY KEY,
    previous    INTEGER,
    run         INTEGER NOT NULL,
    lane        INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),
    at          INTEGER NOT NULL,
    verdict     TEXT    NOT NULL CHECK (verdict IN ('accepted', 'retry', 'gave_up', 'closed')),
    kind        TEXT    NOT NULL,
    status      INTEGER,
    retry_after INTEGER,
    duration    INTEGER NOT NULL,
    detail      TEXT,
    CHECK (previous < id),
    FOREIGN KEY (run, lane) REFERENCES lane (run, number)
) STRICT;

CREATE TRIGGER attempt_is_append_only BEFORE UPDATE ON attempt
BEGIN
    SELECT raise(ABORT, 'attempts are append-only');
END;

CREATE TABLE dead_letter (
    run    INTEGER NOT NULL,
    lane   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    reason TEXT    NOT NULL,
    PRIMARY KEY (run, lane, seq),
    FOREIGN KEY (run, seq) REFERENCES event (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    token       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    run_id      TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (token, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_at ON idempotency (at);
