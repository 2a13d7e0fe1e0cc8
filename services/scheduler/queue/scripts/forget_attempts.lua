-- forget_attempts(KEYS: timers) -> number of timers taken away
--
-- Before a rebuild: a server that lost its newest writes may have brought back leases of attempts that are over. Whatever is
-- not about a process in the queue goes, kinds of earlier versions too.
--   timers  zset  what is due when, ms

local gone = 0
for _, timer in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local kind = string.match(timer, '^(%a+)|')
  if kind ~= 'wait' and kind ~= 'ready' then
    gone = gone + redis.call('ZREM', KEYS[1], timer)
  end
end
return gone
