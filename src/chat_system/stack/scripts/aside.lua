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

-- Readers go on seeing what the store does not have. A posted message stands in the stream only, which is trimmed: its
-- tail gets a copy, as of an edit, and its run is told that it is done with it.
local function keep()
  local readable, fact = pcall(cmsgpack.unpack, ARGV[5])
  if not readable or type(fact) ~= 'table' or type(fact[1]) ~= 'table' then
    return
  end
  local _, application, chat, number, revision = unpack(fact[1])
  if type(number) ~= 'number' or type(revision) ~= 'number' then
    return
  end
  local name = application .. ':' .. chat
  local index, marks_key = P .. 'r:' .. name, P .. 'p:' .. name
  local number_text, revision_text = string.format('%d', number), string.format('%d', revision)
  local run = redis.call('ZRANGE', index, revision_text, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
  if not run then
    return
  end
  local first, count, first_revision = struct.unpack('>I4I4I8', run) -- as append.lua packs it
  local place = number - first + 1
  local marks = redis.call('HGET', marks_key, first) or string.rep('0', count)
  if place > count or revision ~= first_revision + place - 1 or string.byte(marks, place) == 49 then
    return
  end
  redis.call('HSET', P .. 't:' .. name, number_text, ARGV[5])
  redis.call('ZADD', P .. 'z:' .. name, revision_text, number_text)
  marks = string.sub(marks, 1, place - 1) .. '1' .. string.sub(marks, place + 1)
  if string.find(marks, '0', 1, true) then
    redis.call('HSET', marks_key, first, marks)
  else
    redis.call('ZREM', index, run)
    redis.call('HDEL', marks_key, first)
  end
end

if ARGV[1] == 'store' and ARGV[4] == 'm' then
  keep()
end
return 1
