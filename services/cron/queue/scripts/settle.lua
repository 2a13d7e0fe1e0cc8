-- settle(KEYS: timers; ARGV: until_ms, {id, look_ms}...) -> nothing
--
-- Says when to look next at ids that somebody has looked at; a `look_ms` of '' is never.
--   timers  zset  ids by when to look at them, ms
-- What still stands where the claim has put it, at `until_ms`, is replaced. Anything else was told since, by whom the look may not
-- have seen: then the sooner of both holds. One look too many costs little, and one that is forgotten comes late. Run twice it
-- does nothing more.

local timers, claimed = KEYS[1], tonumber(ARGV[1])

for i = 2, #ARGV, 2 do
  local id, look = ARGV[i], tonumber(ARGV[i + 1])
  local known = redis.call('ZSCORE', timers, id)
  known = known and tonumber(known)
  if look and (not known or known == claimed or look < known) then
    redis.call('ZADD', timers, look, id)
  elseif not look and known == claimed then
    redis.call('ZREM', timers, id)
  end
end
