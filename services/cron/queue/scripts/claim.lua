-- claim(KEYS: timers, loaded; ARGV: now_ms, until_ms, limit, loaded_ms) -> {load, next_ms, id...}
--
-- Takes up to `limit` ids whose time has come, and puts each off until `until_ms`: whoever took it says later when to look next,
-- and if that never comes, somebody looks again then.
--   timers  zset    ids by when to look at them, ms
--   loaded  string  when a replica last set out to load what is due soon, ms
-- `load` is 1 for the one caller that has to do that now: `loaded_ms` are over, or the server has lost what it knew. `next_ms` is the
-- lowest score left, or -1. Both keys share a hash tag, as Redis Cluster requires.

local timers, loaded = KEYS[1], KEYS[2]

local ids = redis.call('ZRANGEBYSCORE', timers, '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  redis.call('ZADD', timers, ARGV[2], id)
end
local load = 0
local last = redis.call('GET', loaded)
-- Either way: whoever was last may have had a clock that is far ahead.
if not last or math.abs(tonumber(ARGV[1]) - tonumber(last)) >= tonumber(ARGV[4]) then
  redis.call('SET', loaded, ARGV[1])
  load = 1
end
local head = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
local answer = { load, head[2] or '-1' }
for _, id in ipairs(ids) do
  answer[#answer + 1] = id
end
return answer
