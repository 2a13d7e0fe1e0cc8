-- claim(KEYS: timers, index...; ARGV: prefix, executor_location, max, settle_at_ms, now_ms) -> {member, ...}
--
-- Takes the most urgent members out of the lanes that an executor may serve, in one step, so that no two executors get the
-- same process. Each is put on a settle timer in the same step: if whoever asked dies before the attempt is recorded, the
-- process is looked at again.
--   timers  zset  what is due when, ms
--   index   set   names of the lanes that hold work for a type, and for any executor or for this one
--   lane    zset  ready members by priority time; lowest runs first, members of one score byte by byte
-- A lane's key is prefix .. "lane:" .. name, its name "type|executors|location". Lanes are found through the indexes, so their
-- keys cannot be declared; like all keys here they share the {colony} hash tag, as Redis Cluster requires.

local prefix, location, max, settle_at = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local lanes, seen = {}, {}
for i = 2, #KEYS do
  for _, lane in ipairs(redis.call('SMEMBERS', KEYS[i])) do
    local wanted = string.match(lane, '|([^|]*)$')
    if not seen[lane] and (wanted == '' or wanted == location) then
      seen[lane] = true
      lanes[#lanes + 1] = lane
    end
  end
end

-- No lane can give more than `max`, so the heads of that length hold the `max` lowest of all.
local heads = {}
for _, lane in ipairs(lanes) do
  local range = redis.call('ZRANGE', prefix .. 'lane:' .. lane, 0, max - 1, 'WITHSCORES')
  for i = 1, #range, 2 do
    heads[#heads + 1] = { lane = lane, member = range[i], score = tonumber(range[i + 1]) }
  end
end
table.sort(heads, function(a, b)
  if a.score ~= b.score then
    return a.score < b.score
  end
  return a.member < b.member
end)

local claimed = {}
for i = 1, math.min(max, #heads) do
  local head = heads[i]
  local key = prefix .. 'lane:' .. head.lane
  redis.call('ZREM', key, head.member)
  redis.call('ZADD', KEYS[1], settle_at, 'settle|' .. string.sub(head.member, 20) .. '|' .. ARGV[5])
  claimed[#claimed + 1] = head.member
  if redis.call('EXISTS', key) == 0 then
    local type, names = string.match(head.lane, '^([^|]*)|([^|]*)|')
    if names == '' then
      names = '*'
    end
    for name in string.gmatch(names, '[^,]+') do
      redis.call('SREM', prefix .. 'lanes:' .. type .. '|' .. name, head.lane)
    end
  end
end
return claimed
