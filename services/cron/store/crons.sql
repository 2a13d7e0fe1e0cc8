-- Crons: what members do with them.

-- name: insert_cron
-- Keep a new cron, unless its name is taken.
INSERT INTO cron (
    id, colony, name, expression, time_zone, interval_ms, random_interval_ms, start_at, end_at, max_runs, jitter_ms, overlap,
    missed, missed_at_most, missed_after_ms, feed_outputs, max_failures, workflow, initiator, initiator_name, created_at, since,
    state, next_fire_at, next_due_at
)
VALUES (
    %(id)s, %(colony)s, %(name)s, %(expression)s, %(time_zone)s, %(interval_ms)s, %(random_interval_ms)s, %(start_at)s,
    %(end_at)s, %(max_runs)s, %(jitter_ms)s, %(overlap)s, %(missed)s, %(missed_at_most)s, %(missed_after_ms)s,
    %(feed_outputs)s, %(max_failures)s, %(workflow)s, %(initiator)s, %(initiator_name)s, %(created_at)s, %(created_at)s,
    %(state)s, %(next_fire_at)s, %(next_due_at)s
)
ON CONFLICT (colony, name) DO NOTHING;

-- name: find_cron
-- One cron, whole.
SELECT *, octet_length(workflow) AS workflow_bytes
FROM cron
WHERE colony = %(colony)s
    AND name = %(name)s;

-- name: lock_cron
-- One cron for its members to change, without its workflow.
SELECT
    id, colony, name, expression, time_zone, interval_ms, random_interval_ms, start_at, end_at, max_runs, jitter_ms, overlap,
    missed, missed_at_most, missed_after_ms, feed_outputs, max_failures, ''::bytea AS workflow,
    octet_length(workflow) AS workflow_bytes, initiator, initiator_name, created_at, since, state, pause_reason, version,
    next_fire_at, next_due_at, acted_until, catch_up_until, pending, runs, failures, last_fire_at, last_workflow_id, last_error,
    fed_from
FROM cron
WHERE id = %(id)s
FOR NO KEY UPDATE;

-- name: list_crons
-- A page of a colony's crons. Workflows may be large and stay where they are.
SELECT
    id, colony, name, expression, time_zone, interval_ms, random_interval_ms, start_at, end_at, max_runs, jitter_ms, overlap,
    missed, missed_at_most, missed_after_ms, feed_outputs, max_failures, ''::bytea AS workflow,
    octet_length(workflow) AS workflow_bytes, initiator, initiator_name, created_at, since, state, pause_reason, version,
    next_fire_at, next_due_at, acted_until, catch_up_until, pending, runs, failures, last_fire_at, last_workflow_id, last_error,
    fed_from
FROM cron
WHERE colony = %(colony)s
    AND name > %(after)s
ORDER BY name
LIMIT %(limit)s;

-- name: read_workflows
-- What crons submit.
SELECT id, workflow
FROM cron
WHERE id = ANY(%(ids)s);

-- name: read_fires
-- Fires by id.
SELECT id, cron_id, kind, due_at, outcome, moments, tries, limited, waits_for, error, fired_at
FROM fire
WHERE id = ANY(%(ids)s);

-- name: list_fires
-- A page of a cron's fires, newest first.
SELECT id, cron_id, kind, due_at, outcome, moments, tries, limited, waits_for, error, fired_at
FROM fire
WHERE cron_id = %(cron_id)s
    AND (%(before)s::uuid IS NULL OR id < %(before)s)
    AND (cardinality(%(outcomes)s::smallint[]) = 0 OR outcome = ANY(%(outcomes)s))
ORDER BY id DESC
LIMIT %(limit)s;

-- name: list_odd_fires
-- As list_fires, of outcomes that are few among a cron's fires: pending, missed, refused. They have an index of their own.
SELECT id, cron_id, kind, due_at, outcome, moments, tries, limited, waits_for, error, fired_at
FROM fire
WHERE cron_id = %(cron_id)s
    AND (%(before)s::uuid IS NULL OR id < %(before)s)
    AND outcome IN (1, 4, 5)
    AND outcome = ANY(%(outcomes)s::smallint[])
ORDER BY id DESC
LIMIT %(limit)s;

-- name: update_schedule
-- Give a cron, whose row is locked, another schedule, policy and workflow.
UPDATE cron
SET expression = %(expression)s,
    time_zone = %(time_zone)s,
    interval_ms = %(interval_ms)s,
    random_interval_ms = %(random_interval_ms)s,
    start_at = %(start_at)s,
    end_at = %(end_at)s,
    max_runs = %(max_runs)s,
    jitter_ms = %(jitter_ms)s,
    overlap = %(overlap)s,
    missed = %(missed)s,
    missed_at_most = %(missed_at_most)s,
    missed_after_ms = %(missed_after_ms)s,
    feed_outputs = %(feed_outputs)s,
    max_failures = %(max_failures)s,
    workflow = %(workflow)s,
    since = %(since)s,
    state = %(state)s,
    next_fire_at = %(next_fire_at)s,
    next_due_at = %(next_due_at)s,
    catch_up_until = NULL,
    version = version + 1
WHERE id = %(id)s
RETURNING due_at;

-- name: set_state
-- Pause or resume a cron whose row is locked.
UPDATE cron
SET state = %(state)s,
    pause_reason = %(pause_reason)s,
    failures = 0,
    next_fire_at = %(next_fire_at)s,
    next_due_at = %(next_due_at)s,
    catch_up_until = NULL,
    version = version + 1
WHERE id = %(id)s
RETURNING due_at;

-- name: insert_left_out
-- The record of moments that come to nothing because their cron is changed: its last fire, as the later ones.
WITH entered AS (
    INSERT INTO fire (id, cron_id, kind, due_at, outcome, moments, error, fired_at)
    VALUES (%(id)s, %(cron_id)s, 1, %(due_at)s, %(outcome)s, %(moments)s, %(error)s, %(now)s)
)
UPDATE cron
SET last_fire_at = %(due_at)s,
    last_error = %(error)s
WHERE id = %(cron_id)s;

-- name: give_up_waiting
-- Of a cron that is paused: the fire that waits for the run before it, and that nobody has in hand, submits nothing.
WITH gone AS (
    UPDATE cron
    SET pending = NULL,
        retry_at = NULL,
        last_fire_at = fire.due_at,
        last_error = %(error)s
    FROM fire
    WHERE cron.id = %(id)s
        AND fire.id = cron.pending
        AND cron.claim IS NULL
        AND fire.waits_for IS NOT NULL
    RETURNING fire.id
)
UPDATE fire
SET outcome = 3,
    error = %(error)s,
    fired_at = %(now)s
FROM gone
WHERE fire.id = gone.id;

-- name: delete_cron
-- Remove one cron that nobody has in hand. Its fires, which may be many, are deleted later.
WITH gone AS (
    DELETE FROM cron
    WHERE id = %(id)s
        AND (claim IS NULL OR retry_at <= %(now)s)
    RETURNING id
)
INSERT INTO removed_cron (id)
SELECT id
FROM gone;

-- name: stop_cron
-- Let no new fire of a cron begin that is about to be removed.
UPDATE cron
SET state = 2,
    pause_reason = 'it is being removed',
    version = version + 1
WHERE id = %(id)s
RETURNING id;

-- name: delete_colonies
-- Remove all that belonged to removed colonies.
WITH gone AS (
    DELETE FROM cron
    WHERE colony = ANY(%(colonies)s)
    RETURNING id
)
INSERT INTO removed_cron (id)
SELECT id
FROM gone;

-- name: insert_run
-- Keep a run before it is submitted; nothing if its request id is known, or its cron gone.
INSERT INTO fire (id, cron_id, kind, due_at, outcome, tries, request)
SELECT %(id)s, cron.id, 2, %(due_at)s, 1, 1, %(request)s
FROM cron
WHERE cron.id = %(cron_id)s
FOR KEY SHARE
ON CONFLICT (cron_id, request) WHERE request <> '' DO NOTHING;

-- name: find_run
-- The run of a request id.
SELECT id, cron_id, kind, due_at, outcome, moments, tries, limited, waits_for, error, fired_at
FROM fire
WHERE cron_id = %(cron_id)s
    AND request = %(request)s;

-- name: settle_run
-- What became of a run; one that was submitted stays so. The cron remembers its workflow, unless it is settled so late that
-- another has come since: the first 13 characters of an id are its moment.
WITH ended AS (
    UPDATE fire
    SET outcome = %(outcome)s,
        error = %(error)s,
        fired_at = %(now)s
    WHERE id = %(id)s
        AND outcome <> 2
    RETURNING id, cron_id, outcome
)
UPDATE cron
SET last_workflow_id = CASE
        WHEN left(cron.last_workflow_id::text, 13) > left(ended.id::text, 13) THEN cron.last_workflow_id
        ELSE ended.id
    END,
    fed_from = COALESCE(%(fed_from)s::uuid, cron.fed_from)
FROM ended
WHERE cron.id = ended.cron_id
    AND ended.outcome = 2;

-- name: open_runs
-- Runs that have been pending since before a moment: whoever asked for them heard nothing and did not ask again.
SELECT fire.id, cron.colony
FROM fire
JOIN cron ON cron.id = fire.cron_id
WHERE fire.outcome = 1
    AND fire.kind = 2
    AND fire.due_at < %(before)s
ORDER BY fire.id
LIMIT %(limit)s;

-- name: sweep_fires
-- Delete a portion of the fires from before a moment; `before` is the lowest id that one of that moment can have.
DELETE FROM fire
WHERE id IN (
    SELECT id
    FROM fire
    WHERE id < %(before)s
        AND outcome <> 1
    ORDER BY id
    LIMIT %(limit)s
);

-- name: sweep_removed
-- Delete a portion of the fires of crons that are gone.
DELETE FROM fire
WHERE id IN (
    SELECT fire.id
    FROM removed_cron
    JOIN fire ON fire.cron_id = removed_cron.id
    LIMIT %(limit)s
);

-- name: forget_removed
-- Crons that are gone and have no fires any more.
DELETE FROM removed_cron
WHERE NOT EXISTS (SELECT FROM fire WHERE fire.cron_id = removed_cron.id);
