#!lua flags=allow-oom
-- Keeps a fact that can't be applied, with its error, out of the way.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the projection
-- ARGV[2]  where the fact stands
-- ARGV[3]  its error
-- ARGV[4]  its kind
-- ARGV[5]  the fact

local P = string.sub(KEYS[1], 1, -5)
redis.call('HSET', P .. 'aside:' .. ARGV[1], ARGV[2], ARGV[4] .. #ARGV[3] .. ':' .. ARGV[3] .. ARGV[5])
return 1
