#!lua flags=allow-oom
-- The next entries of a partition for one consumer: first what consumers held that are alive no more, then new ones.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the consumer group
-- ARGV[2]  the consumer
-- ARGV[3]  for how many milliseconds it counts as alive from now on; 0: it was said a moment ago
-- ARGV[4]  how many entries at most
-- ARGV[5]  '1' to look for consumers that have died
-- Returns the entries, each [id, [field, value …]] or, taken over, [id, [field, value …], which facts are applied].

local P = string.sub(KEYS[1], 1, -5)
local stream, group, consumer = P .. 'stream', ARGV[1], ARGV[2]
local room = tonumber(ARGV[4])
local entries = {}

local function take(found)
  for _, entry in ipairs(found) do
    entries[#entries + 1] = entry
    room = room - 1
  end
end

local function claim()
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name, pending = info[2], info[4]
    if name ~= consumer and redis.call('EXISTS', P .. 'alive:' .. name) == 0 then
      if pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
      elseif room > 0 then
        local ids = {}
        for _, held in ipairs(redis.call('XPENDING', stream, group, '-', '+', room, name)) do
          ids[#ids + 1] = held[1]
        end
        local claimed = redis.call('XCLAIM', stream, group, consumer, 0, unpack(ids))
        for _, entry in ipairs(claimed) do
          entry[3] = redis.call('HGET', P .. 'part:' .. group, entry[1]) or ''
        end
        take(claimed)
      end
    end
  end
end

if redis.call('HEXISTS', KEYS[1], 'epoch') == 0 or redis.call('EXISTS', stream) == 0 then
  return entries
end
-- Where there is nothing to read nothing shall be written either: each write costs a flush of the disk.
if ARGV[3] ~= '0' then
  redis.call('SET', P .. 'alive:' .. consumer, 1, 'PX', ARGV[3])
  local kept_s = redis.call('GET', P .. 'follower:' .. group)
  if kept_s then
    redis.call('EXPIRE', P .. 'follower:' .. group, kept_s)
  end
end
if ARGV[5] == '1' then
  claim()
end
if room > 0 then
  local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', stream, '>')
  if found then
    take(found[1][2])
  end
end
return entries
