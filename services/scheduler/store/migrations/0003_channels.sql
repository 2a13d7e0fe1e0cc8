-- Channels: a row for each name in a spec's `channels`, entered with the process. Its counters make an append cost its own
-- messages, however many are there. Processes entered before this have none: a spec is never opened here.
CREATE TABLE channel (
  process_id uuid NOT NULL,
  name text NOT NULL,
  messages integer NOT NULL DEFAULT 0,
  -- Of the values together.
  bytes bigint NOT NULL DEFAULT 0,
  -- How many messages the submitter has sent, and whether one was its last.
  submitter_sent integer NOT NULL DEFAULT 0,
  submitter_ended boolean NOT NULL DEFAULT false,
  -- The same of the attempt that sent last; any other has sent nothing that could come again.
  attempt integer NOT NULL DEFAULT 0,
  attempt_sent integer NOT NULL DEFAULT 0,
  attempt_ended boolean NOT NULL DEFAULT false,
  PRIMARY KEY (process_id, name)
) WITH (fillfactor = 80);

-- Written under the channel's row lock: what is there has no gap, and nothing comes before it any more.
CREATE TABLE channel_message (
  process_id uuid NOT NULL,
  channel text NOT NULL,
  -- From 1, without gaps.
  number integer NOT NULL,
  -- Whose executor sent it; 0 for the submitter.
  attempt integer NOT NULL,
  sender_name text NOT NULL,
  at timestamptz NOT NULL,
  -- As in the protos.
  kind smallint NOT NULL,
  -- A serialised Value: never opened here.
  value bytea NOT NULL,
  PRIMARY KEY (process_id, channel, number)
);
