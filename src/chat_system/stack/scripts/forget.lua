#!lua flags=allow-oom
-- Drops a chat's counters, so that they are seeded from the store anew, unless something of it is unapplied.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the application
-- ARGV[2]  the chat
-- Returns 1 when there are none any more, 0 when they had to stay.

local P = string.sub(KEYS[1], 1, -5)
local name = ARGV[1] .. ':' .. ARGV[2]
local is_waiting = redis.call('EXISTS', P .. 'r:' .. name, P .. 't:' .. name) > 0
if is_waiting or redis.call('HEXISTS', P .. 'ct:' .. ARGV[1], ARGV[2]) == 1 then
  return 0
end
redis.call('DEL', P .. 'c:' .. name)
return 1
