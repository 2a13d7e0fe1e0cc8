-- settle(KEYS: timers; ARGV: prefix, colony, changes) -> number of processes that are new in their lanes
--
-- Brings a colony's queue in accord with rows of Postgres, in one step. Doing it twice does no harm.
--   timers  zset  what is due when, ms
--   lane    zset  as in claim.lua
-- `changes` is JSON, every part of it optional:
--   withdraw  [[lane, [index, ...], member], ...]           take out of the lane
--   disarm    [timer, ...]                                  forget
--   arm       [[timer, ms], ...]                            set, also when it is set already
--   keep      [[timer, ms], ...]                            set, unless it is set already
--   offer     [[offer, lease, ms], ...]                     set the offer, unless it or the lease is set already
--   ready     [[lane, [index, ...], [score, member, ...]], ...]   put into the lane
--   news      {id, ...}                                     processes and workflows that have news for followers
-- For each lane that grew, "lane\ncount" is published on the colony's ready channel; news are published as one message, ids in
-- lines, on its changed channel.

local prefix, colony = ARGV[1], ARGV[2]
local changes = cjson.decode(ARGV[3])
local timers = KEYS[1]

for _, entry in ipairs(changes.withdraw or {}) do
  local key = prefix .. 'lane:' .. entry[1]
  redis.call('ZREM', key, entry[3])
  if redis.call('EXISTS', key) == 0 then
    for _, index in ipairs(entry[2]) do
      redis.call('SREM', prefix .. index, entry[1])
    end
  end
end
for _, timer in ipairs(changes.disarm or {}) do
  redis.call('ZREM', timers, timer)
end
for _, entry in ipairs(changes.arm or {}) do
  redis.call('ZADD', timers, entry[2], entry[1])
end
for _, entry in ipairs(changes.keep or {}) do
  redis.call('ZADD', timers, 'NX', entry[2], entry[1])
end
for _, entry in ipairs(changes.offer or {}) do
  if not redis.call('ZSCORE', timers, entry[2]) then
    redis.call('ZADD', timers, 'NX', entry[3], entry[1])
  end
end

local grown = 0
for _, entry in ipairs(changes.ready or {}) do
  local lane, indexes, ranked = entry[1], entry[2], entry[3]
  local new = 0
  for i = 1, #ranked, 2 do
    new = new + redis.call('ZADD', prefix .. 'lane:' .. lane, ranked[i], ranked[i + 1])
  end
  for _, index in ipairs(indexes) do
    redis.call('SADD', prefix .. index, lane)
  end
  if new > 0 then
    redis.call('PUBLISH', 'colonies:ready:' .. colony, lane .. '\n' .. new)
    grown = grown + new
  end
end
if changes.news and #changes.news > 0 then
  redis.call('PUBLISH', 'colonies:changed:' .. colony, table.concat(changes.news, '\n'))
end
return grown
