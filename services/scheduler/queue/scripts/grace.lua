-- grace(KEYS: timers; ARGV: until_ms) -> number of leases extended
--
-- After a time in which nobody could extend leases or look at them: none ends before `until`.
--   timers  zset  what is due when, ms

local extended = 0
for _, timer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])) do
  local kind = string.match(timer, '^(%a+)|')
  if kind == 'lease' or kind == 'offer' then
    redis.call('ZADD', KEYS[1], ARGV[1], timer)
    extended = extended + 1
  end
end
return extended
