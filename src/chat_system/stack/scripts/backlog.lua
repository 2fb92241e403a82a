#!lua flags=no-writes
-- How far a projection is behind in one partition.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the consumer group
-- Returns [facts recorded, facts applied, facts set aside, age of the oldest in milliseconds].

local P = string.sub(KEYS[1], 1, -5)
local stream, group = P .. 'stream', ARGV[1]
local known = redis.call('HMGET', KEYS[1], group, group .. '_done')
local aside = redis.call('HLEN', P .. 'aside:' .. group)
local first

local function oldest()
  if redis.call('EXISTS', stream) == 0 then
    return nil
  end
  local pending = redis.call('XPENDING', stream, group)
  if pending[1] > 0 then
    return pending[2]
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then
      local following = redis.call('XRANGE', stream, '(' .. info[8], '+', 'COUNT', 1)
      return following[1] and following[1][1]
    end
  end
end

local age = 0
if tonumber(known[1] or 0) > tonumber(known[2] or 0) then
  local id = oldest()
  local found = id and redis.call('XRANGE', stream, id, id)[1]
  if found then
    local time = redis.call('TIME')
    age = math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(found[2][2]))
  end
end
return { tonumber(known[1] or 0), tonumber(known[2] or 0), aside, age }
