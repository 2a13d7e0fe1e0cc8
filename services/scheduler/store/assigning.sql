-- Attempts begin.

-- name: assign
-- Begin attempts: of the processes that the queue gave to executors, those that are still ready, that nobody else is at, and that
-- go into one answer with the others of their executor. They come back with their inputs: their parents' outputs as the edges
-- select them, parents in dependency order. Those that did not go into the answer come back without a spec. Nobody waits here
-- for a lock, and no workflow is locked: this batch is of many executors and colonies.
WITH given AS (
  SELECT *
  FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(executors)s::integer[]) AS g (id, attempt, executor)
), pullers AS (
  SELECT *
  FROM unnest(%(colonies)s::text[], %(executor_ids)s::text[], %(executor_names)s::text[]) WITH ORDINALITY
    AS x (colony, executor_id, executor_name, executor)
), locked AS MATERIALIZED (
  SELECT
    p.id, p.priority_time, p.sequence, p.workflow_id, g.executor, x.executor_id, x.executor_name,
    octet_length(p.spec) AS spec_bytes
  FROM given AS g
  JOIN pullers AS x USING (executor)
  JOIN process AS p USING (id)
  WHERE
    -- No index helps to hold the tenant against a row that is known by its id; the planner must not think so.
    p.colony || '' = x.colony
    AND p.state = 1
    AND p.pending_parents = 0
    AND p.attempt = g.attempt - 1
    AND (p.backoff_until IS NULL OR p.backoff_until <= %(at)s)
  ORDER BY p.id
  FOR NO KEY UPDATE OF p SKIP LOCKED
), sized AS (
  SELECT
    id, executor, executor_id, executor_name,
    row_number() OVER urgency AS place,
    sum(
      spec_bytes + CASE WHEN workflow_id IS NULL THEN 0 ELSE (
        SELECT coalesce(sum(q.output_bytes), 0)
        FROM edge AS e
        JOIN process AS q ON q.id = e.parent_id
        WHERE e.child_id = locked.id
      ) END
    ) OVER urgency AS bytes
  FROM locked
  WINDOW urgency AS (PARTITION BY executor ORDER BY priority_time, sequence ROWS UNBOUNDED PRECEDING)
), claimed AS (
  UPDATE process AS p
  SET
    state = 2,
    attempt = p.attempt + 1,
    executor_name = s.executor_name,
    executor_id = s.executor_id,
    started_at = %(at)s,
    backoff_until = NULL,
    outputs = '{}',
    output_bytes = 0,
    errors = '{}',
    chain = chain_link(
      p.chain, %(at)s, 1, 2, p.attempt + 1, s.executor_name, s.executor_id, 'ASSIGNED', 0, '{}', NULL, NULL
    )
  FROM sized AS s
  WHERE p.id = s.id AND p.state = 1 AND (s.place = 1 OR s.bytes <= %(at_most_bytes)s)
  RETURNING
    p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location, p.needs,
    p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.undelivered, p.max_retries, p.max_wait_ms,
    p.max_exec_ms, p.backoff, p.backoff_until, p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at,
    p.spec, p.chain, s.executor
), noted AS (
  INSERT INTO workflow_start (workflow_id, count)
  SELECT workflow_id, count(*)
  FROM claimed
  WHERE workflow_id IS NOT NULL
  GROUP BY workflow_id
), written AS (
  INSERT INTO ledger (
    colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, took_ms,
    hash
  )
  SELECT
    colony, id, workflow_id, executor_type, %(at)s, 1, 2, attempt, executor_name, executor_id, 'ASSIGNED',
    greatest(extract(epoch FROM %(at)s - ready_at) * 1000, 0)::bigint, chain
  FROM claimed
)
SELECT
  c.id, c.colony, c.workflow_id, c.node_name, c.func_name, c.sequence, c.executor_type, c.executor_names, c.location, c.needs,
  c.priority_time, c.state, c.pending_parents, c.attempt, c.retries, c.undelivered, c.max_retries, c.max_wait_ms, c.max_exec_ms,
  c.backoff, c.backoff_until, c.executor_id, c.executor_name, c.initiator, c.ready_at, c.started_at, c.spec, s.executor,
  s.id AS claimed_id,
  CASE WHEN c.workflow_id IS NOT NULL THEN ARRAY(
    SELECT o.output
    FROM edge AS e
    JOIN process AS q ON q.id = e.parent_id AND q.state = 3
    CROSS JOIN LATERAL unnest(
      CASE
        WHEN e.selector = 1 OR (e.selector = 2 AND cardinality(q.outputs) = e.n) THEN q.outputs[e.k + 1 : e.k + 1]
        ELSE q.outputs
      END
    ) WITH ORDINALITY AS o (output, number)
    WHERE e.child_id = c.id
    ORDER BY e.position, o.number
  ) END AS inputs
FROM sized AS s
-- A process that two executors of this batch had claimed is one's alone.
LEFT JOIN claimed AS c USING (id, executor)
ORDER BY s.place;

-- name: read_inputs
-- The inputs of one process, as `assign` gives them.
SELECT o.output
FROM edge AS e
JOIN process AS q ON q.id = e.parent_id AND q.state = 3
CROSS JOIN LATERAL unnest(
  CASE
    WHEN e.selector = 1 OR (e.selector = 2 AND cardinality(q.outputs) = e.n) THEN q.outputs[e.k + 1 : e.k + 1]
    ELSE q.outputs
  END
) WITH ORDINALITY AS o (output, number)
WHERE e.child_id = %(id)s
ORDER BY e.position, o.number;
