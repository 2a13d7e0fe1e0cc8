-- extend(KEYS: timers; ARGV: lease_until_ms, attempt...) -> {position, ...}
--
-- Extends leases. An offer is the lease of an attempt that was never heard of: the first heartbeat makes it a lease proper.
-- An attempt is "process|number|executor". Returns the positions (from 1) of attempts that have neither: whether such an
-- attempt is over, or was lost with Redis, only its row tells.
--   timers  zset  what is due when, ms

local missing = {}
for i = 2, #ARGV do
  local lease = 'lease|' .. ARGV[i]
  if redis.call('ZSCORE', KEYS[1], lease) then
    redis.call('ZADD', KEYS[1], 'XX', 'GT', ARGV[1], lease)
  elseif redis.call('ZREM', KEYS[1], 'offer|' .. ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[1], lease)
  else
    missing[#missing + 1] = i - 1
  end
end
return missing
