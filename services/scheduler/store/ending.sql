-- Processes end, and what follows for their children and descendants.

-- name: close_successes
-- Close live attempts as successful, each request whole or not at all: what nearly always happens, in one statement. Requests
-- with a process that is not held, or that belongs to a workflow, are left: their rows do not come back, and lock_processes and
-- end_processes see to them. (Whoever waits for a workflow's lock must look anew after he has it: its children may have changed.)
WITH given AS (
  SELECT *
  FROM unnest(
    %(ids)s::uuid[], %(attempts)s::integer[], %(requests)s::integer[]
  ) WITH ORDINALITY AS g (id, attempt, request, position)
), asked AS (
  SELECT *
  FROM unnest(
    %(colonies)s::text[], %(executor_ids)s::text[], %(counts)s::integer[], %(receipts)s::bytea[], %(methods)s::text[],
    %(public_keys)s::bytea[], %(signed_ms)s::bigint[], %(nonces)s::bytea[], %(signatures)s::bytea[], %(bodies)s::bytea[]
  ) WITH ORDINALITY AS a (
    colony, executor_id, count, receipt, method, public_key, signed_ms, nonce, signature, body, request
  )
), puts AS (
  SELECT position, array_agg(output ORDER BY number) AS outputs, sum(octet_length(output)) AS bytes
  FROM unnest(%(output_positions)s::integer[], %(outputs)s::bytea[]) WITH ORDINALITY AS o (position, output, number)
  GROUP BY position
), locked AS MATERIALIZED (
  SELECT p.id, g.position, g.request
  FROM given AS g
  JOIN asked AS a USING (request)
  JOIN process AS p USING (id)
  WHERE
    p.colony || '' = a.colony
    AND p.state = 2
    AND p.attempt = g.attempt
    AND p.executor_id = a.executor_id
    AND p.workflow_id IS NULL
  ORDER BY p.id
  FOR NO KEY UPDATE OF p
), whole AS (
  SELECT a.request, a.receipt
  FROM asked AS a
  JOIN locked AS l USING (request)
  GROUP BY a.request, a.count, a.receipt
  HAVING count(*) = a.count
), closed AS (
  UPDATE process AS p
  SET
    state = 3,
    -- Another replica's clock may be ahead: nothing ends before it began.
    ended_at = greatest(%(at)s, p.started_at),
    outputs = coalesce(o.outputs, p.outputs),
    output_bytes = coalesce(o.bytes, p.output_bytes),
    chain = chain_link(
      p.chain, greatest(%(at)s, p.started_at), 2, 3, p.attempt, p.executor_name, p.executor_id, 'CLOSED', 1, '{}', w.receipt,
      p.output_receipt
    )
  FROM locked AS l
  JOIN whole AS w USING (request)
  LEFT JOIN puts AS o USING (position)
  WHERE p.id = l.id AND p.state = 2
  RETURNING
    p.id, p.colony, p.executor_type, p.attempt, p.executor_name, p.executor_id, p.started_at, p.ended_at, p.output_receipt,
    p.chain, l.request, w.receipt
), kept AS (
  INSERT INTO receipt (colony, digest, method, public_key, time_ms, nonce, signature, body, uses)
  SELECT a.colony, a.receipt, a.method, a.public_key, a.signed_ms, a.nonce, a.signature, a.body, c.uses
  FROM (SELECT request, count(*) AS uses FROM closed GROUP BY request) AS c
  JOIN asked AS a USING (request)
  WHERE a.receipt IS NOT NULL
  -- As in keep_receipt.
  ON CONFLICT (colony, digest) DO UPDATE SET uses = receipt.uses + excluded.uses
), written AS (
  INSERT INTO ledger (
    colony, process_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, outcome, took_ms,
    receipt, output_receipt, hash
  )
  SELECT
    colony, id, executor_type, ended_at, 2, 3, attempt, executor_name, executor_id, 'CLOSED', 1,
    (extract(epoch FROM ended_at - started_at) * 1000)::bigint, receipt, output_receipt, chain
  FROM closed
)
SELECT id, attempt, executor_id, colony
FROM closed;

-- name: lock_processes
-- Rows about to change, locked in the order of their ids, and before them their workflows: so transactions over the same rows
-- queue up.
WITH families AS MATERIALIZED (
  SELECT id
  FROM workflow
  WHERE id IN (SELECT workflow_id FROM process WHERE id = ANY(%(ids)s::uuid[]) AND workflow_id IS NOT NULL)
  ORDER BY id
  FOR NO KEY UPDATE
)
SELECT *
FROM live
WHERE
  (SELECT count(*) FROM families) >= 0
  AND id = ANY(%(ids)s::uuid[])
  AND tenant = %(colony)s
ORDER BY id
FOR NO KEY UPDATE OF live;

-- name: lock_processes_at_hand
-- As lock_processes, without those of workflows that somebody is at.
WITH families AS MATERIALIZED (
  SELECT id
  FROM workflow
  WHERE id IN (SELECT workflow_id FROM process WHERE id = ANY(%(ids)s::uuid[]) AND workflow_id IS NOT NULL)
  ORDER BY id
  FOR NO KEY UPDATE SKIP LOCKED
)
SELECT *
FROM live
WHERE
  id = ANY(%(ids)s::uuid[])
  AND tenant = %(colony)s
  AND (workflow_id IS NULL OR workflow_id IN (SELECT id FROM families))
ORDER BY id
FOR NO KEY UPDATE OF live;

-- name: lock_free_processes
-- As lock_processes, but rows that somebody else is at are passed over, and those of a workflow that somebody is at.
WITH families AS MATERIALIZED (
  SELECT id
  FROM workflow
  WHERE id IN (SELECT workflow_id FROM process WHERE id = ANY(%(ids)s::uuid[]) AND workflow_id IS NOT NULL)
  ORDER BY id
  FOR NO KEY UPDATE SKIP LOCKED
)
SELECT *
FROM live
WHERE
  id = ANY(%(ids)s::uuid[])
  AND tenant = %(colony)s
  AND (workflow_id IS NULL OR workflow_id IN (SELECT id FROM families))
ORDER BY id
FOR NO KEY UPDATE OF live SKIP LOCKED;

-- name: read_priors
-- Attempts as they are recorded: what was a repeated close is told by them.
SELECT a.process_id, a.number, a.executor_id, a.outcome
FROM unnest(%(ids)s::uuid[], %(numbers)s::integer[]) AS g (process_id, number)
JOIN attempt AS a USING (process_id, number);

-- name: end_processes
-- Write what becomes of locked processes: the rows, their ledger lines, their workflows' counts.
WITH given AS (
  SELECT *
  FROM unnest(
    %(ids)s::uuid[], %(from_states)s::smallint[], %(to_states)s::smallint[], %(outcomes)s::smallint[], %(retries)s::integer[],
    %(actors)s::text[], %(reasons)s::text[], %(backoffs)s::timestamptz[], %(put)s::boolean[], %(receipts)s::bytea[]
  ) WITH ORDINALITY AS g (id, from_state, to_state, outcome, retry, actor, reason, backoff_until, put, receipt, position)
), puts AS (
  SELECT position, array_agg(output ORDER BY number) AS outputs, sum(octet_length(output)) AS bytes
  FROM unnest(%(output_positions)s::integer[], %(outputs)s::bytea[]) WITH ORDINALITY AS o (position, output, number)
  GROUP BY position
), faults AS (
  SELECT position, array_agg(error ORDER BY number) AS errors
  FROM unnest(%(error_positions)s::integer[], %(errors)s::text[]) WITH ORDINALITY AS f (position, error, number)
  GROUP BY position
), told AS (
  SELECT g.*, o.outputs, coalesce(o.bytes, 0) AS bytes, coalesce(f.errors, '{}') AS errors
  FROM given AS g
  LEFT JOIN puts AS o USING (position)
  LEFT JOIN faults AS f USING (position)
), ended AS (
  UPDATE process AS p
  SET
    state = t.to_state,
    retries = p.retries + t.retry,
    undelivered = p.undelivered + CASE WHEN t.outcome = 6 THEN 1 ELSE 0 END,
    backoff_until = t.backoff_until,
    ready_at = CASE WHEN t.to_state = 1 THEN coalesce(t.backoff_until, %(at)s::timestamptz) ELSE p.ready_at END,
    ended_at = CASE WHEN t.to_state > 2 THEN %(at)s::timestamptz END,
    -- A retry begins with nothing.
    outputs = CASE WHEN t.to_state = 1 THEN '{}' WHEN t.put THEN coalesce(t.outputs, '{}') ELSE p.outputs END,
    output_bytes = CASE WHEN t.to_state = 1 THEN 0 WHEN t.put THEN t.bytes ELSE p.output_bytes END,
    errors = CASE WHEN cardinality(t.errors) > 0 THEN t.errors ELSE p.errors END,
    executor_name = CASE WHEN t.to_state = 1 THEN '' ELSE p.executor_name END,
    executor_id = CASE WHEN t.to_state = 1 THEN '' ELSE p.executor_id END,
    output_receipt = CASE WHEN t.to_state = 1 THEN NULL ELSE p.output_receipt END,
    -- Of the same values as the line below.
    chain = chain_link(
      p.chain, %(at)s, t.from_state, t.to_state, CASE WHEN t.from_state = 2 THEN p.attempt ELSE 0 END, p.executor_name, t.actor,
      t.reason, t.outcome, CASE WHEN t.outcome > 0 THEN t.errors ELSE '{}' END, t.receipt, p.output_receipt
    )
  FROM told AS t
  WHERE p.id = t.id
  RETURNING p.id, p.workflow_id, p.chain, t.from_state, t.to_state
), starts AS (
  DELETE FROM workflow_start
  WHERE workflow_id IN (SELECT workflow_id FROM process WHERE id = ANY(%(ids)s::uuid[]))
  RETURNING workflow_id, count
), counted AS (
  UPDATE workflow AS w
  SET
    waiting = w.waiting + c.waiting - s.count,
    running = w.running + c.running + s.count,
    begun = w.begun OR s.count > 0,
    successful = w.successful + c.successful,
    failed = w.failed + c.failed,
    cancelled = w.cancelled + c.cancelled,
    ended_at = CASE WHEN w.waiting + c.waiting + w.running + c.running = 0 THEN %(at)s::timestamptz END
  FROM (
    SELECT
      workflow_id,
      count(*) FILTER (WHERE to_state = 1) - count(*) FILTER (WHERE from_state = 1) AS waiting,
      - count(*) FILTER (WHERE from_state = 2) AS running,
      count(*) FILTER (WHERE to_state = 3) AS successful,
      count(*) FILTER (WHERE to_state = 4) AS failed,
      count(*) FILTER (WHERE to_state = 5) AS cancelled
    FROM ended
    WHERE workflow_id IS NOT NULL
    GROUP BY workflow_id
  ) AS c
  CROSS JOIN LATERAL (SELECT coalesce(sum(count), 0) AS count FROM starts WHERE starts.workflow_id = c.workflow_id) AS s
  WHERE w.id = c.workflow_id
)
INSERT INTO ledger (
  xid, colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, outcome,
  errors, took_ms, receipt, output_receipt, hash
)
SELECT
  -- This transaction may have had its number before others, with higher ones, had the row: it comes after them all the same.
  greatest(pg_current_xact_id(), (SELECT l.xid FROM ledger AS l WHERE l.process_id = p.id ORDER BY l.id DESC LIMIT 1)),
  p.colony, p.id, p.workflow_id, p.executor_type, %(at)s, t.from_state, t.to_state,
  -- Who only waited had no attempt that this is about.
  CASE WHEN t.from_state = 2 THEN p.attempt ELSE 0 END, p.executor_name, t.actor, t.reason, t.outcome,
  CASE WHEN t.outcome > 0 THEN t.errors ELSE '{}' END,
  CASE WHEN t.from_state = 2 THEN greatest(extract(epoch FROM %(at)s - p.started_at) * 1000, 0)::bigint END,
  t.receipt, p.output_receipt, e.chain
FROM told AS t
JOIN ended AS e USING (id)
-- The snapshot is from before the update: executor_name is still that of the attempt that ended.
JOIN process AS p USING (id);

-- name: store_outputs
-- The outputs of one locked process whose live attempt sets them. The call that set the outputs before is kept no longer.
WITH before AS (
  DELETE FROM receipt
  WHERE (colony, digest) IN (SELECT colony, output_receipt FROM process WHERE id = %(id)s)
)
UPDATE process
SET outputs = %(outputs)s::bytea[], output_bytes = %(output_bytes)s, output_receipt = %(receipt)s::bytea
WHERE id = %(id)s;

-- name: unlock_children
-- Parents ended: their children wait for so many fewer, as their policies say: ALL_SUCCESSFUL (1) counts parents that were
-- successful, ALL_DONE (2) all, ANY_DONE (3) waits for one only. The rows that come back have no parent left to wait for.
-- `missing`: an edge asks for an output that its parent does not have. `bytes`: at least what its input will have. Cost: the
-- children.
WITH freed AS (
  SELECT e.child_id, count(*) FILTER (WHERE g.successful) AS successes, count(*) AS ends
  FROM unnest(%(parents)s::uuid[], %(successful)s::boolean[]) AS g (id, successful)
  JOIN edge AS e ON e.parent_id = g.id
  GROUP BY e.child_id
), locked AS MATERIALIZED (
  SELECT
    p.id,
    greatest(
      CASE p.parent_policy
        WHEN 1 THEN p.pending_parents - f.successes
        WHEN 2 THEN p.pending_parents - f.ends
        ELSE 0
      END, 0
    )::integer AS left_over
  FROM process AS p
  JOIN freed AS f ON f.child_id = p.id
  WHERE p.state = 1 AND p.pending_parents > 0
  ORDER BY p.id
  FOR NO KEY UPDATE OF p
), unlocked AS (
  UPDATE live AS p
  SET
    pending_parents = l.left_over,
    ready_at = CASE WHEN l.left_over = 0 THEN %(at)s::timestamptz END
  FROM locked AS l
  WHERE p.id = l.id
  RETURNING p.*
)
SELECT
  u.*,
  EXISTS (
    SELECT 1
    FROM edge AS e
    JOIN process AS q ON q.id = e.parent_id AND q.state = 3
    WHERE e.child_id = u.id AND e.selector = 1 AND e.k >= cardinality(q.outputs)
  ) AS missing,
  (
    SELECT coalesce(sum(q.output_bytes), 0)::bigint
    FROM edge AS e
    JOIN process AS q ON q.id = e.parent_id
    WHERE e.child_id = u.id
  ) AS bytes
FROM unlocked AS u
WHERE u.pending_parents = 0;

-- name: missing_outputs
-- Of children that became ready, those whose edges ask for an output that the parent does not have.
SELECT e.child_id, p.node_name AS parent, e.k AS index, cardinality(p.outputs) AS count
FROM edge AS e
JOIN process AS p ON p.id = e.parent_id AND p.state = 3
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
-- Processes ended without success: all that waits for their success, however far down, ends too. What runs in spite of a
-- failure (its policy says so) does not, nor what is below it. Cost: the descendants.
WITH RECURSIVE descendant AS (
  SELECT c.id
  FROM unnest(%(roots)s::uuid[]) AS r (id)
  JOIN edge AS e ON e.parent_id = r.id
  JOIN process AS c ON c.id = e.child_id AND c.parent_policy = 1 AND c.state = 1
  UNION
  SELECT c.id
  FROM descendant AS d
  JOIN edge AS e ON e.parent_id = d.id
  JOIN process AS c ON c.id = e.child_id AND c.parent_policy = 1 AND c.state = 1
), blamed AS (
  -- With one root it is that. With several, which of them a process far below waited for would cost their number times the edges:
  -- then it is the first submitted of its parents that ended.
  SELECT
    d.id,
    coalesce(%(root)s::text, (
      SELECT q.node_name
      FROM edge AS e
      JOIN process AS q ON q.id = e.parent_id
      WHERE e.child_id = d.id AND (q.id = ANY(%(roots)s::uuid[]) OR q.id IN (SELECT id FROM descendant))
      ORDER BY q.sequence
      LIMIT 1
    )) AS root
  FROM descendant AS d
), locked AS MATERIALIZED (
  SELECT p.id, b.root
  FROM process AS p
  JOIN blamed AS b USING (id)
  WHERE p.state = 1
  ORDER BY p.id
  FOR NO KEY UPDATE OF p
), ended AS (
  UPDATE process AS p
  SET
    state = %(to_state)s,
    ended_at = %(at)s,
    errors = ARRAY[format(%(error)s::text, l.root)],
    chain = chain_link(p.chain, %(at)s, 1, %(to_state)s, 0, '', '', %(reason)s, 0, '{}', NULL, NULL)
  FROM locked AS l
  WHERE p.id = l.id
  RETURNING p.id, p.colony, p.workflow_id, p.executor_type, p.chain
), counted AS (
  UPDATE workflow AS w
  SET
    waiting = w.waiting - c.count,
    failed = w.failed + CASE WHEN %(to_state)s = 4 THEN c.count ELSE 0 END,
    cancelled = w.cancelled + CASE WHEN %(to_state)s = 5 THEN c.count ELSE 0 END,
    ended_at = CASE WHEN w.waiting - c.count + w.running = 0 THEN %(at)s::timestamptz END
  FROM (SELECT workflow_id, count(*) FROM ended GROUP BY workflow_id) AS c
  WHERE w.id = c.workflow_id
)
INSERT INTO ledger (
  xid, colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, hash
)
SELECT
  greatest(pg_current_xact_id(), (SELECT l.xid FROM ledger AS l WHERE l.process_id = ended.id ORDER BY l.id DESC LIMIT 1)),
  colony, id, workflow_id, executor_type, %(at)s, 1, %(to_state)s, 0, '', '', %(reason)s, chain
FROM ended
RETURNING process_id;
