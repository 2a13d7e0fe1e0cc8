CREATE TABLE generator (
    id uuid PRIMARY KEY,
    colony text NOT NULL,
    -- Bytewise order, on any server: pages of a list continue where the last one ended.
    name text COLLATE "C" NOT NULL,
    max_count integer NOT NULL,
    timeout_ms bigint NOT NULL,
    max_bytes integer NOT NULL,
    -- A serialised WorkflowSpec, and what a batch makes of its size: that many nodes, some of them roots.
    workflow bytea NOT NULL,
    nodes integer NOT NULL,
    roots integer NOT NULL,
    initiator text NOT NULL,
    initiator_name text NOT NULL,
    created_at timestamptz NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    pause_reason text NOT NULL DEFAULT '',
    -- A batch was refused: none is submitted until somebody resumes it.
    blocked boolean NOT NULL DEFAULT false,
    next_sequence bigint NOT NULL DEFAULT 1,
    next_batch bigint NOT NULL DEFAULT 1,
    -- What waits in bins.
    waiting bigint NOT NULL DEFAULT 0,
    waiting_bytes bigint NOT NULL DEFAULT 0,
    bins integer NOT NULL DEFAULT 0,
    -- What is in batches that are not submitted.
    unsubmitted bigint NOT NULL DEFAULT 0,
    batched bigint NOT NULL DEFAULT 0,
    batched_bytes bigint NOT NULL DEFAULT 0,
    submitted bigint NOT NULL DEFAULT 0,
    last_workflow_id text NOT NULL DEFAULT '',
    last_error text NOT NULL DEFAULT '',
    -- When to look at it: no later than there is something to do. While somebody is at it, when that claim runs out.
    due_at timestamptz,
    claimed_until timestamptz,
    -- Counts the claims: what was claimed under another number is somebody else's by now.
    claim bigint NOT NULL DEFAULT 0,
    -- Batches in the next submit; fewer after a failure.
    at_most integer NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    -- No submit before this.
    retry_at timestamptz,
    -- From then on it is gone for everyone; its rows follow in pages.
    removed_at timestamptz
)
-- Its counters change with every pack.
WITH (fillfactor = 50);

CREATE UNIQUE INDEX generator_name ON generator (colony, name)
WHERE removed_at IS NULL;

CREATE INDEX generator_due ON generator (due_at, id)
WHERE due_at IS NOT NULL;

CREATE INDEX generator_removed ON generator (id)
WHERE removed_at IS NOT NULL;

-- What waits under one key: all arguments of the key from `first_sequence` to `last_sequence`.
CREATE TABLE bin (
    generator_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    bytes bigint NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    oldest_at timestamptz NOT NULL,
    -- As much as a batch may have, or more: only a paused generator leaves such.
    is_full boolean NOT NULL,
    PRIMARY KEY (generator_id, key)
)
WITH (fillfactor = 50);

CREATE INDEX bin_oldest ON bin (generator_id, oldest_at);

CREATE INDEX bin_full ON bin (generator_id, key)
WHERE is_full;

CREATE TABLE argument (
    generator_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    -- A serialised Value.
    value bytea NOT NULL,
    -- Of its data and its media type.
    size integer NOT NULL,
    packed_at timestamptz NOT NULL,
    PRIMARY KEY (generator_id, key, sequence)
);

-- A batch is a range of one key's arguments. They go when it is submitted.
CREATE TABLE batch (
    generator_id uuid NOT NULL,
    number bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    count integer NOT NULL,
    bytes bigint NOT NULL,
    reason smallint NOT NULL,
    created_at timestamptz NOT NULL,
    oldest_at timestamptz NOT NULL,
    submitted_at timestamptz,
    error text NOT NULL DEFAULT '',
    tries integer NOT NULL DEFAULT 0,
    PRIMARY KEY (generator_id, number)
);

CREATE INDEX batch_unsubmitted ON batch (generator_id, number)
WHERE submitted_at IS NULL;

CREATE INDEX batch_submitted ON batch (submitted_at)
WHERE submitted_at IS NOT NULL;

-- Packs that were answered, so that a repeated one gets the same answer.
CREATE TABLE pack (
    generator_id uuid NOT NULL,
    -- SHA-256 of its sender and request id.
    request bytea NOT NULL,
    -- SHA-256 of its arguments.
    content bytea NOT NULL,
    first_sequence bigint NOT NULL,
    packed_at timestamptz NOT NULL,
    PRIMARY KEY (generator_id, request)
);

CREATE INDEX pack_age ON pack (packed_at);

-- Arguments that were thrown away and are still there: they go in pages.
CREATE TABLE dropped (
    generator_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    PRIMARY KEY (generator_id, key, first_sequence)
);
