-- Every key that a member of a colony (its owner too) has or ever had. A member is known by the identity of its first key. The
-- colony without a name has the keys of the server owner and of services, from their first rotation on.
-- `until` is when the key ceased, or will cease, to be good; NULL for the current one. Rows stay when a membership ends: a key is
-- one member's for ever.
CREATE TABLE member_key (
    colony text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz,
    -- The key whose place it took.
    replaces text COLLATE "C",
    PRIMARY KEY (colony, key)
);

CREATE INDEX member_key_of_identity ON member_key (colony, identity, since);
CREATE UNIQUE INDEX member_key_current ON member_key (colony, identity) WHERE until IS NULL;
CREATE UNIQUE INDEX member_key_replaces ON member_key (colony, replaces) WHERE replaces IS NOT NULL;

INSERT INTO member_key (colony, key, identity, since)
SELECT name, owner, owner, created_at
FROM colony
UNION ALL
SELECT colony, identity, identity, created_at
FROM member;

-- What became of memberships, chained by hash in each colony; `calls` are colonies.call.v1.SignedCall as they came. It outlives
-- the colony.
CREATE TABLE membership_event (
    colony text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    identity text NOT NULL,
    key text NOT NULL,
    role text NOT NULL,
    name text NOT NULL,
    calls bytea[] NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (colony, number)
);
