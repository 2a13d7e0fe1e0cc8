-- admit(KEYS: memory, nonce, bucket...; ARGV: signed_ms, now_ms, nonce, mine, prefix, {gap_ms, depth_ms} for each bucket)
--   -> {0}: let in | {1}: replayed | {2, prefix}: the memory is young | {3, which, wait_ms}: that bucket is empty
--
-- Claims the nonce of a signed call and takes a token from each bucket, all of them or none, in one step. A call that finds a
-- bucket empty claims its nonce too: whoever saw it pass could have it executed later, when its caller had long given it up.
--   memory  string  "<run id> <replication id> <prefix> <since>": in which run of the server nonces are remembered without a
--                   gap, and since when, unix ms
--   nonce   string  who claimed it, after "limited " if a bucket was empty; there for as long as its call can be fresh
--   bucket  string  when it will be full again, unix ms; not there while it is full. A token takes `gap_ms` to come, and all
--                   of them `depth_ms`
-- `signed_ms` is when the call was signed, `now_ms` the clock of the service that asks, and `prefix` random, for the memory that
-- this call may find lacking. A call may be sent twice: `mine` is random too, and by it a claim knows itself.
--
-- Redis's clock may have been ahead and put back. A bucket is never emptier than empty, whatever its note says. And the memory
-- begins anew when it began more than AHEAD_MS from now, or it would be young for as long: that is safe at any moment, because a
-- memory that begins forgets no claim, and takes nothing that was let in before without its prefix, which is new.
--
-- The memory begins anew when there is none, and when it is of another run of the server, or of a time before the server
-- followed another one: what was restored or copied may lack the latest claims. Why a young memory takes only what has its
-- prefix stands in servicekit/nonces.py. All keys share a hash tag, as Redis Cluster requires.

local REMEMBERED_MS = 130000
local YOUNG_MS = 70000
-- Far more than clocks may differ by: the services' own must not take turns in beginning it.
local AHEAD_MS = 600000
local ID_LENGTH, PREFIX_LENGTH = 40, 16

-- A section at a time: asked for both at once, the server takes half as long again.
local function id(section, field)
  local info = redis.call('INFO', section)
  local _, last = string.find(info, field, 1, true)
  return string.sub(info, last + 1, last + ID_LENGTH)
end

local run = id('server', '\nrun_id:') .. ' ' .. id('replication', '\nmaster_replid:') .. ' '
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
-- The later of two clocks: one that is behind must not end the memory's youth too soon.
local later = math.ceil(math.max(now, ARGV[2]))
local memory = redis.call('GET', KEYS[1])
local prefix, since
if memory and string.sub(memory, 1, #run) == run then
  prefix = string.sub(memory, #run + 1, #run + PREFIX_LENGTH)
  since = tonumber(string.sub(memory, #run + PREFIX_LENGTH + 2))
end
if not since or since > later + AHEAD_MS then
  prefix, since = ARGV[5], later
  redis.call('SET', KEYS[1], run .. prefix .. string.format(' %d', since))
end
if tonumber(ARGV[1]) <= since + YOUNG_MS and string.sub(ARGV[3], 1, PREFIX_LENGTH) ~= prefix then
  return { 2, prefix }
end

local claimed = redis.call('GET', KEYS[2])
local limited = 'limited ' .. ARGV[4]
if claimed and claimed ~= limited then
  return { claimed == ARGV[4] and 0 or 1 }
end

-- A token moves the moment at which the bucket is full by one gap; it is empty when that is a depth away.
local full = {}
for key = 3, #KEYS do
  local gap, depth = ARGV[2 * key], ARGV[2 * key + 1]
  local noted = tonumber(redis.call('GET', KEYS[key]) or 0)
  if noted > now + depth then
    -- Else it would be found like this, and this call's successors refused, until its own time had come.
    noted = now + depth
    redis.call('SET', KEYS[key], string.format('%.3f', noted), 'PX', math.ceil(depth))
  end
  full[key] = math.max(now, noted) + gap
  local wait = full[key] - now - depth
  if wait > 0 then
    redis.call('SET', KEYS[2], limited, 'PX', REMEMBERED_MS)
    return { 3, key - 2, math.ceil(wait) }
  end
end
for key = 3, #KEYS do
  redis.call('SET', KEYS[key], string.format('%.3f', full[key]), 'PX', math.ceil(full[key] - now))
end
redis.call('SET', KEYS[2], ARGV[4], 'PX', REMEMBERED_MS)
return { 0 }
