-- What nobody needs any more goes in pages, so that nobody waits for it.

-- name: forget_packs
-- Request ids that are not good any more.
WITH gone AS (
  DELETE FROM pack
  WHERE (generator_id, request) IN (
    SELECT generator_id, request
    FROM pack
    WHERE packed_at < %(before)s
    ORDER BY packed_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
  )
  RETURNING 1
)
SELECT count(*) AS count
FROM gone;

-- name: forget_batches
-- Batches that were submitted long ago.
WITH gone AS (
  DELETE FROM batch
  WHERE (generator_id, number) IN (
    SELECT generator_id, number
    FROM batch
    WHERE submitted_at < %(before)s
    ORDER BY submitted_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
  )
  RETURNING 1
)
SELECT count(*) AS count
FROM gone;

-- name: lock_dropped
-- Ranges of arguments that were thrown away, that nobody is at.
SELECT generator_id, key, first_sequence, last_sequence
FROM dropped
ORDER BY generator_id, key, first_sequence
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED;

-- name: delete_dropped
-- A page of their arguments.
WITH gone AS (
  DELETE FROM argument
  WHERE (generator_id, key, sequence) IN (
    SELECT a.generator_id, a.key, a.sequence
    FROM unnest(%(generators)s::uuid[], %(keys)s::text[], %(firsts)s::bigint[], %(lasts)s::bigint[])
      AS d (generator_id, key, first_sequence, last_sequence)
    JOIN argument AS a
      ON a.generator_id = d.generator_id AND a.key = d.key AND a.sequence BETWEEN d.first_sequence AND d.last_sequence
    LIMIT %(limit)s
  )
  RETURNING 1
)
SELECT count(*) AS count
FROM gone;

-- name: forget_dropped
-- Ranges that are empty by now.
DELETE FROM dropped AS d
USING unnest(%(generators)s::uuid[], %(keys)s::text[], %(firsts)s::bigint[]) AS asked (generator_id, key, first_sequence)
WHERE
  d.generator_id = asked.generator_id
  AND d.key = asked.key
  AND d.first_sequence = asked.first_sequence
  AND NOT EXISTS (
    SELECT
    FROM argument AS a
    WHERE a.generator_id = d.generator_id AND a.key = d.key AND a.sequence BETWEEN d.first_sequence AND d.last_sequence
  );

-- name: lock_removed
-- A generator that was removed, and that nobody is at.
SELECT id
FROM generator
WHERE removed_at IS NOT NULL AND (claimed_until IS NULL OR claimed_until <= %(now)s)
ORDER BY id
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: delete_arguments
-- A page of its arguments.
DELETE FROM argument
WHERE (generator_id, key, sequence) IN (
  SELECT generator_id, key, sequence FROM argument WHERE generator_id = %(id)s LIMIT %(limit)s
);

-- name: delete_batches
-- A page of its batches.
DELETE FROM batch
WHERE (generator_id, number) IN (SELECT generator_id, number FROM batch WHERE generator_id = %(id)s LIMIT %(limit)s);

-- name: delete_bins
-- A page of its bins.
DELETE FROM bin
WHERE (generator_id, key) IN (SELECT generator_id, key FROM bin WHERE generator_id = %(id)s LIMIT %(limit)s);

-- name: delete_packs
-- A page of its packs.
DELETE FROM pack
WHERE (generator_id, request) IN (SELECT generator_id, request FROM pack WHERE generator_id = %(id)s LIMIT %(limit)s);

-- name: delete_ranges
-- A page of its ranges that were thrown away.
DELETE FROM dropped
WHERE (generator_id, key, first_sequence) IN (
  SELECT generator_id, key, first_sequence FROM dropped WHERE generator_id = %(id)s LIMIT %(limit)s
);

-- name: delete_generator
-- The last of it.
DELETE FROM generator
WHERE id = %(id)s;

-- name: remove_all
-- All generators of removed colonies are gone for everyone.
UPDATE generator
SET removed_at = %(now)s,
  due_at = NULL
WHERE colony = ANY(%(colonies)s::text[]) AND removed_at IS NULL
RETURNING id;

-- name: waiting
-- Arguments that are in no workflow yet.
SELECT COALESCE(sum(waiting + batched), 0)::bigint AS arguments
FROM generator
WHERE removed_at IS NULL;
