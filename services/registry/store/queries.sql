-- name: hold_executor
-- One edit of an identity's entry at a time, whether or not there is one yet.
SELECT pg_advisory_xact_lock(hashtextextended(%(colony)s || '/' || %(identity)s, 1));

-- name: hold_pending
-- One executor of a colony becomes pending at a time, so that the limit holds.
SELECT pg_advisory_xact_lock(hashtextextended(%(colony)s, 2));

-- name: hold_name
-- One approval under a name at a time.
SELECT pg_advisory_xact_lock(hashtextextended(%(colony)s || '/' || %(name)s, 3));

-- name: count_pending
-- How many executors of a colony wait.
SELECT count(*) AS pending
FROM executor
WHERE colony = %(colony)s
    AND state = 'pending';

-- name: evict_pending
-- Let those go that have waited longest, last of all those that were members. One that is being changed stays.
DELETE FROM executor
WHERE colony = %(colony)s
    AND identity = ANY (ARRAY(
        SELECT identity
        FROM executor
        WHERE colony = %(colony)s
            AND state = 'pending'
        ORDER BY last_heard_at IS NOT NULL, registered_at, identity
        LIMIT %(too_many)s
        FOR UPDATE SKIP LOCKED
    ));

-- name: other_with_name
-- Another approved executor with this name.
SELECT identity
FROM executor
WHERE colony = %(colony)s
    AND name = %(name)s
    AND state = 'approved'
    AND identity <> %(identity)s;

-- name: executor
-- One executor.
SELECT colony, identity, name, executor_types, location_name, capabilities, state, registered_at, last_heard_at
FROM executor
WHERE colony = %(colony)s
    AND identity = %(identity)s;

-- name: has_registration
-- Whether an executor's registration is kept.
SELECT octet_length(registration) > 0 AS present
FROM executor
WHERE colony = %(colony)s
    AND identity = %(identity)s;

-- name: registration
-- The registration of an executor, for auth's ledger.
SELECT registration
FROM executor
WHERE colony = %(colony)s
    AND identity = %(identity)s;

-- name: executor_named
-- One approved executor by its name.
SELECT colony, identity, name, executor_types, location_name, capabilities, state, registered_at, last_heard_at
FROM executor
WHERE colony = %(colony)s
    AND name = %(name)s
    AND state = 'approved';

-- name: executors
-- Executors by name, then identity, from behind the cursor. Empty filters let everything through.
SELECT colony, identity, name, executor_types, location_name, capabilities, state, registered_at, last_heard_at
FROM executor
WHERE colony = %(colony)s
    AND (name, identity) > (%(after_name)s, %(after_identity)s)
    AND (cardinality(%(states)s::text[]) = 0 OR state = ANY (%(states)s::text[]))
    AND (%(executor_type)s::text = '' OR %(executor_type)s::text = ANY (executor_types))
ORDER BY name, identity
LIMIT %(limit)s;

-- name: save_executor
-- Enter an executor, or change everything about it but its times; its registration only for another one.
INSERT INTO executor (
    colony, identity, name, executor_types, location_name, capabilities, state, registered_at, registration
)
VALUES (
    %(colony)s, %(identity)s, %(name)s, %(executor_types)s, %(location_name)s, %(capabilities)s, %(state)s,
    %(registered_at)s, coalesce(%(registration)s::bytea, '')
)
ON CONFLICT (colony, identity) DO UPDATE
SET name = excluded.name,
    executor_types = excluded.executor_types,
    location_name = excluded.location_name,
    capabilities = excluded.capabilities,
    state = excluded.state,
    registration = coalesce(%(registration)s::bytea, executor.registration);

-- name: delete_executor
-- Remove an executor; its functions go with it.
DELETE FROM executor
WHERE colony = %(colony)s
    AND identity = %(identity)s;

-- name: delete_functions
-- Take back all functions of an executor.
DELETE FROM function
WHERE colony = %(colony)s
    AND identity = %(identity)s;

-- name: insert_functions
-- Announce functions of one executor.
INSERT INTO function (colony, identity, name, definition)
SELECT %(colony)s, %(identity)s, announced.name, announced.definition
FROM unnest(%(names)s::text[], %(definitions)s::bytea[]) AS announced (name, definition);

-- name: delete_function
-- Take back one function.
DELETE FROM function
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND name = %(name)s
RETURNING name;

-- name: functions
-- Functions of approved executors by function, then executor name, from behind the cursor.
SELECT function.name, function.definition, executor.name AS executor_name, executor.executor_types
FROM function
JOIN executor USING (colony, identity)
WHERE function.colony = %(colony)s
    AND executor.state = 'approved'
    AND (%(executor_name)s::text = '' OR executor.name = %(executor_name)s)
    AND (function.name, executor.name) > (%(after_name)s, %(after_executor)s)
ORDER BY function.name, executor.name
LIMIT %(limit)s;

-- name: note_heard
-- Move signs of life forward, never back. Rows are locked in one order, so that batches do not deadlock.
WITH heard AS (
    SELECT colony, identity, max(at) AS at
    FROM unnest(%(colonies)s::text[], %(identities)s::text[], %(times)s::timestamptz[]) AS told (colony, identity, at)
    GROUP BY colony, identity
),
behind AS (
    SELECT executor.colony, executor.identity, heard.at
    FROM executor
    JOIN heard USING (colony, identity)
    WHERE executor.last_heard_at IS NULL
        OR executor.last_heard_at < heard.at
    ORDER BY executor.colony, executor.identity
    FOR UPDATE OF executor
)
UPDATE executor
SET last_heard_at = behind.at
FROM behind
WHERE executor.colony = behind.colony
    AND executor.identity = behind.identity
    AND (executor.last_heard_at IS NULL OR executor.last_heard_at < behind.at);

-- name: put_location
-- Add a location, or change it.
INSERT INTO location (colony, name, description, longitude, latitude)
VALUES (%(colony)s, %(name)s, %(description)s, %(longitude)s, %(latitude)s)
ON CONFLICT (colony, name) DO UPDATE
SET description = excluded.description,
    longitude = excluded.longitude,
    latitude = excluded.latitude;

-- name: location
-- One location.
SELECT name, description, longitude, latitude
FROM location
WHERE colony = %(colony)s
    AND name = %(name)s;

-- name: locations
-- Locations by name, from behind the cursor.
SELECT name, description, longitude, latitude
FROM location
WHERE colony = %(colony)s
    AND name > %(after)s
ORDER BY name
LIMIT %(limit)s;

-- name: hold_location
-- A location, kept from being removed until the transaction ends.
SELECT name
FROM location
WHERE colony = %(colony)s
    AND name = %(name)s
FOR SHARE;

-- name: hold_location_for_removal
-- A location that no approval can name until the transaction ends.
SELECT name
FROM location
WHERE colony = %(colony)s
    AND name = %(name)s
FOR UPDATE;

-- name: executor_at_location
-- Any approved executor at a location.
SELECT identity
FROM executor
WHERE colony = %(colony)s
    AND location_name = %(name)s
    AND state = 'approved'
LIMIT 1;

-- name: delete_location
-- Remove a location.
DELETE FROM location
WHERE colony = %(colony)s
    AND name = %(name)s;

-- name: purge_executors
-- Delete the executors of removed colonies; their functions go with them.
DELETE FROM executor
WHERE colony = ANY (%(colonies)s::text[])
RETURNING colony, identity, state;

-- name: purge_locations
-- Delete the locations of removed colonies.
DELETE FROM location
WHERE colony = ANY (%(colonies)s::text[]);

-- name: notify
-- Tell followers, when this transaction commits.
SELECT pg_notify('registry_changes', payload)
FROM unnest(%(payloads)s::text[]) AS told (payload);
