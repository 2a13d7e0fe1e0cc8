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

-- name: audit_page
-- A page of a colony's processes in submission order.
SELECT id, sequence, workflow_id, initiator, initiator_name, submitted_at, priority_time, receipt, place
FROM process
WHERE
  colony = %(colony)s
  AND sequence > %(after)s
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
  AND submitted_at >= %(since)s
  AND submitted_at < %(before)s
ORDER BY sequence
LIMIT %(limit)s;

-- name: audit_events
-- The ledger lines of processes.
SELECT
  process_id, at, from_state, to_state, attempt, executor_name, actor, reason, outcome, errors, receipt, output_receipt, hash
FROM ledger
WHERE process_id = ANY(%(ids)s::uuid[])
ORDER BY process_id, id;

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
