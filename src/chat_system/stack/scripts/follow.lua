#!lua flags=allow-oom
-- Begins a consumer group beside the projections', with the oldest entry that is still there, or removes one.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the group
-- ARGV[2]  for how many seconds it is kept when nobody reads; 0 removes it
-- Returns 1.

local P = string.sub(KEYS[1], 1, -5)
local stream, group, follower = P .. 'stream', ARGV[1], P .. 'follower:' .. ARGV[1]
if ARGV[2] == '0' then
  if redis.call('EXISTS', stream) == 1 then
    redis.call('XGROUP', 'DESTROY', stream, group)
  end
  redis.call('DEL', follower)
  return 1
end
-- Where nothing was ever recorded there is no stream, and the projections' groups come first.
for _, name in ipairs({ 'store', 'search', group }) do
  redis.pcall('XGROUP', 'CREATE', stream, name, '0', 'MKSTREAM')
end
redis.call('SET', follower, ARGV[2], 'EX', ARGV[2])
return 1
