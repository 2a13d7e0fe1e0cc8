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

-- name: colony_held
-- The same, kept from being removed until the transaction ends.
SELECT name, owner, created_at, FALSE AS removed
FROM colony
WHERE name = %(name)s
    AND removed_at IS NULL
FOR SHARE;

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
RETURNING name;

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
RETURNING identity;

-- name: delete_member
-- End the membership of an identity in one role.
DELETE FROM member
WHERE colony = %(colony)s
    AND identity = %(identity)s
    AND role = %(role)s
RETURNING identity;

-- name: delete_member_named
-- End the membership with a name in one role.
DELETE FROM member
WHERE colony = %(colony)s
    AND name = %(name)s
    AND role = %(role)s
RETURNING identity;

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
-- The owner of a living colony, and the place that an identity has in it.
SELECT colony.owner, member.role, member.name
FROM colony
LEFT JOIN member ON member.colony = colony.name AND member.identity = %(identity)s
WHERE colony.name = %(colony)s
    AND colony.removed_at IS NULL;

-- name: notify
-- Tell followers, when this transaction commits.
SELECT pg_notify('auth_changes', %(payload)s);
