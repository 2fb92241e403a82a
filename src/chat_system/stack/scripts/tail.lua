#!lua flags=no-writes
-- What the journal knows of chats and the store may not know yet.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  MessagePack: the questions, each an array (see `tail.py`)
-- Returns MessagePack: [epoch, now, answers], each answer an array
-- [erased, warm, last, revision, the chat's own fact or nil, facts, numbers with an unapplied edit].

local CHAT, MESSAGE, WINDOW, REVISIONS, CHATS, APPLICATION = 1, 2, 3, 4, 5, 6
local CHUNK = 1000

local meta = KEYS[1]
local P = string.sub(meta, 1, -5)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local NIL = '\192'

local function integer(value)
  return struct.pack('>BI8', 0xcf, value)
end

-- Facts are MessagePack already: they are copied as they are. What is missing is applied.
local function facts(found, into)
  for _, state in ipairs(found) do
    if state then
      into[#into + 1] = state
    end
  end
end

local function list(states)
  return struct.pack('>BI4', 0xdd, #states) .. table.concat(states)
end

local function of_numbers(key, first, last)
  local found = {}
  for start = first, last, CHUNK do
    local numbers = {}
    for number = start, math.min(start + CHUNK - 1, last) do
      numbers[#numbers + 1] = number
    end
    facts(redis.call('HMGET', key, unpack(numbers)), found)
  end
  return found
end

-- Numbers have no gaps: a page is a range of them.
local function range(last, after, before, limit, from_end, skip)
  local low, high = after + 1, last
  if before > 0 then
    high = math.min(high, before - 1)
  end
  if from_end then
    return math.max(low, high - limit + 1), high
  end
  low = low + skip
  return low, math.min(high, low + limit - 1)
end

local function of_revisions(name, after, limit)
  local numbers = redis.call('ZRANGE', P .. 'z:' .. name, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, limit)
  local found = {}
  for start = 1, #numbers, CHUNK do
    facts(redis.call('HMGET', P .. 't:' .. name, unpack(numbers, start, math.min(start + CHUNK - 1, #numbers))), found)
  end
  return found
end

local function answer(erased, warm, last, revision, own, states, edited)
  return '\151' .. (erased and '\195' or '\194') .. (warm and '\195' or '\194') .. integer(last) .. integer(revision)
    .. (own or NIL) .. list(states) .. list(edited)
end

local function ask(question)
  local kind, application, chat = question[1], question[2], question[3]
  if redis.call('EXISTS', P .. 'gone:' .. application) == 1 then
    return answer(true, false, 0, 0, nil, {}, {})
  end
  if kind == APPLICATION then
    return answer(false, false, 0, 0, nil, {}, {})
  end
  if kind == CHATS then
    local own = P .. 'ct:' .. application
    local last = tonumber(redis.call('HGET', P .. 'a:' .. application, 'last') or 0)
    if last == 0 then
      -- None was opened of late: what there is are the few that were changed.
      return answer(false, false, 0, 0, nil, redis.call('HVALS', own), {})
    end
    local low, high = range(last, question[4], question[5], question[6], question[7], question[8])
    return answer(false, true, last, 0, nil, of_numbers(own, low, high), {})
  end
  local name = application .. ':' .. chat
  local counters = redis.call('GET', P .. 'c:' .. name)
  if not counters then
    return answer(false, false, 0, 0, nil, {}, {})
  end
  local last, revision = struct.unpack('>I4I8', counters) -- as append.lua packs them
  local own = redis.call('HGET', P .. 'ct:' .. application, chat)
  local states, edited = {}, {}
  if kind == MESSAGE then
    facts({ redis.call('HGET', P .. 't:' .. name, question[4]) }, states)
  elseif kind == WINDOW then
    local low, high = range(last, question[4], question[5], question[6], question[7], 0)
    states = of_numbers(P .. 't:' .. name, low, high)
  elseif kind == REVISIONS then
    states = of_revisions(name, question[4], question[5])
    for _, number in ipairs(redis.call('HKEYS', P .. 'e:' .. name)) do
      edited[#edited + 1] = integer(tonumber(number))
    end
  end
  return answer(false, true, last, revision, own, states, edited)
end

local answers = {}
for index, question in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[index] = ask(question)
end
local epoch = tonumber(redis.call('HGET', meta, 'epoch') or 0)
return '\147' .. integer(epoch) .. integer(now) .. list(answers)
