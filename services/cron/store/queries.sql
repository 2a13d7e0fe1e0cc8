-- name: insert_cron
-- Keep a new cron, unless its name is taken.
INSERT INTO cron (
    id, colony, name, expression, interval_ms, workflow, initiator, initiator_name, created_at, next_fire_at, due_at
)
VALUES (
    %(id)s, %(colony)s, %(name)s, %(expression)s, %(interval_ms)s, %(workflow)s, %(initiator)s, %(initiator_name)s,
    %(created_at)s, %(next_fire_at)s, %(next_fire_at)s
)
ON CONFLICT (colony, name) DO NOTHING;

-- name: find_cron
-- One cron, whole.
SELECT id, colony, name, expression, interval_ms, workflow, initiator, initiator_name, created_at, next_fire_at, tries,
    last_fire_at, last_workflow_id, last_error
FROM cron
WHERE colony = %(colony)s
    AND name = %(name)s;

-- name: list_crons
-- A page of a colony's crons. Workflows may be large and stay where they are.
SELECT id, colony, name, expression, interval_ms, ''::bytea AS workflow, initiator, initiator_name, created_at,
    next_fire_at, tries, last_fire_at, last_workflow_id, last_error
FROM cron
WHERE colony = %(colony)s
    AND name > %(after)s
ORDER BY name
LIMIT %(limit)s;

-- name: delete_cron
-- Remove one cron; waits for the lock of a fire under way.
DELETE FROM cron
WHERE id = %(id)s;

-- name: delete_colonies
-- Remove all that belonged to removed colonies.
DELETE FROM cron
WHERE colony = ANY(%(colonies)s);

-- name: note_run
-- Keep the workflow of a run, unless it repeats the last run: a scheduled fire may have come after that one.
UPDATE cron
SET last_workflow_id = %(workflow_id)s,
    last_run = %(digest)s
WHERE id = %(id)s
    AND last_run <> %(digest)s;

-- name: claim_due
-- Lock the cron that is longest due; what another transaction has locked is in good hands.
SELECT id, colony, name, expression, interval_ms, workflow, initiator, initiator_name, created_at, next_fire_at, tries,
    last_fire_at, last_workflow_id, last_error
FROM cron
WHERE due_at <= %(now)s
ORDER BY due_at
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: next_due
-- When there is something to do next. What is due by now is locked by others, and no reason to look again at once.
SELECT min(due_at) AS due_at
FROM cron
WHERE due_at > %(now)s;

-- name: settle
-- Write what became of a fire, in the transaction that has the cron locked.
UPDATE cron
SET next_fire_at = %(next_fire_at)s,
    due_at = %(due_at)s,
    tries = %(tries)s,
    last_fire_at = %(last_fire_at)s,
    last_workflow_id = COALESCE(%(workflow_id)s, last_workflow_id),
    last_error = %(error)s
WHERE id = %(id)s;
