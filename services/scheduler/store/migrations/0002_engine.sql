-- The ledger tells of attempts too: a line into RUNNING begins one, the line out of it ends it. One place instead of two, and two
-- writes less in every process's life. Workflows count their processes, so that nobody has to.

ALTER TABLE ledger
  ADD COLUMN colony text,
  ADD COLUMN executor_type text,
  -- How the attempt ended, in the line that ends it; numbers as in domain/states.py.
  ADD COLUMN outcome smallint NOT NULL DEFAULT 0,
  ADD COLUMN errors text[] NOT NULL DEFAULT '{}',
  -- Into RUNNING: milliseconds since it was ready. Out of RUNNING: milliseconds that the attempt took.
  ADD COLUMN took_ms bigint;

UPDATE ledger AS l
SET colony = p.colony, executor_type = p.executor_type
FROM process AS p
WHERE p.id = l.process_id;

UPDATE ledger AS l
SET outcome = a.outcome, errors = a.errors
FROM attempt AS a
WHERE l.from_state = 2 AND a.process_id = l.process_id AND a.number = l.attempt;

-- Lines of processes that are gone belong to nobody.
DELETE FROM ledger WHERE colony IS NULL;

ALTER TABLE ledger
  ALTER COLUMN colony SET NOT NULL,
  ALTER COLUMN executor_type SET NOT NULL;

CREATE INDEX ledger_by_colony ON ledger (colony, xid, id);
-- For the lines of the last minutes, whoever wrote them: next to free where lines are only ever added.
CREATE INDEX ledger_by_time ON ledger USING brin (at) WITH (pages_per_range = 16, autosummarize = on);

DROP TABLE attempt;

CREATE VIEW attempt AS
SELECT
  b.process_id, b.attempt AS number, b.executor_name, b.actor AS executor_id, b.at AS started_at, e.at AS ended_at,
  coalesce(e.outcome, 0::smallint) AS outcome, coalesce(e.errors, '{}') AS errors
FROM ledger AS b
LEFT JOIN ledger AS e ON e.process_id = b.process_id AND e.attempt = b.attempt AND e.from_state = 2
WHERE b.to_state = 2;

ALTER TABLE process
  -- What it needs of an executor beyond type, names and location: domain/matching.py.
  ADD COLUMN needs text NOT NULL DEFAULT '',
  -- First wait in ms, factor, longest wait in ms, jitter; empty for no wait before retries.
  ADD COLUMN backoff double precision[] NOT NULL DEFAULT '{}',
  ADD COLUMN backoff_until timestamptz,
  -- Numbers of domain/spec.py.
  ADD COLUMN parent_policy smallint NOT NULL DEFAULT 1,
  -- Attempts that may never have reached their executors, and do not count as retries.
  ADD COLUMN undelivered integer NOT NULL DEFAULT 0,
  SET (fillfactor = 60);

UPDATE process
SET undelivered = greatest(attempt - retries - CASE WHEN state > 1 THEN 1 ELSE 0 END, 0)
WHERE attempt > 0;

-- An index that mentions `state` would make every step of a process's life write all indexes anew: an update is only cheap (HOT)
-- if it changes no column that an index mentions. `ended_at` changes once.
DROP INDEX process_open;
CREATE INDEX process_open ON process (sequence) WHERE ended_at IS NULL;

ALTER TABLE workflow
  ADD COLUMN waiting integer NOT NULL DEFAULT 0,
  ADD COLUMN running integer NOT NULL DEFAULT 0,
  ADD COLUMN successful integer NOT NULL DEFAULT 0,
  ADD COLUMN failed integer NOT NULL DEFAULT 0,
  ADD COLUMN cancelled integer NOT NULL DEFAULT 0,
  -- Some process has been assigned.
  ADD COLUMN begun boolean NOT NULL DEFAULT false,
  ADD COLUMN ended_at timestamptz,
  -- Its counters change all the time.
  SET (fillfactor = 40);

UPDATE workflow AS w
SET
  waiting = c.waiting,
  running = c.running,
  successful = c.successful,
  failed = c.failed,
  cancelled = c.cancelled,
  begun = c.begun,
  ended_at = CASE WHEN c.waiting + c.running = 0 THEN c.ended_at END
FROM (
  SELECT
    workflow_id,
    count(*) FILTER (WHERE state = 1) AS waiting,
    count(*) FILTER (WHERE state = 2) AS running,
    count(*) FILTER (WHERE state = 3) AS successful,
    count(*) FILTER (WHERE state = 4) AS failed,
    count(*) FILTER (WHERE state = 5) AS cancelled,
    bool_or(attempt > 0) AS begun,
    max(ended_at) AS ended_at
  FROM process
  WHERE workflow_id IS NOT NULL
  GROUP BY workflow_id
) AS c
WHERE w.id = c.workflow_id;

-- Processes that were assigned and that their workflow's row still counts as waiting. An assignment locks no workflow: it leaves
-- a note, and whoever next has the row locked takes the notes into it.
CREATE TABLE workflow_start (
  workflow_id uuid NOT NULL,
  count integer NOT NULL
);
CREATE INDEX workflow_start_by_workflow ON workflow_start (workflow_id);

-- Workflows with these notes taken in.
CREATE VIEW counted_workflow AS
SELECT
  w.id, w.colony, w.sequence, w.label, w.initiator, w.initiator_name, w.submitted_at,
  w.waiting - coalesce(s.count, 0) AS waiting,
  w.running + coalesce(s.count, 0) AS running,
  w.successful, w.failed, w.cancelled,
  w.begun OR s.count IS NOT NULL AS begun,
  w.ended_at
FROM workflow AS w
LEFT JOIN LATERAL (SELECT sum(n.count)::integer AS count FROM workflow_start AS n WHERE n.workflow_id = w.id) AS s ON true;

-- The columns that decisions are made by, spelled once. `tenant` is the colony as no index knows it: where rows are named by
-- their ids, the planner must not think that the colony's index would find them sooner.
CREATE VIEW live AS
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, needs, priority_time, state,
  pending_parents, attempt, retries, undelivered, max_retries, max_wait_ms, max_exec_ms, backoff, backoff_until, executor_id,
  executor_name, initiator, ready_at, started_at, ended_at, colony || '' AS tenant
FROM process;

-- What lists show of a process: no user data where it is large (small specs are cut down when they are read).
CREATE VIEW listed AS
SELECT
  id, colony, workflow_id, node_name, func_name, sequence, executor_type, executor_names, location, needs, priority_time, state,
  pending_parents, attempt, retries, undelivered, max_retries, max_wait_ms, max_exec_ms, backoff, backoff_until, executor_id,
  executor_name, initiator, ready_at, started_at, label, initiator_name, submitted_at, ended_at, errors,
  CASE WHEN summary = '' THEN spec ELSE summary END AS spec, '{}'::bytea[] AS outputs,
  ARRAY(SELECT parent_id FROM edge WHERE child_id = process.id ORDER BY position) AS parent_ids
FROM process;

-- Tables that grow by thousands of rows a second: with the usual share of ten per cent, the planner would know nothing of the
-- newest millions.
ALTER TABLE process SET (autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE ledger SET (autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE edge SET (autovacuum_analyze_scale_factor = 0.02);
