-- rebuild(KEYS: rebuilding, epoch; ARGV: token, lock_ms, run) -> 1, or 0 if the rebuild is not this one's any more
--
-- Goes on with a rebuild, or ends it. Whatever emptied the server since it began has taken the token too: then what was built
-- is gone, and must not be declared whole.
--   rebuilding  string  token of the rebuild under way; expires, so that a replica that dies does not block it
--   epoch       string  which run of the server the queue was last rebuilt in
-- `run` is empty to go on, and the server's run to end.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] == '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[3])
  redis.call('DEL', KEYS[1])
end
return 1
