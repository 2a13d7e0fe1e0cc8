CREATE TABLE cron (
    id uuid PRIMARY KEY,
    colony text NOT NULL,
    -- Bytewise order, on any server: pages of a list continue where the last one ended.
    name text COLLATE "C" NOT NULL,
    expression text,
    interval_ms bigint,
    -- A serialised WorkflowSpec.
    workflow bytea NOT NULL,
    initiator text NOT NULL,
    initiator_name text NOT NULL,
    created_at timestamptz NOT NULL,
    -- The scheduled moment that comes next or is being retried.
    next_fire_at timestamptz,
    -- When to act on it: the same, or later while it is retried.
    due_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    last_fire_at timestamptz,
    last_workflow_id text NOT NULL DEFAULT '',
    last_error text NOT NULL DEFAULT '',
    -- Digest of the request id of the last run that a client asked for.
    last_run text NOT NULL DEFAULT '',
    CONSTRAINT cron_one_schedule CHECK (num_nonnulls(expression, interval_ms) = 1),
    CONSTRAINT cron_due_with_moment CHECK ((next_fire_at IS NULL) = (due_at IS NULL)),
    CONSTRAINT cron_name UNIQUE (colony, name)
);

-- What is due, oldest first; crons that stopped are not in it.
CREATE INDEX cron_due ON cron (due_at)
WHERE due_at IS NOT NULL;
