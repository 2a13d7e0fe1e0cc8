-- What members read. Every query is confined to one colony.

-- name: get_process
-- One process, whole.
SELECT
  p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location,
  p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.max_retries, p.max_wait_ms, p.max_exec_ms,
  p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at, p.label, p.initiator_name, p.submitted_at,
  p.ended_at, p.errors,
  p.spec, p.outputs,
  ARRAY(SELECT parent_id FROM edge WHERE child_id = p.id ORDER BY position) AS parent_ids
FROM process AS p
WHERE p.id = %(id)s AND p.colony = %(colony)s;

-- name: list_processes
-- A page of processes, newest first. A filter that is NULL lets everything through.
SELECT
  p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location,
  p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.max_retries, p.max_wait_ms, p.max_exec_ms,
  p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at, p.label, p.initiator_name, p.submitted_at,
  p.ended_at, p.errors,
  CASE WHEN p.summary = '' THEN p.spec ELSE p.summary END AS spec, '{}'::bytea[] AS outputs,
  ARRAY(SELECT parent_id FROM edge WHERE child_id = p.id ORDER BY position) AS parent_ids
FROM process AS p
WHERE
  p.colony = %(colony)s
  AND p.sequence < %(before)s
  AND (%(states)s::smallint[] IS NULL OR p.state = ANY(%(states)s::smallint[]))
  AND (%(executor_type)s::text IS NULL OR p.executor_type = %(executor_type)s)
  AND (%(label)s::text IS NULL OR p.label = %(label)s)
  AND (%(initiator)s::text IS NULL OR p.initiator = %(initiator)s OR p.initiator_name = %(initiator)s)
  AND (%(workflow_id)s::uuid IS NULL OR p.workflow_id = %(workflow_id)s)
  AND (%(executor_name)s::text IS NULL OR p.executor_name = %(executor_name)s)
  AND (%(submitted_from)s::timestamptz IS NULL OR p.submitted_at >= %(submitted_from)s)
  AND (%(submitted_until)s::timestamptz IS NULL OR p.submitted_at < %(submitted_until)s)
ORDER BY p.sequence DESC
LIMIT %(limit)s;

-- name: list_attempts
-- Every attempt of a process.
SELECT number, executor_name, executor_id, started_at, ended_at, outcome, errors
FROM attempt
WHERE process_id = %(id)s
ORDER BY number;

-- name: list_transitions
-- Every ledger line of a process.
SELECT at, from_state, to_state, attempt, actor, reason
FROM ledger
WHERE process_id = %(id)s
ORDER BY id;

-- name: list_attributes
-- The attributes that executors wrote.
SELECT kind, key, value
FROM attribute
WHERE process_id = %(id)s;

-- name: list_process_logs
-- A page of a process's log lines, oldest first. They are written under its row lock, so `id` is their order.
SELECT id, 0 AS xid, process_id, attempt, executor_name, at, message, false AS unsettled
FROM log
WHERE colony = %(colony)s AND process_id = %(process_id)s AND id > %(after_id)s
ORDER BY id
LIMIT %(limit)s;

-- name: list_executor_logs
-- A page of an executor's log lines, oldest first. `unsettled`: a transaction that is still open may add lines before it.
SELECT
  id, xid::text::bigint AS xid, process_id, attempt, executor_name, at, message,
  xid >= pg_snapshot_xmin(pg_current_snapshot()) AND xid < pg_snapshot_xmax(pg_current_snapshot()) AS unsettled
FROM log
WHERE
  colony = %(colony)s
  AND executor_name = %(executor_name)s
  AND (xid, id) > (%(after_xid)s::text::xid8, %(after_id)s::bigint)
ORDER BY xid, id
LIMIT %(limit)s;

-- name: list_process_events
-- A page of a process's state changes, in the order made.
SELECT
  l.id, 0 AS xid, l.process_id, l.at, l.from_state, l.to_state, l.attempt, l.executor_name, l.actor, l.reason, p.node_name,
  p.func_name, false AS unsettled
FROM ledger AS l
JOIN process AS p ON p.id = l.process_id
WHERE p.colony = %(colony)s AND l.process_id = %(process_id)s AND l.id > %(after_id)s
ORDER BY l.id
LIMIT %(limit)s;

-- name: list_workflow_events
-- A page of a workflow's state changes. `unsettled` as in list_executor_logs.
SELECT
  l.id, l.xid::text::bigint AS xid, l.process_id, l.at, l.from_state, l.to_state, l.attempt, l.executor_name, l.actor,
  l.reason, p.node_name, p.func_name,
  l.xid >= pg_snapshot_xmin(pg_current_snapshot()) AND l.xid < pg_snapshot_xmax(pg_current_snapshot()) AS unsettled
FROM ledger AS l
JOIN process AS p ON p.id = l.process_id
WHERE
  p.colony = %(colony)s
  AND l.workflow_id = %(workflow_id)s
  AND (l.xid, l.id) > (%(after_xid)s::text::xid8, %(after_id)s::bigint)
ORDER BY l.xid, l.id
LIMIT %(limit)s;

-- name: watched
-- Whether what is watched exists, and whether any of it is still open.
SELECT
  EXISTS (
    SELECT 1
    FROM process
    WHERE colony = %(colony)s AND (id = %(process_id)s OR workflow_id = %(workflow_id)s)
  ) AS exists,
  EXISTS (
    SELECT 1
    FROM process
    WHERE colony = %(colony)s AND (id = %(process_id)s OR workflow_id = %(workflow_id)s) AND state IN (1, 2)
  ) AS open;

-- name: get_workflow
-- One workflow with its processes by state.
SELECT w.id, w.colony, w.sequence, w.label, w.initiator, w.initiator_name, w.submitted_at, c.*
FROM workflow AS w
CROSS JOIN LATERAL (
  SELECT
    count(*) FILTER (WHERE state = 1) AS waiting,
    count(*) FILTER (WHERE state = 2) AS running,
    count(*) FILTER (WHERE state = 3) AS successful,
    count(*) FILTER (WHERE state = 4) AS failed,
    count(*) FILTER (WHERE state = 5) AS cancelled,
    bool_or(attempt > 0) AS begun,
    max(ended_at) AS ended_at
  FROM process
  WHERE workflow_id = w.id
) AS c
WHERE w.id = %(id)s AND w.colony = %(colony)s;

-- name: list_workflows
-- A page of workflows, newest first, each with its processes by state.
SELECT w.id, w.colony, w.sequence, w.label, w.initiator, w.initiator_name, w.submitted_at, c.*
FROM (
  SELECT id, colony, sequence, label, initiator, initiator_name, submitted_at
  FROM workflow
  WHERE
    colony = %(colony)s
    AND sequence < %(before)s
    AND (%(label)s::text IS NULL OR label = %(label)s)
    AND (%(initiator)s::text IS NULL OR initiator = %(initiator)s OR initiator_name = %(initiator)s)
  ORDER BY sequence DESC
  LIMIT %(limit)s
) AS w
CROSS JOIN LATERAL (
  SELECT
    count(*) FILTER (WHERE state = 1) AS waiting,
    count(*) FILTER (WHERE state = 2) AS running,
    count(*) FILTER (WHERE state = 3) AS successful,
    count(*) FILTER (WHERE state = 4) AS failed,
    count(*) FILTER (WHERE state = 5) AS cancelled,
    bool_or(attempt > 0) AS begun,
    max(ended_at) AS ended_at
  FROM process
  WHERE workflow_id = w.id
) AS c
ORDER BY w.sequence DESC;
