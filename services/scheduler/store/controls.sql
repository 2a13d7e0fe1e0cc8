-- What owners set for their queues.

-- name: get_controls
-- What one colony's owner has set; no row if nothing.
SELECT paused, max_waiting, keep_successful_ms, keep_failed_ms, keep_cancelled_ms
FROM colony_controls
WHERE colony = %(colony)s;

-- name: update_controls
-- Set what is not NULL; the rest stays as it is.
INSERT INTO colony_controls AS c (
  colony, paused, max_waiting, keep_successful_ms, keep_failed_ms, keep_cancelled_ms, updated_at
)
VALUES (
  %(colony)s, coalesce(%(paused)s::boolean, false), coalesce(%(max_waiting)s::bigint, 0),
  coalesce(%(keep_successful_ms)s::bigint, 0), coalesce(%(keep_failed_ms)s::bigint, 0),
  coalesce(%(keep_cancelled_ms)s::bigint, 0), %(at)s
)
ON CONFLICT (colony) DO UPDATE
SET
  paused = coalesce(%(paused)s::boolean, c.paused),
  max_waiting = coalesce(%(max_waiting)s::bigint, c.max_waiting),
  keep_successful_ms = coalesce(%(keep_successful_ms)s::bigint, c.keep_successful_ms),
  keep_failed_ms = coalesce(%(keep_failed_ms)s::bigint, c.keep_failed_ms),
  keep_cancelled_ms = coalesce(%(keep_cancelled_ms)s::bigint, c.keep_cancelled_ms),
  updated_at = %(at)s
RETURNING paused, max_waiting, keep_successful_ms, keep_failed_ms, keep_cancelled_ms;

-- name: pauses
-- Whether colonies are paused: those that are, and those that were changed lately and are not (all, if `since` is NULL).
SELECT colony, paused
FROM colony_controls
WHERE paused OR %(since)s::timestamptz IS NULL OR updated_at >= %(since)s
ORDER BY colony;

-- name: limited
-- Colonies with a limit, and how many of their processes wait: those that are counted, and what the lines not counted yet
-- change. That is about a second's worth of lines; more than `at_most` are not looked at.
SELECT
  k.colony,
  k.max_waiting,
  greatest(
    (SELECT coalesce(sum(count), 0) FROM statistics_count WHERE colony = k.colony AND state = 1)
    + (
      SELECT coalesce(sum((to_state = 1)::integer - (from_state = 1)::integer), 0)
      FROM (
        SELECT from_state, to_state
        FROM ledger
        WHERE colony = k.colony AND (xid, id) > (coalesce(p.xid, '0'), coalesce(p.id, 0))
        ORDER BY xid, id
        LIMIT %(at_most)s
      ) AS l
    ),
    0
  )::bigint AS waiting
FROM colony_controls AS k
LEFT JOIN statistics_progress AS p ON p.colony = k.colony
WHERE k.max_waiting > 0;
