-- How what has ended goes, oldest first, a page at a time.

-- name: be_brief
-- Whoever works waits for nobody long, and a page that is lost is removed again.
SELECT set_config('lock_timeout', '250ms', true), set_config('synchronous_commit', 'off', true);

-- name: policies
-- Colonies that do not keep everything for ever.
SELECT colony, keep_successful_ms, keep_failed_ms, keep_cancelled_ms
FROM colony_controls
WHERE keep_successful_ms + keep_failed_ms + keep_cancelled_ms > 0
ORDER BY colony;

-- name: sweep_processes
-- A page of what ended outside workflows after a position and until a moment; locked, where it is in the state and nobody is at
-- it.
WITH seen AS MATERIALIZED (
  SELECT id, ended_at, state
  FROM process
  WHERE
    colony = %(colony)s
    AND workflow_id IS NULL
    AND ended_at IS NOT NULL
    AND (ended_at, id) > (%(after_at)s, %(after_id)s)
    AND ended_at <= %(until)s
  ORDER BY ended_at, id
  LIMIT %(limit)s
), due AS MATERIALIZED (
  SELECT p.id
  FROM process AS p
  JOIN seen AS s USING (id)
  WHERE s.state = %(state)s AND p.ended_at = s.ended_at
  ORDER BY p.id
  FOR UPDATE OF p SKIP LOCKED
)
SELECT s.id, s.ended_at, s.state = %(state)s AS due, d.id IS NOT NULL AS taken
FROM seen AS s
LEFT JOIN due AS d USING (id)
ORDER BY s.ended_at, s.id;

-- name: sweep_workflows
-- As sweep_processes, of workflows. What is taken is gone for everyone, and its processes are left to remove_departing.
WITH seen AS MATERIALIZED (
  SELECT id, ended_at, CASE WHEN failed > 0 THEN 4 WHEN cancelled > 0 THEN 5 ELSE 3 END AS state
  FROM workflow
  WHERE
    colony = %(colony)s
    AND ended_at IS NOT NULL
    AND (ended_at, id) > (%(after_at)s, %(after_id)s)
    AND ended_at <= %(until)s
  ORDER BY ended_at, id
  LIMIT %(limit)s
), due AS MATERIALIZED (
  SELECT w.id
  FROM workflow AS w
  JOIN seen AS s USING (id)
  -- A workflow that was retried since has another end, or none.
  WHERE s.state = %(state)s AND w.ended_at = s.ended_at
  ORDER BY w.id
  FOR UPDATE OF w SKIP LOCKED
), gone AS (
  DELETE FROM workflow
  WHERE id IN (SELECT id FROM due)
), starts AS (
  DELETE FROM workflow_start
  WHERE workflow_id IN (SELECT id FROM due)
), marked AS (
  INSERT INTO departing (workflow_id, colony)
  SELECT id, %(colony)s
  FROM due
)
SELECT s.id, s.ended_at, s.state = %(state)s AS due, d.id IS NOT NULL AS taken
FROM seen AS s
LEFT JOIN due AS d USING (id)
ORDER BY s.ended_at, s.id;

-- name: depart_workflow
-- One workflow, locked before and over: gone for everyone, and its processes left to remove_departing.
WITH gone AS (
  DELETE FROM workflow
  WHERE id = %(workflow_id)s
), starts AS (
  DELETE FROM workflow_start
  WHERE workflow_id = %(workflow_id)s
)
INSERT INTO departing (workflow_id, colony)
VALUES (%(workflow_id)s, %(colony)s);

-- name: lock_departing
-- Removed workflows that nobody is at.
SELECT workflow_id, colony
FROM departing
ORDER BY workflow_id
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED;

-- name: departing_page
-- Some of their processes.
SELECT id
FROM process
WHERE workflow_id = ANY(%(workflow_ids)s::uuid[])
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED;

-- name: forget_departed
-- Those that have no process any more.
DELETE FROM departing AS d
WHERE
  d.workflow_id = ANY(%(workflow_ids)s::uuid[])
  AND NOT EXISTS (SELECT FROM process AS p WHERE p.workflow_id = d.workflow_id);

-- name: forget_submissions
-- Request ids that are not good any more.
WITH gone AS (
  DELETE FROM submission
  WHERE (colony, actor, request_id) IN (
    SELECT colony, actor, request_id
    FROM submission
    WHERE submitted_at < %(before)s
    ORDER BY submitted_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
  )
  RETURNING 1
)
SELECT count(*) AS count
FROM gone;
