-- settle(KEYS: timers; ARGV: prefix, colony, from, step...) -> {{count, ...}, {attempt, ...}}
--
-- Brings a colony's queue in accord with rows of Postgres, in one step. Doing it twice does no harm.
--   timers, held, load, index, lane   as in claim.lua
-- `from` is the replica that calls: it has woken its own waiters and followers itself, and passes over its own messages.
-- Each step is its name, the number of its arguments, and these:
--   finish    {ms, timer, process, number, executor, announce}...   forget a timer that was handed out until `ms`, unless it
--                                                            was set anew meanwhile; executor '' for none, else as release
--   disarm    timer...                                       forget
--   arm       {ms, timer}...                                 set, also when it is set already
--   keep      {ms, timer}...                                 set, unless it is set already
--   offer     {attempt, ms}...                               put on offer, unless it is or the lease is there
--   confirm   {attempt, ms, exec_ms, exec_timer}...          a claimed attempt was recorded: if its offer is still there, it
--                                                            lasts until `ms`; if that or the lease is, its time limit begins
--                                                            (exec_ms '' for none)
--   lease     {attempt, ms}...                               leased, whatever was there
--   release   {process, number, executor, announce}...       takes its cost from the executor's load, if it is this attempt
--                                                            that is held; announce 1: if the executor found no room, says so
--   hold      {process, number, executor, use}...            adds its cost, unless this attempt or a later one is held
--   withdraw  lane, number of indexes, index..., member...   take out of the lane
--   ready     lane, absorbed, number of indexes, index..., {score, member}...   put into the lane, lowest first
--   news      id...                                          processes and workflows that have news for followers
-- An attempt is "process|number|executor"; `use` is as in claim.lua, the inner object.
--
-- Returns, for each `ready`, how many of its members are new; and the attempts to confirm that have neither offer nor lease.
-- New ones beyond `absorbed`, which waiters of the calling replica take, are published as "from\nlane\ncount" on the colony's
-- ready channel; who has room again as "from\n\nexecutor" there; news on each id's channel, and once on the colony's.

local CHUNK = 1000
local timers = KEYS[1]
local prefix, colony, from = ARGV[1], ARGV[2], ARGV[3]
local grown, unknown = {}, {}

-- A command with more arguments than Lua can unpack at once; CHUNK is even, so that pairs stay together.
local function chunked(first, last, command, key, option)
  for at = first, last, CHUNK do
    local upto = math.min(at + CHUNK - 1, last)
    if option then
      redis.call(command, key, option, unpack(ARGV, at, upto))
    else
      redis.call(command, key, unpack(ARGV, at, upto))
    end
  end
end

local function set_head(lane, first, last)
  local head = redis.call('ZRANGE', prefix .. 'lane:' .. lane, 0, 0, 'WITHSCORES')
  for i = first, last do
    if head[1] then
      redis.call('ZADD', prefix .. ARGV[i], head[2], lane)
    else
      redis.call('ZREM', prefix .. ARGV[i], lane)
    end
  end
end

local function let_go(process, number, executor, held, load)
  local there = redis.call('HGET', held, process)
  local kept = there and cjson.decode(there)
  if not kept or kept.a ~= tonumber(number) then
    return false
  end
  redis.call('HDEL', held, process)
  for field, quantity in pairs(kept.use) do
    redis.call('HINCRBY', load, field, string.format('%.0f', 0 - quantity))
  end
  return true
end

local steps = {}

function steps.disarm(first, last)
  chunked(first, last, 'ZREM', timers)
end

function steps.arm(first, last)
  chunked(first, last, 'ZADD', timers)
end

function steps.keep(first, last)
  chunked(first, last, 'ZADD', timers, 'NX')
end

function steps.offer(first, last)
  for i = first, last, 2 do
    if not redis.call('ZSCORE', timers, 'lease|' .. ARGV[i]) then
      redis.call('ZADD', timers, 'NX', ARGV[i + 1], 'offer|' .. ARGV[i])
    end
  end
end

function steps.confirm(first, last)
  for i = first, last, 4 do
    local offer = 'offer|' .. ARGV[i]
    local open = redis.call('ZSCORE', timers, offer)
    if open then
      redis.call('ZADD', timers, 'XX', ARGV[i + 1], offer)
    elseif not redis.call('ZSCORE', timers, 'lease|' .. ARGV[i]) then
      unknown[#unknown + 1] = ARGV[i]
    end
    if ARGV[i + 2] ~= '' and unknown[#unknown] ~= ARGV[i] then
      redis.call('ZADD', timers, 'NX', ARGV[i + 2], ARGV[i + 3])
    end
  end
end

function steps.lease(first, last)
  for i = first, last, 2 do
    redis.call('ZREM', timers, 'offer|' .. ARGV[i])
    redis.call('ZADD', timers, ARGV[i + 1], 'lease|' .. ARGV[i])
  end
end

local function release(process, number, executor, announce)
  local held, load = prefix .. 'held:' .. executor, prefix .. 'load:' .. executor
  if let_go(process, number, executor, held, load) then
    if announce == '1' and redis.call('HDEL', load, 'w') == 1 then
      redis.call('PUBLISH', 'colonies:ready:' .. colony, from .. '\n\n' .. executor)
    end
    if redis.call('EXISTS', held) == 0 then
      -- Whatever the sums had drifted to, with nothing held nothing is used.
      redis.call('DEL', load)
    end
  end
end

function steps.release(first, last)
  for i = first, last, 4 do
    release(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  end
end

function steps.finish(first, last)
  for i = first, last, 6 do
    local due = redis.call('ZSCORE', timers, ARGV[i + 1])
    if due and tonumber(due) == tonumber(ARGV[i]) then
      redis.call('ZREM', timers, ARGV[i + 1])
      if ARGV[i + 4] ~= '' then
        release(ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
      end
    end
  end
end

function steps.hold(first, last)
  for i = first, last, 4 do
    local process, number, executor, use = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
    local held, load = prefix .. 'held:' .. executor, prefix .. 'load:' .. executor
    local there = redis.call('HGET', held, process)
    local kept = there and cjson.decode(there)
    if not kept or kept.a < number then
      if kept then
        let_go(process, kept.a, executor, held, load)
      end
      redis.call('HSET', held, process, '{"a":' .. number .. ',"use":' .. use .. '}')
      for field, quantity in pairs(cjson.decode(use)) do
        redis.call('HINCRBY', load, field, string.format('%.0f', quantity))
      end
    end
  end
end

function steps.withdraw(first, last)
  local lane, names = ARGV[first], tonumber(ARGV[first + 1])
  local upto = first + 1 + names
  chunked(upto + 1, last, 'ZREM', prefix .. 'lane:' .. lane)
  set_head(lane, first + 2, upto)
end

function steps.ready(first, last)
  local lane, absorbed, names = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
  local upto, key = first + 2 + names, prefix .. 'lane:' .. lane
  local new = 0
  for at = upto + 1, last, CHUNK do
    new = new + redis.call('ZADD', key, unpack(ARGV, at, math.min(at + CHUNK - 1, last)))
  end
  for i = first + 3, upto do
    redis.call('ZADD', prefix .. ARGV[i], 'LT', ARGV[upto + 1], lane)
  end
  grown[#grown + 1] = new
  if new > absorbed then
    redis.call('PUBLISH', 'colonies:ready:' .. colony, from .. '\n' .. lane .. '\n' .. (new - absorbed))
  end
end

function steps.news(first, last)
  for i = first, last do
    redis.call('PUBLISH', 'colonies:news:' .. ARGV[i], from)
  end
  redis.call('PUBLISH', 'colonies:changed:' .. colony, from)
end

local at = 4
while ARGV[at] do
  local count = tonumber(ARGV[at + 1])
  steps[ARGV[at]](at + 2, at + 1 + count)
  at = at + 2 + count
end
return { grown, unknown }
