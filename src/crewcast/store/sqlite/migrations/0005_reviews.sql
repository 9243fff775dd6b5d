-- Reviews, the journal of a run, runs that are stopped or go on, and subscriptions that change at a decision.

-- `token` repeats the kickoff's: claims look for what can be queued within an index. `worked` is before
-- `claimed_at`.
ALTER TABLE run ADD COLUMN continues INTEGER NOT NULL DEFAULT 0 CHECK (continues = 0 OR state = 'queued');
ALTER TABLE run ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN token TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN stop TEXT;
ALTER TABLE run ADD COLUMN worked INTEGER NOT NULL DEFAULT 0 CHECK (worked >= 0);
ALTER TABLE run ADD COLUMN claimed_at INTEGER CHECK (claimed_at IS NULL OR state = 'running');

UPDATE run
SET token = coalesce((SELECT kickoff.token FROM kickoff WHERE kickoff.run = run.key), ''),
    worked = iif(finished_at IS NULL, 0, max(0, finished_at - coalesce(started_at, finished_at))),
    claimed_at = iif(state = 'running', started_at, NULL);

ALTER TABLE kickoff ADD COLUMN max_attempts INTEGER CHECK (max_attempts >= 1);
ALTER TABLE kickoff ADD COLUMN timeout INTEGER CHECK (timeout >= 0);

-- By crew and token, so that those that have their share are passed over in one step each, however many of
-- their runs wait; then by priority, and in the order of creation. A run that is to be stopped is not claimed.
DROP INDEX run_queued;
CREATE INDEX run_queued ON run (crew, token, priority DESC, key)
    WHERE state = 'queued' AND hidden = 0 AND stop IS NULL;
-- How many of a token are at work.
CREATE INDEX run_at_work ON run (token) WHERE state = 'running';
-- Few at a time: what is to be stopped and has not ended.
CREATE INDEX run_stop ON run (lease_token) WHERE stop IS NOT NULL AND finished_at IS NULL AND hidden = 0;

-- What a run's next process has to know. A rowid table, as `event`: values are long.
CREATE TABLE journal (
    id    INTEGER PRIMARY KEY,
    run   INTEGER NOT NULL REFERENCES run (key),
    name  TEXT    NOT NULL,
    value BLOB    NOT NULL,
    UNIQUE (run, name)
) STRICT;

-- `id` is the order of asking over the whole store; `due_at` the earlier of deadline and reminder.
CREATE TABLE review (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    run           INTEGER NOT NULL REFERENCES run (key),
    number        INTEGER NOT NULL CHECK (number >= 1),
    task_id       TEXT    NOT NULL,
    place         INTEGER NOT NULL CHECK (place >= 1),
    uuid          TEXT    NOT NULL,
    agent         TEXT    NOT NULL,
    output        TEXT    NOT NULL,
    asked_at      INTEGER NOT NULL,
    expires_at    INTEGER,
    on_expiry     TEXT    CHECK (on_expiry IN ('approve', 'reject', 'fail')),
    remind_every  INTEGER CHECK (remind_every > 0),
    remind_at     INTEGER,
    reminders     INTEGER NOT NULL CHECK (reminders >= 0),
    state         TEXT    NOT NULL CHECK (state IN ('pending', 'decided', 'void')),
    decision      TEXT    CHECK (decision IN ('approve', 'reject')),
    feedback      TEXT    NOT NULL,
    pass_feedback INTEGER NOT NULL CHECK (pass_feedback IN (0, 1)),
    decided_at    INTEGER,
    decided_by    TEXT,
    decided_how   TEXT    CHECK (decided_how IN ('api', 'cli', 'link', 'deadline')),
    due_at        INTEGER,
    UNIQUE (run, number),
    CHECK ((state = 'decided') = (decision IS NOT NULL)),
    CHECK (state = 'pending' OR due_at IS NULL),
    CHECK (state <> 'decided' OR decided_at IS NOT NULL)
) STRICT;

-- A run asks one thing at a time. Both hold what waits only.
CREATE UNIQUE INDEX review_pending ON review (run) WHERE state = 'pending';
CREATE INDEX review_open ON review (id) WHERE state = 'pending';
CREATE INDEX review_due ON review (due_at) WHERE due_at IS NOT NULL;

-- What a lane heard when, if that ever changed: then it is `ranged`, and `lane.channels` is what it hears from
-- now on. `last` is the largest number while that lasts.
ALTER TABLE lane ADD COLUMN ranged INTEGER NOT NULL DEFAULT 0 CHECK (ranged IN (0, 1));
CREATE TABLE subscription (
    run      INTEGER NOT NULL,
    lane     INTEGER NOT NULL,
    first    INTEGER NOT NULL CHECK (first >= 1),
    last     INTEGER NOT NULL CHECK (last >= first),
    channels INTEGER NOT NULL CHECK (channels > 0),
    PRIMARY KEY (run, lane, first),
    FOREIGN KEY (run, lane) REFERENCES lane (run, number)
) STRICT, WITHOUT ROWID;
