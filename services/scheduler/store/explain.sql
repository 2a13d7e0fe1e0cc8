-- What an explanation needs of the tables beyond a process's row. Every query is confined to one colony.

-- name: explained_spec
-- What a process asks for: its spec, without user data where that is kept apart.
SELECT CASE WHEN summary = '' THEN spec ELSE summary END AS spec
FROM process
WHERE id = %(id)s AND colony = %(colony)s;

-- name: pending_parents
-- The first of the parents that have not ended, in the order of the dependencies, and how many there are in all.
SELECT p.node_name, count(*) OVER () AS pending
FROM edge AS e
JOIN process AS p ON p.id = e.parent_id
WHERE e.child_id = %(id)s AND p.colony = %(colony)s AND p.state IN (1, 2)
ORDER BY e.position
LIMIT %(limit)s;
