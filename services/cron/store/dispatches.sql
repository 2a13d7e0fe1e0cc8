-- Batches on their way to the scheduler.

-- name: upcoming
-- What is due up to a moment, in order.
SELECT id, due_at
FROM generator
WHERE due_at <= %(until)s AND (due_at, id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)
ORDER BY due_at, id
LIMIT %(limit)s;

-- name: lock_claimable
-- One generator, removed or not.
SELECT id, colony, initiator, max_count, timeout_ms, max_bytes, nodes, roots, octet_length(workflow) AS workflow_bytes, paused,
  blocked, next_sequence, next_batch, waiting, waiting_bytes, bins, unsubmitted, batched, batched_bytes, due_at,
  claimed_until, claim, at_most, tries, retry_at, removed_at
FROM generator
WHERE id = %(id)s
FOR UPDATE;

-- name: ripe_bins
-- Bins that are full, and bins whose first argument has waited long enough; each from its index, as there may be very many.
(
  SELECT key, count, bytes, first_sequence, last_sequence, oldest_at
  FROM bin
  WHERE generator_id = %(id)s AND is_full
  ORDER BY key
  LIMIT %(limit)s
)
UNION ALL
(
  SELECT key, count, bytes, first_sequence, last_sequence, oldest_at
  FROM bin
  WHERE generator_id = %(id)s AND NOT is_full AND oldest_at <= %(before)s
  ORDER BY oldest_at
  LIMIT %(limit)s
)
ORDER BY first_sequence;

-- name: next_batches
-- What is to be submitted next.
SELECT generator_id, number, key, first_sequence, last_sequence, count, bytes, reason, created_at, oldest_at, submitted_at,
  error, tries
FROM batch
WHERE generator_id = %(id)s AND submitted_at IS NULL
ORDER BY number
LIMIT %(limit)s;

-- name: claim
-- Whoever has this number is at it until then.
UPDATE generator
SET claim = %(claim)s,
  claimed_until = %(until)s,
  due_at = %(until)s
WHERE id = %(id)s;

-- name: outlook
-- What decides when to look again.
SELECT
  (SELECT min(oldest_at) FROM bin WHERE generator_id = %(id)s) AS oldest_at,
  EXISTS (SELECT FROM bin WHERE generator_id = %(id)s AND is_full) AS is_full;

-- name: look_at
-- When to look again.
UPDATE generator
SET due_at = %(due)s
WHERE id = %(id)s;

-- name: find_workflow
-- What is submitted.
SELECT workflow
FROM generator
WHERE id = %(id)s;

-- name: batch_arguments
-- The arguments of batches, in order.
SELECT b.number, a.value
FROM batch AS b
JOIN argument AS a
  ON a.generator_id = b.generator_id AND a.key = b.key AND a.sequence BETWEEN b.first_sequence AND b.last_sequence
WHERE b.generator_id = %(id)s AND b.number = ANY(%(numbers)s::bigint[]) AND b.submitted_at IS NULL
ORDER BY b.number, a.sequence;

-- name: note_submitted
-- Batches that are workflows now, whoever submitted them; their arguments go.
WITH done AS (
  UPDATE batch
  SET submitted_at = %(now)s,
    error = '',
    tries = tries + 1
  WHERE generator_id = %(id)s AND number = ANY(%(numbers)s::bigint[]) AND submitted_at IS NULL
  RETURNING key, first_sequence, last_sequence, count, bytes
), gone AS (
  DELETE FROM argument AS a
  USING done AS d
  WHERE a.generator_id = %(id)s AND a.key = d.key AND a.sequence BETWEEN d.first_sequence AND d.last_sequence
)
SELECT count(*) AS batches, COALESCE(sum(count), 0)::bigint AS arguments, COALESCE(sum(bytes), 0)::bigint AS bytes
FROM done;

-- name: settle_submitted
-- Count what was submitted; and end the claim, if it is the caller's.
UPDATE generator
SET unsubmitted = unsubmitted - %(batches)s,
  batched = batched - %(arguments)s,
  batched_bytes = batched_bytes - %(bytes)s,
  submitted = submitted + %(batches)s,
  last_workflow_id = CASE WHEN %(batches)s > 0 THEN %(workflow_id)s ELSE last_workflow_id END,
  claimed_until = CASE WHEN %(ours)s THEN NULL ELSE claimed_until END,
  at_most = CASE WHEN %(ours)s THEN %(at_most)s ELSE at_most END,
  tries = CASE WHEN %(ours)s THEN 0 ELSE tries END,
  retry_at = CASE WHEN %(ours)s THEN NULL ELSE retry_at END,
  last_error = CASE WHEN %(ours)s THEN '' ELSE last_error END,
  due_at = CASE WHEN %(ours)s THEN %(due)s ELSE due_at END
WHERE id = %(id)s;

-- name: note_failed
-- Batches that could not be submitted; what went wrong stands with the first.
UPDATE batch
SET tries = tries + 1,
  error = CASE WHEN number = %(first)s THEN %(error)s ELSE error END
WHERE generator_id = %(id)s AND number = ANY(%(numbers)s::bigint[]) AND submitted_at IS NULL;

-- name: settle_failed
-- End the claim, and say when to try again.
UPDATE generator
SET claimed_until = NULL,
  at_most = %(at_most)s,
  tries = tries + 1,
  retry_at = %(retry_at)s,
  last_error = %(error)s,
  blocked = %(blocked)s,
  paused = paused OR %(blocked)s,
  pause_reason = CASE WHEN %(blocked)s THEN %(pause_reason)s ELSE pause_reason END,
  due_at = %(due)s
WHERE id = %(id)s;
