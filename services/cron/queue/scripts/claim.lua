-- claim(KEYS: timers, loaded; ARGV: now_ms, until_ms, limit, loaded_ms) -> {load, next_ms, id...}
--
-- Takes up to `limit` ids whose time has come, and puts each off until `until_ms`: whoever took it says later when to look next,
-- and if that never comes, somebody looks again then.
--   timers  zset    ids by when to look at them, ms
--   loaded  string  there for `loaded_ms` after a replica set out to load what is due soon
-- `load` is 1 for the one caller that has to do that now: the time is over, or the server has lost what it knew. `next_ms` is the
-- lowest score left, or -1. Both keys share a hash tag, as Redis Cluster requires.

local timers, loaded = KEYS[1], KEYS[2]

local ids = redis.call('ZRANGEBYSCORE', timers, '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  redis.call('ZADD', timers, ARGV[2], id)
end
local load = 0
if redis.call('SET', loaded, '1', 'NX', 'PX', ARGV[4]) then
  load = 1
end
local head = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
local answer = { load, head[2] or '-1' }
for _, id in ipairs(ids) do
  answer[#answer + 1] = id
end
return answer
