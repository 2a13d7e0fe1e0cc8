-- What owners set for their queues, what is counted of them, and how what has ended goes.

-- No row: nothing was set.
CREATE TABLE colony_controls (
  colony text PRIMARY KEY,
  paused boolean NOT NULL DEFAULT false,
  -- 0 = no limit.
  max_waiting bigint NOT NULL DEFAULT 0,
  -- Milliseconds; 0 = for ever.
  keep_successful_ms bigint NOT NULL DEFAULT 0,
  keep_failed_ms bigint NOT NULL DEFAULT 0,
  keep_cancelled_ms bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL
);

-- Up to where a colony's ledger is counted: every line before this position is in the tables below, and none after it.
CREATE TABLE statistics_progress (
  colony text PRIMARY KEY,
  xid xid8 NOT NULL DEFAULT '0',
  id bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- How many processes are in a state.
CREATE TABLE statistics_count (
  colony text NOT NULL,
  executor_type text NOT NULL,
  state smallint NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (colony, executor_type, state)
) WITH (fillfactor = 50);

-- Steps made in a minute; kept for 61 minutes.
CREATE TABLE statistics_minute (
  colony text NOT NULL,
  minute timestamptz NOT NULL,
  executor_type text NOT NULL,
  submitted bigint NOT NULL,
  assigned bigint NOT NULL,
  successful bigint NOT NULL,
  failed bigint NOT NULL,
  cancelled bigint NOT NULL,
  retried bigint NOT NULL,
  PRIMARY KEY (colony, minute, executor_type)
) WITH (fillfactor = 50);
CREATE INDEX statistics_minute_by_age ON statistics_minute (minute);

-- How long things took that ended in a minute, in classes (domain/quantiles.py); kept for 61 minutes.
CREATE TABLE statistics_class (
  colony text NOT NULL,
  minute timestamptz NOT NULL,
  executor_type text NOT NULL,
  -- 1 from ready to assigned, 2 from assigned to the attempt's end.
  kind smallint NOT NULL,
  -- The longest time of the class.
  upper_ms bigint NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (colony, minute, executor_type, kind, upper_ms)
) WITH (fillfactor = 50);
CREATE INDEX statistics_class_by_age ON statistics_class (minute);

-- Processes that were removed and are still counted; their ledger lines go when they are not counted any more.
CREATE TABLE removal (
  id bigint GENERATED ALWAYS AS IDENTITY,
  colony text NOT NULL,
  executor_type text NOT NULL,
  state smallint NOT NULL,
  process_ids uuid[] NOT NULL,
  -- Their lines were committed when they were removed, so none has a higher transaction id.
  settled xid8 NOT NULL DEFAULT greatest(pg_current_xact_id(), pg_snapshot_xmax(pg_current_snapshot())),
  PRIMARY KEY (colony, id)
);

-- Workflows that were removed, with processes still to go; their own rows are gone already.
CREATE TABLE departing (
  workflow_id uuid PRIMARY KEY,
  colony text NOT NULL
);

-- What retention looks through, oldest first. Neither index mentions a column that changes before the end, so that the steps
-- before it stay cheap updates (HOT); states are told apart on the rows.
CREATE INDEX process_ended ON process (colony, ended_at, id) WHERE ended_at IS NOT NULL AND workflow_id IS NULL;
CREATE INDEX workflow_ended ON workflow (colony, ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX submission_by_age ON submission (submitted_at);
