#!lua
-- Records changes of one partition: numbers them, appends them to the stream, lays them on the tails of their
-- chats. All of it is one atomic step, so a number that was allotted is a fact that was recorded.
--
-- KEYS[1]  the partition's `meta` key; what comes before that word begins all others
-- ARGV[1]  MessagePack: the changes, each an array (see `journal.py`, which writes them)
-- ARGV[2…] their contents, encoded, in the order in which the changes take them
-- Returns MessagePack: one array for each change, its first element one of the codes below;
-- an empty string when Redis knows nothing of this partition (it is new, or Redis has lost its data).

local RECORDED, COLD, ERASED, MISMATCH, STALE, ASK = 0, 1, 2, 3, 4, 5
local POST, OPEN, CHANGE, EDIT, DELETE = 1, 2, 3, 4, 5
local KEY, COUNT = 6, 7 -- kinds of facts that no change asks for: see facts.py

local ENTRY_FACTS, ENTRY_BYTES = 500, 262144 -- of one stream entry at most: readers take whole ones
local CHUNK = 1000                           -- arguments in one command, well under what unpack() can do
local KEY_MS = 86400000                      -- how long Redis itself remembers idempotency keys: 24 h
local IDLE_S = 3600                          -- how long counters stay when everything of theirs is applied
local TICKET_MS = 10000                      -- how long whoever seeds a counter may take
local GUARD_MS, READ_MS = 60000, 30000       -- an edit's mark outlives everyone who read what was before it

local meta = KEYS[1]
local P = string.sub(meta, 1, -5)
local known = redis.call('HMGET', meta, 'epoch', 'since')
if not known[1] then
  return ''
end
local epoch, since = tonumber(known[1]), tonumber(known[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local contents = 2
local function content()
  contents = contents + 1
  return ARGV[contents - 1]
end

-- What is written, gathered

local entry, entry_bytes, facts, messages = {}, 0, 0, 0
local chats, changed, applications, gone = {}, {}, {}, {}

local function write_entry()
  if #entry > 0 then
    redis.call('XADD', P .. 'stream', epoch .. '-*', 't', now, unpack(entry))
    entry, entry_bytes = {}, 0
  end
end

local function put(kind, state)
  if #entry >= 2 * ENTRY_FACTS or entry_bytes + #state > ENTRY_BYTES then
    write_entry()
  end
  entry[#entry + 1] = kind
  entry[#entry + 1] = state
  entry_bytes = entry_bytes + #state
  facts = facts + 1
end

-- The head of a fact: MessagePack with fixed widths, so that one call makes it. The content follows.
local function head(kind, application, chat, number, revision, at)
  return struct.pack('>BBBBI8BI4BI4BI8BI8', 0x92, 0x96, kind, 0xcf, application, 0xce, chat, 0xce, number,
    0xcf, revision, 0xcf, at)
end

local function in_chunks(command, key, list)
  for start = 1, #list, CHUNK do
    redis.call(command, key, unpack(list, start, math.min(start + CHUNK - 1, #list)))
  end
end

-- Counters. A cold one is seeded by the caller from the store, under a ticket: one that was read before others
-- seeded, posted, and left memory again must not count.

local function ticket(name)
  local key = P .. 'seed:' .. name
  local given = redis.call('GET', key)
  if not given then
    given = redis.call('HINCRBY', meta, 'tickets', 1)
    redis.call('SET', key, given, 'PX', TICKET_MS)
  end
  return tonumber(given)
end

local function seeded(name, seed)
  if not seed then
    return false
  end
  local key = P .. 'seed:' .. name
  if tonumber(redis.call('GET', key) or -1) ~= seed[1] then
    return false
  end
  redis.call('DEL', key)
  return true
end

local function new_chat(application, number, name, last, revision, count, version)
  local chat = {
    application = application, number = number, name = name, last = last, revision = revision, count = count,
    version = version, tail = {}, order = {}, edits = {}, counted = revision
  }
  chats[name] = chat
  return chat
end

local function find_chat(application, number, seed)
  local name = application .. ':' .. number
  local chat = chats[name]
  if chat then
    return chat
  end
  local found = redis.call('HMGET', P .. 'c:' .. name, 'last', 'revision', 'count', 'version')
  if found[1] then
    return new_chat(application, number, name, tonumber(found[1]), tonumber(found[2]), tonumber(found[3]),
      tonumber(found[4]))
  end
  if seeded(name, seed) then
    chat = new_chat(application, number, name, seed[2], seed[3], seed[4], seed[5])
    chat.seeded = true
    return chat
  end
  return nil, ticket(name)
end

local function find_application(application, seed)
  local found = applications[application]
  if found then
    return found
  end
  local last = redis.call('HGET', P .. 'a:' .. application, 'last')
  if last then
    found = { last = tonumber(last) }
  elseif seeded(application, seed) then
    found = { last = seed[2] }
  else
    return nil, ticket(application)
  end
  applications[application] = found
  return found
end

local function is_erased(application)
  local erased = gone[application]
  if erased == nil then
    erased = redis.call('EXISTS', P .. 'gone:' .. application) == 1
    gone[application] = erased
  end
  return erased
end

-- Each kind of change returns a code and what it was allotted, or a code and a ticket.

local function add(chat, kind, number, at, encoded)
  chat.revision = chat.revision + 1
  local state = head(kind, chat.application, chat.number, number, chat.revision, at) .. encoded
  put('m', state)
  messages = messages + 1
  chat.tail[#chat.tail + 1] = number
  chat.tail[#chat.tail + 1] = state
  chat.order[#chat.order + 1] = chat.revision
  chat.order[#chat.order + 1] = number
  changed[chat.name] = chat
end

local function post(change, encoded)
  local chat, given = find_chat(change[2], change[3], change[8])
  if not chat then
    return COLD, given
  end
  local first, revision = chat.last + 1, chat.revision + 1
  for index = 1, #encoded do
    chat.last = chat.last + 1
    add(chat, POST, chat.last, now, encoded[index])
  end
  chat.count = chat.count + #encoded
  return RECORDED, first, revision, now, #encoded
end

local function put_chat(chat, at, encoded)
  local state = head(CHANGE, chat.application, chat.number, 0, chat.version, at) .. encoded
  put('c', state)
  redis.call('HSET', P .. 'ct:' .. chat.application, chat.number, state)
  redis.call('PERSIST', P .. 'a:' .. chat.application)
  changed[chat.name] = chat
end

local function open(change, encoded)
  local application, given = find_application(change[2], change[8])
  if not application then
    return COLD, given
  end
  application.last = application.last + 1
  redis.call('HSET', P .. 'a:' .. change[2], 'last', application.last)
  local chat = new_chat(change[2], application.last, change[2] .. ':' .. application.last, 0, 0, 0, 1)
  put_chat(chat, now, encoded)
  return RECORDED, chat.number, 0, now, 1
end

local function is_stale(change)
  local read_at, read_epoch = change[10], change[11]
  return read_epoch ~= epoch or now < read_at or now - read_at > READ_MS
end

local function change_chat(change, encoded)
  local chat, given = find_chat(change[2], change[3], change[8])
  if not chat then
    return COLD, given
  end
  if chat.version ~= change[9] or is_stale(change) then
    return STALE
  end
  chat.version = chat.version + 1
  local at = math.max(now, change[12])
  put_chat(chat, at, encoded)
  return RECORDED, chat.number, chat.revision, at, 1
end

local function change_message(change, encoded)
  local chat, given = find_chat(change[2], change[3], change[8])
  if not chat then
    return COLD, given
  end
  local number, based_on = change[12], change[9]
  local guard = P .. 'g:' .. chat.name .. ':' .. number
  local latest = redis.call('GET', guard)
  if is_stale(change) or (latest and tonumber(latest) ~= based_on) then
    return STALE
  end
  local at = math.max(now, change[13] + 1)
  add(chat, change[1], number, at, encoded)
  redis.call('SET', guard, chat.revision, 'PX', GUARD_MS)
  chat.edits[#chat.edits + 1] = number
  chat.edits[#chat.edits + 1] = chat.revision
  if change[1] == DELETE then
    chat.count = chat.count - 1
  end
  return RECORDED, number, chat.revision, at, 1
end

-- Idempotency: what the first request with a key was allotted. Redis remembers every key since `since`; who may
-- have used one before is for the store to say, and the caller asks it (`checked` names the epoch in which it did).

local function repeated(change)
  local kept = redis.call('GET', P .. 'o:' .. change[2] .. ':' .. change[4])
  if kept then
    local number, revision, at, count, where = struct.unpack('>I4I8I8I4', kept)
    if string.sub(kept, where) ~= change[5] then
      return MISMATCH
    end
    return RECORDED, number, revision, at, count, true
  end
  if change[7] ~= epoch and (change[6] == 0 or now < since + KEY_MS) then
    return ASK, epoch
  end
  return nil
end

local function remember(change, number, revision, at, count, encoded)
  local kept = change[6] > 0 and math.min(change[6], KEY_MS) or KEY_MS
  redis.call('SET', P .. 'o:' .. change[2] .. ':' .. change[4],
    struct.pack('>I4I8I8I4', number, revision, at, count) .. change[5], 'PX', kept)
  put('o', head(KEY, change[2], 0, number, revision, at) .. encoded)
end

local ways = { [POST] = post, [OPEN] = open, [CHANGE] = change_chat, [EDIT] = change_message, [DELETE] = change_message }

local function record(change)
  local encoded
  if change[1] == POST then
    encoded = {}
    for index = 1, change[9] do
      encoded[index] = content()
    end
  else
    encoded = content()
  end
  local key = change[4] ~= '' and content()
  if is_erased(change[2]) then
    return ERASED
  end
  if key then
    local code, a, b, c, d, e = repeated(change)
    if code then
      return code, a, b, c, d, e
    end
  end
  local code, number, revision, at, count = ways[change[1]](change, encoded)
  if code == RECORDED and key then
    remember(change, number, revision, at, count, key)
  end
  return code, number, revision, at, count
end

local answers = {}
for index, change in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[index] = cmsgpack.pack({ record(change) })
end

-- Now to the keys

local wake = {}
for name, chat in pairs(chats) do
  if changed[name] or chat.seeded then
    local key = P .. 'c:' .. name
    redis.call('HSET', key, 'last', chat.last, 'revision', chat.revision, 'count', chat.count, 'version', chat.version)
    if changed[name] then
      redis.call('PERSIST', key)
      wake[#wake + 1] = name
    else
      redis.call('EXPIRE', key, IDLE_S)
    end
  end
  if #chat.tail > 0 then
    in_chunks('HSET', P .. 't:' .. name, chat.tail)
    in_chunks('ZADD', P .. 'z:' .. name, chat.order)
    in_chunks('HSET', P .. 'e:' .. name, chat.edits)
    put('n', head(COUNT, chat.application, chat.number, 0, chat.revision, chat.count) .. '\192')
  end
end
write_entry()
if facts > 0 then
  redis.call('HINCRBY', meta, 'store', facts)
  redis.call('HINCRBY', meta, 'search', messages)
  redis.call('PUBLISH', P .. 'feed', table.concat(wake, ' '))
end
return struct.pack('>BI4', 0xdd, #answers) .. table.concat(answers)
