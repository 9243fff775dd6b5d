-- Every statement of the SQLite store. `$rows` stands for the VALUES of many rows at once; rows of NULLs
-- fill it up to a power of two, so that few statements are prepared, and must match nothing.

-- name: key_of_run
-- The UUID of a run is looked up once per process and run.
SELECT key FROM run WHERE id = :id

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
                 completed_tasks, current_task, lease_token, lease_until, error, error_detail)
VALUES (:id, :crew, :state, :created_at, :started_at, :finished_at, :attempt, :seq, :total_tasks,
        :completed_tasks, :current_task, :lease_token, :lease_until, :error, :error_detail)

-- name: create_kickoff
-- Apart from `run`, so that an append does not rewrite the inputs.
INSERT INTO kickoff (run, inputs, meta, options, token) VALUES (:run, :inputs, :meta, :options, :token)

-- name: create_lanes
-- As the kickoff named them.
INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, due_at, closed,
                  lease_token, lease_until)
SELECT * FROM (VALUES $rows) AS v WHERE v.column1 IS NOT NULL

-- name: queued_runs
-- The oldest first. The index holds queued runs only: finished ones cost nothing here.
SELECT key FROM run INDEXED BY run_queued
WHERE state = 'queued' AND crew IN (SELECT value FROM json_each(:crews))
ORDER BY key LIMIT :limit

-- name: claim_runs
-- Repeats core.run.claim; nobody else writes between this and `queued_runs`.
UPDATE run
SET state = 'running', attempt = run.attempt + 1, started_at = coalesce(run.started_at, v.column2),
    lease_token = v.column3, lease_until = v.column4
FROM (VALUES $rows) AS v
WHERE run.key = v.column1 AND run.state = 'queued'

-- name: renew_runs
-- By the index of running runs.
UPDATE run SET lease_until = :until WHERE state = 'running' AND lease_token = :token

-- name: adopt_run
-- The guard is the lease that the caller saw.
UPDATE run SET lease_token = :token, lease_until = :until
WHERE key = :key AND state = 'running' AND lease_token = :seen

-- name: run
-- One run with what its kickoff said, in the order of the fields of core.run.Run.
SELECT run.id, run.crew, run.state, kickoff.inputs, run.created_at, kickoff.meta, kickoff.options,
       kickoff.token, run.started_at, run.finished_at, run.attempt, run.seq, run.total_tasks,
       run.completed_tasks, run.current_task, run.error, run.error_detail, run.lease_token, run.lease_until
FROM run JOIN kickoff ON kickoff.run = run.key
WHERE run.id = :id

-- name: run_by_key
-- The same for a run that has just been claimed.
SELECT run.id, run.crew, run.state, kickoff.inputs, run.created_at, kickoff.meta, kickoff.options,
       kickoff.token, run.started_at, run.finished_at, run.attempt, run.seq, run.total_tasks,
       run.completed_tasks, run.current_task, run.error, run.error_detail, run.lease_token, run.lease_until
FROM run JOIN kickoff ON kickoff.run = run.key
WHERE run.key = :key

-- name: running_runs
-- By the index of running runs, in the order of creation.
SELECT run.id, run.crew, run.state, kickoff.inputs, run.created_at, kickoff.meta, kickoff.options,
       kickoff.token, run.started_at, run.finished_at, run.attempt, run.seq, run.total_tasks,
       run.completed_tasks, run.current_task, run.error, run.error_detail, run.lease_token, run.lease_until
FROM run INDEXED BY run_running JOIN kickoff ON kickoff.run = run.key
WHERE run.state = 'running'
ORDER BY run.key

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
    lease_token = NULL, lease_until = NULL
FROM (VALUES $rows) AS v
WHERE run.key = v.column1 AND run.lease_token = v.column2 AND run.seq = v.column3 AND run.state = 'running'

-- name: append_events
-- The bodies as they are signed and sent.
INSERT INTO event (run, seq, channel, type, at, run_attempt, task_id, body, whole)
SELECT * FROM (VALUES $rows) AS v WHERE v.column1 IS NOT NULL

-- name: append_work
-- Lanes of the run that listen to the channel. A lane that waits for a retry goes on waiting.
UPDATE lane
SET tail = v.column3, due_at = iif(lane.closed IS NULL, coalesce(lane.due_at, v.column4), NULL)
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.channels & v.column2

-- name: append_dead
-- What comes to a closed lane is a dead letter at once. The index holds closed lanes only.
INSERT INTO dead_letter (run, lane, seq, at, reason)
SELECT lane.run, lane.number, event.seq, event.at, lane.closed
FROM (VALUES $rows) AS v
CROSS JOIN lane INDEXED BY lane_closed ON lane.run = v.column1 AND lane.closed IS NOT NULL
CROSS JOIN event ON event.run = lane.run AND event.seq > v.column2 AND event.channel & lane.channels
WHERE true
ON CONFLICT DO NOTHING

-- name: events
-- A page of the log.
SELECT run.id, event.seq, event.channel, event.type, event.body, event.at, event.run_attempt, event.task_id,
       event.whole
FROM run JOIN event ON event.run = run.key
WHERE run.id = :id AND event.seq > :after AND event.channel & :channels
ORDER BY event.seq LIMIT :limit

-- name: last_event
-- From the end of the log: a run's crew event is its last.
SELECT run.id, event.seq, event.channel, event.type, event.body, event.at, event.run_attempt, event.task_id,
       event.whole
FROM run JOIN event ON event.run = run.key
WHERE run.id = :id AND event.channel & :channel
ORDER BY event.seq DESC LIMIT 1

-- --- lanes ----------------------------------------------------------------------------------

-- name: lanes
-- In the order of the fields of core.lane.Lane.
SELECT run.id, lane.number, lane.url, lane.origin, lane.channels, lane.cursor, lane.tail, lane.settled,
       lane.tries, lane.due_at, lane.closed, lane.lease_token, lane.lease_until
FROM run JOIN lane ON lane.run = run.key
WHERE run.id = :id
ORDER BY lane.number

-- name: due_lanes
-- Longest due first. The index holds lanes that wait for a dispatcher only.
SELECT run.id, lane.number, lane.url, lane.origin, lane.channels, lane.cursor, lane.tail, lane.settled,
       lane.tries, lane.due_at, lane.closed, lane.lease_token, lane.lease_until
FROM lane INDEXED BY lane_due CROSS JOIN run ON run.key = lane.run
WHERE lane.due_at IS NOT NULL AND lane.due_at <= :now AND lane.lease_token IS NULL AND lane.closed IS NULL
ORDER BY lane.due_at LIMIT :limit

-- name: lapsed_lanes
-- A lease that has lapsed is none, except to its holder: it may still be at work there.
SELECT run.id, lane.number, lane.url, lane.origin, lane.channels, lane.cursor, lane.tail, lane.settled,
       lane.tries, lane.due_at, lane.closed, lane.lease_token, lane.lease_until
FROM lane INDEXED BY lane_leased CROSS JOIN run ON run.key = lane.run
WHERE lane.lease_until <= :now AND lane.lease_token IS NOT NULL AND lane.lease_token <> :token
  AND lane.closed IS NULL AND lane.cursor < lane.tail AND lane.due_at <= :now
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
SELECT coalesce(max(id), 0) FROM attempt

-- name: settle_held
-- The lane stays with its dispatcher: no index changes. `tail` is kept, it may have moved meanwhile.
UPDATE lane
SET cursor = v.column4, settled = v.column5, tries = v.column6, due_at = v.column7, last_attempt = v.column8
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.number = v.column2 AND lane.lease_token = v.column3

-- name: settle_moved
-- The lane is given back, or closed, or both.
UPDATE lane
SET cursor = v.column4, settled = v.column5, tries = v.column6, last_attempt = v.column8, closed = v.column9,
    due_at = iif(v.column9 IS NULL AND v.column4 < lane.tail, v.column7, NULL),
    lease_token = iif(v.column10, NULL, lane.lease_token),
    lease_until = iif(v.column10, NULL, lane.lease_until)
FROM (VALUES $rows) AS v
WHERE lane.run = v.column1 AND lane.number = v.column2 AND lane.lease_token = v.column3


-- name: give_up
-- The event of the attempt.
INSERT INTO dead_letter (run, lane, seq, at, reason)
VALUES (:run, :lane, :seq, :at, :reason)
ON CONFLICT DO NOTHING

-- name: give_up_rest
-- The rest of a lane that has just been closed.
INSERT INTO dead_letter (run, lane, seq, at, reason)
SELECT lane.run, lane.number, event.seq, :at, lane.closed
FROM lane JOIN event ON event.run = lane.run AND event.seq > lane.cursor AND event.channel & lane.channels
WHERE lane.run = :run AND lane.number = :lane
ON CONFLICT DO NOTHING

-- name: release_lane
-- Guarded by the lease: not held any more, no change.
UPDATE lane
SET lease_token = NULL, lease_until = NULL,
    due_at = iif(closed IS NULL AND cursor < tail, coalesce(due_at, :now), NULL)
WHERE run = :run AND number = :number AND lease_token = :token

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

-- name: pending_beside
-- Counts what waits: it has to be exact, because a subscriber is told.
SELECT count(*)
FROM run JOIN lane ON lane.run = run.key
         JOIN event ON event.run = lane.run AND event.seq > lane.cursor AND event.channel & lane.channels
WHERE run.id = :id AND lane.number <> :number AND lane.origin = :origin AND lane.closed IS NULL

-- name: attempts
-- Back along the lanes, then in the order made.
WITH RECURSIVE made (id) AS (
    SELECT lane.last_attempt FROM run JOIN lane ON lane.run = run.key
    WHERE run.id = :id AND lane.last_attempt > :after
    UNION ALL
    SELECT attempt.previous FROM made JOIN attempt ON attempt.id = made.id WHERE attempt.previous > :after
)
SELECT attempt.id, :id, attempt.lane, attempt.seq, attempt.number, attempt.at, attempt.verdict, attempt.kind,
       attempt.status, attempt.retry_after, attempt.duration, attempt.detail
FROM made JOIN attempt ON attempt.id = made.id
ORDER BY attempt.id LIMIT :limit

-- name: dead_letters
-- In the order of the log.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason
FROM run JOIN dead_letter ON dead_letter.run = run.key
WHERE run.id = :id
ORDER BY dead_letter.seq, dead_letter.lane
