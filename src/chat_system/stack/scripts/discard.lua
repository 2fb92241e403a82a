#!lua flags=allow-oom
-- Forgets a fact that was set aside, unless it is all that there is of what it tells.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the projection
-- ARGV[2]  where the fact stands
-- Returns 0 when nothing is kept there, 1 when the fact is still what readers see, and is kept; else what was kept.

local P = string.sub(KEYS[1], 1, -5)
local aside = P .. 'aside:' .. ARGV[1]
local kept = redis.call('HGET', aside, ARGV[2])
if not kept then
  return 0
end

-- A message or a chat that the store does not have is on the tail, until it has it, or a later state of it.
local function is_on_tail()
  local length, start = string.match(kept, '^(%d+):()', 2)
  local readable, fact = pcall(cmsgpack.unpack, string.sub(kept, start + tonumber(length)))
  if not readable or type(fact) ~= 'table' or type(fact[1]) ~= 'table' then
    return false
  end
  local _, application, chat, number, revision = unpack(fact[1])
  local kind = string.sub(kept, 1, 1)
  if kind == 'm' then
    local latest = redis.call('ZSCORE', P .. 'z:' .. application .. ':' .. chat, number)
    return latest and tonumber(latest) == revision
  end
  if kind == 'c' then
    local state = redis.call('HGET', P .. 'ct:' .. application, chat)
    return state and struct.unpack('>I8', state, 24) == revision
  end
  return false
end

if ARGV[1] == 'store' and is_on_tail() then
  return 1
end
redis.call('HDEL', aside, ARGV[2])
return kept
