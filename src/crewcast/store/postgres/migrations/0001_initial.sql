-- The first schema of PostgreSQL: what SQLite's first six made. Times are microseconds UTC; `run` columns
-- elsewhere hold run.key.
--
-- A key begins with the day on which the run was created (day << 40 | serial), so it grows in the order of
-- creation, and the partitions of the append-only tables are ranges of days: retention drops them whole.
--
-- Origins, crews and tokens sort by their bytes, whatever the database's locale is. Flags are integers, as in SQLite.

CREATE SEQUENCE run_serial AS bigint MAXVALUE 1099511627775 CYCLE;
CREATE SEQUENCE attempt_id AS bigint;

-- The columns that change while a run works; room is left on its pages, so that an append changes no index.
CREATE TABLE run (
    key             bigint  PRIMARY KEY,
    id              text    COLLATE "C" NOT NULL UNIQUE,
    crew            text    COLLATE "C" NOT NULL,
    state           text    COLLATE "C" NOT NULL
                    CHECK (state IN ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    created_at      bigint  NOT NULL,
    started_at      bigint,
    finished_at     bigint,
    attempt         integer NOT NULL CHECK (attempt >= 0),
    seq             bigint  NOT NULL CHECK (seq >= 0),
    total_tasks     bigint,
    completed_tasks bigint  NOT NULL,
    current_task    text,
    lease_token     text    COLLATE "C",
    lease_until     bigint,
    error           text,
    error_detail    text,
    hidden          integer NOT NULL DEFAULT 0,
    continues       integer NOT NULL DEFAULT 0 CHECK (continues = 0 OR state = 'queued'),
    priority        bigint  NOT NULL DEFAULT 0,
    token           text    COLLATE "C" NOT NULL DEFAULT '',
    stop            text,
    worked          bigint  NOT NULL DEFAULT 0 CHECK (worked >= 0),
    claimed_at      bigint  CHECK (claimed_at IS NULL OR state = 'running'),
    -- 1: it expired, its events and attempts go with their partition; 2: deleted, they go at once.
    CHECK (hidden = 0 OR (hidden IN (1, 2) AND state <> 'running')),
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK ((state = 'running') = (lease_token IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 60);

-- By crew and token, so that those that have their share are passed over in one step each; then by priority, and in
-- the order of creation.
CREATE INDEX run_queued ON run (crew, token, priority DESC, key)
    WHERE state = 'queued' AND hidden = 0 AND stop IS NULL;
CREATE INDEX run_running ON run (lease_token) WHERE state = 'running';
CREATE INDEX run_at_work ON run (token) WHERE state = 'running';
CREATE INDEX run_stop ON run (lease_token) WHERE stop IS NOT NULL AND finished_at IS NULL AND hidden = 0;
CREATE INDEX run_ended ON run (finished_at) WHERE finished_at IS NOT NULL AND hidden = 0;
CREATE INDEX run_hidden ON run (key) WHERE hidden <> 0;
CREATE INDEX run_shown ON run (key) WHERE hidden = 0;

-- What the kickoff said: written once.
CREATE TABLE kickoff (
    run          bigint  PRIMARY KEY,
    inputs       bytea   NOT NULL,
    meta         bytea,
    options      bytea,
    token        text    NOT NULL,
    max_attempts integer CHECK (max_attempts >= 1),
    timeout      bigint  CHECK (timeout >= 0)
);

CREATE TABLE event (
    run         bigint  NOT NULL,
    seq         bigint  NOT NULL CHECK (seq >= 1),
    channel     integer NOT NULL CHECK (channel > 0),
    type        text    NOT NULL,
    at          bigint  NOT NULL,
    run_attempt integer NOT NULL,
    task_id     text,
    body        bytea   NOT NULL,
    whole       bytea,
    PRIMARY KEY (run, seq)
) PARTITION BY RANGE (run);

CREATE TABLE lane (
    run          bigint  NOT NULL,
    number       bigint  NOT NULL CHECK (number >= 1),
    url          text    NOT NULL,
    origin       text    COLLATE "C" NOT NULL,
    channels     integer NOT NULL,
    cursor       bigint  NOT NULL CHECK (cursor >= 0),
    tail         bigint  NOT NULL,
    settled      bigint  NOT NULL CHECK (settled >= 0),
    tries        integer NOT NULL CHECK (tries >= 0),
    due_at       bigint,
    closed       text,
    lease_token  text    COLLATE "C",
    replay_of    bigint,
    dead_only    integer NOT NULL DEFAULT 0 CHECK (dead_only = 0 OR replay_of IS NOT NULL),
    ordered      integer NOT NULL DEFAULT 1,
    auth         bytea,
    refusals     integer NOT NULL DEFAULT 0 CHECK (refusals >= 0 AND refusals <= tries),
    split_of     bigint,
    total        bigint  NOT NULL DEFAULT 0,
    asked_at     bigint  CHECK ((asked_at IS NULL) = (replay_of IS NULL)),
    born         bigint,
    since        bigint  NOT NULL DEFAULT 0 CHECK (since = 0 OR dead_only = 1),
    ranged       integer NOT NULL DEFAULT 0 CHECK (ranged IN (0, 1)),
    last_attempt bigint,
    PRIMARY KEY (run, number),
    CHECK (cursor <= tail),
    -- No lane with work is ever forgotten, and none without work is looked at.
    CHECK (lease_token IS NOT NULL OR (due_at IS NOT NULL) = (cursor < tail AND closed IS NULL))
) WITH (fillfactor = 50);

-- A lane that is held changes no column of an index: its settlements are as cheap as can be.
CREATE INDEX lane_due ON lane (due_at, origin) WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL;
CREATE INDEX lane_origin ON lane (origin, due_at) WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL;
CREATE INDEX lane_leased ON lane (lease_token) WHERE lease_token IS NOT NULL;
CREATE INDEX lane_closed ON lane (run) WHERE closed IS NOT NULL;

-- How long each dispatcher holds its lanes: one row for all of them, so that a renewal is one write however many
-- there are.
CREATE TABLE lease (
    token      text   COLLATE "C" PRIMARY KEY,
    until_time bigint NOT NULL
);

CREATE TABLE attempt (
    run         bigint  NOT NULL,
    id          bigint  NOT NULL DEFAULT nextval('attempt_id'),
    lane        bigint  NOT NULL,
    seq         bigint  NOT NULL,
    number      integer NOT NULL CHECK (number >= 1),
    at          bigint  NOT NULL,
    verdict     text    NOT NULL CHECK (verdict IN ('accepted', 'retry', 'gave_up', 'closed')),
    kind        text    NOT NULL,
    status      integer,
    retry_after bigint,
    duration    bigint  NOT NULL,
    detail      text,
    PRIMARY KEY (run, id)
) PARTITION BY RANGE (run);

-- `id` is the order of giving up: it is drawn under a lock, so that no page of it is ever overtaken.
CREATE TABLE dead_letter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run         bigint NOT NULL,
    lane        bigint NOT NULL,
    seq         bigint NOT NULL,
    at          bigint NOT NULL,
    reason      text   NOT NULL,
    origin      text   COLLATE "C" NOT NULL,
    lane_seq    bigint NOT NULL CHECK (lane_seq >= 1),
    attempt     bigint,
    redelivered bigint,
    UNIQUE (run, seq, lane)
);

CREATE INDEX dead_letter_undelivered ON dead_letter (id) WHERE redelivered IS NULL;
CREATE INDEX dead_letter_origin ON dead_letter (origin, id) WHERE redelivered IS NULL;
CREATE INDEX dead_letter_lane ON dead_letter (origin, run, lane, at) WHERE redelivered IS NULL;

CREATE TABLE idempotency (
    token       text   COLLATE "C" NOT NULL,
    key         text   COLLATE "C" NOT NULL,
    fingerprint bytea  NOT NULL,
    run_id      text   NOT NULL,
    at          bigint NOT NULL,
    PRIMARY KEY (token, key)
);

CREATE INDEX idempotency_at ON idempotency (at);

-- Only origins that are not well have a row.
CREATE TABLE origin (
    origin       text    COLLATE "C" PRIMARY KEY,
    state        text    NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures     integer NOT NULL CHECK (failures >= 0),
    openings     integer NOT NULL CHECK (openings >= 0),
    opened_at    bigint,
    retry_at     bigint,
    paused_until bigint,
    reason       text,
    CHECK ((state = 'closed') = (retry_at IS NULL))
);

-- `number` is the generation that begins; `origin` is '' for all. Older ones end at `until` at the latest.
CREATE TABLE rotation (
    number bigint PRIMARY KEY CHECK (number >= 1),
    origin text   NOT NULL,
    at     bigint NOT NULL,
    until  bigint NOT NULL CHECK (until >= at)
);

-- A fingerprint, so that a database meets its own key or is told.
CREATE TABLE master_key (
    only_one integer PRIMARY KEY CHECK (only_one = 1),
    id       bytea   NOT NULL
);

CREATE TABLE journal (
    run   bigint NOT NULL,
    name  text   COLLATE "C" NOT NULL,
    value bytea  NOT NULL,
    PRIMARY KEY (run, name)
);

-- `id` is the order of asking over the whole store, drawn under a lock; `due_at` the earlier of deadline and reminder.
CREATE TABLE review (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run           bigint  NOT NULL,
    number        integer NOT NULL CHECK (number >= 1),
    task_id       text    NOT NULL,
    place         integer NOT NULL CHECK (place >= 1),
    uuid          text    NOT NULL,
    agent         text    NOT NULL,
    output        text    NOT NULL,
    asked_at      bigint  NOT NULL,
    expires_at    bigint,
    on_expiry     text    CHECK (on_expiry IN ('approve', 'reject', 'fail')),
    remind_every  bigint  CHECK (remind_every > 0),
    remind_at     bigint,
    reminders     integer NOT NULL CHECK (reminders >= 0),
    state         text    NOT NULL CHECK (state IN ('pending', 'decided', 'void')),
    decision      text    CHECK (decision IN ('approve', 'reject')),
    feedback      text    NOT NULL,
    pass_feedback integer NOT NULL CHECK (pass_feedback IN (0, 1)),
    decided_at    bigint,
    decided_by    text,
    decided_how   text    CHECK (decided_how IN ('api', 'cli', 'link', 'deadline')),
    due_at        bigint,
    UNIQUE (run, number),
    CHECK ((state = 'decided') = (decision IS NOT NULL)),
    CHECK (state = 'pending' OR due_at IS NULL),
    CHECK (state <> 'decided' OR decided_at IS NOT NULL)
);

CREATE UNIQUE INDEX review_pending ON review (run) WHERE state = 'pending';
CREATE INDEX review_open ON review (id) WHERE state = 'pending';
CREATE INDEX review_due ON review (due_at) WHERE due_at IS NOT NULL;

-- What a lane heard when, if that ever changed: then it is `ranged`.
CREATE TABLE subscription (
    run      bigint  NOT NULL,
    lane     bigint  NOT NULL,
    first    bigint  NOT NULL CHECK (first >= 1),
    last     bigint  NOT NULL CHECK (last >= first),
    channels integer NOT NULL CHECK (channels > 0),
    PRIMARY KEY (run, lane, first)
);

-- Who is there, and what they serve.
CREATE TABLE node (
    id         text    COLLATE "C" PRIMARY KEY,
    name       text    COLLATE "C" NOT NULL,
    roles      text    NOT NULL,
    version    text    NOT NULL,
    started_at bigint  NOT NULL,
    seen_at    bigint  NOT NULL,
    until_time bigint  NOT NULL,
    crews      text    NOT NULL,
    draining   integer NOT NULL CHECK (draining IN (0, 1)),
    url        text
);

CREATE TABLE crew (
    name      text   COLLATE "C" PRIMARY KEY,
    described bytea  NOT NULL,
    at        bigint NOT NULL
);

-- Up to where runs have expired: a day behind that whose partition is still needed by few is emptied row by row.
CREATE TABLE high_water (
    name  text   COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

-- What each connection committed last, for commits that were not answered.
CREATE TABLE last_commit (
    mark   text   COLLATE "C" PRIMARY KEY,
    serial bigint NOT NULL,
    at     bigint NOT NULL
) WITH (fillfactor = 10);

-- Vacuumed early: small and busy, their dead rows cost more than the work.
ALTER TABLE lane SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE run SET (autovacuum_vacuum_scale_factor = 0.05);

-- What was sent can be read again and never changes.
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER event_is_append_only BEFORE UPDATE ON event FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER attempt_is_append_only BEFORE UPDATE ON attempt FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER rotation_is_append_only BEFORE UPDATE ON rotation FOR EACH ROW EXECUTE FUNCTION append_only();
