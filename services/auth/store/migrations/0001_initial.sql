-- Names are compared byte by byte, so that lists have one order on every server.

-- A removed colony stays as a tombstone: its name is never given out again.
CREATE TABLE colony (
    name text COLLATE "C" PRIMARY KEY,
    owner text NOT NULL,
    created_at timestamptz NOT NULL,
    removed_at timestamptz
);

-- For followers, which are told of all tombstones when they begin.
CREATE INDEX colony_removed ON colony (name) WHERE removed_at IS NOT NULL;

-- Users and executors. The owner is a column of the colony.
CREATE TABLE member (
    colony text COLLATE "C" NOT NULL REFERENCES colony (name),
    identity text NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'executor')),
    name text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (colony, identity),
    CONSTRAINT member_name UNIQUE (colony, role, name)
);
