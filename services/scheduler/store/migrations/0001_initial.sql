-- Times are timestamptz in UTC; `state` and `outcome` are the numbers of domain/states.py.

CREATE TABLE submission (
  colony text NOT NULL,
  actor text NOT NULL,
  request_id text NOT NULL,
  digest bytea NOT NULL,
  workflow_id uuid,
  process_ids uuid[] NOT NULL,
  submitted_at timestamptz NOT NULL,
  PRIMARY KEY (colony, actor, request_id)
);

CREATE TABLE workflow (
  id uuid PRIMARY KEY,
  colony text NOT NULL,
  sequence bigint GENERATED ALWAYS AS IDENTITY,
  label text NOT NULL,
  initiator text NOT NULL,
  initiator_name text NOT NULL,
  submitted_at timestamptz NOT NULL
);
CREATE INDEX workflow_by_colony ON workflow (colony, sequence);

CREATE TABLE process (
  id uuid PRIMARY KEY,
  colony text NOT NULL,
  -- Submission order: breaks ties of the priority time.
  sequence bigint GENERATED ALWAYS AS IDENTITY,
  workflow_id uuid,
  node_name text NOT NULL,
  func_name text NOT NULL,
  executor_type text NOT NULL,
  executor_names text[] NOT NULL,
  location text NOT NULL,
  label text NOT NULL,
  priority_time bigint NOT NULL,
  max_wait_ms bigint NOT NULL,
  max_exec_ms bigint NOT NULL,
  max_retries integer NOT NULL,
  -- The serialised FunctionSpec: never opened here.
  spec bytea NOT NULL,
  -- The same without user data, for lists; empty where that is all of it.
  summary bytea NOT NULL,
  state smallint NOT NULL,
  pending_parents integer NOT NULL,
  attempt integer NOT NULL DEFAULT 0,
  retries integer NOT NULL DEFAULT 0,
  executor_name text NOT NULL DEFAULT '',
  executor_id text NOT NULL DEFAULT '',
  initiator text NOT NULL,
  initiator_name text NOT NULL,
  submitted_at timestamptz NOT NULL,
  -- When it last came into the queue; null while parents are pending.
  ready_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz,
  -- Serialised Values, and their size together.
  outputs bytea[] NOT NULL DEFAULT '{}',
  output_bytes bigint NOT NULL DEFAULT 0,
  errors text[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 80);
CREATE INDEX process_by_colony ON process (colony, sequence);
CREATE INDEX process_by_label ON process (colony, label, sequence) WHERE label <> '';
CREATE INDEX process_by_workflow ON process (workflow_id, sequence) WHERE workflow_id IS NOT NULL;
-- What the queue is rebuilt from, and what lists of open processes read.
CREATE INDEX process_open ON process (sequence) WHERE state IN (1, 2);

CREATE TABLE edge (
  child_id uuid NOT NULL,
  -- The parent's place among the child's dependencies.
  position integer NOT NULL,
  parent_id uuid NOT NULL,
  -- 0 all, 1 output k, 2 output k if there are exactly n, else all.
  selector smallint NOT NULL,
  k integer NOT NULL,
  n integer NOT NULL,
  PRIMARY KEY (child_id, position)
);
CREATE INDEX edge_by_parent ON edge (parent_id);

CREATE TABLE attempt (
  process_id uuid NOT NULL,
  number integer NOT NULL,
  executor_name text NOT NULL,
  executor_id text NOT NULL,
  started_at timestamptz NOT NULL,
  ended_at timestamptz,
  outcome smallint NOT NULL DEFAULT 0,
  errors text[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (process_id, number)
);

-- Every transition, written in the transaction that makes it, under the process's row lock: the lines of one process are in the
-- order of `id`. Across processes only `xid` tells when nothing can come before any more: once no older transaction is open.
CREATE TABLE ledger (
  id bigint GENERATED ALWAYS AS IDENTITY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  process_id uuid NOT NULL,
  workflow_id uuid,
  at timestamptz NOT NULL,
  from_state smallint NOT NULL,
  to_state smallint NOT NULL,
  attempt integer NOT NULL,
  executor_name text NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL
);
CREATE INDEX ledger_by_process ON ledger (process_id, id);
CREATE INDEX ledger_by_workflow ON ledger (workflow_id, xid, id) WHERE workflow_id IS NOT NULL;

CREATE TABLE attribute (
  process_id uuid NOT NULL,
  kind smallint NOT NULL,
  key text NOT NULL,
  value text NOT NULL,
  PRIMARY KEY (process_id, kind, key)
);

CREATE TABLE log (
  id bigint GENERATED ALWAYS AS IDENTITY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  colony text NOT NULL,
  process_id uuid NOT NULL,
  attempt integer NOT NULL,
  executor_name text NOT NULL,
  -- The line's number within its attempt, if its executor counts: a repeated call adds nothing.
  number bigint,
  at timestamptz NOT NULL,
  message text NOT NULL
);
CREATE UNIQUE INDEX log_number ON log (process_id, attempt, number) WHERE number IS NOT NULL;
CREATE INDEX log_by_process ON log (process_id, id);
CREATE INDEX log_by_executor ON log (colony, executor_name, xid, id);
