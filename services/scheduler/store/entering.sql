-- Submits: everything enters in one statement, or nothing.

-- name: enter
-- Enter submits, each whole or, where its request id is taken already, not at all. The rows that come back are those that
-- belong in the queue at once: a submit of which none comes back was not entered.
WITH asked AS (
  SELECT *
  FROM unnest(
    %(colonies)s::text[], %(actors)s::text[], %(request_ids)s::text[], %(digests)s::bytea[], %(workflow_ids)s::uuid[],
    %(workflow_labels)s::text[], %(initiators)s::text[], %(initiator_names)s::text[], %(times)s::timestamptz[],
    %(submit_receipts)s::bytea[]
  ) WITH ORDINALITY AS a (
    colony, actor, request_id, digest, workflow_id, workflow_label, initiator, initiator_name, at, receipt, number
  )
), given AS (
  SELECT *
  FROM unnest(
    %(requests)s::integer[], %(ids)s::uuid[], %(node_names)s::text[], %(func_names)s::text[], %(executor_types)s::text[],
    %(executor_names)s::text[], %(locations)s::text[], %(needs)s::text[], %(labels)s::text[], %(priority_times)s::bigint[],
    %(max_wait_ms)s::bigint[], %(max_exec_ms)s::bigint[], %(max_retries)s::integer[], %(backoffs)s::text[],
    %(channels)s::text[], %(specs)s::bytea[], %(summaries)s::bytea[], %(parent_policies)s::smallint[],
    %(pending_parents)s::integer[], %(places)s::integer[]
  ) WITH ORDINALITY AS g (
    request, id, node_name, func_name, executor_type, executor_names, location, needs, label, priority_time, max_wait_ms,
    max_exec_ms, max_retries, backoff, channels, spec, summary, parent_policy, pending_parents, place, position
  )
), mine AS (
  SELECT request, array_agg(id ORDER BY position) AS ids
  FROM given
  GROUP BY request
), taken AS (
  INSERT INTO submission (colony, actor, request_id, digest, workflow_id, process_ids, submitted_at)
  SELECT a.colony, a.actor, a.request_id, a.digest, a.workflow_id, m.ids, a.at
  FROM asked AS a
  JOIN mine AS m ON m.request = a.number
  -- One order for all, so that two batches with the same ids don't wait for each other.
  ORDER BY a.colony, a.actor, a.request_id
  ON CONFLICT DO NOTHING
  RETURNING colony, actor, request_id
), accepted AS (
  SELECT a.*
  FROM asked AS a
  JOIN taken USING (colony, actor, request_id)
), kept AS (
  INSERT INTO receipt (colony, digest, method, public_key, time_ms, nonce, signature, body, uses)
  SELECT c.colony, c.receipt, c.method, c.public_key, c.signed_ms, c.nonce, c.signature, c.body, u.uses
  FROM unnest(
    %(receipt_colonies)s::text[], %(receipts)s::bytea[], %(methods)s::text[], %(public_keys)s::bytea[], %(signed_ms)s::bigint[],
    %(nonces)s::bytea[], %(signatures)s::bytea[], %(bodies)s::bytea[]
  ) AS c (colony, receipt, method, public_key, signed_ms, nonce, signature, body)
  -- Submissions of one call have one receipt.
  JOIN (
    SELECT a.colony, a.receipt, sum(cardinality(m.ids)) AS uses
    FROM accepted AS a
    JOIN mine AS m ON m.request = a.number
    WHERE a.receipt IS NOT NULL
    GROUP BY a.colony, a.receipt
  ) AS u USING (colony, receipt)
  -- As in keep_receipt.
  ON CONFLICT (colony, digest) DO UPDATE SET uses = receipt.uses + excluded.uses
), entered AS (
  INSERT INTO process (
    id, colony, workflow_id, node_name, func_name, executor_type, executor_names, location, needs, label, priority_time,
    max_wait_ms, max_exec_ms, max_retries, backoff, spec, summary, state, parent_policy, pending_parents, initiator,
    initiator_name, submitted_at, ready_at, receipt, place, chain
  )
  SELECT
    g.id, a.colony, a.workflow_id, g.node_name, g.func_name, g.executor_type,
    -- Arrays of arrays must be rectangular, so lists travel joined; a Name holds no comma.
    CASE WHEN g.executor_names = '' THEN '{}' ELSE string_to_array(g.executor_names, ',') END,
    g.location, g.needs, g.label, g.priority_time, g.max_wait_ms, g.max_exec_ms, g.max_retries,
    CASE WHEN g.backoff = '' THEN '{}' ELSE string_to_array(g.backoff, ',')::double precision[] END,
    g.spec, g.summary, 1, g.parent_policy, g.pending_parents, a.initiator, a.initiator_name, a.at,
    CASE WHEN g.pending_parents = 0 THEN a.at END, a.receipt, g.place,
    chain_link(
      chain_root(
        a.colony, g.id, a.workflow_id, a.initiator, a.initiator_name, a.at, g.priority_time, a.receipt, g.place
      ), %(at)s, 0, 1, 0, '', a.actor, 'SUBMITTED', 0, '{}', a.receipt, NULL
    )
  FROM given AS g
  JOIN accepted AS a ON a.number = g.request
  ORDER BY g.position
  RETURNING id, sequence, pending_parents, chain
), counted AS (
  INSERT INTO workflow (id, colony, label, initiator, initiator_name, submitted_at, waiting)
  SELECT a.workflow_id, a.colony, a.workflow_label, a.initiator, a.initiator_name, a.at, cardinality(m.ids)
  FROM accepted AS a
  JOIN mine AS m ON m.request = a.number
  WHERE a.workflow_id IS NOT NULL
  -- As above: an id may have been chosen for two.
  ORDER BY a.workflow_id
), drawn AS (
  INSERT INTO edge (child_id, position, parent_id, selector, k, n)
  SELECT e.child_id, e.position, e.parent_id, e.selector, e.k, e.n
  FROM unnest(
    %(edge_requests)s::integer[], %(edge_children)s::uuid[], %(edge_positions)s::integer[], %(edge_parents)s::uuid[],
    %(edge_selectors)s::smallint[], %(edge_ks)s::integer[], %(edge_ns)s::integer[]
  ) AS e (request, child_id, position, parent_id, selector, k, n)
  JOIN accepted AS a ON a.number = e.request
), opened AS (
  INSERT INTO channel (process_id, name)
  SELECT g.id, unnest(string_to_array(g.channels, ','))
  FROM given AS g
  JOIN accepted AS a ON a.number = g.request
  WHERE g.channels <> ''
), written AS (
  INSERT INTO ledger (
    colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, receipt, hash
  )
  SELECT a.colony, g.id, a.workflow_id, g.executor_type, %(at)s, 0, 1, 0, '', a.actor, 'SUBMITTED', a.receipt, e.chain
  FROM given AS g
  JOIN accepted AS a ON a.number = g.request
  JOIN entered AS e USING (id)
  ORDER BY g.position
)
SELECT id, sequence
FROM entered
WHERE pending_parents = 0;

-- name: expect_many
-- For the rest of the transaction: a statement may take long, and is planned for what it is given.
SELECT set_config('statement_timeout', '120s', true), set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: read_known
-- Of submits about to enter, in their order: what their request ids gave when they came first, and whether there is a workflow
-- of the id that was chosen for theirs, or what is left of one.
SELECT
  s.digest, s.workflow_id, s.process_ids,
  EXISTS (SELECT FROM workflow AS w WHERE w.id = a.workflow_id)
  OR EXISTS (SELECT FROM departing AS d WHERE d.workflow_id = a.workflow_id) AS is_taken
FROM unnest(%(colonies)s::text[], %(actors)s::text[], %(request_ids)s::text[], %(workflow_ids)s::uuid[]) WITH ORDINALITY AS a (
  colony, actor, request_id, workflow_id, number
)
LEFT JOIN submission AS s USING (colony, actor, request_id)
ORDER BY a.number;

-- name: committed_requests
-- Which of a caller's request ids were used.
SELECT request_id
FROM submission
WHERE colony = %(colony)s AND actor = %(actor)s AND request_id = ANY(%(request_ids)s::text[]);

-- name: read_request
-- What a request id gave when it came first.
SELECT digest, workflow_id, process_ids
FROM submission
WHERE colony = %(colony)s AND actor = %(actor)s AND request_id = %(request_id)s;
