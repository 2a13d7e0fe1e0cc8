-- Generators as their members see them.

-- name: insert_generator
-- Keep a new generator, unless its name is taken.
INSERT INTO generator (
  id, colony, name, max_count, timeout_ms, max_bytes, workflow, nodes, roots, initiator, initiator_name, created_at, at_most
)
VALUES (
  %(id)s, %(colony)s, %(name)s, %(max_count)s, %(timeout_ms)s, %(max_bytes)s, %(workflow)s, %(nodes)s, %(roots)s,
  %(initiator)s, %(initiator_name)s, %(created_at)s, %(at_most)s
)
ON CONFLICT (colony, name) WHERE removed_at IS NULL DO NOTHING;

-- name: find_generator
-- One generator, with its workflow if that is asked for.
SELECT id, colony, name, max_count, timeout_ms, max_bytes,
  CASE WHEN %(whole)s THEN workflow ELSE ''::bytea END AS workflow, nodes, roots, initiator, initiator_name, created_at,
  paused, pause_reason, waiting, waiting_bytes, bins, unsubmitted, submitted, last_workflow_id, last_error,
  (SELECT min(b.oldest_at) FROM bin AS b WHERE b.generator_id = g.id) AS oldest_at
FROM generator AS g
WHERE colony = %(colony)s AND name = %(name)s AND removed_at IS NULL;

-- name: list_generators
-- A page of a colony's generators. Workflows may be large and stay where they are.
SELECT id, colony, name, max_count, timeout_ms, max_bytes, ''::bytea AS workflow, nodes, roots, initiator, initiator_name,
  created_at, paused, pause_reason, waiting, waiting_bytes, bins, unsubmitted, submitted, last_workflow_id, last_error,
  (SELECT min(b.oldest_at) FROM bin AS b WHERE b.generator_id = g.id) AS oldest_at
FROM generator AS g
WHERE colony = %(colony)s AND name > %(after)s AND removed_at IS NULL
ORDER BY name
LIMIT %(limit)s;

-- name: list_bins
-- A page of what waits.
SELECT key, count, bytes, first_sequence, last_sequence, oldest_at
FROM bin
WHERE generator_id = %(id)s AND (%(after)s::text IS NULL OR key > %(after)s)
ORDER BY key
LIMIT %(limit)s;

-- name: list_batches
-- A page of batches, newest first.
SELECT generator_id, number, key, first_sequence, last_sequence, count, bytes, reason, created_at, oldest_at, submitted_at,
  error, tries
FROM batch
WHERE generator_id = %(id)s AND number < %(before)s
ORDER BY number DESC
LIMIT %(limit)s;

-- name: list_unsubmitted
-- As list_batches, of those that are not submitted.
SELECT generator_id, number, key, first_sequence, last_sequence, count, bytes, reason, created_at, oldest_at, submitted_at,
  error, tries
FROM batch
WHERE generator_id = %(id)s AND number < %(before)s AND submitted_at IS NULL
ORDER BY number DESC
LIMIT %(limit)s;

-- name: pause
-- Makes no batches until it is resumed. Who paused it first is the reason.
UPDATE generator
SET paused = true,
  pause_reason = CASE WHEN paused THEN pause_reason ELSE %(reason)s END
WHERE id = %(id)s AND removed_at IS NULL
RETURNING id;

-- name: resume
-- Goes on, and is looked at now; whoever is at it looks again by itself.
UPDATE generator
SET paused = false,
  pause_reason = '',
  blocked = false,
  retry_at = NULL,
  tries = 0,
  due_at = CASE WHEN claimed_until > %(now)s THEN due_at ELSE %(now)s END
WHERE id = %(id)s AND removed_at IS NULL AND paused
RETURNING id;

-- name: is_there
-- Whether there is such a generator.
SELECT id
FROM generator
WHERE id = %(id)s AND removed_at IS NULL;

-- name: lock_contents
-- What would be lost with a generator.
SELECT waiting + batched AS arguments
FROM generator
WHERE id = %(id)s AND removed_at IS NULL
FOR UPDATE;

-- name: remove
-- Gone for everyone from now on, and claimed by nobody any more.
UPDATE generator
SET removed_at = %(now)s,
  due_at = NULL
WHERE id = %(id)s;

-- name: claimed
-- Whether somebody is at it, removed or not.
SELECT id
FROM generator
WHERE id = %(id)s AND claimed_until > %(now)s;
