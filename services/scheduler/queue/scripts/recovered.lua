-- recovered(KEYS: replicas, watermarks; ARGV: replica, passes, next_pass_ms) -> 1, or 0 if it lives again or another one did this
--
-- What a lost replica left was looked through once more. After the first pass a second one is due, for transactions that were
-- still open; after that the replica is forgotten.
--   replicas, watermarks  as in beat.lua
-- `passes` is how often it had been looked through before.

local lost = 'lost:' .. ARGV[1]
if redis.call('HGET', KEYS[2], lost) ~= ARGV[2] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('HSET', KEYS[2], lost, 1)
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
else
  redis.call('HDEL', KEYS[2], lost, 'mark:' .. ARGV[1])
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
