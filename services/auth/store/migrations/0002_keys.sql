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

-- Who enters does so with a first key, unless it was here before. Replicas from before this migration, which still run while the
-- others are replaced, know of no keys, so the tables see to it. Whoever enters while this is under way waits for it.
CREATE FUNCTION enter_owners_key() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO member_key (colony, key, identity, since)
    VALUES (NEW.name, NEW.owner, NEW.owner, NEW.created_at)
    ON CONFLICT (colony, key) DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION enter_members_key() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO member_key (colony, key, identity, since)
    VALUES (NEW.colony, NEW.identity, NEW.identity, NEW.created_at)
    ON CONFLICT (colony, key) DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER enter_key AFTER INSERT ON colony FOR EACH ROW EXECUTE FUNCTION enter_owners_key();
CREATE TRIGGER enter_key AFTER INSERT ON member FOR EACH ROW EXECUTE FUNCTION enter_members_key();

INSERT INTO member_key (colony, key, identity, since)
SELECT name, owner, owner, created_at
FROM colony
UNION ALL
SELECT colony, identity, identity, created_at
FROM member;

-- What became of memberships, chained by hash in each colony; `calls` are colonies.call.v1.SignedCall as they came. It outlives
-- the colony. `size` is how many bytes the calls have together.
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
    size bigint NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (colony, number)
);
