#!lua flags=no-writes
-- What the journal knows of chats and the store may not know yet.
--
-- KEYS[1]  the partition's `meta` key
-- ARGV[1]  MessagePack: the questions, each an array (see `tail.py`)
-- Returns MessagePack: [epoch, now, answers], each answer an array
-- [erased, warm, last, revision, the chat's own fact or nil, low, high, above, runs, facts, numbers of unapplied edits].
-- What was asked for are the messages from number `low` to `high` whose revision is above `above`. Runs of posted
-- messages come whole, with a mark '1' for each message that is applied or changed since, if any is: [fact, marks or nil].
-- The facts are edits and deletions, or chats.

local CHAT, MESSAGE, WINDOW, REVISIONS, CHATS, APPLICATION = 1, 2, 3, 4, 5, 6
local CHUNK = 1000
local RUNS_AT_ONCE = 64

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

local function edits_of_revisions(name, after, limit)
  local numbers = redis.call('ZRANGE', P .. 'z:' .. name, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, limit)
  local found = {}
  for start = 1, #numbers, CHUNK do
    facts(redis.call('HMGET', P .. 't:' .. name, unpack(numbers, start, math.min(start + CHUNK - 1, #numbers))), found)
  end
  return found
end

-- Runs: the index of a chat says where in the stream they stand.

local fields = {} -- of stream entries, the one with messages, by id

local function messages_of(id)
  if fields[id] == nil then
    fields[id] = false
    local entry = redis.call('XRANGE', P .. 'stream', id, id)[1]
    for index = 1, entry and #entry[2] or 0, 2 do
      if entry[2][index] == 'm' then
        fields[id] = entry[2][index + 1]
      end
    end
  end
  return fields[id]
end

local function shown(run, marks)
  local epoch, sequence, offset, length = struct.unpack('>I4I8I4I4', run, 17)
  local field = messages_of(string.format('%d-%d', epoch, sequence))
  return field and '\146' .. string.sub(field, offset + 1, offset + length)
    .. (marks and struct.pack('>BI4', 0xdb, #marks) .. marks or NIL)
end

-- Hands the elements of an index to `see`, downwards from a revision or upwards, until it has enough.
local function each_run(name, revision, upwards, see)
  local key, printed = P .. 'r:' .. name, string.format('%d', revision)
  if upwards then
    -- The one that may hold the revision begins below it.
    local first = redis.call('ZRANGE', key, printed, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
    if first and see(first) then
      return
    end
  end
  local start, runs = 0, nil
  repeat
    if upwards then
      runs = redis.call('ZRANGE', key, '(' .. printed, '+inf', 'BYSCORE', 'LIMIT', start, RUNS_AT_ONCE)
    else
      runs = redis.call('ZRANGE', key, printed, '-inf', 'BYSCORE', 'REV', 'LIMIT', start, RUNS_AT_ONCE)
    end
    for _, run in ipairs(runs) do
      if see(run) then
        return
      end
    end
    start = start + #runs
  until #runs < RUNS_AT_ONCE
end

local function marks_of(name)
  local key = P .. 'p:' .. name
  local is_marked = redis.call('EXISTS', key) == 1
  return function(first)
    return is_marked and redis.call('HGET', key, first)
  end
end

-- The runs with the numbers from `low` to `high`. A post's revision is its number and one for each edit before it, of
-- which there are by now `edits`: so it is known where to begin.
local function runs_of_numbers(name, low, high, edits)
  local found, marks = {}, marks_of(name)
  each_run(name, high + edits, false, function(run)
    local first, count = struct.unpack('>I4I4', run) -- as append.lua packs it
    if first <= high and first + count > low then
      found[#found + 1] = shown(run, marks(first)) or nil
    end
    return first <= low
  end)
  return found
end

-- The runs above a revision, as far as `limit` of their messages are neither applied nor changed since.
local function runs_of_revisions(name, above, limit)
  local found, marks, left = {}, marks_of(name), limit
  each_run(name, above + 1, true, function(run)
    local first, count, revision = struct.unpack('>I4I4I8', run)
    local marked = marks(first)
    if revision + count - 1 > above then
      found[#found + 1] = shown(run, marked) or nil
      for index = math.max(1, above + 2 - revision), count do
        if not marked or string.byte(marked, index) == 48 then
          left = left - 1
        end
      end
    end
    return left <= 0
  end)
  return found
end

local function answer(erased, warm, last, revision, own, found)
  found = found or {}
  return '\155' .. (erased and '\195' or '\194') .. (warm and '\195' or '\194') .. integer(last) .. integer(revision)
    .. (own or NIL) .. integer(found.low or 0) .. integer(found.high or 0) .. integer(found.above or 0)
    .. list(found.runs or {}) .. list(found.facts or {}) .. list(found.edited or {})
end

local function of_window(name, last, revision, low, high)
  local edits = P .. 't:' .. name
  local states = redis.call('EXISTS', edits) == 1 and of_numbers(edits, low, high) or {}
  local runs = low <= high and runs_of_numbers(name, low, high, revision - last) or {}
  return { low = low, high = high, runs = runs, facts = states }
end

local function of_revisions(name, last, revision, after, limit)
  local edited = {}
  for _, number in ipairs(redis.call('HKEYS', P .. 't:' .. name)) do
    edited[#edited + 1] = integer(tonumber(number))
  end
  if after >= revision then
    return { edited = edited }
  end
  local edits = #edited > 0 and edits_of_revisions(name, after, limit) or {}
  return {
    low = 1, high = last, above = after, runs = runs_of_revisions(name, after, limit), facts = edits, edited = edited
  }
end

local function ask(question)
  local kind, application, chat = question[1], question[2], question[3]
  if redis.call('EXISTS', P .. 'gone:' .. application) == 1 then
    return answer(true, false, 0, 0)
  end
  if kind == APPLICATION then
    return answer(false, false, 0, 0)
  end
  if kind == CHATS then
    local own = P .. 'ct:' .. application
    local last = tonumber(redis.call('HGET', P .. 'a:' .. application, 'last') or 0)
    if last == 0 then
      -- None was opened of late: what there is are the few that were changed.
      return answer(false, false, 0, 0, nil, { facts = redis.call('HVALS', own) })
    end
    local low, high = range(last, question[4], question[5], question[6], question[7], question[8])
    return answer(false, true, last, 0, nil, { facts = of_numbers(own, low, high) })
  end
  local name = application .. ':' .. chat
  local counters = redis.call('GET', P .. 'c:' .. name)
  if not counters then
    return answer(false, false, 0, 0)
  end
  local last, revision = struct.unpack('>I4I8', counters) -- as append.lua packs them
  local own = redis.call('HGET', P .. 'ct:' .. application, chat)
  local found
  if kind == MESSAGE then
    found = of_window(name, last, revision, question[4], math.min(question[4], last))
  elseif kind == WINDOW then
    found = of_window(name, last, revision, range(last, question[4], question[5], question[6], question[7], 0))
  elseif kind == REVISIONS then
    found = of_revisions(name, last, revision, question[4], question[5])
  end
  return answer(false, true, last, revision, own, found)
end

local answers = {}
for index, question in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[index] = ask(question)
end
local epoch = tonumber(redis.call('HGET', meta, 'epoch') or 0)
return '\147' .. integer(epoch) .. integer(now) .. list(answers)
