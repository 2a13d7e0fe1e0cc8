-- Receipts: the signed calls behind submits, closes, outputs, cancels and retries, and a chain of hashes through each process's
-- ledger lines. What is hashed is specified in docs/audit.md.

-- Each once, however many processes it was about.
CREATE TABLE receipt (
  colony text NOT NULL,
  -- SHA-256 of the signed text, the public key and the signature: what ledger lines name it by.
  digest bytea NOT NULL,
  method text NOT NULL,
  public_key bytea NOT NULL,
  time_ms bigint NOT NULL,
  nonce bytea NOT NULL,
  signature bytea NOT NULL,
  -- The request as it was sent.
  body bytea NOT NULL,
  -- How many ledger lines name it. It goes with the last of them.
  uses integer NOT NULL,
  PRIMARY KEY (colony, digest)
);
-- Bodies hold what users packed already; trying to pack them again costs more than it saves. And a size that is known without
-- reading is one that bounds what an export loads.
ALTER TABLE receipt ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE ledger ALTER COLUMN errors SET STORAGE EXTERNAL;

ALTER TABLE process
  -- The call that submitted it, and the place of its spec in that; NULL: no receipts were kept.
  ADD COLUMN receipt bytea,
  ADD COLUMN place integer NOT NULL DEFAULT 0,
  -- The hash of its last ledger line. Kept here, where the row's lock guards it, so that nothing has to look for that line.
  ADD COLUMN chain bytea,
  -- The call that set the outputs that it has now.
  ADD COLUMN output_receipt bytea;

ALTER TABLE ledger
  ADD COLUMN receipt bytea,
  ADD COLUMN output_receipt bytea,
  ADD COLUMN hash bytea;

-- Both give NULL for a process without a receipt, which stays without a chain. Each argument is used once and nothing here looks
-- into a table, so that Postgres writes the expression into the statement in place of a call.

-- What a process's chain begins with.
CREATE FUNCTION chain_root(
  colony text, id uuid, workflow_id uuid, initiator text, initiator_name text, submitted_at timestamptz, priority_time bigint,
  receipt bytea, place integer
) RETURNS bytea STABLE PARALLEL SAFE LANGUAGE sql AS $$
  SELECT sha256(convert_to(
    E'colonies-process-v1\n' || colony || E'\n' || id || E'\n' || coalesce(workflow_id::text, '') || E'\n' || initiator || E'\n'
    || initiator_name || E'\n' || (extract(epoch FROM submitted_at) * 1000000)::bigint || E'\n' || priority_time || E'\n'
    || encode(receipt, 'hex') || E'\n' || place || E'\n',
    'UTF8'
  ))
$$;

-- The hash of a ledger line, from that of the line before it.
CREATE FUNCTION chain_link(
  previous bytea, at timestamptz, from_state integer, to_state integer, attempt integer, executor_name text, actor text,
  reason text, outcome integer, errors text[], receipt bytea, output_receipt bytea
) RETURNS bytea STABLE PARALLEL SAFE LANGUAGE sql AS $$
  SELECT sha256(convert_to(
    E'colonies-event-v1\n' || encode(previous, 'hex') || E'\n' || (extract(epoch FROM at) * 1000000)::bigint || E'\n'
    || from_state || E'\n' || to_state || E'\n' || attempt || E'\n' || executor_name || E'\n' || actor || E'\n' || reason || E'\n'
    || outcome || E'\n' || array_to_json(errors) || E'\n' || coalesce(encode(receipt, 'hex'), '') || E'\n'
    || coalesce(encode(output_receipt, 'hex'), '') || E'\n',
    'UTF8'
  ))
$$;
