#!lua
-- Puts what was set aside back at the end of the stream. Both projections get it: applying tolerates repetition.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the projection
-- Returns how many facts went back.

local P = string.sub(KEYS[1], 1, -5)
local aside = P .. 'aside:' .. ARGV[1]
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HGETALL', aside)
for index = 1, #kept, 2 do
  local kind = string.sub(kept[index + 1], 1, 1)
  local length, start = string.match(kept[index + 1], '^(%d+):()', 2)
  local state = string.sub(kept[index + 1], start + tonumber(length))
  redis.call('XADD', P .. 'stream', epoch .. '-*', 't', now, kind, '\145' .. state) -- an array of one
  redis.call('HINCRBY', KEYS[1], 'store', 1)
  if kind == 'm' then
    redis.call('HINCRBY', KEYS[1], 'search', 1)
  end
  redis.call('HDEL', aside, kept[index])
end
return #kept / 2
