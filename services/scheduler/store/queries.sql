-- Submitting -----------------------------------------------------------------------------------------------------------

-- name: claim_request
-- Take a request id. No row: it is taken already, and the transaction that took it has committed.
INSERT INTO submission (colony, actor, request_id, digest, workflow_id, process_ids, submitted_at)
VALUES (%(colony)s, %(actor)s, %(request_id)s, %(digest)s, %(workflow_id)s, %(process_ids)s, %(at)s)
ON CONFLICT DO NOTHING
RETURNING request_id;

-- name: read_request
-- What a request id gave when it came first.
SELECT digest, workflow_id, process_ids
FROM submission
WHERE colony = %(colony)s AND actor = %(actor)s AND request_id = %(request_id)s;

-- name: insert_workflow
-- Enter a workflow; its processes follow in the same transaction.
INSERT INTO workflow (id, colony, label, initiator, initiator_name, submitted_at)
VALUES (%(id)s, %(colony)s, %(label)s, %(initiator)s, %(initiator_name)s, %(at)s);

-- name: insert_processes
-- Enter processes with their first ledger lines. The rows that come back are those that belong in the queue at once.
WITH given AS (
  SELECT *
  FROM unnest(
    %(ids)s::uuid[], %(node_names)s::text[], %(func_names)s::text[], %(executor_types)s::text[], %(executor_names)s::text[],
    %(locations)s::text[], %(labels)s::text[], %(priority_times)s::bigint[], %(max_wait_ms)s::bigint[],
    %(max_exec_ms)s::bigint[], %(max_retries)s::integer[], %(specs)s::bytea[], %(summaries)s::bytea[],
    %(pending_parents)s::integer[]
  ) WITH ORDINALITY AS g (
    id, node_name, func_name, executor_type, executor_names, location, label, priority_time, max_wait_ms, max_exec_ms,
    max_retries, spec, summary, pending_parents, position
  )
), entered AS (
  INSERT INTO process (
    id, colony, workflow_id, node_name, func_name, executor_type, executor_names, location, label, priority_time, max_wait_ms,
    max_exec_ms, max_retries, spec, summary, state, pending_parents, initiator, initiator_name, submitted_at, ready_at
  )
  SELECT
    id, %(colony)s, %(workflow_id)s, node_name, func_name, executor_type,
    -- Arrays of arrays must be rectangular, so lists of names travel joined; a Name holds no comma.
    CASE WHEN executor_names = '' THEN '{}' ELSE string_to_array(executor_names, ',') END,
    location, label, priority_time, max_wait_ms, max_exec_ms, max_retries, spec, summary, 1, pending_parents,
    %(initiator)s, %(initiator_name)s, %(at)s, CASE WHEN pending_parents = 0 THEN %(at)s::timestamptz END
  FROM given
  ORDER BY position
  RETURNING id, sequence, pending_parents
), written AS (
  INSERT INTO ledger (process_id, workflow_id, at, from_state, to_state, attempt, executor_name, actor, reason)
  SELECT id, %(workflow_id)s, %(at)s, 0, 1, 0, '', %(actor)s, 'SUBMITTED'
  FROM entered
)
SELECT id, sequence
FROM entered
WHERE pending_parents = 0;

-- name: insert_edges
-- Draw a workflow's edges.
INSERT INTO edge (child_id, position, parent_id, selector, k, n)
SELECT *
FROM unnest(
  %(children)s::uuid[], %(positions)s::integer[], %(parents)s::uuid[], %(selectors)s::smallint[], %(ks)s::integer[],
  %(ns)s::integer[]
);

-- Assigning ------------------------------------------------------------------------------------------------------------

-- name: measure
-- How many bytes processes take in an answer: their specs, and at most their inputs.
SELECT
  p.id,
  octet_length(p.spec) + coalesce(
    (SELECT sum(q.output_bytes) FROM edge AS e JOIN process AS q ON q.id = e.parent_id WHERE e.child_id = p.id), 0
  )::bigint AS bytes
FROM process AS p
WHERE p.id = ANY(%(ids)s::uuid[]);

-- name: assign
-- Begin attempts: of the processes that the queue gave, those that are still ready. A lost assignment is only a retry.
WITH locked AS (
  SELECT id
  FROM process
  WHERE id = ANY(%(ids)s::uuid[]) AND colony = %(colony)s AND state = 1 AND pending_parents = 0
  ORDER BY id
  FOR UPDATE
), claimed AS (
  UPDATE process AS p
  SET
    state = 2,
    attempt = p.attempt + 1,
    executor_name = %(executor_name)s,
    executor_id = %(executor_id)s,
    started_at = %(at)s,
    outputs = '{}',
    output_bytes = 0,
    errors = '{}'
  FROM locked AS l
  WHERE p.id = l.id AND p.state = 1
  RETURNING
    p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location,
    p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.max_retries, p.max_wait_ms, p.max_exec_ms,
    p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at, p.spec
), begun AS (
  INSERT INTO attempt (process_id, number, executor_name, executor_id, started_at)
  SELECT id, attempt, executor_name, executor_id, started_at
  FROM claimed
), written AS (
  INSERT INTO ledger (process_id, workflow_id, at, from_state, to_state, attempt, executor_name, actor, reason)
  SELECT id, workflow_id, %(at)s, 1, 2, attempt, executor_name, executor_id, 'ASSIGNED'
  FROM claimed
)
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at, spec
FROM claimed
ORDER BY priority_time, sequence;

-- name: read_inputs
-- The inputs of processes: their parents' outputs as the edges select them, parents in dependency order.
SELECT
  e.child_id,
  CASE
    WHEN e.selector = 1 OR (e.selector = 2 AND cardinality(p.outputs) = e.n) THEN p.outputs[e.k + 1 : e.k + 1]
    ELSE p.outputs
  END AS outputs
FROM edge AS e
JOIN process AS p ON p.id = e.parent_id
WHERE e.child_id = ANY(%(ids)s::uuid[])
ORDER BY e.child_id, e.position;

-- Ending ---------------------------------------------------------------------------------------------------------------

-- name: lock_processes
-- Rows about to change, locked in the order of their ids, so that transactions over the same rows queue up.
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM process
WHERE id = ANY(%(ids)s::uuid[]) AND colony = %(colony)s
ORDER BY id
FOR UPDATE;

-- name: lock_free_processes
-- As lock_processes, but rows that somebody else is at are passed over.
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM process
WHERE id = ANY(%(ids)s::uuid[]) AND colony = %(colony)s
ORDER BY id
FOR UPDATE SKIP LOCKED;

-- name: lock_workflow
-- All open rows of a workflow, as lock_processes.
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM process
WHERE workflow_id = %(workflow_id)s AND colony = %(colony)s AND state IN (1, 2)
ORDER BY id
FOR UPDATE;

-- name: read_priors
-- Attempts as they are recorded: what was a repeated close is told by them.
SELECT a.process_id, a.executor_id, a.outcome
FROM attempt AS a
JOIN unnest(%(ids)s::uuid[], %(numbers)s::integer[]) AS g (process_id, number) USING (process_id, number);

-- name: end_processes
-- Write what becomes of locked processes: the rows, their live attempts, their ledger lines.
WITH given AS (
  SELECT *
  FROM unnest(
    %(ids)s::uuid[], %(from_states)s::smallint[], %(to_states)s::smallint[], %(outcomes)s::smallint[], %(retries)s::integer[],
    %(actors)s::text[], %(reasons)s::text[]
  ) AS g (id, from_state, to_state, outcome, retry, actor, reason)
), ended AS (
  UPDATE process AS p
  SET
    state = g.to_state,
    retries = p.retries + g.retry,
    ready_at = CASE WHEN g.to_state = 1 THEN %(at)s::timestamptz ELSE p.ready_at END,
    ended_at = CASE WHEN g.to_state > 2 THEN %(at)s::timestamptz END,
    -- A retry begins with nothing.
    outputs = CASE WHEN g.to_state = 1 THEN '{}' ELSE p.outputs END,
    output_bytes = CASE WHEN g.to_state = 1 THEN 0 ELSE p.output_bytes END,
    executor_name = CASE WHEN g.to_state = 1 THEN '' ELSE p.executor_name END,
    executor_id = CASE WHEN g.to_state = 1 THEN '' ELSE p.executor_id END
  FROM given AS g
  WHERE p.id = g.id
), closed AS (
  UPDATE attempt AS a
  SET outcome = g.outcome, ended_at = %(at)s
  FROM given AS g
  JOIN process AS p USING (id)
  WHERE g.outcome > 0 AND a.process_id = g.id AND a.number = p.attempt
)
INSERT INTO ledger (process_id, workflow_id, at, from_state, to_state, attempt, executor_name, actor, reason)
SELECT g.id, p.workflow_id, %(at)s, g.from_state, g.to_state, p.attempt, p.executor_name, g.actor, g.reason
FROM given AS g
-- The snapshot is from before the update: executor_name is still that of the attempt that ended.
JOIN process AS p USING (id);

-- name: store_outputs
-- The outputs of one process that was just closed, or whose live attempt sets them.
UPDATE process
SET outputs = %(outputs)s::bytea[], output_bytes = %(output_bytes)s
WHERE id = %(id)s;

-- name: store_errors
-- The errors of one process, and of the attempt that ended with them: what earlier attempts reported stays theirs.
WITH written AS (
  UPDATE process
  SET errors = %(errors)s::text[]
  WHERE id = %(id)s
  RETURNING id, attempt
)
UPDATE attempt AS a
SET errors = %(errors)s::text[]
FROM written AS w
WHERE %(of_attempt)s AND a.process_id = w.id AND a.number = w.attempt;

-- name: unlock_children
-- Parents closed as successful: their children wait for so many fewer. The rows that come back have no parent left to wait
-- for. Cost: the children.
WITH freed AS (
  SELECT child_id, count(*) AS parents
  FROM edge
  WHERE parent_id = ANY(%(parents)s::uuid[])
  GROUP BY child_id
), locked AS (
  SELECT p.id, f.parents
  FROM process AS p
  JOIN freed AS f ON f.child_id = p.id
  WHERE p.state = 1
  ORDER BY p.id
  FOR UPDATE OF p
), unlocked AS (
  UPDATE process AS p
  SET
    pending_parents = p.pending_parents - l.parents,
    ready_at = CASE WHEN p.pending_parents = l.parents THEN %(at)s::timestamptz END
  FROM locked AS l
  WHERE p.id = l.id
  RETURNING
    p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location,
    p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.max_retries, p.max_wait_ms, p.max_exec_ms,
    p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at
)
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM unlocked
WHERE pending_parents = 0;

-- name: missing_outputs
-- Of children that became ready, those whose edges ask for an output that the parent does not have.
SELECT e.child_id, p.node_name AS parent, e.k AS index, cardinality(p.outputs) AS count
FROM edge AS e
JOIN process AS p ON p.id = e.parent_id
WHERE e.child_id = ANY(%(children)s::uuid[]) AND e.selector = 1 AND e.k >= cardinality(p.outputs)
ORDER BY e.child_id, e.position;

-- name: oversized_inputs
-- Of children that became ready, those whose input would not go into one answer. Small parents count whole: to open their
-- outputs would cost more than they weigh.
SELECT
  e.child_id,
  sum(
    CASE
      WHEN e.selector = 0 OR p.output_bytes <= 65536 THEN p.output_bytes
      WHEN e.selector = 2 AND cardinality(p.outputs) <> e.n THEN p.output_bytes
      ELSE coalesce(octet_length(p.outputs[e.k + 1]), 0)
    END
  )::bigint AS bytes
FROM edge AS e
JOIN process AS p ON p.id = e.parent_id
WHERE e.child_id = ANY(%(children)s::uuid[])
GROUP BY e.child_id
HAVING sum(p.output_bytes) > %(at_most)s;

-- name: end_descendants
-- Processes ended without success: all that waits for them, however far down, ends too. Cost: the descendants.
WITH RECURSIVE descendant AS (
  SELECT e.child_id AS id, r.id AS root
  FROM unnest(%(roots)s::uuid[]) AS r (id)
  JOIN edge AS e ON e.parent_id = r.id
  UNION
  SELECT e.child_id, d.root
  FROM descendant AS d
  JOIN edge AS e ON e.parent_id = d.id
), blamed AS (
  SELECT DISTINCT ON (d.id) d.id, r.node_name AS root
  FROM descendant AS d
  JOIN process AS r ON r.id = d.root
  ORDER BY d.id, r.sequence
), locked AS (
  SELECT p.id, b.root
  FROM process AS p
  JOIN blamed AS b USING (id)
  WHERE p.state = 1
  ORDER BY p.id
  FOR UPDATE OF p
), ended AS (
  UPDATE process AS p
  SET
    state = %(to_state)s,
    ended_at = %(at)s,
    errors = ARRAY[format(%(error)s::text, l.root)]
  FROM locked AS l
  WHERE p.id = l.id
  RETURNING p.id, p.workflow_id
)
INSERT INTO ledger (process_id, workflow_id, at, from_state, to_state, attempt, executor_name, actor, reason)
SELECT id, workflow_id, %(at)s, 1, %(to_state)s, 0, '', '', %(reason)s
FROM ended
RETURNING process_id;

-- name: ping
-- Whether anybody answers.
SELECT 1 AS one;

-- Queue upkeep ---------------------------------------------------------------------------------------------------------

-- name: read_live
-- Rows as they are, unlocked: what the queue should say of them.
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM process
WHERE id = ANY(%(ids)s::uuid[]) AND colony = %(colony)s;

-- name: read_children
-- The children of processes, as read_live.
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM process
WHERE id IN (SELECT child_id FROM edge WHERE parent_id = ANY(%(ids)s::uuid[])) AND colony = %(colony)s;

-- name: read_over
-- Attempts of these processes that have ended.
SELECT process_id, number, executor_id
FROM attempt
WHERE process_id = ANY(%(ids)s::uuid[]) AND outcome > 0;

-- name: read_open
-- A page of all that the queue is rebuilt from, in submission order.
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, priority_time, state,
  pending_parents, attempt, retries, max_retries, max_wait_ms, max_exec_ms, executor_id, executor_name, initiator, ready_at,
  started_at
FROM process
WHERE state IN (1, 2) AND sequence > %(after)s
ORDER BY sequence
LIMIT %(limit)s;

-- While it runs --------------------------------------------------------------------------------------------------------

-- name: lock_attempt
-- The row of a live attempt, held against its end until this transaction commits.
SELECT id
FROM process
WHERE
  id = %(id)s AND colony = %(colony)s AND state = 2 AND attempt = %(attempt)s AND executor_id = %(executor_id)s
FOR NO KEY UPDATE;

-- name: process_exists
-- Whether there is such a process in this colony.
SELECT 1 AS one
FROM process
WHERE id = %(id)s AND colony = %(colony)s;

-- name: put_attributes
-- Write attributes: a key that exists gets the new value.
INSERT INTO attribute (process_id, kind, key, value)
SELECT %(id)s, kind, key, value
FROM unnest(%(kinds)s::smallint[], %(keys)s::text[], %(values)s::text[]) AS g (kind, key, value)
ON CONFLICT (process_id, kind, key) DO UPDATE SET value = excluded.value;

-- name: count_attributes
-- How many attributes a process has.
SELECT count(*) AS count
FROM attribute
WHERE process_id = %(id)s;

-- name: insert_logs
-- Add lines to the log of a process, in this order; those whose numbers are there already are passed over.
INSERT INTO log (colony, process_id, attempt, executor_name, number, at, message)
SELECT
  %(colony)s, %(id)s, %(attempt)s, %(executor_name)s, nullif(%(first_number)s::bigint, 0) + position - 1, at, message
FROM unnest(%(times)s::timestamptz[], %(messages)s::text[]) WITH ORDINALITY AS g (at, message, position)
ORDER BY position
ON CONFLICT (process_id, attempt, number) WHERE number IS NOT NULL DO NOTHING;

-- Removing -------------------------------------------------------------------------------------------------------------

-- name: delete_processes
-- Remove processes with all that hangs on them.
WITH gone AS (
  DELETE FROM process
  WHERE id = ANY(%(ids)s::uuid[])
), edges AS (
  DELETE FROM edge
  WHERE child_id = ANY(%(ids)s::uuid[])
), attempts AS (
  DELETE FROM attempt
  WHERE process_id = ANY(%(ids)s::uuid[])
), attributes AS (
  DELETE FROM attribute
  WHERE process_id = ANY(%(ids)s::uuid[])
), logs AS (
  DELETE FROM log
  WHERE process_id = ANY(%(ids)s::uuid[])
)
DELETE FROM ledger
WHERE process_id = ANY(%(ids)s::uuid[]);

-- name: delete_workflow
-- Remove a workflow's own row; its processes are removed beside it.
DELETE FROM workflow
WHERE id = %(id)s;

-- name: lock_workflow_row
-- A workflow's row, held until this transaction commits.
SELECT id, initiator
FROM workflow
WHERE id = %(id)s AND colony = %(colony)s
FOR UPDATE;

-- name: workflow_processes
-- The ids and states of a workflow's processes.
SELECT id, state
FROM process
WHERE workflow_id = %(id)s;

-- name: purge_page
-- Some processes of a removed colony.
SELECT id
FROM process
WHERE colony = %(colony)s
ORDER BY sequence
LIMIT %(limit)s;

-- name: purge_rest
-- What is left of a removed colony.
WITH workflows AS (
  DELETE FROM workflow
  WHERE colony = %(colony)s
)
DELETE FROM submission
WHERE colony = %(colony)s;
