-- due(KEYS: timers; ARGV: now_ms, again_at_ms, max) -> {timer, ...}
--
-- Timers that are due. Each is put off instead of taken away: if whoever takes care of it dies, it is due again; two replicas
-- don't get the same one.
--   timers  zset  what is due when, ms

local timers = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, timer in ipairs(timers) do
  redis.call('ZADD', KEYS[1], ARGV[2], timer)
end
return timers
