-- How arguments go in and become batches. Whoever changes bins has the generator's row locked.

-- name: lock_named
-- The generators of packs, always in the same order.
SELECT id, colony, name, max_count, timeout_ms, max_bytes, paused, blocked, next_sequence, next_batch, waiting, waiting_bytes,
  bins, unsubmitted, batched, batched_bytes, due_at, claimed_until, retry_at
FROM generator
WHERE
  removed_at IS NULL
  AND (colony, name) IN (SELECT asked.colony, asked.name FROM unnest(%(colonies)s::text[], %(names)s::text[]) AS asked (colony, name))
ORDER BY id
FOR UPDATE OF generator;

-- name: lock_one
-- One generator.
SELECT id, max_count, timeout_ms, max_bytes, paused, blocked, next_sequence, next_batch, waiting, waiting_bytes, bins,
  unsubmitted, batched, batched_bytes, due_at, claimed_until, retry_at
FROM generator
WHERE id = %(id)s AND removed_at IS NULL
FOR UPDATE;

-- name: find_bins
-- The bins of some keys.
SELECT b.generator_id, b.key, b.count, b.bytes, b.first_sequence, b.last_sequence, b.oldest_at
FROM unnest(%(generators)s::uuid[], %(keys)s::text[]) AS asked (generator_id, key)
JOIN bin AS b USING (generator_id, key);

-- name: find_packs
-- Those of some packs that were answered.
SELECT p.generator_id, p.request, p.content, p.first_sequence
FROM unnest(%(generators)s::uuid[], %(requests)s::bytea[]) AS asked (generator_id, request)
JOIN pack AS p USING (generator_id, request);

-- name: bins_below
-- A page of the bins to flush, by key: so that many cost no more than each of them.
SELECT key, count, bytes, first_sequence, last_sequence, oldest_at
FROM bin
WHERE
  generator_id = %(id)s
  AND key >= %(since)s
  AND (%(key)s::text IS NULL OR key = %(key)s)
  AND first_sequence < %(below)s
ORDER BY key
LIMIT %(limit)s;

-- name: bin_arguments
-- The first arguments of a bin, without their values.
SELECT sequence, size, packed_at
FROM argument
WHERE generator_id = %(id)s AND key = %(key)s AND sequence BETWEEN %(first)s AND %(last)s
ORDER BY sequence
LIMIT %(limit)s;

-- name: write
-- All that a transaction changes of locked generators.
WITH standing AS (
  UPDATE generator AS g
  SET next_sequence = s.next_sequence,
    next_batch = s.next_batch,
    waiting = s.waiting,
    waiting_bytes = s.waiting_bytes,
    bins = s.bins,
    unsubmitted = s.unsubmitted,
    batched = s.batched,
    batched_bytes = s.batched_bytes,
    due_at = s.due_at
  FROM unnest(
    %(generators)s::uuid[], %(next_sequences)s::bigint[], %(next_batches)s::bigint[], %(waiting)s::bigint[],
    %(waiting_bytes)s::bigint[], %(bin_counts)s::integer[], %(unsubmitted)s::bigint[], %(batched)s::bigint[],
    %(batched_bytes)s::bigint[], %(due)s::timestamptz[]
  ) AS s (
    id, next_sequence, next_batch, waiting, waiting_bytes, bins, unsubmitted, batched, batched_bytes, due_at
  )
  WHERE g.id = s.id
), answered AS (
  INSERT INTO pack (generator_id, request, content, first_sequence, packed_at)
  SELECT p.generator_id, p.request, p.content, p.first_sequence, %(now)s
  FROM unnest(
    %(pack_generators)s::uuid[], %(pack_requests)s::bytea[], %(pack_contents)s::bytea[], %(pack_firsts)s::bigint[]
  ) AS p (generator_id, request, content, first_sequence)
), entered AS (
  INSERT INTO argument (generator_id, key, sequence, value, size, packed_at)
  SELECT a.generator_id, a.key, a.sequence, a.value, a.size, %(now)s
  FROM unnest(
    %(argument_generators)s::uuid[], %(argument_keys)s::text[], %(argument_sequences)s::bigint[],
    %(argument_values)s::bytea[], %(argument_sizes)s::integer[]
  ) AS a (generator_id, key, sequence, value, size)
), emptied AS (
  DELETE FROM bin AS b
  USING unnest(%(gone_generators)s::uuid[], %(gone_keys)s::text[]) AS e (generator_id, key)
  WHERE b.generator_id = e.generator_id AND b.key = e.key
), filled AS (
  INSERT INTO bin (generator_id, key, count, bytes, first_sequence, last_sequence, oldest_at, is_full)
  SELECT f.generator_id, f.key, f.count, f.bytes, f.first_sequence, f.last_sequence, f.oldest_at, f.is_full
  FROM unnest(
    %(bin_generators)s::uuid[], %(bin_keys)s::text[], %(bin_sizes)s::bigint[], %(bin_bytes)s::bigint[],
    %(bin_firsts)s::bigint[], %(bin_lasts)s::bigint[], %(bin_oldest)s::timestamptz[], %(bin_full)s::boolean[]
  ) AS f (generator_id, key, count, bytes, first_sequence, last_sequence, oldest_at, is_full)
  ON CONFLICT (generator_id, key) DO UPDATE
  SET count = EXCLUDED.count,
    bytes = EXCLUDED.bytes,
    first_sequence = EXCLUDED.first_sequence,
    last_sequence = EXCLUDED.last_sequence,
    oldest_at = EXCLUDED.oldest_at,
    is_full = EXCLUDED.is_full
)
INSERT INTO batch (generator_id, number, key, first_sequence, last_sequence, count, bytes, reason, created_at, oldest_at)
SELECT m.generator_id, m.number, m.key, m.first_sequence, m.last_sequence, m.count, m.bytes, m.reason, %(now)s, m.oldest_at
FROM unnest(
  %(batch_generators)s::uuid[], %(batch_numbers)s::bigint[], %(batch_keys)s::text[], %(batch_firsts)s::bigint[],
  %(batch_lasts)s::bigint[], %(batch_counts)s::integer[], %(batch_bytes)s::bigint[], %(batch_reasons)s::smallint[],
  %(batch_oldest)s::timestamptz[]
) AS m (generator_id, number, key, first_sequence, last_sequence, count, bytes, reason, oldest_at);

-- name: drop_bins
-- Throw away what waits; the arguments themselves go in pages.
WITH gone AS (
  DELETE FROM bin
  WHERE generator_id = %(id)s AND (%(key)s::text IS NULL OR key = %(key)s)
  RETURNING key, first_sequence, last_sequence, count, bytes
), noted AS (
  INSERT INTO dropped (generator_id, key, first_sequence, last_sequence)
  SELECT %(id)s, key, first_sequence, last_sequence
  FROM gone
)
UPDATE generator AS g
SET bins = g.bins - s.bins,
  waiting = g.waiting - s.arguments,
  waiting_bytes = g.waiting_bytes - s.bytes
FROM (
  SELECT count(*) AS bins, COALESCE(sum(count), 0) AS arguments, COALESCE(sum(bytes), 0) AS bytes
  FROM gone
) AS s
WHERE g.id = %(id)s
RETURNING s.arguments::bigint AS arguments;
