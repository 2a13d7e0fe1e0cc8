-- What is done to workflows as a whole, their rows locked first.

-- name: lock_open_processes
-- Lock every open process of a locked workflow: assignments lock the processes alone. A statement of its own, so that those which
-- follow see what was written by whom this waited for.
SELECT count(*) AS count
FROM (
  SELECT id
  FROM process
  WHERE workflow_id = %(workflow_id)s AND state IN (1, 2)
  ORDER BY id
  FOR NO KEY UPDATE
) AS locked;

-- name: cancel_workflow
-- Cancel every open process of a locked workflow, these locked as well. All of them come back, with the state that each was in:
-- `was`. Nothing ends before it began: the clock may have been read before that of an assignment which had the row first.
WITH locked AS MATERIALIZED (
  SELECT id, state AS was
  FROM process
  WHERE workflow_id = %(workflow_id)s AND state IN (1, 2)
), ended AS (
  UPDATE process AS p
  SET
    state = 5,
    ended_at = greatest(%(at)s, p.started_at),
    -- Of the same values as the line below.
    chain = chain_link(
      p.chain, greatest(%(at)s, p.started_at), l.was, 5, CASE WHEN l.was = 2 THEN p.attempt ELSE 0 END,
      CASE WHEN l.was = 2 THEN p.executor_name ELSE '' END, %(actor)s, 'CANCELLED', CASE WHEN l.was = 2 THEN 5 ELSE 0 END, '{}',
      %(receipt)s::bytea, p.output_receipt
    )
  FROM locked AS l
  WHERE p.id = l.id
  RETURNING
    p.id, p.colony, p.workflow_id, p.node_name, p.func_name, p.sequence, p.executor_type, p.executor_names, p.location, p.needs,
    p.priority_time, p.state, p.pending_parents, p.attempt, p.retries, p.undelivered, p.max_retries, p.max_wait_ms,
    p.max_exec_ms, p.backoff, p.backoff_until, p.executor_id, p.executor_name, p.initiator, p.ready_at, p.started_at, p.ended_at,
    p.output_receipt, p.chain, l.was
), starts AS (
  DELETE FROM workflow_start
  WHERE workflow_id = %(workflow_id)s
  RETURNING count
), counted AS (
  UPDATE workflow AS w
  SET
    waiting = w.waiting - c.waiting - s.count,
    running = w.running - c.running + s.count,
    begun = w.begun OR s.count > 0,
    cancelled = w.cancelled + c.waiting + c.running,
    ended_at = coalesce(c.ended_at, w.ended_at)
  FROM
    (
      SELECT
        count(*) FILTER (WHERE was = 1) AS waiting,
        count(*) FILTER (WHERE was = 2) AS running,
        max(ended_at) AS ended_at
      FROM ended
    ) AS c,
    (SELECT coalesce(sum(count), 0) AS count FROM starts) AS s
  WHERE w.id = %(workflow_id)s
), written AS (
  INSERT INTO ledger (
    xid, colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason,
    outcome, took_ms, receipt, output_receipt, hash
  )
  SELECT
    -- As in end_processes.
    greatest(pg_current_xact_id(), (SELECT l.xid FROM ledger AS l WHERE l.process_id = ended.id ORDER BY l.id DESC LIMIT 1)),
    colony, id, workflow_id, executor_type, ended_at, was, 5, CASE WHEN was = 2 THEN attempt ELSE 0 END,
    CASE WHEN was = 2 THEN executor_name ELSE '' END, %(actor)s, 'CANCELLED', CASE WHEN was = 2 THEN 5 ELSE 0 END,
    CASE WHEN was = 2 THEN greatest(extract(epoch FROM %(at)s - started_at) * 1000, 0)::bigint END,
    %(receipt)s::bytea, output_receipt, chain
  FROM ended
)
SELECT *
FROM ended;

-- name: retry_failed
-- Take every failed and cancelled process of a locked workflow back to waiting; what it waits for is counted afterwards.
WITH locked AS MATERIALIZED (
  SELECT id, state AS was
  FROM process
  WHERE workflow_id = %(workflow_id)s AND state IN (4, 5)
  ORDER BY id
  FOR NO KEY UPDATE
), again AS (
  UPDATE process AS p
  SET
    state = 1,
    retries = 0,
    undelivered = 0,
    -- Its wait begins anew, when count_parents finds it ready.
    ready_at = NULL,
    ended_at = NULL,
    backoff_until = NULL,
    outputs = '{}',
    output_bytes = 0,
    errors = '{}',
    executor_name = '',
    executor_id = '',
    output_receipt = NULL,
    chain = chain_link(p.chain, %(at)s, l.was, 1, 0, '', %(actor)s, 'RETRY_REQUESTED', 0, '{}', %(receipt)s::bytea, NULL)
  FROM locked AS l
  WHERE p.id = l.id
  RETURNING p.id, p.colony, p.workflow_id, p.executor_type, p.chain, l.was
), counted AS (
  UPDATE workflow AS w
  SET waiting = w.waiting + w.failed + w.cancelled, failed = 0, cancelled = 0, ended_at = NULL
  WHERE w.id = %(workflow_id)s AND w.failed + w.cancelled > 0
)
INSERT INTO ledger (
  xid, colony, process_id, workflow_id, executor_type, at, from_state, to_state, attempt, executor_name, actor, reason, receipt,
  hash
)
SELECT
  greatest(pg_current_xact_id(), (SELECT l.xid FROM ledger AS l WHERE l.process_id = again.id ORDER BY l.id DESC LIMIT 1)),
  colony, id, workflow_id, executor_type, %(at)s, was, 1, 0, '', %(actor)s, 'RETRY_REQUESTED', %(receipt)s::bytea, chain
FROM again
RETURNING process_id;

-- name: count_parents
-- Count anew what the waiting processes of a locked workflow wait for. Those that come back wait for no parent.
WITH counts AS (
  SELECT
    p.id,
    count(q.id) FILTER (WHERE q.state <> 3) AS missing,
    bool_or(q.state > 2) AS any_done
  FROM process AS p
  LEFT JOIN edge AS e ON e.child_id = p.id
  LEFT JOIN process AS q ON q.id = e.parent_id
  WHERE p.workflow_id = %(workflow_id)s AND p.state = 1
  GROUP BY p.id
), changed AS (
  UPDATE live AS p
  SET
    pending_parents = CASE WHEN v.parent_policy < 3 THEN c.missing WHEN c.missing > 0 AND NOT c.any_done THEN 1 ELSE 0 END,
    ready_at = CASE
      WHEN v.parent_policy < 3 AND c.missing > 0 OR v.parent_policy = 3 AND c.missing > 0 AND NOT c.any_done THEN NULL
      ELSE coalesce(p.ready_at, %(at)s)
    END
  FROM counts AS c
  JOIN process AS v USING (id)
  -- One that was assigned meanwhile has had its turn.
  WHERE p.id = c.id AND p.state = 1
  RETURNING p.*
)
SELECT *
FROM changed
WHERE pending_parents = 0;
