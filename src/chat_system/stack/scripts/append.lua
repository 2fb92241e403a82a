#!lua
-- Records changes of one partition: numbers them, appends them to the stream, lays them on the tails of their
-- chats. All of it is one atomic step, so a number that was allotted is a fact that was recorded.
--
-- KEYS[1]  the partition's `meta` key; what comes before that word begins all others
-- ARGV[1]  MessagePack: the changes, each an array (see `asking.py`, which writes them), and the lengths of
-- ARGV[2]  their contents, encoded, one after another in the order in which the changes take them
-- Returns MessagePack: one array for each change, its first element one of the codes below;
-- an empty string when Redis knows nothing of this partition (it is new, or Redis has lost its data).

-- What it costs is mostly the number of commands it calls, and the numbers it has to print for them. So it asks once
-- for all counters, writes them at once, and has one fact for all messages that a chat is given together: a run.
--
-- A message is written once, to the stream. Its chat's tail has an index that says where, an element for each run.

local RECORDED, COLD, ERASED, MISMATCH, STALE, ASK = 0, 1, 2, 3, 4, 5
local POST, OPEN, CHANGE, EDIT, DELETE = 1, 2, 3, 4, 5
local KEY, COUNT = 6, 7 -- kinds of facts that no change asks for: see facts.py

local ENTRY_FACTS, ENTRY_BYTES = 500, 65536  -- of one stream entry at most: readers take whole ones
local CHUNK = 1000                           -- arguments in one command, well under what unpack() can do
local KEY_MS = 86400000                      -- how long Redis itself remembers idempotency keys: 24 h
local IDLE_S = 3600                          -- how long counters stay when everything of theirs is applied
local TICKET_MS = 10000                      -- how long whoever seeds a counter may take
local GUARD_MS, READ_MS = 60000, 30000       -- an edit's mark outlives everyone who read what was before it

-- Where the fields of a change are. One without an idempotency key and without a seed ends before them.
local KIND, APPLICATION, CHAT, REST, SEED, ONCE, FINGERPRINT, KEPT_MS, CHECKED = 1, 2, 3, 4, 5, 6, 7, 8, 9

local COUNTERS = '>I4I8I4I8' -- of a chat: its last number, revision, how many messages, version

-- Where a run stands: its first number, how many messages, the first revision; the stream entry's id, and in that
-- entry's field of messages the offset and the length of the fact.
local RUN = '>I4I4I8I4I8I4I4'

local meta = KEYS[1]
local P = string.sub(meta, 1, -5)
local known = redis.call('HMGET', meta, 'epoch', 'since', 'store', 'search', 'store_done', 'search_done')
if not known[1] then
  return ''
end
local epoch, since = tonumber(known[1]), tonumber(known[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local asked = cmsgpack.unpack(ARGV[1])
local changes, lengths = asked[1], asked[2]

local taken, passed = 0, 0
local function content()
  taken = taken + 1
  local from = passed + 1
  passed = passed + lengths[taken]
  return string.sub(ARGV[2], from, passed)
end

local function print_integer(value)
  return string.format('%d', value)
end

-- What is written, gathered

local entry, runs, entry_facts, entry_bytes, facts, messages = {}, {}, 0, 0, 0, 0
local chats, changed, applications = {}, {}, {}

local function array_of(count)
  return struct.pack('>BI4', 0xdd, count)
end

-- One field for each kind, and not for each fact: Redis, the network and who reads them have fewer pieces to handle.
local function write_entry()
  if entry_facts == 0 then
    return
  end
  local fields = {}
  for kind, states in pairs(entry) do
    states[1] = array_of(#states - 1)
    fields[#fields + 1] = kind
    fields[#fields + 1] = table.concat(states)
  end
  local id = redis.call('XADD', P .. 'stream', epoch .. '-*', 't', now, unpack(fields))
  local sequence = tonumber(string.match(id, '%d+$'))
  for _, run in ipairs(runs) do
    local place = struct.pack(RUN, run.number, run.count, run.revision, epoch, sequence, run.offset, run.length)
    redis.call('ZADD', P .. 'r:' .. run.name, print_integer(run.revision), place)
  end
  entry, runs, entry_facts, entry_bytes = {}, {}, 0, 0
end

-- Returns where in its field the state begins, counted from 0.
local function put(kind, state, count)
  if entry_facts + count > ENTRY_FACTS or entry_bytes + #state > ENTRY_BYTES then
    write_entry()
  end
  local states = entry[kind]
  if not states then
    states = { '', size = 5 } -- there goes what makes them an array
    entry[kind] = states
  end
  local offset = states.size
  states[#states + 1] = state
  states.size = offset + #state
  entry_facts = entry_facts + count
  entry_bytes = entry_bytes + #state
  facts = facts + count
  return offset
end

-- The head of a fact: MessagePack with fixed widths, so that one call makes it. The content follows.
local function head(kind, application, chat, number, revision, at)
  return struct.pack('>BBBBI8BI4BI4BI8BI8', 0x92, 0x96, kind, 0xcf, application, 0xce, chat, 0xce, number,
    0xcf, revision, 0xcf, at)
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
    version = version
  }
  chats[name] = chat
  return chat
end

local names, gone, counters = {}, {}, {} -- of chats, by application and number; what is stored, by application and name

-- Whatever the changes are about, in one question.
local function look_up()
  local keys, into, of = {}, {}, {}
  local function ask(key, table, index)
    keys[#keys + 1], into[#into + 1], of[#of + 1] = key, table, index
  end
  for _, change in ipairs(changes) do
    local application, chat = change[APPLICATION], change[CHAT]
    local named = names[application]
    if not named then
      named = {}
      names[application] = named
      ask(P .. 'gone:' .. application, gone, application)
    end
    if chat > 0 and not named[chat] then
      local name = application .. ':' .. chat
      named[chat] = name
      ask(P .. 'c:' .. name, counters, name)
    end
  end
  for start = 1, #keys, CHUNK do
    local found = redis.call('MGET', unpack(keys, start, math.min(start + CHUNK - 1, #keys)))
    for index = 1, #found do
      into[start + index - 1][of[start + index - 1]] = found[index]
    end
  end
end

look_up()

local function find_chat(application, number, seed)
  local name = names[application][number]
  local chat = chats[name]
  if chat then
    return chat
  end
  if counters[name] then
    return new_chat(application, number, name, struct.unpack(COUNTERS, counters[name]))
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

-- Each kind of change returns a code and what it was allotted, or a code and a ticket.

-- A run: one head, that of the first message, for the contents of all. `encoded` are their contents, joined.
local function add(chat, kind, number, count, at, encoded)
  local state = head(kind, chat.application, chat.number, number, chat.revision + 1, at) .. array_of(count) .. encoded
  local offset = put('m', state, count)
  messages = messages + count
  chat.revision = chat.revision + count
  chat.is_written = true
  changed[chat.name] = chat
  return state, offset
end

local function post(change, pieces)
  local chat, given = find_chat(change[APPLICATION], change[CHAT], change[SEED])
  if not chat then
    return COLD, given
  end
  local first, revision = chat.last + 1, chat.revision + 1
  for index, count in ipairs(change[REST]) do
    local run = { name = chat.name, number = chat.last + 1, count = count, revision = chat.revision + 1 }
    local state, offset = add(chat, POST, run.number, count, now, pieces[index])
    run.offset, run.length = offset, #state
    runs[#runs + 1] = run
    chat.last = chat.last + count
    chat.count = chat.count + count
  end
  return RECORDED, first, revision, now, chat.last + 1 - first
end

local function put_chat(chat, at, encoded)
  local state = head(CHANGE, chat.application, chat.number, 0, chat.version, at) .. encoded
  put('c', state, 1)
  redis.call('HSET', P .. 'ct:' .. chat.application, chat.number, state)
  redis.call('PERSIST', P .. 'a:' .. chat.application)
  changed[chat.name] = chat
end

local function open(change, encoded)
  local application, given = find_application(change[APPLICATION], change[SEED])
  if not application then
    return COLD, given
  end
  application.last = application.last + 1
  redis.call('HSET', P .. 'a:' .. change[APPLICATION], 'last', application.last)
  local name = change[APPLICATION] .. ':' .. application.last
  local chat = new_chat(change[APPLICATION], application.last, name, 0, 0, 0, 1)
  put_chat(chat, now, encoded)
  return RECORDED, chat.number, 0, now, 1
end

local function is_stale(read_at, read_epoch)
  return read_epoch ~= epoch or now < read_at or now - read_at > READ_MS
end

local function change_chat(change, encoded)
  local chat, given = find_chat(change[APPLICATION], change[CHAT], change[SEED])
  if not chat then
    return COLD, given
  end
  local based_on, read_at, read_epoch, updated_at = unpack(change[REST])
  if chat.version ~= based_on or is_stale(read_at, read_epoch) then
    return STALE
  end
  chat.version = chat.version + 1
  local at = math.max(now, updated_at)
  put_chat(chat, at, encoded)
  return RECORDED, chat.number, chat.revision, at, 1
end

-- A posted message that is changed is not to be seen as it was before: its run gets a mark, as if it were applied.
local function supersede(chat, number, revision)
  local index, marks_key = P .. 'r:' .. chat.name, P .. 'p:' .. chat.name
  local run = redis.call('ZRANGE', index, print_integer(revision), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
  if not run then
    return
  end
  local first, count, first_revision = struct.unpack(RUN, run)
  local place = number - first + 1
  if place > count or revision ~= first_revision + place - 1 then
    return
  end
  local marks = redis.call('HGET', marks_key, first) or string.rep('0', count)
  marks = string.sub(marks, 1, place - 1) .. '1' .. string.sub(marks, place + 1)
  if string.find(marks, '0', 1, true) then
    redis.call('HSET', marks_key, first, marks)
  else
    redis.call('ZREM', index, run)
    redis.call('HDEL', marks_key, first)
  end
end

local function change_message(change, encoded)
  local chat, given = find_chat(change[APPLICATION], change[CHAT], change[SEED])
  if not chat then
    return COLD, given
  end
  local based_on, read_at, read_epoch, number, created_at = unpack(change[REST])
  local guard = P .. 'g:' .. chat.name .. ':' .. number
  local latest = redis.call('GET', guard)
  if is_stale(read_at, read_epoch) or (latest and tonumber(latest) ~= based_on) then
    return STALE
  end
  local at = math.max(now, created_at + 1)
  supersede(chat, number, based_on)
  local state, printed = add(chat, change[KIND], number, 1, at, encoded), print_integer(number)
  redis.call('SET', guard, chat.revision, 'PX', GUARD_MS)
  redis.call('HSET', P .. 't:' .. chat.name, printed, state)
  redis.call('ZADD', P .. 'z:' .. chat.name, print_integer(chat.revision), printed)
  if change[KIND] == DELETE then
    chat.count = math.max(0, chat.count - 1)
  end
  return RECORDED, number, chat.revision, at, 1
end

-- Idempotency: what the first request with a key was allotted. Redis remembers every key since `since`; who may
-- have used one before is for the store to say, and the caller asks it (`checked` names the epoch in which it did).

local function repeated(change)
  local kept = redis.call('GET', P .. 'o:' .. change[APPLICATION] .. ':' .. change[ONCE])
  if kept then
    local number, revision, at, count, where = struct.unpack('>I4I8I8I4', kept)
    if string.sub(kept, where) ~= change[FINGERPRINT] then
      return MISMATCH
    end
    return RECORDED, number, revision, at, count, true
  end
  if change[CHECKED] ~= epoch and (change[KEPT_MS] == 0 or now < since + KEY_MS) then
    return ASK, epoch
  end
  return nil
end

local function remember(change, number, revision, at, count, encoded)
  local kept = change[KEPT_MS] > 0 and math.min(change[KEPT_MS], KEY_MS) or KEY_MS
  redis.call('SET', P .. 'o:' .. change[APPLICATION] .. ':' .. change[ONCE],
    struct.pack('>I4I8I8I4', number, revision, at, count) .. change[FINGERPRINT], 'PX', kept)
  put('o', head(KEY, change[APPLICATION], 0, number, revision, at) .. encoded, 1)
end

local ways = { [POST] = post, [OPEN] = open, [CHANGE] = change_chat, [EDIT] = change_message, [DELETE] = change_message }

local function record(change)
  local encoded
  if change[KIND] == POST then
    encoded = {}
    for index = 1, #change[REST] do
      encoded[index] = content()
    end
  else
    encoded = content()
  end
  local key = change[ONCE] and content()
  if gone[change[APPLICATION]] then
    return ERASED
  end
  if key then
    local code, a, b, c, d, e = repeated(change)
    if code then
      return code, a, b, c, d, e
    end
  end
  local code, number, revision, at, count = ways[change[KIND]](change, encoded)
  if code == RECORDED and key then
    remember(change, number, revision, at, count, key)
  end
  return code, number, revision, at, count
end

local function answer(code, number, revision, at, count, ...)
  if code == RECORDED and select('#', ...) == 0 then
    -- As cmsgpack would, and faster.
    return struct.pack('>BBBI4BI8BI8BI4', 0x95, RECORDED, 0xce, number, 0xcf, revision, 0xcf, at, 0xce, count)
  end
  return cmsgpack.pack({ code, number, revision, at, count, ... })
end

local answers = {}
for index, change in ipairs(changes) do
  answers[index] = answer(record(change))
end

-- Now to the keys

local wake, written = {}, {}
for name, chat in pairs(chats) do
  local key, packed = P .. 'c:' .. name, struct.pack(COUNTERS, chat.last, chat.revision, chat.count, chat.version)
  if changed[name] then
    -- MSET makes keys that stay.
    written[#written + 1] = key
    written[#written + 1] = packed
    wake[#wake + 1] = name
  elseif chat.seeded then
    redis.call('SET', key, packed, 'EX', IDLE_S)
  end
  if chat.is_written then
    put('n', head(COUNT, chat.application, chat.number, 0, chat.revision, chat.count) .. '\192', 1)
  end
end
for start = 1, #written, CHUNK do
  redis.call('MSET', unpack(written, start, math.min(start + CHUNK - 1, #written)))
end
write_entry()
if facts > 0 then
  local store, search = tonumber(known[3] or 0), tonumber(known[4] or 0)
  redis.call('HSET', meta, 'store', print_integer(store + facts), 'search', print_integer(search + messages))
  local announced = table.concat(wake, ' ')
  redis.call('PUBLISH', P .. 'feed', announced)
  -- Workers look again by themselves until nothing is left: only those that have come so far must be told.
  if tonumber(known[5] or 0) >= store or tonumber(known[6] or 0) >= search then
    redis.call('PUBLISH', P .. 'work', announced)
  end
end
return array_of(#answers) .. table.concat(answers)
