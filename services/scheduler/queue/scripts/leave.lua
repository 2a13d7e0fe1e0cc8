-- leave(KEYS: replicas, watermarks; ARGV: replica) -> 1
--
-- A clean end: all that the replica began was told to the queue.
--   replicas, watermarks  as in beat.lua

redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'mark:' .. ARGV[1], 'lost:' .. ARGV[1])
return 1
