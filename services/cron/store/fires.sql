-- Fires: begun and settled, many in one statement.

-- name: upcoming_crons
-- What is due up to a moment, page by page.
SELECT id, due_at
FROM cron
WHERE due_at <= %(until)s
    AND (%(after_at)s::timestamptz IS NULL OR (due_at, id) > (%(after_at)s, %(after_id)s::uuid))
ORDER BY due_at, id
LIMIT %(limit)s;

-- name: lock_due
-- Lock those of the crons that are due; what another replica has locked is in good hands.
SELECT
    id, colony, name, expression, time_zone, interval_ms, random_interval_ms, start_at, end_at, max_runs, jitter_ms, overlap,
    missed, missed_at_most, missed_after_ms, feed_outputs, max_failures, ''::bytea AS workflow,
    octet_length(workflow) AS workflow_bytes, initiator, initiator_name, created_at, since, state, pause_reason, version,
    next_fire_at, next_due_at, acted_until, catch_up_until, pending, runs, failures, last_fire_at, last_workflow_id, last_error,
    fed_from
FROM cron
WHERE id = ANY(%(ids)s)
    AND due_at <= %(now)s
ORDER BY id
FOR NO KEY UPDATE SKIP LOCKED;

-- name: due_of
-- When to look at crons, of those that are there, and whether somebody has them in hand.
SELECT id, due_at, claim IS NOT NULL AS in_hand
FROM cron
WHERE id = ANY(%(ids)s);

-- name: begin
-- Write what is about to be done, in the transaction that has the crons locked: the new fires, what was left out, and the claim.
WITH given AS (
    SELECT *
    FROM unnest(
        %(ids)s::uuid[], %(states)s::smallint[], %(next_fires)s::timestamptz[], %(next_dues)s::timestamptz[],
        %(acted)s::timestamptz[], %(catch_ups)s::timestamptz[], %(pendings)s::uuid[], %(lasts)s::timestamptz[], %(errors)s::text[]
    ) AS g (id, state, next_fire_at, next_due_at, acted_until, catch_up_until, pending, last_fire_at, last_error)
), new AS (
    INSERT INTO fire (id, cron_id, kind, due_at, outcome, moments, tries, error, fired_at)
    SELECT *
    FROM unnest(
        %(fire_ids)s::uuid[], %(fire_crons)s::uuid[], %(fire_kinds)s::smallint[], %(fire_dues)s::timestamptz[],
        %(fire_outcomes)s::smallint[], %(fire_moments)s::integer[], %(fire_tries)s::integer[], %(fire_errors)s::text[],
        %(fire_ends)s::timestamptz[]
    )
)
UPDATE cron
SET state = given.state,
    next_fire_at = given.next_fire_at,
    next_due_at = given.next_due_at,
    acted_until = given.acted_until,
    catch_up_until = given.catch_up_until,
    pending = given.pending,
    -- Of those that begin nothing, for all that passed was missed.
    last_fire_at = COALESCE(given.last_fire_at, cron.last_fire_at),
    last_error = CASE WHEN given.last_fire_at IS NULL THEN cron.last_error ELSE given.last_error END,
    retry_at = CASE WHEN given.pending IS NOT NULL THEN %(until)s::timestamptz END,
    claim = CASE WHEN given.pending IS NOT NULL THEN %(claim)s::uuid END
FROM given
WHERE cron.id = given.id;

-- name: begin_again
-- Claim crons, locked by this transaction, whose fires are under way already.
WITH again AS (
    UPDATE cron
    SET retry_at = %(until)s,
        claim = %(claim)s
    WHERE id = ANY(%(ids)s::uuid[])
    RETURNING pending
)
UPDATE fire
SET tries = tries + 1
FROM again
WHERE fire.id = again.pending;

-- name: settle
-- Write what became of fires that this claim still has in hand, or that were submitted: that is so whoever has them in hand by
-- now. What members have changed meanwhile stays (`version`).
WITH given AS (
    SELECT *
    FROM unnest(
        %(ids)s::uuid[], %(versions)s::integer[], %(fires)s::uuid[], %(outcomes)s::smallint[], %(errors)s::text[],
        %(waits)s::uuid[], %(untried)s::integer[], %(retries)s::timestamptz[], %(states)s::smallint[], %(reasons)s::text[],
        %(next_fires)s::timestamptz[], %(next_dues)s::timestamptz[], %(acted)s::timestamptz[], %(runs)s::bigint[],
        %(failures)s::integer[], %(feds)s::uuid[], %(limited)s::integer[]
    ) AS g (
        id, version, fire_id, outcome, error, waits_for, untried, retry_at, state, reason, next_fire_at, next_due_at, acted_until,
        runs, failures, fed_from, limited
    )
), mine AS (
    SELECT given.*, cron.version = given.version AS unchanged
    FROM given
    JOIN cron USING (id)
    WHERE cron.pending = given.fire_id
        AND (cron.claim = %(claim)s OR given.outcome = 2)
    ORDER BY id
    FOR NO KEY UPDATE OF cron
), ended AS (
    UPDATE fire
    SET outcome = mine.outcome,
        error = mine.error,
        waits_for = mine.waits_for,
        tries = fire.tries - mine.untried,
        limited = fire.limited + mine.limited,
        fired_at = CASE WHEN mine.outcome <> 1 THEN %(now)s::timestamptz END
    FROM mine
    WHERE fire.id = mine.fire_id
    RETURNING fire.id, fire.cron_id, fire.due_at, fire.outcome
), left_out AS (
    INSERT INTO fire (id, cron_id, kind, due_at, outcome, moments, error, fired_at)
    SELECT l.id, l.cron_id, 1, l.due_at, l.outcome, l.moments, l.error, %(now)s
    FROM unnest(
        %(left_ids)s::uuid[], %(left_crons)s::uuid[], %(left_dues)s::timestamptz[], %(left_outcomes)s::smallint[],
        %(left_moments)s::integer[], %(left_errors)s::text[]
    ) AS l (id, cron_id, due_at, outcome, moments, error)
    JOIN mine ON mine.id = l.cron_id
    WHERE mine.unchanged
    RETURNING cron_id, due_at, error
)
UPDATE cron
SET pending = CASE WHEN mine.outcome = 1 THEN cron.pending END,
    retry_at = mine.retry_at,
    claim = NULL,
    state = CASE WHEN mine.unchanged THEN mine.state ELSE cron.state END,
    pause_reason = CASE WHEN mine.unchanged THEN mine.reason ELSE cron.pause_reason END,
    next_fire_at = CASE WHEN mine.unchanged THEN mine.next_fire_at ELSE cron.next_fire_at END,
    next_due_at = CASE WHEN mine.unchanged THEN mine.next_due_at ELSE cron.next_due_at END,
    acted_until = GREATEST(cron.acted_until, mine.acted_until),
    runs = cron.runs + mine.runs,
    failures = CASE WHEN mine.unchanged THEN mine.failures ELSE cron.failures END,
    -- What was left out came after the fire; so did what members' changes have told while it was in hand.
    last_fire_at = CASE
        WHEN mine.outcome <> 1 THEN GREATEST(cron.last_fire_at, ended.due_at, left_out.due_at)
        ELSE cron.last_fire_at
    END,
    last_workflow_id = CASE WHEN mine.outcome = 2 THEN mine.fire_id ELSE cron.last_workflow_id END,
    last_error = CASE
        WHEN cron.last_fire_at > ended.due_at THEN cron.last_error
        ELSE COALESCE(left_out.error, mine.error)
    END,
    fed_from = COALESCE(mine.fed_from, cron.fed_from)
FROM mine
JOIN ended ON ended.cron_id = mine.id
LEFT JOIN left_out ON left_out.cron_id = mine.id
WHERE cron.id = mine.id
RETURNING cron.id, cron.due_at;

-- name: put_off
-- Look at a cron that cannot be dealt with not before a moment.
UPDATE cron
SET retry_at = CASE WHEN pending IS NOT NULL THEN %(until)s::timestamptz END,
    claim = NULL,
    next_due_at = CASE WHEN next_fire_at IS NOT NULL THEN %(until)s::timestamptz END
WHERE id = %(id)s;
