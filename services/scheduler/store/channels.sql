-- Channels. Every query is confined to one colony, or comes after one that is.

-- name: lock_channel
-- A channel with its process, both held until this transaction commits: against the process's end, and against whoever else
-- would add messages.
SELECT
  p.state, p.attempt AS live_attempt, p.executor_id, p.initiator, c.messages, c.bytes, c.submitter_sent, c.submitter_ended,
  c.attempt, c.attempt_sent, c.attempt_ended,
  EXISTS (SELECT 1 FROM attempt WHERE process_id = p.id AND executor_id = %(identity)s) AS took_part
FROM process AS p
JOIN channel AS c ON c.process_id = p.id
WHERE p.id = %(id)s AND p.colony = %(colony)s AND c.name = %(channel)s
FOR NO KEY UPDATE OF p, c;

-- name: read_channel
-- As lock_channel, for readers: unlocked.
SELECT
  p.state, p.attempt AS live_attempt, p.executor_id, p.initiator, c.messages, c.bytes, c.submitter_sent, c.submitter_ended,
  c.attempt, c.attempt_sent, c.attempt_ended,
  EXISTS (SELECT 1 FROM attempt WHERE process_id = p.id AND executor_id = %(identity)s) AS took_part
FROM process AS p
JOIN channel AS c ON c.process_id = p.id
WHERE p.id = %(id)s AND p.colony = %(colony)s AND c.name = %(channel)s;

-- name: add_messages
-- Add messages to a locked channel behind those that are there, and count them.
WITH counted AS (
  UPDATE channel
  SET
    messages = messages + cardinality(%(kinds)s::smallint[]),
    bytes = bytes + %(bytes)s,
    submitter_sent = %(submitter_sent)s,
    submitter_ended = %(submitter_ended)s,
    attempt = %(attempt)s,
    attempt_sent = %(attempt_sent)s,
    attempt_ended = %(attempt_ended)s
  WHERE process_id = %(id)s AND name = %(channel)s
)
INSERT INTO channel_message (process_id, channel, number, attempt, sender_name, at, kind, value)
SELECT %(id)s, %(channel)s, %(messages)s + position, %(sender_attempt)s, %(sender_name)s, %(at)s, kind, value
FROM unnest(%(kinds)s::smallint[], %(values)s::bytea[]) WITH ORDINALITY AS g (kind, value, position);

-- name: list_messages
-- Messages after a number, in order: those before which a page has room, by count and by bytes, and so at least one.
SELECT number, attempt, sender_name, at, kind, value
FROM (
  SELECT
    number, attempt, sender_name, at, kind, value,
    sum(octet_length(value)) OVER (ORDER BY number) - octet_length(value) AS bytes_before
  FROM (
    SELECT number, attempt, sender_name, at, kind, value
    FROM channel_message
    WHERE process_id = %(id)s AND channel = %(channel)s AND number > %(after)s
    ORDER BY number
    LIMIT %(limit)s
  ) AS page
) AS measured
WHERE bytes_before < %(max_bytes)s
ORDER BY number;
