#!lua
-- Begins an epoch of a partition of which Redis knows nothing: it is new, or Redis has lost its data.
--
-- It takes two calls. The first claims the beginning; then the store raises its epoch; the second begins it, unless
-- somebody else has claimed meanwhile: whoever was held up between the two must not begin what the store has left behind.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  who begins
-- ARGV[2]  the epoch, or 0 to claim
-- ARGV[3]  '1' when no idempotency key was ever used before: then Redis knows them all
-- Returns the epoch in force, 0 when there is none.

local meta = KEYS[1]
local P = string.sub(meta, 1, -5)
local epoch = redis.call('HGET', meta, 'epoch')
if epoch then
  return tonumber(epoch)
end
if ARGV[2] == '0' then
  redis.call('HSET', meta, 'beginner', ARGV[1])
  return 0
end
if redis.call('HGET', meta, 'beginner') ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local since = ARGV[3] == '1' and -86400000 or time[1] * 1000 + math.floor(time[2] / 1000)
-- Tickets of an earlier life must not be valid again.
redis.call('HSET', meta, 'epoch', ARGV[2], 'since', since, 'tickets', ARGV[2] * 1000000000)
-- Both from the start, before there is an entry: the stream is trimmed below what its groups have taken.
for _, group in ipairs({ 'store', 'search' }) do
  redis.pcall('XGROUP', 'CREATE', P .. 'stream', group, '0', 'MKSTREAM')
end
return tonumber(ARGV[2])
