-- Schedules with time zones, windows and policies; a row for each fire; crons that can be paused.

ALTER TABLE cron
    DROP CONSTRAINT cron_one_schedule,
    DROP CONSTRAINT cron_due_with_moment,
    ADD COLUMN time_zone text NOT NULL DEFAULT '',
    ADD COLUMN random_interval_ms bigint,
    ADD COLUMN start_at timestamptz,
    ADD COLUMN end_at timestamptz,
    ADD COLUMN max_runs bigint NOT NULL DEFAULT 0,
    ADD COLUMN jitter_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN overlap smallint NOT NULL DEFAULT 1,
    ADD COLUMN missed smallint NOT NULL DEFAULT 2,
    ADD COLUMN missed_at_most integer NOT NULL DEFAULT 100,
    ADD COLUMN missed_after_ms bigint NOT NULL DEFAULT 10000,
    ADD COLUMN feed_outputs boolean NOT NULL DEFAULT false,
    ADD COLUMN max_failures integer NOT NULL DEFAULT 10,
    -- When the schedule began: at the adding or the last update.
    ADD COLUMN since timestamptz,
    -- 1 active, 2 paused, 3 ended.
    ADD COLUMN state smallint NOT NULL DEFAULT 1,
    ADD COLUMN pause_reason text NOT NULL DEFAULT '',
    -- Counts what members change, so that whoever settles a fire sees whether they did meanwhile.
    ADD COLUMN version integer NOT NULL DEFAULT 0,
    -- When to act on next_fire_at: jitter and back-off included.
    ADD COLUMN next_due_at timestamptz,
    -- No moment up to this one is fired any more.
    ADD COLUMN acted_until timestamptz,
    -- Moments up to this one fire however late they are.
    ADD COLUMN catch_up_until timestamptz,
    -- The scheduled fire that has begun and has not come to its end.
    ADD COLUMN pending uuid,
    -- When to look at it again: the end of the claim, or of its back-off.
    ADD COLUMN retry_at timestamptz,
    -- Who has it in hand; NULL for nobody.
    ADD COLUMN claim uuid,
    ADD COLUMN runs bigint NOT NULL DEFAULT 0,
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    -- The last run that is known to have succeeded.
    ADD COLUMN fed_from uuid,
    ALTER COLUMN last_workflow_id DROP DEFAULT,
    ALTER COLUMN last_workflow_id DROP NOT NULL,
    ALTER COLUMN last_workflow_id TYPE uuid USING NULLIF(last_workflow_id, '')::uuid;

UPDATE cron
SET since = created_at,
    next_due_at = next_fire_at,
    -- Those that stopped for want of their member can be resumed; those whose moments are over cannot.
    state = CASE WHEN next_fire_at IS NOT NULL THEN 1 WHEN last_error <> '' THEN 2 ELSE 3 END,
    pause_reason = CASE WHEN next_fire_at IS NULL THEN last_error ELSE '' END;

DROP INDEX cron_due;

ALTER TABLE cron
    DROP COLUMN due_at,
    DROP COLUMN tries,
    DROP COLUMN last_run,
    ALTER COLUMN since SET NOT NULL,
    ADD CONSTRAINT cron_one_schedule CHECK (num_nonnulls(expression, interval_ms, random_interval_ms) = 1),
    ADD CONSTRAINT cron_due_with_moment CHECK ((next_fire_at IS NULL) = (next_due_at IS NULL)),
    ADD CONSTRAINT cron_active_has_more CHECK (state <> 1 OR next_fire_at IS NOT NULL OR pending IS NOT NULL),
    ADD CONSTRAINT cron_retry_with_pending CHECK ((pending IS NULL) = (retry_at IS NULL)),
    ADD CONSTRAINT cron_claim_of_pending CHECK (claim IS NULL OR pending IS NOT NULL);

-- When to look at the cron; in a step of its own, for it is computed from columns that exist by now.
ALTER TABLE cron
    ADD COLUMN due_at timestamptz GENERATED ALWAYS AS (
        CASE WHEN pending IS NOT NULL THEN retry_at WHEN state = 1 THEN next_due_at END
    ) STORED;

-- What is due, oldest first; crons that wait for nothing are not in it.
CREATE INDEX cron_due ON cron (due_at, id)
WHERE due_at IS NOT NULL;

CREATE TABLE fire (
    -- Begins with the time of its moment, so this is the order of time. Also the id of the workflow that it submits.
    id uuid PRIMARY KEY,
    cron_id uuid NOT NULL,
    -- 1 scheduled, 2 run by a member.
    kind smallint NOT NULL,
    due_at timestamptz NOT NULL,
    -- 1 pending, 2 submitted, 3 skipped, 4 missed, 5 refused.
    outcome smallint NOT NULL,
    moments integer NOT NULL DEFAULT 1,
    tries integer NOT NULL DEFAULT 0,
    waits_for uuid,
    error text NOT NULL DEFAULT '',
    fired_at timestamptz,
    -- Digest of the request id of a run.
    request text NOT NULL DEFAULT '',
    CONSTRAINT fire_ended CHECK ((outcome = 1) = (fired_at IS NULL))
);

-- The fires of one cron, newest first.
CREATE INDEX fire_of_cron ON fire (cron_id, id DESC);

-- Those that came to something else than a workflow or a skip, which are few.
CREATE INDEX fire_odd ON fire (cron_id, id DESC)
WHERE outcome IN (1, 4, 5);

-- A run is made once for each request id.
CREATE UNIQUE INDEX fire_request ON fire (cron_id, request)
WHERE request <> '';

-- Runs whose caller heard nothing.
CREATE INDEX fire_open_run ON fire (id)
WHERE outcome = 1 AND kind = 2;

-- Crons that are gone, whose fires are still to be deleted, a portion at a time.
CREATE TABLE removed_cron (
    id uuid PRIMARY KEY
);
