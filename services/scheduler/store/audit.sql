-- What the audit export reads.

-- name: audit_missing
-- Which of these processes and workflows the colony does not have.
SELECT id, FALSE AS is_workflow
FROM unnest(%(process_ids)s::uuid[]) AS g (id)
WHERE NOT EXISTS (SELECT FROM process AS p WHERE p.id = g.id AND p.colony || '' = %(colony)s)
UNION ALL
SELECT id, TRUE
FROM unnest(%(workflow_ids)s::uuid[]) AS g (id)
WHERE NOT EXISTS (SELECT FROM workflow AS w WHERE w.id = g.id AND w.colony || '' = %(colony)s);

-- name: audit_ends
-- The first and the last place in submission order that a colony has.
SELECT
  (SELECT sequence FROM process WHERE colony = %(colony)s ORDER BY sequence LIMIT 1) AS first,
  (SELECT sequence FROM process WHERE colony = %(colony)s ORDER BY sequence DESC LIMIT 1) AS last;

-- name: audit_probe
-- When the first process at or behind a place was submitted.
SELECT submitted_at
FROM process
WHERE colony = %(colony)s AND sequence >= %(sequence)s
ORDER BY sequence
LIMIT 1;

-- name: audit_page
-- A page of a colony's processes in submission order.
SELECT id, sequence, workflow_id, initiator, initiator_name, submitted_at, priority_time, receipt, place
FROM process
WHERE
  colony = %(colony)s
  AND sequence > %(after)s
  AND sequence <= %(until)s
  AND submitted_at >= %(since)s
  AND submitted_at < %(before)s
ORDER BY sequence
LIMIT %(limit)s;

-- name: audit_chosen_page
-- The same of some processes, and of all those of some workflows.
SELECT id, sequence, workflow_id, initiator, initiator_name, submitted_at, priority_time, receipt, place
FROM process
WHERE
  id IN (
    SELECT unnest(%(process_ids)s::uuid[])
    UNION
    SELECT id FROM process WHERE workflow_id = ANY(%(workflow_ids)s::uuid[])
  )
  AND colony || '' = %(colony)s
  AND sequence > %(after)s
  AND sequence <= %(until)s
  AND submitted_at >= %(since)s
  AND submitted_at < %(before)s
ORDER BY sequence
LIMIT %(limit)s;

-- name: audit_outlines
-- The ledgers of processes in outline; how large their errors are, without reading them.
SELECT
  process_id, count(*) AS lines, max(id) AS last_line, sum(pg_column_size(errors) + 256)::bigint AS weight,
  bool_or(hash IS NULL) AS is_broken,
  coalesce(array_agg(receipt ORDER BY id) FILTER (WHERE receipt IS NOT NULL), '{}') AS receipts,
  coalesce(array_agg(output_receipt ORDER BY id) FILTER (WHERE output_receipt IS NOT NULL), '{}') AS output_receipts
FROM ledger
WHERE process_id = ANY(%(ids)s::uuid[])
GROUP BY process_id;

-- name: audit_events
-- The ledger lines of processes, each up to a last one.
SELECT
  l.process_id, l.id AS line, l.at, l.from_state, l.to_state, l.attempt, l.executor_name, l.actor, l.reason, l.outcome, l.errors,
  l.receipt, l.output_receipt, l.hash
FROM unnest(%(ids)s::uuid[], %(lasts)s::bigint[]) AS g (id, last)
JOIN ledger AS l ON l.process_id = g.id AND l.id <= g.last
ORDER BY l.process_id, l.id;

-- name: audit_part
-- Some ledger lines of one process.
SELECT
  id AS line, at, from_state, to_state, attempt, executor_name, actor, reason, outcome, errors, receipt, output_receipt, hash
FROM ledger
WHERE process_id = %(id)s AND id > %(after)s AND id <= %(last)s
ORDER BY id
LIMIT %(limit)s;

-- name: audit_receipt_sizes
-- How large the bodies of kept calls are.
SELECT digest, octet_length(body) AS size
FROM receipt
WHERE colony = %(colony)s AND digest = ANY(%(digests)s::bytea[]);

-- name: audit_receipts
-- Kept calls.
SELECT digest, method, public_key, time_ms, nonce, signature, body
FROM receipt
WHERE colony = %(colony)s AND digest = ANY(%(digests)s::bytea[]);
