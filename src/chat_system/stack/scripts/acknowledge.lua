#!lua flags=allow-oom
-- A projection has applied entries durably: takes them off the stream's pending list, takes what the store holds now
-- off the tails, and trims the stream below what every group has taken.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  the consumer group
-- ARGV[2]  MessagePack: [[stream id, how many of its facts count for the group, which of them are applied] …];
--          a count of -1: there are others, which are not; 0 is that of an entry that is none of the group's business
-- ARGV[3]  MessagePack: [[application, chat, [first, last, first, last …], version or 0, epoch] …], of the store's group, of
--          each chat the runs of revisions that are applied, a thousand in all at most; else empty
-- Returns how many facts left the backlog: none of what another had acknowledged before.

local IDLE_S = 3600
local NOTHING = '\144' -- an empty array

local meta = KEYS[1]
local P = string.sub(meta, 1, -5)
local stream, group = P .. 'stream', ARGV[1]

-- Runs of posted messages. One that is applied in part stays, with a mark for each message that is.
local function settle_posts(name, low, high)
  local index, marks_key = P .. 'r:' .. name, P .. 'p:' .. name
  local from, to = string.format('%d', low), string.format('%d', high)
  local runs = redis.call('ZRANGE', index, '(' .. from, to, 'BYSCORE')
  runs[#runs + 1] = redis.call('ZRANGE', index, from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
  local done = {}
  for _, run in ipairs(runs) do
    local number, count, revision = struct.unpack('>I4I4I8', run) -- as append.lua packs it
    local first, last = math.max(1, low - revision + 1), math.min(count, high - revision + 1)
    if first == 1 and last == count then
      done[#done + 1] = run
      redis.call('HDEL', marks_key, number)
    elseif first <= last then
      local known = redis.call('HGET', marks_key, number) or string.rep('0', count)
      local marks = string.sub(known, 1, first - 1) .. string.rep('1', last - first + 1) .. string.sub(known, last + 1)
      if string.find(marks, '0', 1, true) then
        redis.call('HSET', marks_key, number, marks)
      else
        done[#done + 1] = run
        redis.call('HDEL', marks_key, number)
      end
    end
  end
  if #done > 0 then
    redis.call('ZREM', index, unpack(done))
  end
end

-- Edits and deletions. A revision is one message's: what has changed again since has a higher one, and stays.
local function settle_edits(name, low, high)
  local order, from, to = P .. 'z:' .. name, string.format('%d', low), string.format('%d', high)
  local done = redis.call('ZRANGEBYSCORE', order, from, to)
  if #done > 0 then
    redis.call('ZREMRANGEBYSCORE', order, from, to)
    redis.call('HDEL', P .. 't:' .. name, unpack(done))
  end
end

local function settle(application, chat, runs, version)
  local name = application .. ':' .. chat
  for index = 1, #runs, 2 do
    settle_posts(name, runs[index], runs[index + 1])
    settle_edits(name, runs[index], runs[index + 1])
  end
  local own = P .. 'ct:' .. application
  if version > 0 then
    local state = redis.call('HGET', own, chat)
    -- Byte 24 to 31 of a fact are its version: see `head` in append.lua.
    if state and struct.unpack('>I8', state, 24) <= version then
      redis.call('HDEL', own, chat)
    end
    if redis.call('EXISTS', own) == 0 then
      redis.call('EXPIRE', P .. 'a:' .. application, IDLE_S)
    end
  end
  if redis.call('EXISTS', P .. 'r:' .. name, P .. 't:' .. name) == 0 and redis.call('HEXISTS', own, chat) == 0 then
    redis.call('EXPIRE', P .. 'c:' .. name, IDLE_S)
  end
end

local function numbers_of(id)
  local epoch, sequence = string.match(id, '(%d+)-(%d+)')
  return tonumber(epoch), tonumber(sequence)
end

-- The first entry that a group still needs; nothing when the group was given up.
local function first_needed(info)
  local fields = {}
  for index = 1, #info, 2 do
    fields[info[index]] = info[index + 1]
  end
  local name = fields['name']
  if name ~= 'store' and name ~= 'search' and redis.call('EXISTS', P .. 'follower:' .. name) == 0 then
    redis.call('XGROUP', 'DESTROY', stream, name)
    return nil
  end
  if fields['pending'] > 0 then
    return numbers_of(redis.call('XPENDING', stream, name)[2])
  end
  local epoch, sequence = numbers_of(fields['last-delivered-id'])
  return epoch, sequence + 1
end

local function trim()
  local low_epoch, low_sequence
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local epoch, sequence = first_needed(info)
    if epoch and (not low_epoch or epoch < low_epoch or (epoch == low_epoch and sequence < low_sequence)) then
      low_epoch, low_sequence = epoch, sequence
    end
  end
  if low_epoch then
    redis.call('XTRIM', stream, 'MINID', '=', low_epoch .. '-' .. low_sequence)
  end
end

if redis.call('EXISTS', stream) == 0 then
  return 0
end

-- Of an entry that is applied in part, which part: whoever takes it over need not apply that again.
local parts_key = P .. 'part:' .. group

local function known_parts(id)
  local known, count = {}, 0
  for index in string.gmatch(redis.call('HGET', parts_key, id) or '', '%d+') do
    known[tonumber(index)] = true
    count = count + 1
  end
  return known, count
end

local function apply_in_part(id, indices)
  if #redis.call('XPENDING', stream, group, id, id, 1) == 0 then
    return 0
  end
  local known = known_parts(id)
  local new = 0
  local text = redis.call('HGET', parts_key, id) or ''
  for _, index in ipairs(indices) do
    if not known[index] then
      text = text .. ' ' .. index
      new = new + 1
    end
  end
  redis.call('HSET', parts_key, id, text)
  return new
end

local done = 0
for _, applied in ipairs(cmsgpack.unpack(ARGV[2])) do
  local id, count = applied[1], applied[2]
  if count < 0 then
    done = done + apply_in_part(id, applied[3])
  elseif redis.call('XACK', stream, group, id) == 1 then
    local _, before = known_parts(id)
    done = done + count - before
    redis.call('HDEL', parts_key, id)
  end
end
if ARGV[3] ~= '' then
  -- What was read of an epoch that is over was dropped: its revisions may have been given again.
  local epoch = tonumber(redis.call('HGET', meta, 'epoch'))
  for _, chat in ipairs(cmsgpack.unpack(ARGV[3])) do
    if chat[5] == epoch then
      settle(chat[1], chat[2], chat[3], chat[4])
    end
  end
end
if ARGV[2] ~= NOTHING then
  trim()
end
if done > 0 and (group == 'store' or group == 'search') then
  redis.call('HINCRBY', meta, group .. '_done', done)
end
return done
