-- Every statement of the SQLite store. `$rows` stands for the VALUES of many rows at once; rows of NULLs
-- fill it up to a power of two, so that few statements are prepared, and must match nothing. `$heard` stands for
-- whether a past event belongs to a lane: `session.HEARD`; `$run`, `$event`, `$lane` and `$review` for the columns of such
-- a value: `store/columns.py`.

-- name: key_of_run
-- The UUID of a run is looked up once per process and run. A hidden run is not found, so that no write does.
SELECT key FROM run WHERE id = :id AND hidden = 0

-- --- runs -----------------------------------------------------------------------------------

-- name: remembered_key
-- The guard of create_run: what this Idempotency-Key started within the last day.
SELECT run_id, fingerprint FROM idempotency WHERE token = :token AND key = :key AND at > :since

-- name: forget_keys
-- A small slice at each create_run that brings a key, so there is never one huge DELETE.
DELETE FROM idempotency WHERE (token, key) IN
    (SELECT token, key FROM idempotency WHERE at <= :since ORDER BY at LIMIT 32)

-- name: remember_key
-- Replaces an older use of the same key, which the guard has found too old.
INSERT OR REPLACE INTO idempotency (token, key, fingerprint, run_id, at)
VALUES (:token, :key, :fingerprint, :run_id, :at)

-- name: create_run
-- The key is drawn here: its order is the order of creation.
INSERT INTO run (id, crew, state, created_at, started_at, finished_at, attempt, seq, total_tasks,
                 completed_tasks, current_task, lease_token, lease_until, error, error_detail, continues,
                 priority, token, stop, worked, claimed_at)
VALUES (:id, :crew, :state, :created_at, :started_at, :finished_at, :attempt, :seq, :total_tasks,
        :completed_tasks, :current_task, :lease_token, :lease_until, :error, :error_detail, :continues,
        :priority, :token, :stop, :worked, :claimed_at)

-- name: create_kickoff
-- Apart from `run`, so that an append does not rewrite the inputs.
INSERT INTO kickoff (run, inputs, meta, options, token, max_attempts, timeout)
VALUES (:run, :inputs, :meta, :options, :token, :max_attempts, :timeout)

-- name: create_lanes
-- As the kickoff named them, or made later: replays and split lanes.
INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, due_at, closed,
                  lease_token, lease_until, replay_of, dead_only, ordered, auth, refusals, split_of, total,
                  asked_at, born, since)
SELECT * FROM (VALUES $rows) AS v WHERE v.column1 IS NOT NULL

-- name: queues
-- From one crew and token to the next, one step of the index each, however many runs of them wait.
WITH RECURSIVE waits (key) AS (
    SELECT (SELECT run.key FROM run INDEXED BY run_queued
            WHERE run.state = 'queued' AND run.hidden = 0 AND run.stop IS NULL
            ORDER BY run.crew, run.token LIMIT 1)
    UNION ALL
    SELECT coalesce(
        (SELECT run.key FROM run INDEXED BY run_queued
         WHERE run.state = 'queued' AND run.hidden = 0 AND run.stop IS NULL
           AND run.crew = here.crew AND run.token > here.token
         ORDER BY run.token LIMIT 1),
        (SELECT run.key FROM run INDEXED BY run_queued
         WHERE run.state = 'queued' AND run.hidden = 0 AND run.stop IS NULL AND run.crew > here.crew
         ORDER BY run.crew, run.token LIMIT 1)
    )
    FROM waits CROSS JOIN run AS here ON here.key = waits.key
)
SELECT run.crew, run.token FROM waits CROSS JOIN run ON run.key = waits.key
WHERE run.crew IN (SELECT value FROM json_each(:crews))

-- name: queued_runs
-- Of one crew and token: by priority, then the oldest. The index holds nothing else.
SELECT priority, key FROM run INDEXED BY run_queued
WHERE state = 'queued' AND hidden = 0 AND stop IS NULL AND crew = :crew AND token = :token
ORDER BY priority DESC, key LIMIT :limit

-- name: running_of_token
-- Only asked where that is limited, and only up to there.
SELECT count(*) FROM (
    SELECT 1 FROM run INDEXED BY run_at_work WHERE state = 'running' AND token = :token LIMIT :limit
) AS found

-- name: claim_runs
-- Repeats core.run.claim; nobody else writes between this and `queued_runs`.
UPDATE run
SET state = 'running', attempt = run.attempt + (run.continues = 0), continues = 0,
    started_at = coalesce(run.started_at, v.column2), claimed_at = v.column2, lease_token = v.column3,
    lease_until = v.column4
FROM (VALUES $rows) AS v
WHERE run.key = v.column1 AND run.state = 'queued'

-- name: renew_runs
-- By the index of running runs.
UPDATE run SET lease_until = :until WHERE state = 'running' AND lease_token = :token RETURNING id

-- name: adopt_run
-- The guard is the lease that the caller saw.
UPDATE run SET lease_token = :token, lease_until = :until
WHERE key = :key AND state = 'running' AND lease_token = :seen

-- name: run
-- One run with what its kickoff said.
SELECT $run
FROM run JOIN kickoff ON kickoff.run = run.key
WHERE run.id = :id AND run.hidden = 0

-- name: run_by_key
-- The same for a run that has just been claimed.
SELECT $run
FROM run JOIN kickoff ON kickoff.run = run.key
WHERE run.key = :key

-- name: running_runs
-- By the index of running runs, in the order of creation.
SELECT $run
FROM run INDEXED BY run_running JOIN kickoff ON kickoff.run = run.key
WHERE run.state = 'running'
ORDER BY run.key

-- name: lapsed_runs
-- Among those that run, which are few; the longest lapsed first.
SELECT $run
FROM run INDEXED BY run_running JOIN kickoff ON kickoff.run = run.key
WHERE run.state = 'running' AND run.lease_until <= :now
ORDER BY run.lease_until, run.key LIMIT :limit

-- --- the log --------------------------------------------------------------------------------

-- name: append_progress
-- The guard of `append`: still running under this lease, and nothing was added meanwhile. Sets no column
-- of an index, so it costs none.
UPDATE run
SET seq = v.column4, total_tasks = v.column5, completed_tasks = v.column6, current_task = v.column7,
    error = v.column8, error_detail = v.column9
FROM (VALUES $rows) AS v
WHERE run.key = v.column1 AND run.lease_token = v.column2 AND run.seq = v.column3 AND run.state = 'running'

-- name: append_move
-- The same for a run that leaves `running`: its lease goes with it.
UPDATE run
SET seq = v.column4, total_tasks = v.column5, completed_tasks = v.column6, current_task = v.column7,
    error = v.column8, error_detail = v.column9, state = v.column10, finished_at = v.column11,
    worked = v.column12, claimed_at = NULL, lease_token = NULL, lease_until = NULL
FROM (VALUES $rows) AS v
WHERE run.key = v.column1 AND run.lease_token = v.column2 AND run.seq = v.column3 AND run.state = 'running'

-- name: move_unheld
-- A run that nobody holds, guarded by what its caller saw. Its attempts and its work stay as they are.
UPDATE run
SET state = :state, seq = :seq, total_tasks = :total_tasks, completed_tasks = :completed_tasks,
    current_task = :current_task, error = :error, error_detail = :error_detail, finished_at = :finished_at,
    continues = :continues, stop = coalesce(stop, :stop)
WHERE key = :key AND state = :seen_state AND seq = :seen_seq AND lease_token IS NULL

-- name: is_running
-- One row if it is.
SELECT 1 FROM run WHERE key = :key AND state = 'running'

-- name: request_stop
-- The first who asks is who is told of. Only somebody at work has to be asked.
UPDATE run SET stop = :by WHERE key = :key AND state = 'running' AND stop IS NULL

-- name: stops
-- Of one holder, and of nobody.
SELECT id FROM run INDEXED BY run_stop
WHERE stop IS NOT NULL AND finished_at IS NULL AND hidden = 0 AND (lease_token = :token OR lease_token IS NULL)
ORDER BY key

-- name: append_events
-- The bodies as they are signed and sent.
INSERT INTO event (run, seq, channel, type, at, run_attempt, task_id, body, whole)
SELECT * FROM (VALUES $rows) AS v WHERE v.column1 IS NOT NULL

-- name: append_work
-- Lanes of the run that listen to the channel, except those that send what there was. A lane that waits for
-- a retry goes on waiting.
UPDATE lane INDEXED BY lane_live
SET tail = v.column3, total = lane.total + v.column5,
    due_at = iif(lane.closed IS NULL, coalesce(lane.due_at, v.column4), NULL)
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.channels & v.column2 AND lane.replay_of IS NULL AND lane.split_of IS NULL

-- name: append_dead
-- What comes to a closed lane is a dead letter at once. The index holds closed lanes only.
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, attempt)
SELECT lane.run, lane.number, event.seq, event.at, lane.closed, lane.origin,
       lane.total - (SELECT count(*) FROM event AS later
                     WHERE later.run = event.run AND later.seq > event.seq AND later.channel & lane.channels),
       lane.last_attempt
FROM (VALUES $rows) AS v
CROSS JOIN lane INDEXED BY lane_closed ON lane.run = v.column1 AND lane.closed IS NOT NULL
    AND lane.replay_of IS NULL AND lane.split_of IS NULL
CROSS JOIN event ON event.run = lane.run AND event.seq > v.column2 AND event.channel & lane.channels
WHERE true
ON CONFLICT DO NOTHING

-- name: events
-- A page of the log.
SELECT $event
FROM run JOIN event ON event.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND event.seq > :after AND event.channel & :channels
ORDER BY event.seq LIMIT :limit

-- name: last_event
-- From the end of the log: a run's crew event is its last.
SELECT $event
FROM run JOIN event ON event.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND event.channel & :channel
ORDER BY event.seq DESC LIMIT 1

-- --- the journal ----------------------------------------------------------------------------

-- name: write_journal
-- The last value of a name is the one that counts.
INSERT INTO journal (run, name, value)
SELECT * FROM (VALUES $rows) AS v WHERE v.column1 IS NOT NULL
ON CONFLICT (run, name) DO UPDATE SET value = excluded.value

-- name: drop_journal
-- Entries that a later one has made pointless.
DELETE FROM journal WHERE id IN (
    SELECT journal.id FROM (VALUES $rows) AS v
    CROSS JOIN journal ON journal.run = v.column1 AND journal.name = v.column2
)

-- name: journal
-- All of a run: what a child is given.
SELECT journal.name, journal.value FROM run CROSS JOIN journal ON journal.run = run.key
WHERE run.id = :id AND run.hidden = 0

-- --- reviews --------------------------------------------------------------------------------

-- name: ask
-- At the run's move to `waiting`; the schema refuses a second one that is pending.
INSERT INTO review (run, number, task_id, place, uuid, agent, output, asked_at, expires_at, on_expiry,
                    remind_every, remind_at, reminders, state, decision, feedback, pass_feedback, decided_at,
                    decided_by, decided_how, due_at)
VALUES (:run, :number, :task_id, :place, :uuid, :agent, :output, :asked_at, :expires_at, :on_expiry,
        :remind_every, :remind_at, :reminders, :state, :decision, :feedback, :pass_feedback, :decided_at,
        :decided_by, :decided_how, :due_at)

-- name: pending_review
-- The guard of `decide` and `remind`.
SELECT number, reminders FROM review INDEXED BY review_pending WHERE run = :run AND state = 'pending'

-- name: settle_review
-- What a decision, a reminder or an end changes. What was asked stays.
UPDATE review
SET remind_at = :remind_at, reminders = :reminders, state = :state, decision = :decision,
    feedback = :feedback, pass_feedback = :pass_feedback, decided_at = :decided_at, decided_by = :decided_by,
    decided_how = :decided_how, due_at = :due_at
WHERE run = :run AND number = :number AND state = 'pending'

-- name: void_review
-- Of a run that moves on without a decision.
UPDATE review
SET state = 'void', remind_at = NULL, due_at = NULL, decided_at = :at, decided_by = :by
WHERE run = :run AND state = 'pending'

-- name: review
-- One, or the newest: of a run there are as many as it asked.
SELECT $review
FROM run CROSS JOIN review ON review.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND (:number IS NULL OR review.number = :number)
ORDER BY review.number DESC LIMIT 1

-- name: pending_reviews
-- By the index of what waits.
SELECT review.id, $review
FROM review INDEXED BY review_open CROSS JOIN run ON run.key = review.run AND run.hidden = 0
WHERE review.state = 'pending' AND review.id > :after
ORDER BY review.id LIMIT :limit

-- name: reviews
-- In the order of asking, through those of other states.
SELECT review.id, $review
FROM review CROSS JOIN run ON run.key = review.run AND run.hidden = 0
WHERE review.id > :after AND (:state IS NULL OR review.state = :state)
ORDER BY review.id LIMIT :limit

-- name: reviews_of_run
-- The same of one run.
SELECT review.id, $review
FROM run CROSS JOIN review ON review.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND review.id > :after AND (:state IS NULL OR review.state = :state)
ORDER BY review.number LIMIT :limit

-- name: due_reviews
-- The longest due first. The index holds pending ones with a deadline or a reminder only.
SELECT $review
FROM review INDEXED BY review_due CROSS JOIN run ON run.key = review.run AND run.hidden = 0
WHERE review.due_at IS NOT NULL AND review.due_at <= :now
ORDER BY review.due_at LIMIT :limit

-- name: next_review_due
-- The head of that index.
SELECT min(due_at) FROM review INDEXED BY review_due WHERE due_at IS NOT NULL

-- --- subscriptions --------------------------------------------------------------------------

-- name: subscriptions
-- What the run's live lanes hear from now on.
SELECT number, url, channels, auth, ranged FROM lane INDEXED BY lane_live
WHERE run = :run AND replay_of IS NULL AND split_of IS NULL
ORDER BY number

-- name: hear
-- From now on; the lane keeps its numbers and what it still has to send.
UPDATE lane SET channels = :channels, auth = :auth, ranged = max(ranged, :ranged)
WHERE run = :run AND number = :number

-- name: end_range
-- What was heard until now.
UPDATE subscription SET last = :seq WHERE run = :run AND lane = :lane AND last > :seq AND first <= :seq

-- name: drop_range
-- One in which nothing came.
DELETE FROM subscription WHERE run = :run AND lane = :lane AND first > :seq

-- name: begin_range
-- What is heard from now on, or was until now.
INSERT INTO subscription (run, lane, first, last, channels) VALUES (:run, :lane, :first, :last, :channels)

-- name: mark_ranged
-- A replay or a split lane has what the lane that it comes from has.
UPDATE lane SET ranged = 1 WHERE run = :run AND number = :number

-- --- lanes ----------------------------------------------------------------------------------

-- name: lanes
-- All of a run.
SELECT $lane
FROM run JOIN lane ON lane.run = run.key
WHERE run.id = :id AND run.hidden = 0
ORDER BY lane.number

-- name: lane_events
-- What a lane sends next, as its row has it now: whoever holds it may know an older one.
SELECT $event
FROM run
CROSS JOIN lane ON lane.run = run.key AND lane.number = :number
CROSS JOIN event ON event.run = run.key AND event.seq > :after AND event.seq <= :last
WHERE run.id = :id AND run.hidden = 0 AND $heard
ORDER BY event.seq LIMIT :limit

-- name: due_lanes
-- Longest due first. The index holds lanes that wait for a dispatcher only.
SELECT $lane
FROM lane INDEXED BY lane_due CROSS JOIN run ON run.key = lane.run
WHERE lane.due_at IS NOT NULL AND lane.due_at <= :now AND lane.lease_token IS NULL AND lane.closed IS NULL
ORDER BY lane.due_at LIMIT :limit

-- name: due_lanes_elsewhere
-- The same among the first `look`, passing over busy origins and the surplus of others within the index.
SELECT $lane
FROM (
    SELECT run, number, due_at, row_number() OVER (PARTITION BY origin ORDER BY due_at) AS place
    FROM (
        SELECT run, number, origin, due_at FROM lane INDEXED BY lane_due
        WHERE due_at IS NOT NULL AND due_at <= :now AND lease_token IS NULL AND closed IS NULL
        ORDER BY due_at LIMIT :look
    )
    WHERE origin NOT IN (SELECT value FROM json_each(:busy))
) AS found
CROSS JOIN lane ON lane.run = found.run AND lane.number = found.number
CROSS JOIN run ON run.key = lane.run
WHERE found.place <= :per_origin
ORDER BY found.due_at LIMIT :limit

-- name: due_lanes_beyond
-- Whether more are due than `due_lanes_elsewhere` looks at.
SELECT 1 FROM lane INDEXED BY lane_due
WHERE due_at IS NOT NULL AND due_at <= :now AND lease_token IS NULL AND closed IS NULL
ORDER BY due_at LIMIT 1 OFFSET :look

-- name: due_origins
-- From origin to origin, one step of the index each, however many lanes wait at one of them.
WITH RECURSIVE waits (origin) AS (
    SELECT min(origin) FROM lane INDEXED BY lane_origin
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
    UNION ALL
    SELECT (SELECT min(lane.origin) FROM lane INDEXED BY lane_origin
            WHERE lane.origin > waits.origin
              AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL)
    FROM waits WHERE waits.origin IS NOT NULL
)
SELECT origin, due_at FROM (
    SELECT waits.origin,
           (SELECT min(lane.due_at) FROM lane INDEXED BY lane_origin
            WHERE lane.origin = waits.origin
              AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL) AS due_at
    FROM waits WHERE waits.origin NOT IN (SELECT value FROM json_each(:busy))
)
WHERE due_at <= :now
ORDER BY due_at LIMIT :limit

-- name: due_lanes_of_origin
-- The longest due of one origin.
SELECT $lane
FROM lane INDEXED BY lane_origin CROSS JOIN run ON run.key = lane.run
WHERE lane.origin = :origin
  AND lane.due_at IS NOT NULL AND lane.due_at <= :now AND lane.lease_token IS NULL AND lane.closed IS NULL
ORDER BY lane.due_at LIMIT :limit

-- name: lapsed_lanes
-- A lease that has lapsed is none, except to its holder: it may still be at work there.
SELECT $lane
FROM lane INDEXED BY lane_leased CROSS JOIN run ON run.key = lane.run
WHERE lane.lease_until <= :now AND lane.lease_token IS NOT NULL AND lane.lease_token <> :token
  AND lane.closed IS NULL AND lane.cursor < lane.tail AND lane.due_at <= :now
  AND lane.origin NOT IN (SELECT value FROM json_each(:busy))
ORDER BY lane.due_at LIMIT :limit

-- name: claim_lanes
-- Nobody else writes between this and the two above.
UPDATE lane SET lease_token = v.column3, lease_until = v.column4
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.number = v.column2

-- name: renew_lanes
-- By the index of leased lanes: as many as dispatchers hold.
UPDATE lane SET lease_until = :until WHERE lease_token IS NOT NULL AND lease_token = :token

-- name: settle_attempts
-- The record of every POST, and the guard of `settle`: as many rows as lanes are still held by their lease.
INSERT INTO attempt (id, previous, run, lane, seq, number, at, verdict, kind, status, retry_after, duration,
                     detail)
SELECT v.column1, coalesce(v.column2, lane.last_attempt), v.column3, v.column4, v.column6, v.column7, v.column8,
       v.column9, v.column10, v.column11, v.column12, v.column13, v.column14
FROM (VALUES $rows) AS v
CROSS JOIN lane ON lane.run = v.column3 AND lane.number = v.column4 AND lane.lease_token = v.column5

-- name: last_attempt
-- Where the numbers of attempts go on.
SELECT max(coalesce((SELECT max(id) FROM attempt), 0),
           coalesce((SELECT value FROM high_water WHERE name = 'attempt'), 0))

-- name: settle_held
-- The lane stays with its dispatcher: no index changes. `tail` is kept, it may have moved meanwhile.
UPDATE lane
SET cursor = v.column4, settled = v.column5, tries = v.column6, due_at = v.column7, last_attempt = v.column8,
    refusals = v.column9
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.number = v.column2 AND lane.lease_token = v.column3

-- name: settle_moved
-- The lane is given back, or closed, or both.
UPDATE lane
SET cursor = v.column4, settled = v.column5, tries = v.column6, last_attempt = v.column8,
    refusals = v.column9, closed = v.column10,
    due_at = iif(v.column10 IS NULL AND v.column4 < lane.tail, v.column7, NULL),
    lease_token = iif(v.column11, NULL, lane.lease_token),
    lease_until = iif(v.column11, NULL, lane.lease_until)
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.number = v.column2 AND lane.lease_token = v.column3

-- name: give_up
-- The event of the attempt. A replay of dead letters has their numbers, not its own.
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, attempt)
SELECT lane.run, coalesce(lane.split_of, lane.number), :seq, :at, :reason, lane.origin,
       coalesce((SELECT was.lane_seq FROM dead_letter AS was
                 WHERE lane.dead_only AND was.run = lane.run AND was.seq = :seq AND was.lane = lane.replay_of),
                :lane_seq),
       :attempt
FROM lane
WHERE lane.run = :run AND lane.number = :lane
ON CONFLICT DO NOTHING

-- name: give_up_rest
-- The rest of a lane that has just been closed; of a replay of dead letters, the rest of those. (A split lane
-- has none.)
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, attempt)
SELECT lane.run, lane.number, event.seq, :at, lane.closed, lane.origin,
       coalesce(was.lane_seq, lane.settled + row_number() OVER (ORDER BY event.seq)), :attempt
FROM lane
JOIN event ON event.run = lane.run AND event.seq > lane.cursor AND event.seq <= lane.tail AND $heard
LEFT JOIN dead_letter AS was ON lane.dead_only AND was.run = lane.run AND was.seq = event.seq
    AND was.lane = lane.replay_of AND was.at >= lane.since AND coalesce(was.attempt, 0) <= lane.born
    AND (was.redelivered IS NULL OR was.redelivered > lane.born)
WHERE lane.run = :run AND lane.number = :lane AND (lane.dead_only = 0 OR was.seq IS NOT NULL)
ON CONFLICT DO NOTHING

-- name: redelivered
-- A replay of lane `replayed` was accepted: the dead letter there, and those of its other replays.
UPDATE dead_letter SET redelivered = :attempt
WHERE run = :run AND seq = :seq AND redelivered IS NULL
  AND EXISTS (SELECT 1 FROM lane
              WHERE lane.run = dead_letter.run AND lane.number = dead_letter.lane
                AND (lane.number = :replayed OR lane.replay_of = :replayed))

-- name: release_lane
-- Guarded by the lease: not held any more, no change.
UPDATE lane
SET lease_token = NULL, lease_until = NULL,
    due_at = iif(closed IS NULL AND cursor < tail, coalesce(due_at, :now), NULL)
WHERE run = :run AND number = :number AND lease_token = :token

-- name: park_lanes
-- The same for many, each due later.
UPDATE lane
SET lease_token = NULL, lease_until = NULL,
    due_at = iif(lane.closed IS NULL AND lane.cursor < lane.tail, v.column4, NULL)
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.number = v.column2 AND lane.lease_token = v.column3

-- name: void_leases
-- By the index of leased lanes.
UPDATE lane INDEXED BY lane_leased
SET lease_token = NULL, lease_until = NULL,
    due_at = iif(closed IS NULL AND cursor < tail, coalesce(due_at, :now), NULL)
WHERE lease_token IS NOT NULL

-- name: next_due
-- The head of the index of lanes that wait.
SELECT min(due_at) FROM lane INDEXED BY lane_due
WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL

-- name: next_due_elsewhere
-- The same without busy origins: among the first `look`, else from origin to origin as in `due_origins`.
SELECT coalesce(
    (SELECT min(due_at) FROM (
        SELECT origin, due_at FROM lane INDEXED BY lane_due
        WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
        ORDER BY due_at LIMIT :look
    ) WHERE origin NOT IN (SELECT value FROM json_each(:busy))),
    (WITH RECURSIVE waits (origin) AS (
        SELECT min(origin) FROM lane INDEXED BY lane_origin
        WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
        UNION ALL
        SELECT (SELECT min(lane.origin) FROM lane INDEXED BY lane_origin
                WHERE lane.origin > waits.origin
                  AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL)
        FROM waits WHERE waits.origin IS NOT NULL
    )
    SELECT min((SELECT min(lane.due_at) FROM lane INDEXED BY lane_origin
                WHERE lane.origin = waits.origin
                  AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL))
    FROM waits WHERE waits.origin NOT IN (SELECT value FROM json_each(:busy)))
)

-- name: pending_beside
-- Counts what waits: it has to be exact, because a subscriber is told.
SELECT coalesce(sum(lane.total - lane.settled), 0)
FROM run JOIN lane ON lane.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND lane.number <> :number AND lane.origin = :origin
  AND lane.closed IS NULL AND lane.replay_of IS NULL

-- name: attempts
-- Back along the lanes, then in the order made.
WITH RECURSIVE made (id) AS (
    SELECT lane.last_attempt FROM run JOIN lane ON lane.run = run.key
    WHERE run.id = :id AND run.hidden = 0 AND lane.last_attempt > :after
    UNION ALL
    SELECT attempt.previous FROM made JOIN attempt ON attempt.id = made.id WHERE attempt.previous > :after
)
SELECT attempt.id, :id, attempt.lane, attempt.seq, attempt.number, attempt.at, attempt.verdict, attempt.kind,
       attempt.status, attempt.retry_after, attempt.duration, attempt.detail
FROM made JOIN attempt ON attempt.id = made.id
ORDER BY attempt.id LIMIT :limit

-- name: dead_letters
-- In the order of the log.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM run
JOIN dead_letter ON dead_letter.run = run.key
JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE run.id = :id AND run.hidden = 0
ORDER BY dead_letter.seq, dead_letter.lane

-- --- redelivery -----------------------------------------------------------------------------

-- name: replayable
-- What can be sent again of lanes that are live: all that they have.
SELECT number, url, origin, channels, auth, ordered, tail, total, ranged FROM lane INDEXED BY lane_live
WHERE run = :run AND replay_of IS NULL AND split_of IS NULL AND (:lane IS NULL OR number = :lane)
ORDER BY number

-- name: place_in_lane
-- How many of the lane's events there are up to this one, and the last of them: this one, if it is one.
SELECT count(*), max(event.seq) FROM lane CROSS JOIN event ON event.run = lane.run AND event.seq <= :seq
WHERE lane.run = :run AND lane.number = :lane AND $heard

-- name: dead_in_lane
-- What no replay has delivered yet: how many, the first and the last.
SELECT count(*), min(seq), max(seq) FROM dead_letter
WHERE run = :run AND lane = :lane AND redelivered IS NULL AND at >= :since AND (:seq IS NULL OR seq = :seq)

-- name: last_lane
-- Where the numbers of a run's lanes go on.
SELECT coalesce(max(number), 0) FROM lane WHERE run = :run

-- name: born
-- A lane that splits from another sends what that one has.
SELECT born, ranged FROM lane WHERE run = :run AND number = :number

-- name: dead_lane_events
-- A replay of dead letters: those there were when it was asked for, without what was redelivered until then.
SELECT letter.lane_seq, $event
FROM run
CROSS JOIN lane ON lane.run = run.key AND lane.number = :number
CROSS JOIN dead_letter AS letter ON letter.run = lane.run AND letter.seq > :after AND letter.seq <= lane.tail
    AND letter.lane = lane.replay_of AND letter.at >= lane.since AND coalesce(letter.attempt, 0) <= lane.born
    AND (letter.redelivered IS NULL OR letter.redelivered > lane.born)
CROSS JOIN event ON event.run = letter.run AND event.seq = letter.seq
WHERE run.id = :id AND run.hidden = 0
ORDER BY letter.seq LIMIT :limit

-- name: undelivered
-- Along the order of giving up.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM dead_letter
CROSS JOIN run ON run.key = dead_letter.run AND run.hidden = 0
CROSS JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
CROSS JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE dead_letter.id > :after AND dead_letter.redelivered IS NULL AND dead_letter.at >= :since
ORDER BY dead_letter.id LIMIT :limit

-- name: undelivered_of_origin
-- The same along the index of one origin.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM dead_letter INDEXED BY dead_letter_origin
CROSS JOIN run ON run.key = dead_letter.run AND run.hidden = 0
CROSS JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
CROSS JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE dead_letter.origin = :origin AND dead_letter.id > :after AND dead_letter.redelivered IS NULL
  AND dead_letter.at >= :since
ORDER BY dead_letter.id LIMIT :limit

-- name: undelivered_of_run
-- A run's are sorted: they lie in the order of the log.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM run
CROSS JOIN dead_letter ON dead_letter.run = run.key
CROSS JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
CROSS JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE run.id = :id AND run.hidden = 0 AND dead_letter.id > :after AND dead_letter.redelivered IS NULL
  AND dead_letter.at >= :since AND (:origin IS NULL OR dead_letter.origin = :origin)
ORDER BY dead_letter.id LIMIT :limit

-- name: dead_lanes
-- In the order of the index, so that a page ends where its last lane does.
SELECT run.id, dead_letter.lane, count(*), dead_letter.origin, dead_letter.run
FROM dead_letter INDEXED BY dead_letter_lane
CROSS JOIN run ON run.key = dead_letter.run AND run.hidden = 0
CROSS JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane AND lane.replay_of IS NULL
WHERE (dead_letter.origin, dead_letter.run, dead_letter.lane) > (:origin, :run, :lane)
  AND dead_letter.origin <= :last AND dead_letter.redelivered IS NULL AND dead_letter.at >= :since
GROUP BY dead_letter.origin, dead_letter.run, dead_letter.lane
ORDER BY dead_letter.origin, dead_letter.run, dead_letter.lane LIMIT :limit

-- --- origins --------------------------------------------------------------------------------

-- name: save_origin
-- The whole state, each time that it changes.
INSERT OR REPLACE INTO origin (origin, state, failures, openings, opened_at, retry_at, paused_until, reason)
VALUES (:origin, :state, :failures, :openings, :opened_at, :retry_at, :paused_until, :reason)

-- name: forget_origin
-- One that is well has no row.
DELETE FROM origin WHERE origin = :origin

-- name: health
-- As many as are not well.
SELECT origin, state, failures, openings, opened_at, retry_at, paused_until, reason FROM origin

-- name: origins
-- What waits, what is at work, and what is known beside it. As many rows as lanes with work: for people.
SELECT work.origin, coalesce(origin.state, 'closed'), coalesce(origin.failures, 0), coalesce(origin.openings, 0),
       origin.opened_at, origin.retry_at, origin.paused_until, origin.reason, sum(work.lanes), sum(work.events)
FROM (
    SELECT lane.origin, count(*) AS lanes, sum(total - settled) AS events FROM lane INDEXED BY lane_origin
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
    GROUP BY lane.origin
    UNION ALL
    SELECT lane.origin, count(*), sum(total - settled) FROM lane INDEXED BY lane_leased
    WHERE lease_token IS NOT NULL AND closed IS NULL AND cursor < tail
    GROUP BY lane.origin
    UNION ALL
    SELECT origin.origin, 0, 0 FROM origin
) AS work LEFT JOIN origin ON origin.origin = work.origin
GROUP BY work.origin
ORDER BY work.origin

-- name: hurry_lanes
-- A slice of what waits for later at one origin.
UPDATE lane SET due_at = :now
WHERE (run, number) IN (
    SELECT run, number FROM lane INDEXED BY lane_origin
    WHERE origin = :origin AND due_at IS NOT NULL AND due_at > :now AND lease_token IS NULL AND closed IS NULL
    ORDER BY due_at LIMIT :limit
)

-- --- retention ------------------------------------------------------------------------------

-- name: expired_runs
-- A reader looks for them, so that those with work left cost no writer anything; `hide_expired` asks again.
SELECT run.id FROM run INDEXED BY run_ended
WHERE run.finished_at IS NOT NULL AND run.hidden = 0 AND run.finished_at < :before
  AND NOT EXISTS (SELECT 1 FROM lane
                  WHERE lane.run = run.key AND lane.closed IS NULL AND lane.cursor < lane.tail)
ORDER BY run.finished_at LIMIT :limit

-- name: hide_expired
-- The guard: ended before, with nothing left to deliver.
UPDATE run SET hidden = 1
WHERE key = :key AND finished_at < :before
  AND NOT EXISTS (SELECT 1 FROM lane
                  WHERE lane.run = run.key AND lane.closed IS NULL AND lane.cursor < lane.tail)

-- name: hide_run
-- The guard: nobody works on it.
UPDATE run SET hidden = 1 WHERE key = :key AND state <> 'running'

-- name: hide_lanes
-- Out of the indexes of work, and out of the hands of whoever holds one.
UPDATE lane
SET closed = coalesce(closed, 'deleted'), due_at = NULL, lease_token = NULL, lease_until = NULL
WHERE run = :key

-- name: hidden_run
-- The oldest.
SELECT key FROM run INDEXED BY run_hidden WHERE hidden = 1 ORDER BY key LIMIT 1

-- name: first_lane
-- Lanes go one by one, each after its attempts.
SELECT number, last_attempt FROM lane WHERE run = :run ORDER BY number LIMIT 1

-- name: chain
-- Back along a lane's attempts.
WITH RECURSIVE made (id, previous) AS (
    SELECT id, previous FROM attempt WHERE id = :last
    UNION ALL
    SELECT attempt.id, attempt.previous FROM made JOIN attempt ON attempt.id = made.previous
    LIMIT :limit
)
SELECT id, previous FROM made

-- name: sweep_attempts
-- By their numbers.
DELETE FROM attempt WHERE id IN (SELECT value FROM json_each(:ids))

-- name: keep_high_water
-- The newest attempts may be among those that go.
INSERT INTO high_water (name, value) VALUES ('attempt', :value)
ON CONFLICT (name) DO UPDATE SET value = max(high_water.value, excluded.value)

-- name: shorten_chain
-- The lane's chain begins behind what was removed.
UPDATE lane SET last_attempt = :last WHERE run = :run AND number = :number

-- name: sweep_lane
-- Once its chain is empty.
DELETE FROM lane WHERE run = :run AND number = :number

-- name: sweep_dead_letters
-- A slice.
DELETE FROM dead_letter WHERE id IN (SELECT id FROM dead_letter WHERE run = :run LIMIT :limit)

-- name: hide_review
-- Nobody is asked any more.
UPDATE review SET state = 'void', remind_at = NULL, due_at = NULL WHERE run = :key AND state = 'pending'

-- name: sweep_journal
-- A slice.
DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE run = :run LIMIT :limit)

-- name: sweep_reviews
-- A slice.
DELETE FROM review WHERE id IN (SELECT id FROM review WHERE run = :run LIMIT :limit)

-- name: sweep_subscriptions
-- A slice.
DELETE FROM subscription
WHERE (run, lane, first) IN (SELECT run, lane, first FROM subscription WHERE run = :run LIMIT :limit)

-- name: sweep_events
-- A slice.
DELETE FROM event WHERE id IN (SELECT id FROM event WHERE run = :run LIMIT :limit)

-- name: sweep_kickoff
-- What the kickoff said.
DELETE FROM kickoff WHERE run = :run

-- name: sweep_run
-- The last row.
DELETE FROM run WHERE key = :run

-- --- rotation -------------------------------------------------------------------------------

-- name: rotations
-- In the order of the fields of core.generation.Rotation. One row for each rotation that ever was.
SELECT number, origin, at, until FROM rotation ORDER BY number

-- name: add_rotation
-- The number is one more than the last of `rotations`; nobody else writes between.
INSERT INTO rotation (number, origin, at, until) VALUES (:number, :origin, :at, :until)

-- name: master_key
-- At most one row.
SELECT id FROM master_key

-- name: bind_master_key
-- The first one stays, unless it is replaced on purpose.
INSERT INTO master_key (only_one, id) VALUES (1, :id)
ON CONFLICT DO UPDATE SET id = excluded.id WHERE :replace

-- --- nodes ----------------------------------------------------------------------------------

-- name: forget_nodes
-- Those that stopped without a word, long ago.
DELETE FROM node WHERE until < :before

-- name: forget_crews
-- Those that no worker has served for long.
DELETE FROM crew WHERE at < :before

-- name: beat
-- As it is now, all of it.
INSERT INTO node (id, name, roles, version, started_at, seen_at, until, crews, draining, url)
VALUES (:id, :name, :roles, :version, :started_at, :seen_at, :until, :crews, :draining, :url)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, roles = excluded.roles, version = excluded.version,
    started_at = excluded.started_at, seen_at = excluded.seen_at, until = excluded.until,
    crews = excluded.crews, draining = excluded.draining, url = excluded.url

-- name: publish_crew
-- The newest word counts, in whatever order they come.
INSERT INTO crew (name, described, at) VALUES (:name, :described, :at)
ON CONFLICT (name) DO UPDATE SET described = excluded.described, at = excluded.at
WHERE excluded.at >= crew.at

-- name: leave
-- A clean stop.
DELETE FROM node WHERE id = :id

-- name: nodes
-- In the order of the fields of core.node.Node.
SELECT id, name, roles, version, started_at, seen_at, until, crews, draining, url
FROM node ORDER BY name, started_at, id

-- name: published_crews
-- In the order of the fields of store.nodes.PublishedCrew.
SELECT name, described, at FROM crew ORDER BY name
