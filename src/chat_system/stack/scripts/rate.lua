#!lua
-- Takes from the bucket that all processes share: as many requests as are wanted, or as there are.
-- The bucket is a moment, the one at which it would be full again (the generic cell rate algorithm).
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the bucket's name
-- ARGV[2]  what a request costs, in microseconds
-- ARGV[3]  how deep the bucket is, in microseconds
-- ARGV[4]  how many requests are wanted
-- Returns how many were granted and, if none, after how many milliseconds there will be one.

local key = string.sub(KEYS[1], 1, -5) .. 'rate:' .. ARGV[1]
local cost, depth, wanted = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at = math.max(tonumber(redis.call('GET', key) or 0), now)
if full_at > now + depth + cost then
  -- The clock was set back, and nobody shall wait until it is where it was.
  full_at = now
end
local room = math.floor((depth - (full_at - now)) / cost + 0.000001)
local granted = math.min(wanted, room)
if granted <= 0 then
  return { 0, math.ceil((full_at + cost - now - depth) / 1000) }
end
full_at = full_at + granted * cost
redis.call('SET', key, string.format('%.3f', full_at), 'PX', math.ceil((full_at - now) / 1000) + 1)
return { granted, 0 }
