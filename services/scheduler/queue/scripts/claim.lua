-- claim(KEYS: timers, paused, held, load, index...; ARGV: prefix, executor_id, offer, max, in_flight, offer_until_ms)
--   -> {full, member, ...}
--
-- Gives an executor the most urgent processes that it may run and has room for, in one step, so that no two executors get the
-- same one. Each is put on offer, and its cost on the executor's load, in the same step: if whoever asked dies before the
-- attempt is recorded, the offer runs out and the row is looked at.
--   timers  zset    what is due when, ms
--   paused  string  there while nothing of the colony is given out
--   held    hash    open attempts of the executor: process id -> {"a": number, "use": {field: quantity}}
--   load    hash    sums of what these use: c, m, s, d, p, "g:<memory>:<name>" for each kind of GPU, "g?:<memory>:<name>" for
--                   GPUs in use whose kind is not known; and "w" while the executor found no room for something
--   index   zset    names of lanes by the scores of their heads, for one type, executor (or any) and location (or any)
--   lane    zset    ready members by priority time; lowest runs first, members of one score byte by byte
-- `full` is 1 if the executor now has `in_flight` open attempts, else 0. `offer` is the executor's offer text. `in_flight` bounds its open attempts, 0 does not. A lane's key is prefix .. "lane:" ..
-- name, its name "type|executors|location|needs". Lanes are found through the indexes, so their keys cannot be declared; like
-- all keys here they share the {colony} hash tag, as Redis Cluster requires.
--
-- One heap holds the next lane of each index, by its head's score, and the next member of each opened lane: what comes out
-- lowest is opened or taken. So no lane is opened whose head comes after the last process taken, and the cost does not depend
-- on how many such lanes there are, nor on how deep any is. Lanes that the executor has no room for are passed over; after
-- 5 000 lanes the call ends with what it has.

local MOST_LANES = 5000
local INDEX_CHUNK = 8
local LANE_CHUNK = 4
local MOST_CHUNK = 256
local CHUNK = 1000
local NO_NEEDS = {}
local PLAIN = { 'c', 'm', 's', 'd' }

local timers, held, load = KEYS[1], KEYS[3], KEYS[4]
local prefix, executor = ARGV[1], ARGV[2]
local max, in_flight = tonumber(ARGV[4]), tonumber(ARGV[5])

if redis.call('EXISTS', KEYS[2]) == 1 then
  return { 0 }
end
local left = math.huge
if in_flight > 0 then
  left = in_flight - redis.call('HLEN', held)
  if left <= 0 then
    redis.call('HSET', load, 'w', 1)
    return { 1 }
  end
  max = math.min(max, left)
end

-- The heap: lowest score first, then lowest member. An index stands in it with the member '', before all lanes of its score.
local heap, size = {}, 0

local function before(a, b)
  if a.score ~= b.score then
    return a.score < b.score
  end
  return a.member < b.member
end

local function push(entry)
  size = size + 1
  local at = size
  while at > 1 do
    local up = math.floor(at / 2)
    if not before(entry, heap[up]) then
      break
    end
    heap[at] = heap[up]
    at = up
  end
  heap[at] = entry
end

local function pop()
  local lowest, last = heap[1], heap[size]
  heap[size] = nil
  size = size - 1
  if size > 0 then
    local at = 1
    while true do
      local down = at * 2
      if down > size then
        break
      end
      if down < size and before(heap[down + 1], heap[down]) then
        down = down + 1
      end
      if not before(heap[down], last) then
        break
      end
      heap[at] = heap[down]
      at = down
    end
    heap[at] = last
  end
  return lowest
end

-- Moves an entry, which reads a zset from its lowest on, to the next row; false at the end.
local function advance(entry)
  entry.row = entry.row + 2
  if entry.row > #entry.rows then
    entry.rows = redis.call('ZRANGE', entry.key, entry.offset, entry.offset + entry.chunk - 1, 'WITHSCORES')
    entry.offset = entry.offset + entry.chunk
    entry.chunk = math.min(entry.chunk * 4, MOST_CHUNK)
    entry.row = 1
  end
  if not entry.rows[entry.row] then
    return false
  end
  entry.score = tonumber(entry.rows[entry.row + 1])
  return true
end

local function opened(key, chunk)
  return { key = key, rows = {}, row = 0, offset = 0, chunk = chunk }
end

local function next_lane(cursor)
  if advance(cursor) then
    cursor.member, cursor.name = '', cursor.rows[cursor.row]
    push(cursor)
  end
end

local function next_member(lane)
  if advance(lane) then
    lane.member = lane.rows[lane.row]
    push(lane)
  end
end

for i = 5, #KEYS do
  next_lane(opened(KEYS[i], INDEX_CHUNK))
end
if size == 0 then
  return { 0 }
end

local offer, used, changed = cjson.decode(ARGV[3]), {}, {}
local fields = redis.call('HGETALL', load)
for i = 1, #fields, 2 do
  used[fields[i]] = tonumber(fields[i + 1])
end

local function holds(requirement, labels)
  local value, test = labels[requirement[1]], requirement[2]
  if value == nil or test == '?' then
    return value ~= nil
  end
  for i = 3, #requirement do
    if requirement[i] == value then
      return true
    end
  end
  return false
end

local function all_hold(requirements, labels)
  for _, requirement in ipairs(requirements or NO_NEEDS) do
    if not holds(requirement, labels or NO_NEEDS) then
      return false
    end
  end
  return true
end

-- Kinds of GPU, each there once: how many there are, and where their use is counted.
local kinds = {}
for i, one in ipairs(offer.g) do
  kinds[i] = { k = one.k, m = one.m, n = one.n, field = string.format('g:%.0f:%s', one.m, one.n) }
end
-- The least of those that will do, so that the larger ones stay free for who needs them.
table.sort(kinds, function(a, b)
  if a.m ~= b.m then
    return a.m < b.m
  end
  return a.n < b.n
end)
local function is_of_kind(kind, memory, name)
  return kind.m >= (memory or 0) and (not name or name == '' or kind.n == name)
end
-- GPUs in use of a kind that nobody knows any more: counted where they may be.
for field, count in pairs(used) do
  local memory, name = string.match(field, '^g%?:(%d+):(.*)$')
  for _, kind in ipairs(memory and kinds or NO_NEEDS) do
    if count > 0 and is_of_kind(kind, tonumber(memory), name) then
      local here = math.min(count, kind.k)
      kind.k, count = kind.k - here, count - here
    end
  end
end

local function kind_for(wanted)
  for _, kind in ipairs(kinds) do
    if is_of_kind(kind, wanted.m, wanted.n) and kind.k - (used[kind.field] or 0) >= wanted.k then
      return kind
    end
  end
  return nil
end

local function has_room(case)
  local needs = case.needs
  for _, field in ipairs(PLAIN) do
    if needs[field] and offer[field] - (used[field] or 0) < needs[field] then
      return false
    end
  end
  if offer.p > 0 and offer.p - (used.p or 0) < case.p then
    return false
  end
  if needs.g then
    case.kind = kind_for(needs.g)
    return case.kind ~= nil
  end
  return true
end

-- What is decided of a needs text. Load only grows here: what does not fit once does not fit later.
local cases, turned_away = {}, false
local function fits(text)
  local case = cases[text]
  if not case then
    local needs = text ~= '' and cjson.decode(text) or NO_NEEDS
    case = { needs = needs, p = math.max(1, needs.p or 1) }
    case.out = not (all_hold(needs.l, offer.l) and all_hold(offer.a, needs.t))
    cases[text] = case
  end
  if not case.out and not has_room(case) then
    case.out, turned_away = true, true
  end
  return not case.out
end

-- What one process of a case uses: fields and quantities, and the same as JSON. Not by cjson, which keeps 14 digits.
local function use_of(case)
  local use, parts = { p = case.p }, {}
  for _, field in ipairs(PLAIN) do
    use[field] = case.needs[field]
  end
  if case.kind then
    use[case.kind.field] = case.needs.g.k
  end
  for field, quantity in pairs(use) do
    parts[#parts + 1] = string.format('%s:%.0f', cjson.encode(field), quantity)
  end
  return use, ',"use":{' .. table.concat(parts, ',') .. '}}'
end

local function count(use, sign)
  for field, quantity in pairs(use) do
    used[field] = (used[field] or 0) + sign * quantity
    changed[field] = true
  end
end

local taken, touched, by_process = {}, {}, {}
local function take(lane)
  if lane.taken == 0 then
    touched[#touched + 1] = lane
  end
  lane.taken = lane.taken + 1
  local process = string.sub(lane.member, 20, 55)
  local attempt = tonumber(string.sub(lane.member, 57)) or 1
  local one = by_process[process]
  if one then
    if attempt > one.attempt then
      -- A member of an earlier stay had been left behind.
      one.attempt, one.member = attempt, lane.member
    end
    return
  end
  local case = cases[lane.needs]
  if case.kind or not case.use then
    -- Which kind of GPU it is may change from one process to the next.
    case.use, case.json = use_of(case)
  end
  count(case.use, 1)
  one = { process = process, attempt = attempt, member = lane.member, use = case.use, json = case.json }
  by_process[process] = one
  taken[#taken + 1] = one
end

local looked = 0
while size > 0 and #taken < max and looked < MOST_LANES do
  local lowest = pop()
  if lowest.member == '' then
    looked = looked + 1
    local name = lowest.name
    local needs = string.match(name, '^[^|]*|[^|]*|[^|]*|(.*)$')
    if fits(needs) then
      local lane = opened(prefix .. 'lane:' .. name, LANE_CHUNK)
      lane.name, lane.needs, lane.taken = name, needs, 0
      next_member(lane)
    end
    next_lane(lowest)
  elseif fits(lowest.needs) then
    take(lowest)
    next_member(lowest)
  end
end

for _, lane in ipairs(touched) do
  redis.call('ZREMRANGEBYRANK', lane.key, 0, lane.taken - 1)
  local head = redis.call('ZRANGE', lane.key, 0, 0, 'WITHSCORES')
  local type, names, location = string.match(lane.name, '^([^|]*)|([^|]*)|([^|]*)|')
  for name in string.gmatch(names == '' and '*' or names, '[^,]+') do
    local index = prefix .. 'heads:' .. type .. '|' .. name .. '|' .. (location == '' and '*' or location)
    if head[1] then
      redis.call('ZADD', index, head[2], lane.name)
    else
      redis.call('ZREM', index, lane.name)
    end
  end
end

-- A command with more arguments than Lua can unpack at once; CHUNK is even, so that pairs stay together.
local function in_chunks(command, key, arguments)
  for at = 1, #arguments, CHUNK do
    redis.call(command, key, unpack(arguments, at, math.min(at + CHUNK - 1, #arguments)))
  end
end

local claimed, holding, offers = {}, {}, {}
for i, one in ipairs(taken) do
  claimed[i + 1] = one.member
  offers[2 * i - 1] = ARGV[6]
  offers[2 * i] = 'offer|' .. one.process .. '|' .. one.attempt .. '|' .. executor
  -- An executor may hold an attempt of the process already, when the member was stale: the row decides which of the two there
  -- is; only the newer one counts.
  local there = redis.call('HGET', held, one.process)
  local older = there and cjson.decode(there)
  if older and older.a > one.attempt then
    count(one.use, -1)
  else
    if older then
      count(older.use, -1)
    end
    holding[#holding + 1] = one.process
    holding[#holding + 1] = '{"a":' .. one.attempt .. one.json
  end
end
in_chunks('ZADD', timers, offers)
in_chunks('HSET', held, holding)
local sums = {}
for field in pairs(changed) do
  sums[#sums + 1] = field
  sums[#sums + 1] = string.format('%.0f', used[field])
end
in_chunks('HSET', load, sums)
if turned_away or (in_flight > 0 and #taken == max) then
  -- Whoever ends an attempt of this executor tells it that there is room again.
  if redis.call('EXISTS', held) == 1 then
    redis.call('HSET', load, 'w', 1)
  end
end
claimed[1] = #taken >= left and 1 or 0
return claimed
