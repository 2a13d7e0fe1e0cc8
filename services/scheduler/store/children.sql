-- Children are added to running processes.

-- name: claim_request
-- Take a request id. No row: it is taken already, and the transaction that took it has committed.
INSERT INTO submission (colony, actor, request_id, digest, workflow_id, process_ids, submitted_at)
VALUES (%(colony)s, %(actor)s, %(request_id)s, %(digest)s, %(workflow_id)s, %(process_ids)s, %(at)s)
ON CONFLICT DO NOTHING
RETURNING request_id;

-- name: node_names_taken
-- Which of these names nodes of the workflow have already.
SELECT node_name
FROM process
WHERE workflow_id = %(workflow_id)s AND node_name = ANY(%(names)s::text[]);

-- name: count_added
-- Processes are added to a locked workflow: how many it has then.
UPDATE workflow
SET waiting = waiting + %(count)s
WHERE id = %(workflow_id)s
RETURNING waiting + running + successful + failed + cancelled AS processes;

-- name: insert_children
-- Enter processes below a running one, with their first ledger lines. All of them wait.
WITH given AS (
  SELECT *
  FROM unnest(
    %(ids)s::uuid[], %(node_names)s::text[], %(func_names)s::text[], %(executor_types)s::text[], %(executor_names)s::text[],
    %(locations)s::text[], %(needs)s::text[], %(labels)s::text[], %(priority_times)s::bigint[], %(max_wait_ms)s::bigint[],
    %(max_exec_ms)s::bigint[], %(max_retries)s::integer[], %(backoffs)s::text[], %(channels)s::text[], %(specs)s::bytea[],
    %(summaries)s::bytea[], %(parent_policies)s::smallint[], %(pending_parents)s::integer[], %(places)s::integer[]
  ) WITH ORDINALITY AS g (
    id, node_name, func_name, executor_type, executor_names, location, needs, label, priority_time, max_wait_ms, max_exec_ms,
    max_retries, backoff, channels, spec, summary, parent_policy, pending_parents, place, position
  )
), entered AS (
  INSERT INTO process (
    id, colony, workflow_id, node_name, func_name, executor_type, executor_names, location, needs, label, priority_time,
    max_wait_ms, max_exec_ms, max_retries, backoff, spec, summary, state, parent_policy, pending_parents, initiator,
    initiator_name, submitted_at, receipt, place, chain
  )
  SELECT
    g.id, w.colony, w.id, g.node_name, g.func_name, g.executor_type,
    CASE WHEN g.executor_names = '' THEN '{}' ELSE string_to_array(g.executor_names, ',') END,
    g.location, g.needs, g.label, g.priority_time, g.max_wait_ms, g.max_exec_ms, g.max_retries,
    CASE WHEN g.backoff = '' THEN '{}' ELSE string_to_array(g.backoff, ',')::double precision[] END,
    g.spec, g.summary, 1, g.parent_policy, g.pending_parents, w.initiator, w.initiator_name, %(at)s, %(receipt)s::bytea, g.place,
    chain_link(
      chain_root(
        w.colony, g.id, w.id, w.initiator, w.initiator_name, %(at)s, g.priority_time, %(receipt)s::bytea, g.place
      ), %(at)s, 0, 1, 0, '', %(actor)s, 'SUBMITTED', 0, '{}', %(receipt)s::bytea, NULL
    )
  FROM given AS g
  JOIN workflow AS w ON w.id = %(workflow_id)s
  ORDER BY g.position
  RETURNING id, colony, workflow_id, executor_type, receipt, chain
), opened AS (
  INSERT INTO channel (process_id, name)
  SELECT id, unnest(string_to_array(channels, ','))
  FROM given
  WHERE channels <> ''
)
INSERT INTO ledger (
  colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, receipt, hash
)
SELECT colony, id, workflow_id, executor_type, %(at)s, 0, 1, 0, '', %(actor)s, 'SUBMITTED', receipt, chain
FROM entered;

-- name: insert_edges
-- Draw edges.
INSERT INTO edge (child_id, position, parent_id, selector, k, n)
SELECT *
FROM unnest(
  %(children)s::uuid[], %(positions)s::integer[], %(parents)s::uuid[], %(selectors)s::smallint[], %(ks)s::integer[],
  %(ns)s::integer[]
);

-- name: edges_of_children
-- All edges into the children that a process has now and that have not begun: who ran already, which its policy may have let
-- it, keeps the parents that it ran with. Their rows are locked, so that none of them begins meanwhile.
WITH children AS MATERIALIZED (
  SELECT id
  FROM process
  WHERE state = 1 AND id IN (SELECT child_id FROM edge WHERE parent_id = %(parent)s)
  ORDER BY id
  FOR NO KEY UPDATE
)
SELECT child_id, position, parent_id, selector, k, n
FROM edge
WHERE child_id IN (SELECT id FROM children)
ORDER BY child_id, position;

-- name: delete_edges
-- Take away all edges into some processes, to draw them anew.
DELETE FROM edge
WHERE child_id = ANY(%(children)s::uuid[]);

-- name: add_pending_parents
-- Children wait for so many parents more, unless they wait for any one.
UPDATE process
SET pending_parents = pending_parents + %(more)s
WHERE id = ANY(%(children)s::uuid[]) AND parent_policy < 3;
