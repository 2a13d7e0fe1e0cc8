-- Names are compared byte by byte, so that lists have one order on every server.

-- `capabilities` is a colonies.registry.v1.Capabilities as it came. Signs of life are updates of one column that no index
-- has: room on the page keeps them from touching any.
CREATE TABLE executor (
    colony text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    executor_types text[] NOT NULL,
    location_name text COLLATE "C" NOT NULL,
    capabilities bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    registered_at timestamptz NOT NULL,
    last_heard_at timestamptz,
    PRIMARY KEY (colony, identity)
) WITH (fillfactor = 80);

-- Anybody may register under any name; among the approved it names one.
CREATE UNIQUE INDEX executor_approved_name ON executor (colony, name) WHERE state = 'approved';
CREATE INDEX executor_by_name ON executor (colony, name, identity);
CREATE INDEX executor_pending ON executor (colony) WHERE state = 'pending';
CREATE INDEX executor_at_location ON executor (colony, location_name) WHERE state = 'approved' AND location_name <> '';

-- `definition` is a colonies.registry.v1.Function as it came.
CREATE TABLE function (
    colony text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    definition bytea NOT NULL,
    PRIMARY KEY (colony, name, identity),
    FOREIGN KEY (colony, identity) REFERENCES executor (colony, identity) ON DELETE CASCADE
);

CREATE INDEX function_of_executor ON function (colony, identity);

CREATE TABLE location (
    colony text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text NOT NULL,
    longitude double precision NOT NULL,
    latitude double precision NOT NULL,
    PRIMARY KEY (colony, name)
);
