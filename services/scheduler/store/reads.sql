-- What members read. Every query is confined to one colony.

-- name: get_process
-- One process, whole.
SELECT
  p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location, p.needs,
  p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.undelivered, p.max_retries, p.max_wait_ms, p.max_exec_ms,
  p.backoff, p.backoff_until, p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at, p.label,
  p.initiator_name, p.submitted_at, p.ended_at, p.errors,
  p.spec, p.outputs,
  ARRAY(SELECT parent_id FROM edge WHERE child_id = p.id ORDER BY position) AS parent_ids
FROM process AS p
WHERE p.id = %(id)s AND p.colony = %(colony)s;

-- name: list_processes
-- A page of processes, newest first. A filter that is NULL lets everything through. What has an index of its own is asked for by a
-- statement of its own, for a filter that may be NULL finds none.
SELECT *
FROM listed AS p
WHERE
  p.colony = %(colony)s
  AND p.sequence < %(before)s
  AND (%(states)s::smallint[] IS NULL OR p.state = ANY(%(states)s::smallint[]))
  AND (%(executor_type)s::text IS NULL OR p.executor_type = %(executor_type)s)
  AND (%(label)s::text IS NULL OR p.label = %(label)s)
  AND (%(initiator)s::text IS NULL OR p.initiator = %(initiator)s OR p.initiator_name = %(initiator)s)
  AND (%(executor_name)s::text IS NULL OR p.executor_name = %(executor_name)s)
  AND (%(submitted_from)s::timestamptz IS NULL OR p.submitted_at >= %(submitted_from)s)
  AND (%(submitted_until)s::timestamptz IS NULL OR p.submitted_at < %(submitted_until)s)
ORDER BY p.sequence DESC
LIMIT %(limit)s;

-- name: list_open_processes
-- As list_processes, of those that have not ended.
SELECT *
FROM listed AS p
WHERE
  p.colony = %(colony)s
  AND p.ended_at IS NULL
  AND p.sequence < %(before)s
  AND (%(states)s::smallint[] IS NULL OR p.state = ANY(%(states)s::smallint[]))
  AND (%(executor_type)s::text IS NULL OR p.executor_type = %(executor_type)s)
  AND (%(label)s::text IS NULL OR p.label = %(label)s)
  AND (%(initiator)s::text IS NULL OR p.initiator = %(initiator)s OR p.initiator_name = %(initiator)s)
  AND (%(executor_name)s::text IS NULL OR p.executor_name = %(executor_name)s)
  AND (%(submitted_from)s::timestamptz IS NULL OR p.submitted_at >= %(submitted_from)s)
  AND (%(submitted_until)s::timestamptz IS NULL OR p.submitted_at < %(submitted_until)s)
ORDER BY p.sequence DESC
LIMIT %(limit)s;

-- name: list_labelled_processes
-- As list_processes, of those with a label.
SELECT *
FROM listed AS p
WHERE
  p.colony = %(colony)s
  AND p.label = %(label)s
  AND p.label <> ''
  AND p.sequence < %(before)s
  AND (%(states)s::smallint[] IS NULL OR p.state = ANY(%(states)s::smallint[]))
  AND (%(executor_type)s::text IS NULL OR p.executor_type = %(executor_type)s)
  AND (%(label)s::text IS NULL OR p.label = %(label)s)
  AND (%(initiator)s::text IS NULL OR p.initiator = %(initiator)s OR p.initiator_name = %(initiator)s)
  AND (%(executor_name)s::text IS NULL OR p.executor_name = %(executor_name)s)
  AND (%(submitted_from)s::timestamptz IS NULL OR p.submitted_at >= %(submitted_from)s)
  AND (%(submitted_until)s::timestamptz IS NULL OR p.submitted_at < %(submitted_until)s)
ORDER BY p.sequence DESC
LIMIT %(limit)s;

-- name: list_workflow_processes
-- As list_processes, of one workflow.
SELECT *
FROM listed AS p
WHERE
  p.colony || '' = %(colony)s
  AND p.workflow_id = %(workflow_id)s
  AND p.sequence < %(before)s
  AND (%(states)s::smallint[] IS NULL OR p.state = ANY(%(states)s::smallint[]))
  AND (%(executor_type)s::text IS NULL OR p.executor_type = %(executor_type)s)
  AND (%(label)s::text IS NULL OR p.label = %(label)s)
  AND (%(initiator)s::text IS NULL OR p.initiator = %(initiator)s OR p.initiator_name = %(initiator)s)
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

-- name: list_colony_events
-- A page of a colony's state changes, all of them: `wanted` are those that pass the filters. `unsettled` as above.
SELECT
  l.id, l.xid::text::bigint AS xid, l.process_id, l.at, l.from_state, l.to_state, l.attempt, l.executor_name, l.actor,
  l.reason, p.node_name, p.func_name,
  l.xid >= pg_snapshot_xmin(pg_current_snapshot()) AND l.xid < pg_snapshot_xmax(pg_current_snapshot()) AS unsettled,
  (%(executor_types)s::text[] IS NULL OR l.executor_type = ANY(%(executor_types)s::text[]))
  AND (%(labels)s::text[] IS NULL OR p.label = ANY(%(labels)s::text[]))
  AND (%(states)s::smallint[] IS NULL OR l.to_state = ANY(%(states)s::smallint[])) AS wanted
FROM ledger AS l
JOIN process AS p ON p.id = l.process_id
WHERE l.colony = %(colony)s AND (l.xid, l.id) > (%(after_xid)s::text::xid8, %(after_id)s::bigint)
ORDER BY l.xid, l.id
LIMIT %(limit)s;

-- name: now_position
-- Before everything that is still to come: no transaction that is open, or begins later, is older.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 AS xid;

-- name: watched_process
-- A process that is watched, if it exists; whether it is still open.
SELECT ended_at IS NULL AS open
FROM process
WHERE colony = %(colony)s AND id = %(process_id)s;

-- name: watched_workflow
-- A workflow that is watched, if it exists; whether any of it is still open.
SELECT waiting + running > 0 AS open
FROM workflow
WHERE colony = %(colony)s AND id = %(workflow_id)s;

-- name: get_workflow
-- One workflow; it counts its processes itself.
SELECT
  id, colony, sequence, label, initiator, initiator_name, submitted_at, waiting, running, successful, failed, cancelled, begun,
  ended_at
FROM counted_workflow
WHERE id = %(id)s AND colony = %(colony)s;

-- name: get_workflows
-- Several workflows.
SELECT
  id, colony, sequence, label, initiator, initiator_name, submitted_at, waiting, running, successful, failed, cancelled, begun,
  ended_at
FROM counted_workflow
WHERE id = ANY(%(ids)s::uuid[]) AND colony = %(colony)s;

-- name: get_outputs
-- What the processes without children of several workflows returned, in the order of submission; each of these is a row. With
-- more than `limit` bytes there is one row that says so, and no output is read.
WITH leaf AS MATERIALIZED (
  SELECT p.id, p.workflow_id, p.sequence, p.node_name, p.state, CASE WHEN p.state = 3 THEN p.output_bytes ELSE 0 END AS bytes
  FROM workflow AS w
  JOIN process AS p ON p.workflow_id = w.id
  WHERE
    w.id = ANY(%(ids)s::uuid[])
    AND w.colony = %(colony)s
    AND NOT EXISTS (SELECT FROM edge AS e WHERE e.parent_id = p.id)
), size AS (
  -- The id of each goes out too.
  SELECT coalesce(sum(bytes + octet_length(node_name) + 64), 0) AS bytes
  FROM leaf
)
SELECT
  s.bytes > %(limit)s AS too_large, l.workflow_id, l.id, l.node_name, CASE WHEN l.state = 3 THEN p.outputs ELSE '{}' END AS outputs
FROM size AS s
LEFT JOIN leaf AS l ON s.bytes <= %(limit)s
LEFT JOIN process AS p ON p.id = l.id
ORDER BY l.sequence;

-- name: list_workflows
-- A page of workflows, newest first.
SELECT
  id, colony, sequence, label, initiator, initiator_name, submitted_at, waiting, running, successful, failed, cancelled, begun,
  ended_at
FROM counted_workflow
WHERE
  colony = %(colony)s
  AND sequence < %(before)s
  AND (%(label)s::text IS NULL OR label = %(label)s)
  AND (%(initiator)s::text IS NULL OR initiator = %(initiator)s OR initiator_name = %(initiator)s)
ORDER BY sequence DESC
LIMIT %(limit)s;
