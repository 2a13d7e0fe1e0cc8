-- name: hold_colony
-- One change of a colony's memberships at a time: what it does, and its place in the ledger, are decided on what is there.
SELECT pg_advisory_xact_lock(hashtextextended(%(colony)s, 1));

-- name: insert_colony
-- Enter a colony; nothing for a name that is, or was, in use.
INSERT INTO colony (name, owner, created_at)
VALUES (%(name)s, %(owner)s, %(now)s)
ON CONFLICT (name) DO NOTHING
RETURNING name;

-- name: colony_or_tombstone
-- What stands under a name, removed or not.
SELECT name, owner, created_at, removed_at IS NOT NULL AS removed
FROM colony
WHERE name = %(name)s;

-- name: colony
-- One living colony.
SELECT name, owner, created_at, FALSE AS removed
FROM colony
WHERE name = %(name)s
    AND removed_at IS NULL;

-- name: colonies
-- Living colonies by name, from behind the cursor.
SELECT name, owner, created_at, FALSE AS removed
FROM colony
WHERE removed_at IS NULL
    AND name > %(after)s
ORDER BY name
LIMIT %(limit)s;

-- name: entomb_colony
-- Remove a colony but for its name.
UPDATE colony
SET removed_at = %(now)s
WHERE name = %(name)s
    AND removed_at IS NULL
RETURNING owner;

-- name: delete_members
-- End every membership in a colony.
DELETE FROM member
WHERE colony = %(colony)s;

-- name: removed_colonies
-- The names of all tombstones, for followers that begin.
SELECT name
FROM colony
WHERE removed_at IS NOT NULL
ORDER BY name;

-- name: insert_member
-- Enter a membership; nothing when the identity has one, or another member of the role has the name.
INSERT INTO member (colony, identity, role, name, created_at)
VALUES (%(colony)s, %(identity)s, %(role)s, %(name)s, %(now)s)
ON CONFLICT DO NOTHING
RETURNING identity;

-- name: members_in_the_way
-- What there is of an identity, and of a name in a role.
SELECT colony, identity, role, name, created_at
FROM member
WHERE colony = %(colony)s
    AND (identity = %(identity)s OR (role = %(role)s AND name = %(name)s));

-- name: rename_executor
-- Give an executor another name; the unique name in its role has the last word.
UPDATE member
SET name = %(name)s
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND role = 'executor'
    AND name <> %(name)s
RETURNING identity, role, name;

-- name: delete_member
-- End the membership of an identity in one role.
DELETE FROM member
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND role = %(role)s
RETURNING identity, role, name;

-- name: delete_member_named
-- End the membership with a name in one role.
DELETE FROM member
WHERE colony = %(colony)s
    AND name = %(name)s
    AND role = %(role)s
RETURNING identity, role, name;

-- name: user
-- One user.
SELECT colony, identity, role, name, created_at
FROM member
WHERE colony = %(colony)s
    AND role = 'user'
    AND name = %(name)s;

-- name: users
-- A colony's users by name, from behind the cursor.
SELECT colony, identity, role, name, created_at
FROM member
WHERE colony = %(colony)s
    AND role = 'user'
    AND name > %(after)s
ORDER BY name
LIMIT %(limit)s;

-- name: resolve
-- The owner of a living colony, whose key one is in it, and the place that this member has.
SELECT colony.owner, held.identity, held.until, member.role, member.name
FROM colony
LEFT JOIN member_key AS held ON held.colony = colony.name AND held.key = %(key)s
LEFT JOIN member ON member.colony = colony.name AND member.identity = held.identity
WHERE colony.name = %(colony)s
    AND colony.removed_at IS NULL;

-- name: resolve_known
-- The owner of a living colony, and the place of the member that is known by an identity.
SELECT colony.owner, %(identity)s::text AS identity, NULL::timestamptz AS until, member.role, member.name
FROM colony
LEFT JOIN member ON member.colony = colony.name AND member.identity = %(identity)s
WHERE colony.name = %(colony)s
    AND colony.removed_at IS NULL;

-- name: key
-- Whose key one is, and until when it is good.
SELECT key, identity, until, replaces
FROM member_key
WHERE colony = %(colony)s
    AND key = %(key)s;

-- name: keys
-- All keys of an identity.
SELECT key, until
FROM member_key
WHERE colony = %(colony)s
    AND identity = %(identity)s
ORDER BY since;

-- name: live_keys
-- The current key of an identity, and those that were good after some time.
SELECT key, until
FROM member_key
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND (until IS NULL OR until > %(after)s);

-- name: successor
-- The key that took another's place.
SELECT key
FROM member_key
WHERE colony = %(colony)s
    AND replaces = %(key)s;

-- name: insert_key
-- Enter a key; nothing when it is, or was, somebody's.
INSERT INTO member_key (colony, key, identity, since, replaces)
VALUES (%(colony)s, %(key)s, %(identity)s, %(now)s, %(replaces)s)
ON CONFLICT (colony, key) DO NOTHING;

-- name: retire_keys
-- End all keys of an identity that are still good: the current one after a while, those that are retiring already now.
UPDATE member_key
SET until = CASE WHEN until IS NULL THEN %(until)s ELSE %(now)s END
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND (until IS NULL OR until > %(now)s)
RETURNING key;

-- name: rotation_before
-- When an identity's so-manieth latest rotation was, if that was after some time.
SELECT since
FROM member_key
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND since > %(after)s
    AND replaces IS NOT NULL
ORDER BY since DESC
OFFSET %(newer)s
LIMIT 1;

-- name: last_event
-- The end of a colony's ledger.
SELECT number, hash
FROM membership_event
WHERE colony = %(colony)s
ORDER BY number DESC
LIMIT 1;

-- name: insert_event
-- Put an event at the end of a colony's ledger.
INSERT INTO membership_event (colony, number, at, kind, identity, key, role, name, calls, size, previous_hash, hash)
VALUES (
    %(colony)s, %(number)s, %(at)s, %(kind)s, %(identity)s, %(key)s, %(role)s, %(name)s, %(calls)s, %(size)s,
    %(previous_hash)s, %(hash)s
);

-- name: events
-- A colony's ledger from behind a number, the first event whatever its size, the others while they are small enough together.
-- Where the page ends is worked out without a look at the calls.
SELECT colony, number, at, kind, identity, key, role, name, calls, previous_hash, hash
FROM membership_event
WHERE colony = %(colony)s
    AND number > %(after)s
    AND number <= (
        SELECT max(number)
        FROM (
            SELECT number, sum(size) OVER (ORDER BY number) - size AS before
            FROM (
                SELECT number, size
                FROM membership_event
                WHERE colony = %(colony)s
                    AND number > %(after)s
                ORDER BY number
                LIMIT %(limit)s
            ) AS wanted
        ) AS measured
        WHERE before < %(at_most)s
    )
ORDER BY number;

-- name: notify
-- Tell followers, when this transaction commits.
SELECT pg_notify('auth_changes', payload)
FROM unnest(%(payloads)s::text[]) AS told (payload);
