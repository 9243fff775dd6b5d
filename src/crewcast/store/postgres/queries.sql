-- Every statement of the PostgreSQL store. `:name` is a parameter. `$rows(types)` is a table `v` of the values of many
-- rows at once, with the columns column1, column2 and so on; `$records(columns)` one of rows in JSON, for statements
-- that are in a hurry. `$heard` stands for whether a past event belongs to a lane: `session.HEARD`; `$run`, `$event`,
-- `$lane` and `$review` for the columns of such a value: `store/columns.py`.
--
-- A guard by a lease is written `IS NOT DISTINCT FROM`, which no index serves: else a plan made when few lanes were
-- held would look at all of them for each. `OFFSET 0` keeps what is looked up inside what it is looked up for.
--
-- Rows that several transactions change are locked in one order: runs by key, then lanes by run and number.

-- name: key_of_run
-- The rules lock the run's row before anything else of it, so those that change one run follow each other and never
-- wait for each other in a circle. A hidden run is not found.
SELECT key FROM run WHERE id = :id AND hidden = 0 FOR NO KEY UPDATE

-- --- runs -----------------------------------------------------------------------------------

-- name: keys_of_runs
-- The same without a lock, for writes that are guarded by a lease.
SELECT id, key FROM run WHERE id = ANY(:ids::text[]) AND hidden = 0

-- name: remembered_key
-- The guard of create_run: what this Idempotency-Key started within the last day.
SELECT run_id, fingerprint FROM idempotency WHERE token = :token AND key = :key AND at > :since

-- name: forget_keys
-- A small slice at each create_run that brings a key, so there is never one huge DELETE.
DELETE FROM idempotency WHERE (token, key) IN
    (SELECT token, key FROM idempotency WHERE at <= :since ORDER BY at LIMIT 32 FOR UPDATE SKIP LOCKED)

-- name: remember_key
-- Replaces an older use of the same key that has lapsed. No row: another node was quicker with it.
INSERT INTO idempotency (token, key, fingerprint, run_id, at)
VALUES (:token, :key, :fingerprint, :run_id, :at)
ON CONFLICT (token, key) DO UPDATE
SET fingerprint = excluded.fingerprint, run_id = excluded.run_id, at = excluded.at
WHERE idempotency.at <= :since

-- name: create_run
-- The key begins with the day, so that it names the run's partitions too.
INSERT INTO run (key, id, crew, state, created_at, started_at, finished_at, attempt, seq, total_tasks,
                 completed_tasks, current_task, lease_token, lease_until, error, error_detail, continues,
                 priority, token, stop, worked, claimed_at)
VALUES ((:day::bigint << 40) | nextval('run_serial'), :id, :crew, :state, :created_at, :started_at, :finished_at,
        :attempt, :seq, :total_tasks, :completed_tasks, :current_task, :lease_token, :lease_until, :error,
        :error_detail, :continues, :priority, :token, :stop, :worked, :claimed_at)
RETURNING key

-- name: create_kickoff
-- Apart from `run`, so that an append does not rewrite the inputs.
INSERT INTO kickoff (run, inputs, meta, options, token, max_attempts, timeout)
VALUES (:run, :inputs, :meta, :options, :token, :max_attempts, :timeout)

-- name: create_lanes
-- As the kickoff named them, or made later: replays and split lanes.
INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, due_at, closed,
                  lease_token, replay_of, dead_only, ordered, auth, refusals, split_of, total,
                  asked_at, born, since)
SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11,
       column12, column14, column15, column16, column17, column18, column19, column20, column21, column22, column23
FROM $rows(bigint, bigint, text, text, integer, bigint, bigint, bigint, integer, bigint, text, text, bigint,
           bigint, integer, integer, bytea, integer, bigint, bigint, bigint, bigint, bigint)

-- name: queues
-- From one crew and token to the next, one step of the index each, however many runs of them wait.
WITH RECURSIVE waits (key) AS (
    SELECT (SELECT run.key FROM run
            WHERE run.state = 'queued' AND run.hidden = 0 AND run.stop IS NULL
            ORDER BY run.crew, run.token LIMIT 1)
    UNION ALL
    SELECT coalesce(
        (SELECT run.key FROM run
         WHERE run.state = 'queued' AND run.hidden = 0 AND run.stop IS NULL
           AND run.crew = here.crew AND run.token > here.token
         ORDER BY run.token LIMIT 1),
        (SELECT run.key FROM run
         WHERE run.state = 'queued' AND run.hidden = 0 AND run.stop IS NULL AND run.crew > here.crew
         ORDER BY run.crew, run.token LIMIT 1)
    )
    FROM waits JOIN run AS here ON here.key = waits.key
)
SELECT run.crew, run.token FROM waits JOIN run ON run.key = waits.key
WHERE run.crew IN (SELECT json_array_elements_text(:crews::json))

-- name: queued_runs
-- Of one crew and token: by priority, then the oldest. What another node is just claiming is passed over.
SELECT priority, key FROM run
WHERE state = 'queued' AND hidden = 0 AND stop IS NULL AND crew = :crew AND token = :token
ORDER BY priority DESC, key LIMIT :limit::bigint
FOR NO KEY UPDATE SKIP LOCKED

-- name: limit_claims
-- Where a token may have so many runs at work in the whole store, claims follow each other.
SELECT pg_advisory_xact_lock(4341001)

-- name: running_of_token
-- Only asked where that is limited, and only up to there.
SELECT count(*) FROM (
    SELECT 1 FROM run WHERE state = 'running' AND token = :token LIMIT :limit::bigint
) AS found

-- name: claim_runs
-- Repeats core.run.claim; `queued_runs` has locked the rows.
UPDATE run
SET state = 'running', attempt = run.attempt + (1 - run.continues), continues = 0,
    started_at = coalesce(run.started_at, v.column2), claimed_at = v.column2, lease_token = v.column3,
    lease_until = v.column4
FROM $rows(bigint, bigint, text, bigint)
WHERE run.key = v.column1 AND run.state = 'queued'

-- name: renew_runs
-- By the index of running runs.
UPDATE run SET lease_until = :until WHERE state = 'running' AND lease_token = :token RETURNING id

-- name: adopt_run
-- The guard is the lease that the caller saw.
UPDATE run SET lease_token = :token, lease_until = :until
WHERE id = :id AND hidden = 0 AND state = 'running' AND lease_token = :seen

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
FROM run JOIN kickoff ON kickoff.run = run.key
WHERE run.state = 'running'
ORDER BY run.key

-- --- the log --------------------------------------------------------------------------------

-- name: lapsed_runs
-- The longest first, among as many as are at work.
SELECT $run
FROM run JOIN kickoff ON kickoff.run = run.key
WHERE run.state = 'running' AND run.lease_until <= :now
ORDER BY run.lease_until LIMIT :limit::bigint

-- --- the log --------------------------------------------------------------------------------

-- name: move_unheld
-- A run that nobody holds, guarded by what its caller saw. Its attempts and its work stay as they are.
UPDATE run
SET state = :state, seq = :seq, total_tasks = :total_tasks, completed_tasks = :completed_tasks,
    current_task = :current_task, error = :error, error_detail = :error_detail, finished_at = :finished_at,
    continues = :continues, stop = coalesce(stop, :stop)
WHERE key = :key AND state = :seen_state AND seq = :seen_seq AND lease_token IS NULL AND hidden = 0

-- name: append
-- The runs of a cycle that are still held as their callers saw them: only one that is running has a lease. Values of
-- the row are repeated by a progress, so that no index changes.
UPDATE run
SET seq = v.seq, total_tasks = v.total_tasks, completed_tasks = v.completed_tasks,
    current_task = v.current_task, error = v.error, error_detail = v.error_detail, state = v.state,
    finished_at = v.finished_at, worked = coalesce(v.worked, run.worked),
    claimed_at = CASE WHEN v.state = 'running' THEN run.claimed_at END,
    lease_token = CASE WHEN v.state = 'running' THEN run.lease_token END,
    lease_until = CASE WHEN v.state = 'running' THEN run.lease_until END
FROM $records(key bigint, token text, seen bigint, seq bigint, total_tasks bigint, completed_tasks bigint,
              current_task text, error text, error_detail text, state text, finished_at bigint, worked bigint)
WHERE run.key = v.key AND run.seq = v.seen AND v.token IS NOT NULL AND run.lease_token IS NOT DISTINCT FROM v.token
RETURNING run.key

-- name: append_work
-- The lanes that hear of new events, in one order. Told are those that are closed, since what comes to them is a dead
-- letter, and those that nobody holds, since they can be claimed.
WITH moved AS (
    UPDATE lane
    SET tail = work.tail, total = lane.total + work.count,
        due_at = CASE WHEN lane.closed IS NULL THEN coalesce(lane.due_at, work.at) END
    FROM (
        SELECT lane.run, lane.number, max(v.seq) AS tail, sum(v.count)::bigint AS count, min(v.at) AS at
        FROM $records(run bigint, channel integer, seq bigint, at bigint, count bigint)
        CROSS JOIN LATERAL (
            SELECT lane.run, lane.number FROM lane
            WHERE lane.run = v.run AND lane.channels & v.channel <> 0 AND lane.replay_of IS NULL
                AND lane.split_of IS NULL
            OFFSET 0
        ) AS lane
        GROUP BY lane.run, lane.number
        ORDER BY lane.run, lane.number
    ) AS work
    WHERE lane.run = work.run AND lane.number = work.number
    RETURNING lane.run, lane.closed, lane.lease_token
)
SELECT run, closed IS NOT NULL FROM moved WHERE closed IS NOT NULL OR lease_token IS NULL

-- name: is_running
-- One row if it is.
SELECT 1 FROM run WHERE key = :key AND state = 'running'

-- name: request_stop
-- The first who asks is who is told of. Only somebody at work has to be asked.
UPDATE run SET stop = :by WHERE key = :key AND state = 'running' AND stop IS NULL

-- name: stops
-- Of one holder, and of nobody.
SELECT id FROM run
WHERE stop IS NOT NULL AND finished_at IS NULL AND hidden = 0 AND (lease_token = :token OR lease_token IS NULL)
ORDER BY key

-- name: append_dead
-- What comes to a closed lane is a dead letter at once.
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, attempt)
SELECT lane.run, lane.number, event.seq, event.at, lane.closed, lane.origin,
       lane.total - (SELECT count(*) FROM event AS later
                     WHERE later.run = event.run AND later.seq > event.seq AND later.channel & lane.channels <> 0),
       nextval('attempt_id')
FROM (SELECT pg_advisory_xact_lock(4341002)) AS one_by_one, $rows(bigint, bigint)
JOIN lane ON lane.run = v.column1 AND lane.closed IS NOT NULL AND lane.replay_of IS NULL AND lane.split_of IS NULL
JOIN event ON event.run = lane.run AND event.seq > v.column2 AND event.channel & lane.channels <> 0
ORDER BY event.run, event.seq, lane.number
ON CONFLICT DO NOTHING

-- name: events
-- A page of the log.
SELECT $event
FROM run JOIN event ON event.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND event.seq > :after AND event.channel & :channels::integer <> 0
ORDER BY event.seq LIMIT :limit::bigint

-- name: last_event
-- From the end of the log: a run's crew event is its last.
SELECT $event
FROM run JOIN event ON event.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND event.channel & :channel::integer <> 0
ORDER BY event.seq DESC LIMIT 1

-- --- the journal ----------------------------------------------------------------------------

-- name: write_journal
-- The last value of a name is the one that counts.
INSERT INTO journal (run, name, value)
SELECT column1, column2, column3 FROM $rows(bigint, text, bytea)
ON CONFLICT (run, name) DO UPDATE SET value = excluded.value

-- name: drop_journal
-- Entries that a later one has made pointless.
DELETE FROM journal USING $rows(bigint, text)
WHERE journal.run = v.column1 AND journal.name = v.column2

-- name: journal
-- All of a run: what a child is given.
SELECT journal.name, journal.value FROM run JOIN journal ON journal.run = run.key
WHERE run.id = :id AND run.hidden = 0

-- --- reviews --------------------------------------------------------------------------------

-- name: ask
-- The schema refuses a second one that is pending. The lock keeps the numbers in the order of their commits.
INSERT INTO review (run, number, task_id, place, uuid, agent, output, asked_at, expires_at, on_expiry,
                    remind_every, remind_at, reminders, state, decision, feedback, pass_feedback, decided_at,
                    decided_by, decided_how, due_at)
SELECT :run::bigint, :number::integer, :task_id::text, :place::integer, :uuid::text, :agent::text, :output::text, :asked_at::bigint, :expires_at::bigint, :on_expiry::text,
        :remind_every::bigint, :remind_at::bigint, :reminders::integer, :state::text, :decision::text, :feedback::text, :pass_feedback::integer, :decided_at::bigint,
        :decided_by::text, :decided_how::text, :due_at::bigint
FROM (SELECT pg_advisory_xact_lock(4341002)) AS one_by_one

-- name: pending_review
-- The guard of `decide` and `remind`.
SELECT number, reminders FROM review WHERE run = :run AND state = 'pending'

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
FROM run JOIN review ON review.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND (:number::integer IS NULL OR review.number = :number)
ORDER BY review.number DESC LIMIT 1

-- name: pending_reviews
-- By the index of what waits.
SELECT review.id, $review
FROM review JOIN run ON run.key = review.run AND run.hidden = 0
WHERE review.state = 'pending' AND review.id > :after
ORDER BY review.id LIMIT :limit::bigint

-- name: reviews
-- In the order of asking, through those of other states.
SELECT review.id, $review
FROM review JOIN run ON run.key = review.run AND run.hidden = 0
WHERE review.id > :after AND (:state::text IS NULL OR review.state = :state)
ORDER BY review.id LIMIT :limit::bigint

-- name: reviews_of_run
-- The same of one run.
SELECT review.id, $review
FROM run JOIN review ON review.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND review.id > :after AND (:state::text IS NULL OR review.state = :state)
ORDER BY review.number LIMIT :limit::bigint

-- name: due_reviews
-- The longest due first. The index holds pending ones with a deadline or a reminder only.
SELECT $review
FROM review JOIN run ON run.key = review.run AND run.hidden = 0
WHERE review.due_at IS NOT NULL AND review.due_at <= :now
ORDER BY review.due_at LIMIT :limit::bigint

-- name: next_review_due
-- The head of that index.
SELECT min(due_at) FROM review WHERE due_at IS NOT NULL

-- --- subscriptions --------------------------------------------------------------------------

-- name: subscriptions
-- What the run's live lanes hear from now on.
SELECT number, url, channels, auth, ranged FROM lane
WHERE run = :run AND replay_of IS NULL AND split_of IS NULL
ORDER BY number

-- name: hear
-- From now on; the lane keeps its numbers and what it still has to send.
UPDATE lane SET channels = :channels, auth = :auth, ranged = greatest(ranged, :ranged)
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
-- What lanes send next, as their rows have it now: whoever holds one may know an older one. Many lanes are read at
-- once; `v` has run id, number, cursor, last number and limit of each.
SELECT v.place, found.*
FROM $records(place integer, id text, number bigint, after bigint, last bigint, most bigint)
JOIN run ON run.id = v.id AND run.hidden = 0
JOIN lane ON lane.run = run.key AND lane.number = v.number
CROSS JOIN LATERAL (
    SELECT $event
    FROM event
    WHERE event.run = lane.run AND event.seq > v.after AND event.seq <= v.last AND $heard
    ORDER BY event.seq LIMIT v.most
) AS found
ORDER BY v.place, found.seq

-- name: look
-- When the next unleased lane is due, whether leases of others have lapsed that hold work, and when the next one would:
-- most claims find nothing, and this is all that they cost.
SELECT (SELECT min(due_at) FROM lane WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL),
       EXISTS (SELECT 1 FROM lease JOIN lane ON lane.lease_token = lease.token
               WHERE lease.until_time <= :now AND lease.token <> :token
                 AND lane.closed IS NULL AND lane.cursor < lane.tail AND lane.due_at <= :now),
       (SELECT min(until_time) FROM lease WHERE token <> :token AND until_time > :now)

-- name: due_lanes
-- Longest due first. The index holds lanes that wait for a dispatcher only.
SELECT lane.run, $lane
FROM lane JOIN run ON run.key = lane.run
WHERE lane.due_at IS NOT NULL AND lane.due_at <= :now AND lane.lease_token IS NULL AND lane.closed IS NULL
ORDER BY lane.due_at LIMIT :limit::bigint
FOR UPDATE OF lane SKIP LOCKED

-- name: due_lanes_elsewhere
-- The same among the first `look`, passing over busy origins and the surplus of others within the index.
SELECT lane.run, $lane
FROM (
    SELECT run, number, due_at, row_number() OVER (PARTITION BY origin ORDER BY due_at) AS place
    FROM (
        SELECT run, number, origin, due_at FROM lane
        WHERE due_at IS NOT NULL AND due_at <= :now AND lease_token IS NULL AND closed IS NULL
        ORDER BY due_at LIMIT :look::bigint
    ) AS looked
    WHERE origin <> ALL (SELECT json_array_elements_text(:busy::json))
) AS found
JOIN lane ON lane.run = found.run AND lane.number = found.number
JOIN run ON run.key = lane.run
WHERE found.place <= :per_origin AND lane.lease_token IS NULL AND lane.closed IS NULL AND lane.due_at <= :now
ORDER BY found.due_at LIMIT :limit::bigint
FOR UPDATE OF lane SKIP LOCKED

-- name: due_lanes_beyond
-- Whether more are due than `due_lanes_elsewhere` looks at.
SELECT 1 FROM lane
WHERE due_at IS NOT NULL AND due_at <= :now AND lease_token IS NULL AND closed IS NULL
ORDER BY due_at LIMIT 1 OFFSET :look::bigint

-- name: due_origins
-- From origin to origin, one step of the index each, however many lanes wait at one of them.
WITH RECURSIVE waits (origin) AS (
    SELECT min(origin) FROM lane
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
    UNION ALL
    SELECT (SELECT min(lane.origin) FROM lane
            WHERE lane.origin > waits.origin
              AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL)
    FROM waits WHERE waits.origin IS NOT NULL
)
SELECT origin, due_at FROM (
    SELECT waits.origin,
           (SELECT min(lane.due_at) FROM lane
            WHERE lane.origin = waits.origin
              AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL) AS due_at
    FROM waits WHERE waits.origin <> ALL (SELECT json_array_elements_text(:busy::json))
) AS first_due
WHERE due_at <= :now
ORDER BY due_at LIMIT :limit::bigint

-- name: due_lanes_of_origin
-- The longest due of one origin.
SELECT lane.run, $lane
FROM lane JOIN run ON run.key = lane.run
WHERE lane.origin = :origin
  AND lane.due_at IS NOT NULL AND lane.due_at <= :now AND lane.lease_token IS NULL AND lane.closed IS NULL
ORDER BY lane.due_at LIMIT :limit::bigint
FOR UPDATE OF lane SKIP LOCKED

-- name: lapsed_lanes
-- A lease that has lapsed is none, except to its holder: it may still be at work there.
SELECT lane.run, $lane
FROM lease JOIN lane ON lane.lease_token = lease.token JOIN run ON run.key = lane.run
WHERE lease.until_time <= :now AND lease.token <> :token
  AND lane.closed IS NULL AND lane.cursor < lane.tail AND lane.due_at <= :now
  AND lane.origin <> ALL (SELECT json_array_elements_text(:busy::json))
ORDER BY lane.due_at LIMIT :limit::bigint
FOR UPDATE OF lane SKIP LOCKED

-- name: claim_lanes
-- The rows were locked as they were found.
UPDATE lane SET lease_token = v.column3
FROM $rows(bigint, bigint, text)
WHERE lane.run = v.column1 AND lane.number = v.column2

-- name: hold_lanes
-- The lease of all lanes that a dispatcher holds; it never gets shorter.
INSERT INTO lease (token, until_time) VALUES (:token, :until)
ON CONFLICT (token) DO UPDATE SET until_time = greatest(lease.until_time, excluded.until_time)

-- name: renew_lanes
-- One row, however many lanes. It never gets shorter either, in whatever order it comes with a claim.
UPDATE lease SET until_time = greatest(until_time, :until) WHERE token = :token

-- name: settle
-- The lanes of a cycle that are still held, as they are after their last outcome. A lane that stays held changes no
-- column of an index.
UPDATE lane
SET cursor = v.cursor, settled = v.settled, tries = v.tries, refusals = v.refusals, closed = v.closed,
    due_at = CASE WHEN NOT v.release AND v.closed IS NULL AND v.tries = 0 THEN coalesce(lane.due_at, v.due_at)
                  WHEN NOT v.release AND v.closed IS NULL THEN v.due_at
                  WHEN v.closed IS NULL AND v.cursor < lane.tail THEN v.due_at END,
    lease_token = CASE WHEN NOT v.release THEN lane.lease_token END
FROM $records(run bigint, number bigint, token text, cursor bigint, settled bigint, tries integer,
              refusals integer, closed text, due_at bigint, release boolean)
WHERE lane.run = v.run AND lane.number = v.number
    AND v.token IS NOT NULL AND lane.lease_token IS NOT DISTINCT FROM v.token
RETURNING lane.run, lane.number

-- name: add_attempt
-- One whose number has to be known; the others of a cycle are copied.
INSERT INTO attempt (run, lane, seq, number, at, verdict, kind, status, retry_after, duration, detail)
VALUES (:run, :lane, :seq, :number, :at, :verdict, :kind, :status, :retry_after, :duration, :detail)
RETURNING id

-- name: lock_runs
-- Outcomes that change more than their lane follow each other in a run, and every rule that changes it.
SELECT key FROM run WHERE key = ANY(:keys::bigint[]) ORDER BY key FOR NO KEY UPDATE

-- name: last_attempt
-- Numbers up to here were drawn before now: who asks holds the run, so of its own none is drawn meanwhile.
SELECT last_value FROM attempt_id

-- name: give_up
-- The event of the attempt. A replay of dead letters has their numbers, not its own.
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, attempt)
SELECT lane.run, coalesce(lane.split_of, lane.number), :seq::bigint, :at::bigint, :reason::text, lane.origin,
       coalesce((SELECT was.lane_seq FROM dead_letter AS was
                 WHERE lane.dead_only = 1 AND was.run = lane.run AND was.seq = :seq AND was.lane = lane.replay_of),
                :lane_seq::bigint),
       :attempt::bigint
FROM (SELECT pg_advisory_xact_lock(4341002)) AS one_by_one, lane
WHERE lane.run = :run AND lane.number = :lane
ON CONFLICT DO NOTHING

-- name: give_up_rest
-- The rest of a lane that has just been closed; of a replay of dead letters, the rest of those. (A split lane
-- has none.)
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, attempt)
SELECT lane.run, lane.number, event.seq, :at::bigint, lane.closed, lane.origin,
       coalesce(was.lane_seq, lane.settled + row_number() OVER (ORDER BY event.seq)),
       :attempt::bigint
FROM (SELECT pg_advisory_xact_lock(4341002)) AS one_by_one, lane
JOIN event ON event.run = lane.run AND event.seq > lane.cursor AND event.seq <= lane.tail AND $heard
LEFT JOIN dead_letter AS was ON lane.dead_only = 1 AND was.run = lane.run AND was.seq = event.seq
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
SET lease_token = NULL,
    due_at = CASE WHEN closed IS NULL AND cursor < tail THEN coalesce(due_at, v.column4) END
FROM $rows(bigint, bigint, text, bigint)
WHERE lane.run = v.column1 AND lane.number = v.column2
    AND v.column3 IS NOT NULL AND lane.lease_token IS NOT DISTINCT FROM v.column3

-- name: park_lanes
-- The same, each due later.
UPDATE lane
SET lease_token = NULL,
    due_at = CASE WHEN lane.closed IS NULL AND lane.cursor < lane.tail THEN v.column4 END
FROM $rows(bigint, bigint, text, bigint)
WHERE lane.run = v.column1 AND lane.number = v.column2
    AND v.column3 IS NOT NULL AND lane.lease_token IS NOT DISTINCT FROM v.column3

-- name: void_leases
-- By the index of leased lanes.
UPDATE lane
SET lease_token = NULL, due_at = CASE WHEN closed IS NULL AND cursor < tail THEN coalesce(due_at, :now) END
WHERE lease_token IS NOT NULL

-- name: next_due
-- The head of the index of lanes that wait.
SELECT min(due_at) FROM lane
WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL

-- name: next_due_elsewhere
-- The same without busy origins: among the first `look`, else from origin to origin as in `due_origins`.
SELECT coalesce(
    (SELECT min(due_at) FROM (
        SELECT origin, due_at FROM lane
        WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
        ORDER BY due_at LIMIT :look::bigint
    ) AS looked WHERE origin <> ALL (SELECT json_array_elements_text(:busy::json))),
    (WITH RECURSIVE waits (origin) AS (
        SELECT min(origin) FROM lane
        WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
        UNION ALL
        SELECT (SELECT min(lane.origin) FROM lane
                WHERE lane.origin > waits.origin
                  AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL)
        FROM waits WHERE waits.origin IS NOT NULL
    )
    SELECT min((SELECT min(lane.due_at) FROM lane
                WHERE lane.origin = waits.origin
                  AND lane.due_at IS NOT NULL AND lane.lease_token IS NULL AND lane.closed IS NULL))
    FROM waits WHERE waits.origin <> ALL (SELECT json_array_elements_text(:busy::json)))
)

-- name: pending_beside
-- Counts what waits: it has to be exact, because a subscriber is told.
SELECT coalesce(sum(lane.total - lane.settled), 0)::bigint
FROM run JOIN lane ON lane.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND lane.number <> :number AND lane.origin = :origin
  AND lane.closed IS NULL AND lane.replay_of IS NULL

-- name: attempts
-- In the order made.
SELECT attempt.id, run.id, attempt.lane, attempt.seq, attempt.number, attempt.at, attempt.verdict, attempt.kind,
       attempt.status, attempt.retry_after, attempt.duration, attempt.detail
FROM run JOIN attempt ON attempt.run = run.key
WHERE run.id = :id AND run.hidden = 0 AND attempt.id > :after
ORDER BY attempt.id LIMIT :limit::bigint

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
SELECT number, url, origin, channels, auth, ordered, tail, total, ranged FROM lane
WHERE run = :run AND replay_of IS NULL AND split_of IS NULL AND (:lane::bigint IS NULL OR number = :lane)
ORDER BY number

-- name: place_in_lane
-- How many of the lane's events there are up to this one, and the last of them: this one, if it is one.
SELECT count(*), max(event.seq) FROM lane JOIN event ON event.run = lane.run AND event.seq <= :seq
WHERE lane.run = :run AND lane.number = :lane AND $heard

-- name: dead_in_lane
-- What no replay has delivered yet: how many, the first and the last.
SELECT count(*), min(seq), max(seq) FROM dead_letter
WHERE run = :run AND lane = :lane AND redelivered IS NULL AND at >= :since AND (:seq::bigint IS NULL OR seq = :seq)

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
JOIN lane ON lane.run = run.key AND lane.number = :number
JOIN dead_letter AS letter ON letter.run = lane.run AND letter.seq > :after AND letter.seq <= lane.tail
    AND letter.lane = lane.replay_of AND letter.at >= lane.since AND coalesce(letter.attempt, 0) <= lane.born
    AND (letter.redelivered IS NULL OR letter.redelivered > lane.born)
JOIN event ON event.run = letter.run AND event.seq = letter.seq
WHERE run.id = :id AND run.hidden = 0
ORDER BY letter.seq LIMIT :limit::bigint

-- name: undelivered
-- Along the order of giving up.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM dead_letter
JOIN run ON run.key = dead_letter.run AND run.hidden = 0
JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE dead_letter.id > :after AND dead_letter.redelivered IS NULL AND dead_letter.at >= :since
ORDER BY dead_letter.id LIMIT :limit::bigint

-- name: undelivered_of_origin
-- The same along the index of one origin.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM dead_letter
JOIN run ON run.key = dead_letter.run AND run.hidden = 0
JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE dead_letter.origin = :origin AND dead_letter.id > :after AND dead_letter.redelivered IS NULL
  AND dead_letter.at >= :since
ORDER BY dead_letter.id LIMIT :limit::bigint

-- name: undelivered_of_run
-- A run's are sorted: they lie in the order of the log.
SELECT run.id, dead_letter.lane, dead_letter.seq, dead_letter.at, dead_letter.reason, lane.url,
       dead_letter.origin, event.type, dead_letter.lane_seq, dead_letter.redelivered IS NOT NULL, dead_letter.id
FROM run
JOIN dead_letter ON dead_letter.run = run.key
JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane
JOIN event ON event.run = dead_letter.run AND event.seq = dead_letter.seq
WHERE run.id = :id AND run.hidden = 0 AND dead_letter.id > :after AND dead_letter.redelivered IS NULL
  AND dead_letter.at >= :since AND (:origin::text IS NULL OR dead_letter.origin = :origin)
ORDER BY dead_letter.id LIMIT :limit::bigint

-- name: dead_lanes
-- In the order of the index, so that a page ends where its last lane does.
SELECT run.id, dead_letter.lane, count(*), dead_letter.origin, dead_letter.run
FROM dead_letter
JOIN run ON run.key = dead_letter.run AND run.hidden = 0
JOIN lane ON lane.run = dead_letter.run AND lane.number = dead_letter.lane AND lane.replay_of IS NULL
WHERE (dead_letter.origin, dead_letter.run, dead_letter.lane) > (:origin::text COLLATE "C", :run::bigint, :lane::bigint)
  AND dead_letter.origin <= :last AND dead_letter.redelivered IS NULL AND dead_letter.at >= :since
GROUP BY run.id, dead_letter.origin, dead_letter.run, dead_letter.lane
ORDER BY dead_letter.origin, dead_letter.run, dead_letter.lane LIMIT :limit::bigint

-- --- origins --------------------------------------------------------------------------------

-- name: save_origin
-- The whole state, each time that it changes.
INSERT INTO origin (origin, state, failures, openings, opened_at, retry_at, paused_until, reason)
VALUES (:origin, :state, :failures, :openings, :opened_at, :retry_at, :paused_until, :reason)
ON CONFLICT (origin) DO UPDATE
SET state = excluded.state, failures = excluded.failures, openings = excluded.openings,
    opened_at = excluded.opened_at, retry_at = excluded.retry_at, paused_until = excluded.paused_until,
    reason = excluded.reason

-- name: forget_origin
-- One that is well has no row.
DELETE FROM origin WHERE origin = :origin

-- name: health
-- As many as are not well.
SELECT origin, state, failures, openings, opened_at, retry_at, paused_until, reason FROM origin

-- name: origins
-- What waits, what is at work, and what is known beside it. As many rows as lanes with work: for people.
SELECT work.origin, coalesce(origin.state, 'closed'), coalesce(origin.failures, 0), coalesce(origin.openings, 0),
       origin.opened_at, origin.retry_at, origin.paused_until, origin.reason, sum(work.lanes)::bigint, sum(work.events)::bigint
FROM (
    SELECT lane.origin, count(*) AS lanes, sum(total - settled)::bigint AS events FROM lane
    WHERE due_at IS NOT NULL AND lease_token IS NULL AND closed IS NULL
    GROUP BY lane.origin
    UNION ALL
    SELECT lane.origin, count(*), sum(total - settled)::bigint FROM lane
    WHERE lease_token IS NOT NULL AND closed IS NULL AND cursor < tail
    GROUP BY lane.origin
    UNION ALL
    SELECT origin.origin, 0, 0 FROM origin
) AS work LEFT JOIN origin ON origin.origin = work.origin
GROUP BY work.origin, origin.origin
ORDER BY work.origin

-- name: hurry_lanes
-- A slice of what waits for later at one origin.
UPDATE lane SET due_at = :now
WHERE (run, number) IN (
    SELECT run, number FROM lane
    WHERE origin = :origin AND due_at IS NOT NULL AND due_at > :now AND lease_token IS NULL AND closed IS NULL
    ORDER BY due_at LIMIT :limit::bigint
    FOR UPDATE SKIP LOCKED
)

-- --- retention ------------------------------------------------------------------------------

-- name: expired_runs
-- A reader looks for them, so that those with work left cost no writer anything; `hide_expired` asks again.
SELECT run.id FROM run
WHERE run.finished_at IS NOT NULL AND run.hidden = 0 AND run.finished_at < :before
  AND NOT EXISTS (SELECT 1 FROM lane
                  WHERE lane.run = run.key AND lane.closed IS NULL AND lane.cursor < lane.tail)
ORDER BY run.finished_at LIMIT :limit::bigint

-- name: hide_expired
-- The guard: ended before, with nothing left to deliver.
UPDATE run SET hidden = 1
WHERE key = :key AND hidden = 0 AND finished_at < :before
  AND NOT EXISTS (SELECT 1 FROM lane
                  WHERE lane.run = run.key AND lane.closed IS NULL AND lane.cursor < lane.tail)

-- name: hide_run
-- The guard: nobody works on it. Deleted by hand, its rows go at once.
UPDATE run SET hidden = 2 WHERE key = :key AND state <> 'running' AND hidden = 0

-- name: hide_lanes
-- Out of the indexes of work, and out of the hands of whoever holds one.
UPDATE lane
SET closed = coalesce(closed, 'deleted'), due_at = NULL, lease_token = NULL
WHERE run = :key

-- name: hide_review
-- Nobody is asked any more.
UPDATE review SET state = 'void', remind_at = NULL, due_at = NULL WHERE run = :key AND state = 'pending'

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
ON CONFLICT (only_one) DO UPDATE SET id = excluded.id WHERE :replace::boolean
-- name: rotate_one_by_one
-- The number is drawn from what there is.
SELECT pg_advisory_xact_lock(4341003)

-- --- sweeping -------------------------------------------------------------------------------

-- name: retain_one_by_one
-- Nodes that find the same to remove do not wait for each other: one does it.
SELECT pg_try_advisory_xact_lock(4341004)

-- name: note_expiry
-- Up to where runs have expired.
INSERT INTO high_water (name, value) VALUES ('expired', :before)
ON CONFLICT (name) DO UPDATE SET value = greatest(high_water.value, excluded.value)

-- name: swept_run
-- The oldest whose rows go one by one: it was deleted, or only few of its day are still kept, or its partition is gone.
SELECT key FROM run
WHERE hidden <> 0
  AND (hidden = 2
       OR key < (coalesce((SELECT value FROM high_water WHERE name = 'expired'), 0) / 86400000000 - 1) << 40
       OR to_regclass('event_' || (key >> 40)) IS NULL)
ORDER BY key LIMIT 1
FOR UPDATE SKIP LOCKED

-- name: finished_days
-- Days with a partition of which nothing is shown any more. The present one and its neighbour stay.
SELECT day FROM (
    SELECT substr(child.relname, 7)::bigint AS day
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'event'::regclass
) AS days
WHERE day < extract(epoch FROM clock_timestamp())::bigint / 86400 - 1
  AND NOT EXISTS (SELECT 1 FROM run WHERE hidden = 0 AND key >= day << 40 AND key < (day + 1) << 40)
  AND EXISTS (SELECT 1 FROM run WHERE hidden = 1 AND key >= day << 40 AND key < (day + 1) << 40)
ORDER BY day

-- name: sweep_subscriptions
-- A slice, as all that follow.
DELETE FROM subscription WHERE (run, lane, first) IN
    (SELECT run, lane, first FROM subscription WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_attempts
-- Before the lanes that made them.
DELETE FROM attempt WHERE run = :run AND id IN
    (SELECT id FROM attempt WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_lanes
-- Once they have no attempts.
DELETE FROM lane WHERE run = :run AND number IN
    (SELECT number FROM lane WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_journal
-- What a next process would have needed.
DELETE FROM journal WHERE run = :run AND name IN
    (SELECT name FROM journal WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_reviews
-- What was asked.
DELETE FROM review WHERE id IN (SELECT id FROM review WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_dead_letters
-- Before their events.
DELETE FROM dead_letter WHERE id IN (SELECT id FROM dead_letter WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_events
-- The log.
DELETE FROM event WHERE run = :run AND seq IN
    (SELECT seq FROM event WHERE run = :run LIMIT :limit::bigint)

-- name: sweep_kickoff
-- What the kickoff said.
DELETE FROM kickoff WHERE run = :run

-- name: sweep_run
-- The last row.
DELETE FROM run WHERE key = :run

-- --- nodes ----------------------------------------------------------------------------------

-- name: time
-- The clock that leases, due times and signatures go by.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- name: beat
-- A node as it is now.
INSERT INTO node (id, name, roles, version, started_at, seen_at, until_time, crews, draining, url)
VALUES (:id, :name, :roles, :version, :started_at, :seen_at, :until, :crews, :draining, :url)
ON CONFLICT (id) DO UPDATE
SET roles = excluded.roles, seen_at = excluded.seen_at, until_time = excluded.until_time, crews = excluded.crews,
    draining = excluded.draining, url = excluded.url

-- name: publish_crew
-- As its worker describes it; of several, the one that said so last.
INSERT INTO crew (name, described, at) VALUES (:name, :described, :at)
ON CONFLICT (name) DO UPDATE SET described = excluded.described, at = excluded.at WHERE crew.at <= excluded.at

-- name: forget_nodes
-- Gone without a word, long ago.
DELETE FROM node WHERE until_time < :before

-- name: forget_crews
-- No worker has served it for long.
DELETE FROM crew WHERE at < :before

-- name: forget_leases
-- Of dispatchers that are gone and whose lanes others have.
DELETE FROM lease WHERE until_time < :before AND NOT EXISTS (SELECT 1 FROM lane WHERE lease_token = lease.token)

-- name: leave
-- A clean stop.
DELETE FROM node WHERE id = :id

-- name: nodes
-- In the order of the fields of core.node.Node.
SELECT id, name, roles, version, started_at, seen_at, until_time, crews, draining, url
FROM node ORDER BY name, started_at, id

-- name: published_crews
-- By name.
SELECT name, described, at FROM crew ORDER BY name

-- --- hints ----------------------------------------------------------------------------------

-- name: listeners
-- How many nodes hear hints, this one too: to one that is alone nothing has to be sent.
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = :name

-- name: notify
-- Many hints in one.
SELECT pg_notify(:channel, :hints)

-- --- commits --------------------------------------------------------------------------------

-- name: note_commit
-- Part of every transaction that has written something: whoever is not answered finds it, or not. PostgreSQL's own
-- number of the transaction.
INSERT INTO last_commit (mark, serial, at)
SELECT :mark::text, :serial::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
WHERE pg_current_xact_id_if_assigned() IS NOT NULL
ON CONFLICT (mark) DO UPDATE SET serial = excluded.serial, at = excluded.at
RETURNING pg_current_xact_id()::text

-- name: transaction_status
-- Whether it goes on: its connection may be gone, and its server process not yet.
SELECT pg_xact_status(:number::text::xid8)

-- name: end_transaction
-- Of a client that has gone: ends its session, if that is still at it.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = (:number::text::xid8)::xid

-- name: last_commit
-- Of a connection.
SELECT serial FROM last_commit WHERE mark = :mark

-- name: forget_commits
-- Of connections that are gone.
DELETE FROM last_commit WHERE at < :before
