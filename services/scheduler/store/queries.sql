-- Everything else that is written, and what the upkeep of the queue reads.

-- name: ping
-- Whether anybody answers.
SELECT 1 AS one;

-- name: read_live
-- Rows as they are, unlocked: what the queue should say of them.
SELECT *
FROM live
WHERE id = ANY(%(ids)s::uuid[]) AND tenant = %(colony)s;

-- name: read_children
-- The children of processes, as read_live.
SELECT *
FROM live
WHERE id IN (SELECT child_id FROM edge WHERE parent_id = ANY(%(ids)s::uuid[])) AND tenant = %(colony)s;

-- name: read_over
-- The newest attempts of these processes that have ended. What ended before them was told long ago.
WITH recent AS MATERIALIZED (
  SELECT l.*
  FROM unnest(%(ids)s::uuid[]) AS g (id)
  CROSS JOIN LATERAL (
    SELECT process_id, attempt, from_state, to_state, actor
    FROM ledger
    WHERE process_id = g.id
    ORDER BY id DESC
    LIMIT 8
  ) AS l
)
SELECT b.process_id, b.attempt, b.actor
FROM recent AS b
JOIN recent AS e ON e.process_id = b.process_id AND e.attempt = b.attempt AND e.from_state = 2
WHERE b.to_state = 2;

-- name: read_open
-- A page of all that the queue is rebuilt from, in submission order.
SELECT *
FROM live
-- As the index has it.
WHERE id IN (SELECT id FROM process WHERE ended_at IS NULL AND sequence > %(after)s ORDER BY sequence LIMIT %(limit)s)
ORDER BY sequence;

-- name: read_recent
-- A page of the processes whose state was changed at or after a moment, by their ids.
SELECT DISTINCT process_id, colony
FROM ledger
WHERE at >= %(since)s AND process_id > %(after)s
ORDER BY process_id
LIMIT %(limit)s;

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

-- name: delete_processes
-- Remove processes in final states, locked before, with all that hangs on them. They stay counted, and their ledger lines stay,
-- until all of these have been counted (statistics.sql).
WITH gone AS (
  DELETE FROM process
  WHERE id = ANY(%(ids)s::uuid[])
  RETURNING id, colony, executor_type, state
), removed AS (
  INSERT INTO removal (colony, executor_type, state, process_ids)
  SELECT colony, executor_type, state, array_agg(id)
  FROM gone
  GROUP BY colony, executor_type, state
), edges AS (
  DELETE FROM edge
  WHERE child_id = ANY(%(ids)s::uuid[])
), attributes AS (
  DELETE FROM attribute
  WHERE process_id = ANY(%(ids)s::uuid[])
), channels AS (
  DELETE FROM channel
  WHERE process_id = ANY(%(ids)s::uuid[])
), messages AS (
  DELETE FROM channel_message
  WHERE process_id = ANY(%(ids)s::uuid[])
)
DELETE FROM log
WHERE process_id = ANY(%(ids)s::uuid[]);

-- name: delete_ledger
-- Remove what processes did: for a colony that nobody counts any more.
DELETE FROM ledger
WHERE process_id = ANY(%(ids)s::uuid[]);

-- name: lock_workflow_row
-- A workflow's row, held until this transaction commits; and how many of its processes are open.
SELECT id, initiator, waiting + running AS open
FROM workflow
WHERE id = %(id)s AND colony = %(colony)s
FOR NO KEY UPDATE;

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
-- A page of what else is left of a removed colony.
WITH workflows AS (
  DELETE FROM workflow
  WHERE id IN (SELECT id FROM workflow WHERE colony = %(colony)s LIMIT %(limit)s)
  RETURNING id
), starts AS (
  DELETE FROM workflow_start
  WHERE workflow_id IN (SELECT id FROM workflows)
), submissions AS (
  DELETE FROM submission
  WHERE
    colony = %(colony)s
    AND (actor, request_id) IN (SELECT actor, request_id FROM submission WHERE colony = %(colony)s LIMIT %(limit)s)
  RETURNING 1
), receipts AS (
  DELETE FROM receipt
  WHERE
    colony = %(colony)s
    AND digest IN (SELECT digest FROM receipt WHERE colony = %(colony)s LIMIT %(limit)s)
  RETURNING 1
)
SELECT
  (SELECT count(*) FROM workflows) + (SELECT count(*) FROM submissions) + (SELECT count(*) FROM receipts) AS count;

-- name: keep_receipt
-- Keep a signed call that so many ledger lines of this transaction name. It is there already if it was let in twice, which takes
-- a Redis that was meddled with; what it asks for may be done twice then, and is told of as such.
INSERT INTO receipt (colony, digest, method, public_key, time_ms, nonce, signature, body, uses)
VALUES (
  %(colony)s, %(digest)s, %(method)s, %(public_key)s, %(time_ms)s, %(nonce)s, %(signature)s, %(body)s, %(uses)s
)
ON CONFLICT (colony, digest) DO UPDATE SET uses = receipt.uses + excluded.uses;
