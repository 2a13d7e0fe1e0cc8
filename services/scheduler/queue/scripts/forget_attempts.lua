-- forget_attempts(KEYS: timers) -> number of timers taken away
--
-- Before a rebuild: a server that lost its newest writes may have brought back leases of attempts that are over.
--   timers  zset  what is due when, ms

local gone = 0
for _, timer in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local kind = string.match(timer, '^(%a+)|')
  if kind == 'lease' or kind == 'offer' or kind == 'exec' then
    gone = gone + redis.call('ZREM', KEYS[1], timer)
  end
end
return gone
