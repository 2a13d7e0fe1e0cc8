-- beat(KEYS: replicas, watermarks; ARGV: replica, watermark_ms, now_ms, lost_at_ms, again_at_ms) -> {replica, watermark_ms, passes, ...}
--
-- A replica lives, and all that it began before its watermark was told to the queue. Returns the replicas that have been silent
-- for too long; each is put off until `again_at`, so that one caller at a time gets it, and the next if that one dies too.
--   replicas    zset  replicas by when they count as lost, ms
--   watermarks  hash  "mark:<replica>" -> its last watermark, ms; "lost:<replica>" -> how often what came after was looked
--                     through, only while it counts as lost

redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
redis.call('HSET', KEYS[2], 'mark:' .. ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], 'lost:' .. ARGV[1])

local lost = {}
for _, replica in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])) do
  redis.call('ZADD', KEYS[1], ARGV[5], replica)
  redis.call('HSETNX', KEYS[2], 'lost:' .. replica, 0)
  lost[#lost + 1] = replica
  lost[#lost + 1] = redis.call('HGET', KEYS[2], 'mark:' .. replica) or '0'
  lost[#lost + 1] = redis.call('HGET', KEYS[2], 'lost:' .. replica)
end
return lost
