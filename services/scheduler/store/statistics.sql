-- Counting the ledger, and reading what was counted.

-- name: uncounted_colonies
-- Colonies with lines that are not counted yet, or with processes removed that still are. Cost: the colonies, not the lines.
WITH RECURSIVE one AS (
  (SELECT colony FROM ledger ORDER BY colony LIMIT 1)
  UNION ALL
  SELECT (SELECT l.colony FROM ledger AS l WHERE l.colony > one.colony ORDER BY l.colony LIMIT 1)
  FROM one
  WHERE one.colony IS NOT NULL
)
SELECT one.colony
FROM one
LEFT JOIN statistics_progress AS p ON p.colony = one.colony
WHERE
  one.colony IS NOT NULL
  AND EXISTS (
    SELECT
    FROM ledger AS l
    WHERE l.colony = one.colony AND (l.xid, l.id) > (coalesce(p.xid, '0'), coalesce(p.id, 0))
  )
UNION
SELECT colony
FROM removal;

-- name: begin_progress
-- A colony's first line is about to be counted.
INSERT INTO statistics_progress (colony)
VALUES (%(colony)s)
ON CONFLICT DO NOTHING;

-- name: lock_progress
-- Up to where a colony is counted. No row: somebody else is at it.
SELECT xid::text::bigint AS xid, id
FROM statistics_progress
WHERE colony = %(colony)s
FOR UPDATE SKIP LOCKED;

-- name: count_page
-- Count the lines after a position, at most `limit`, and none of a transaction that an open one may still come before. The
-- position to go on from comes back: behind the last line, or, if there is no more, before the oldest open transaction.
WITH page AS MATERIALIZED (
  SELECT
    xid, id, executor_type, from_state, to_state, took_ms, at >= %(floor)s AS recent, date_trunc('minute', at) AS minute
  FROM ledger
  WHERE
    colony = %(colony)s
    AND (xid, id) > (%(after_xid)s::text::xid8, %(after_id)s::bigint)
    AND xid < pg_snapshot_xmin(pg_current_snapshot())
  ORDER BY xid, id
  LIMIT %(limit)s
), counted AS (
  INSERT INTO statistics_count AS c (colony, executor_type, state, count)
  SELECT %(colony)s, executor_type, state, sum(change)
  FROM (
    SELECT executor_type, to_state AS state, 1 AS change FROM page
    UNION ALL
    SELECT executor_type, from_state, -1 FROM page WHERE from_state > 0
  ) AS changes
  GROUP BY executor_type, state
  HAVING sum(change) <> 0
  ORDER BY executor_type, state
  ON CONFLICT (colony, executor_type, state) DO UPDATE SET count = c.count + excluded.count
), stepped AS (
  INSERT INTO statistics_minute AS m (
    colony, minute, executor_type, submitted, assigned, successful, failed, cancelled, retried
  )
  SELECT
    %(colony)s, minute, executor_type,
    count(*) FILTER (WHERE from_state = 0),
    count(*) FILTER (WHERE to_state = 2),
    count(*) FILTER (WHERE to_state = 3),
    count(*) FILTER (WHERE to_state = 4),
    count(*) FILTER (WHERE to_state = 5),
    count(*) FILTER (WHERE to_state = 1 AND from_state > 0)
  FROM page
  WHERE recent
  GROUP BY minute, executor_type
  ORDER BY minute, executor_type
  ON CONFLICT (colony, minute, executor_type) DO UPDATE
  SET
    submitted = m.submitted + excluded.submitted,
    assigned = m.assigned + excluded.assigned,
    successful = m.successful + excluded.successful,
    failed = m.failed + excluded.failed,
    cancelled = m.cancelled + excluded.cancelled,
    retried = m.retried + excluded.retried
), timed AS (
  INSERT INTO statistics_class AS c (colony, minute, executor_type, kind, upper_ms, count)
  SELECT %(colony)s, minute, executor_type, kind, upper_ms, count(*)
  FROM (
    SELECT
      minute, executor_type, CASE WHEN to_state = 2 THEN 1 ELSE 2 END AS kind,
      -- Clocks of two replicas may differ: nothing takes less than no time.
      (%(uppers)s::bigint[])[width_bucket(greatest(took_ms, 0), %(lowers)s::bigint[])] AS upper_ms
    FROM page
    WHERE recent AND took_ms IS NOT NULL AND 2 IN (from_state, to_state)
  ) AS classes
  GROUP BY minute, executor_type, kind, upper_ms
  ORDER BY minute, executor_type, kind, upper_ms
  ON CONFLICT (colony, minute, executor_type, kind, upper_ms) DO UPDATE SET count = c.count + excluded.count
)
SELECT
  count(*) AS lines,
  CASE
    WHEN count(*) = %(limit)s THEN (SELECT xid FROM page ORDER BY xid DESC LIMIT 1)
    ELSE pg_snapshot_xmin(pg_current_snapshot())
  END::text::bigint AS xid,
  CASE WHEN count(*) = %(limit)s THEN (SELECT id FROM page ORDER BY xid DESC, id DESC LIMIT 1) ELSE 0 END AS id,
  EXISTS (
    SELECT FROM ledger WHERE colony = %(colony)s AND xid >= pg_snapshot_xmin(pg_current_snapshot())
  ) AS unsettled
FROM page;

-- name: set_progress
-- Up to where a colony is counted now.
UPDATE statistics_progress
SET xid = %(xid)s::text::xid8, id = %(id)s
WHERE colony = %(colony)s;

-- name: fold_removals
-- Removed processes all of whose lines are counted: they are counted no more, and their lines go, with the signed calls that no
-- other line names. (Who has the colony's progress locked is alone in this, so no use is counted twice.)
WITH due AS (
  DELETE FROM removal
  WHERE
    colony = %(colony)s
    AND id IN (
      SELECT id
      FROM removal
      WHERE colony = %(colony)s AND settled < %(xid)s::text::xid8
      ORDER BY id
      LIMIT %(limit)s
    )
  RETURNING executor_type, state, process_ids
), lowered AS (
  INSERT INTO statistics_count AS c (colony, executor_type, state, count)
  SELECT %(colony)s, executor_type, state, -sum(cardinality(process_ids))
  FROM due
  GROUP BY executor_type, state
  ORDER BY executor_type, state
  ON CONFLICT (colony, executor_type, state) DO UPDATE SET count = c.count + excluded.count
), gone AS (
  DELETE FROM ledger
  WHERE process_id IN (SELECT unnest(process_ids) FROM due)
  RETURNING receipt, output_receipt
), unnamed AS (
  SELECT digest, count(*) AS uses
  FROM (SELECT receipt AS digest FROM gone UNION ALL SELECT output_receipt FROM gone) AS names
  WHERE digest IS NOT NULL
  GROUP BY digest
), dropped AS (
  DELETE FROM receipt AS r
  USING unnamed AS u
  WHERE r.colony = %(colony)s AND r.digest = u.digest AND r.uses <= u.uses
), still_named AS (
  UPDATE receipt AS r
  SET uses = r.uses - u.uses
  FROM unnamed AS u
  WHERE r.colony = %(colony)s AND r.digest = u.digest AND r.uses > u.uses
)
SELECT count(*) AS count
FROM due;

-- name: removals_left
-- Whether removed processes are still counted.
SELECT EXISTS (SELECT FROM removal WHERE colony = %(colony)s) AS left_over;

-- name: drop_zeros
-- Executor types of which there is nothing any more are not listed for ever.
DELETE FROM statistics_count
WHERE colony = %(colony)s AND count = 0;

-- name: drop_minutes
-- Minutes that nobody asks for any more, of all colonies.
DELETE FROM statistics_minute
WHERE minute < %(floor)s;

-- name: drop_classes
-- As drop_minutes.
DELETE FROM statistics_class
WHERE minute < %(floor)s;

-- name: begin_reading
-- One moment's state for all that follows.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: counted_until
-- The time of the first line that is not counted; NULL if all are.
SELECT (
  SELECT at
  FROM ledger
  WHERE
    colony = %(colony)s
    AND (xid, id) > (
      coalesce((SELECT xid FROM statistics_progress WHERE colony = %(colony)s), '0'),
      coalesce((SELECT id FROM statistics_progress WHERE colony = %(colony)s), 0)
    )
  ORDER BY xid, id
  LIMIT 1
) AS at;

-- name: read_counts
-- How many processes of each type are in each state.
SELECT executor_type, state, count
FROM statistics_count
WHERE colony = %(colony)s AND count > 0;

-- name: read_totals
-- How many processes are in each state, of all colonies together.
SELECT state, sum(count)::bigint AS count
FROM statistics_count
GROUP BY state;

-- name: read_steps
-- Steps in the minute that begins at `last`, and in the hour that ends with it.
SELECT
  executor_type, minute = %(last)s AS in_last,
  sum(submitted)::bigint AS submitted, sum(assigned)::bigint AS assigned, sum(successful)::bigint AS successful,
  sum(failed)::bigint AS failed, sum(cancelled)::bigint AS cancelled, sum(retried)::bigint AS retried
FROM statistics_minute
WHERE colony = %(colony)s AND minute > %(last)s::timestamptz - interval '60 minutes' AND minute <= %(last)s
GROUP BY executor_type, minute = %(last)s;

-- name: read_classes
-- Times in the hour that ends with the minute that begins at `last`, shortest first.
SELECT executor_type, kind, upper_ms, sum(count)::bigint AS count
FROM statistics_class
WHERE colony = %(colony)s AND minute > %(last)s::timestamptz - interval '60 minutes' AND minute <= %(last)s
GROUP BY executor_type, kind, upper_ms
ORDER BY executor_type, kind, upper_ms;

-- name: hold_counting
-- Wait until nobody counts a colony that is about to go.
SELECT colony
FROM statistics_progress
WHERE colony = %(colony)s
FOR UPDATE;

-- name: purge_statistics
-- What was set and counted of a removed colony.
WITH controls AS (
  DELETE FROM colony_controls WHERE colony = %(colony)s
), progress AS (
  DELETE FROM statistics_progress WHERE colony = %(colony)s
), counts AS (
  DELETE FROM statistics_count WHERE colony = %(colony)s
), minutes AS (
  DELETE FROM statistics_minute WHERE colony = %(colony)s
), classes AS (
  DELETE FROM statistics_class WHERE colony = %(colony)s
), removals AS (
  DELETE FROM removal WHERE colony = %(colony)s
), departures AS (
  DELETE FROM departing WHERE colony = %(colony)s
)
DELETE FROM ledger
WHERE colony = %(colony)s;
