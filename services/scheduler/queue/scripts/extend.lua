-- extend(KEYS: timers; ARGV: lease_until_ms, timer...) -> {position, ...}
--
-- Extends the leases that are there, and returns the positions (from 1) of those that are not: whether such an attempt is over,
-- or its lease was lost with Redis, only its row tells.
--   timers  zset  what is due when, ms

local missing = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', 'GT', ARGV[1], ARGV[i])
  else
    missing[#missing + 1] = i - 1
  end
end
return missing
