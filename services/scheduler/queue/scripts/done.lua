-- done(KEYS: timers; ARGV: again_at_ms, timer...) -> number of timers taken away
--
-- Takes away timers that were taken care of, unless they were set anew in the meantime.
--   timers  zset  what is due when, ms

local gone = 0
for i = 2, #ARGV do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[1]) then
    gone = gone + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return gone
