-- Applies one user's events, each exactly once in effect, and returns the state they lead to.
-- The readable twin of what happens to the history is recsys/data/history.py; why it is exactly once: docs/architecture.md.
-- A user of whom Redis has lost a part, or holds what this script has not written, is set aside: events are passed over until the user has been made again
-- (recsys/operations/make_again.py).
--
-- KEYS  history (hash), applied (hash), seen (string), recs (string), again (string)
-- ARGV  1 events, msgpack: array of {source, offset, id, item, units, timestamp_s, complete}
--           source       "<topic id>:<partition>"
--           id           digest of the event_id or of the position; "" = the position alone; "=" = that of an event
--                        before it: another line of the same record, which counts as that one does
--           complete     whether the source is read once, in order and without gaps (an import)
--           item         "" = forget the user
--           units        signed millionths
--       2 most items in a history    3 most ids remembered    4 "1" = return the history
--       5 seconds until a forgotten user's bookkeeping expires    6 "1" = set the user aside in any case
-- returns {events applied, events seen before, revision, sequence of the model behind the current list or -1,
--          history: HGETALL joined by line breaks, or "", 1 if the user is set aside, else 0}
--
-- Nothing may fail once the first write is done, for what is written stays. So no key is touched again after it may
-- have gone: in a slot of a cluster that moves away, a key that is not there may not even be read.
local history_key, applied_key, seen_key, recs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events = cmsgpack.unpack(ARGV[1])
local max_items, max_ids = tonumber(ARGV[2]), tonumber(ARGV[3])
local MILLION = 1000000

-- applied: revision; listed and sequence, what the current list follows from; holds, see is_whole; aside, how many calls
-- have passed the user over; and a low-water mark for each source.
local low_water_marks, mark_count = {}, 0
local stored_revision, listed, listed_sequence, holds, aside = nil, -1, -1, nil, nil
local revision, item_count = 0, 0

-- seen: source -> {offset, id, offset, id, ...} by increasing offset
local seen, known, seen_count = {}, {}, 0
local seen_changed, marks_changed = false, {}

-- What is not as this script writes it, of whatever kind, ends read_keys or apply_events, which write nothing, with an
-- error: the user is set aside, and nobody else is any the worse for it. refused: Redis has said no for another reason.
local refused = nil
local is_applied_damaged = true

local function fail(reply)
  if not is_other_kind(reply) then refused = reply end
  error('damaged')
end

local function whole_or_damaged(value)
  return whole(value) or error('damaged')
end

local function read_keys()
  local flat = redis.pcall('HGETALL', applied_key)
  if flat.err then fail(flat) end
  is_applied_damaged = false
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if name == 'revision' then stored_revision = whole_or_damaged(value); revision = stored_revision
    elseif name == 'listed' then listed = whole(value) or -1  -- the next list writes both again
    elseif name == 'sequence' then listed_sequence = whole(value) or -1
    elseif name == 'holds' then holds = value
    elseif name == 'aside' then aside = whole_or_damaged(value)
    else
      local mark = whole(value)
      if mark then
        low_water_marks[name] = mark
        mark_count = mark_count + 1
      end
    end
  end
  item_count = redis.pcall('HLEN', history_key)
  if type(item_count) == 'table' then fail(item_count) end
  local packed = redis.pcall('GET', seen_key)
  if packed then
    if packed.err then fail(packed) end
    seen = cmsgpack.unpack(packed)
  end
  local ids, count = known, 0  -- what is local here costs less
  for _, pairs_of_source in pairs(seen) do
    for i = 2, #pairs_of_source, 2 do
      ids[pairs_of_source[i]] = true
      count = count + 1
    end
  end
  seen_count = count
end

-- Whether the keys hold what the last call left in them. They vouch for each other: holds is
-- "<revision>:<items>:<ids>:<low-water marks>". An older version of this script changes the revision, but not holds: then
-- nothing is said. It may also remember more ids than before at the same revision.
local function what_is_held()
  return string.format('%.0f', revision) .. ':' .. item_count .. ':' .. seen_count .. ':' .. mark_count
end

local function is_whole()
  if not stored_revision then return item_count == 0 and seen_count == 0 and mark_count == 0 and not holds end
  if not holds or holds == what_is_held() then return true end
  local of, items, ids, marks = string.match(holds, '^(%d+):(%d+):(%d+):(%d+)$')
  if not of then return false end
  if tonumber(of) < revision then return true end
  return tonumber(of) == revision and tonumber(items) == item_count and mark_count >= tonumber(marks)
    and seen_count >= math.min(tonumber(ids), max_ids)
end

local function set_aside()
  if not aside then
    -- No list that was computed before may ever look like one of the history that is to come. A revision that is lost is
    -- replaced by one that cannot have been reached.
    revision = stored_revision and stored_revision + 1 or tonumber(redis.call('TIME')[1])
  end
  if not aside or #events > 0 then aside = (aside or 0) + 1 end
  if is_applied_damaged then redis.call('DEL', applied_key) end
  redis.call('HSET', applied_key, 'revision', string.format('%.0f', revision), 'aside', string.format('%.0f', aside))
  redis.call('PERSIST', applied_key)
  redis.call('DEL', recs_key, KEYS[5])
  return {0, 0, revision, -1, '', 1}
end

local is_read = pcall(read_keys)
if refused then return refused end
if aside or ARGV[6] == '1' or not is_read or not is_whole() then return set_aside() end

-- The ids of all complete sources, by time instead of offset: of a file in any order, the newest are kept. Their
-- sources' own low-water marks need no ids.
local IMPORTS = 'imports'

local function raise_floor(source, offset)
  if source == IMPORTS then return end
  if offset > (low_water_marks[source] or -1) then
    if not low_water_marks[source] then mark_count = mark_count + 1 end
    low_water_marks[source] = offset
    marks_changed[source] = true
  end
end

local function remember(source, offset, id)
  local entries = seen[source]
  if not entries then entries = {}; seen[source] = entries end
  local at = #entries + 1
  while at > 1 and entries[at - 2] > offset do at = at - 2 end
  table.insert(entries, at, offset)
  table.insert(entries, at + 1, id)
  known[id] = true
  seen_count = seen_count + 1
  seen_changed = true
end

local function remember_imported(timestamp, id)
  local entries = seen[IMPORTS]
  local least = entries and entries[#entries - 2 * max_ids + 1]  -- the time of the last one that can be kept
  if least and timestamp <= least then known[id] = true else remember(IMPORTS, timestamp, id) end
end

-- A copy of a known event at a position not met before: its position must be remembered too, or it would count
-- once the first copy's id has been evicted.
local function remember_copy(source, offset, id)
  local entries = seen[source]
  if entries then
    for i = #entries, 2, -2 do
      if entries[i] == id and entries[i - 1] >= offset then return end
    end
  end
  remember(source, offset, id)
end

-- item -> {units, newest, first, purchases}; false = removed. Only touched items, unless the history is full.
local entries, touched, complete = {}, {}, false

local function parse(value)
  local quantity, newest, purchases, span = string.match(value, '^(-?%d+%.?%d*)|(-?%d+)|?(%d*)|?(%d*)$')
  newest = tonumber(newest)
  if not newest then error('damaged') end
  return {
    math.floor(tonumber(quantity) * MILLION + 0.5), newest, newest - (tonumber(span) or 0), tonumber(purchases) or 1
  }
end

local function read(item)
  local entry = entries[item]
  if entry == nil and not complete then
    local value = redis.pcall('HGET', history_key, item)
    if value and value.err then fail(value) end
    entry = value and parse(value) or false
    entries[item] = entry
  end
  return entry
end

local function read_all()
  if complete then return end
  local all = redis.pcall('HGETALL', history_key)
  if all.err then fail(all) end
  for i = 1, #all, 2 do
    if entries[all[i]] == nil then entries[all[i]] = parse(all[i + 1]) end
  end
  complete = true
end

-- Whether a comes before b byte by byte; the operator < would follow the server's locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- The items of a full history by time, oldest on top: a binary heap of {timestamp, item}, made when first needed.
-- Outdated pairs stay in it and are passed over.
local heap = nil

local function older(a, b)
  return a[1] < b[1] or (a[1] == b[1] and before(a[2], b[2]))
end

local function sift_down(at)
  while true do
    local child = 2 * at
    if child > #heap then return end
    if child < #heap and older(heap[child + 1], heap[child]) then child = child + 1 end
    if not older(heap[child], heap[at]) then return end
    heap[at], heap[child] = heap[child], heap[at]
    at = child
  end
end

local function push(timestamp, item)
  local at = #heap + 1
  heap[at] = {timestamp, item}
  while at > 1 and older(heap[at], heap[math.floor(at / 2)]) do
    local parent = math.floor(at / 2)
    heap[at], heap[parent] = heap[parent], heap[at]
    at = parent
  end
end

local function evict_oldest()
  if not heap then
    read_all()
    heap = {}
    for item, entry in pairs(entries) do
      if entry then heap[#heap + 1] = {entry[2], item} end
    end
    for at = math.floor(#heap / 2), 1, -1 do sift_down(at) end
  end
  while true do
    local timestamp, item = heap[1][1], heap[1][2]
    heap[1] = heap[#heap]
    heap[#heap] = nil
    if #heap > 0 then sift_down(1) end
    local entry = entries[item]
    if entry and entry[2] == timestamp then
      entries[item] = false
      touched[item] = true
      item_count = item_count - 1
      return
    end
  end
end

-- A record is applied whole or not at all, for its lines come in one call: so if one of them is known by its position,
-- all are, whatever ids they have now.
local function is_position_known(source, offset)
  local entries = seen[source]
  if not entries then return false end
  for i = #entries - 1, 1, -2 do
    if entries[i] <= offset then return entries[i] == offset end
  end
  return false
end

-- erased: what is stored is from before a forget. forgotten: and nothing came after it.
local applied, duplicates, erased, forgotten = 0, 0, false, false
local last_source, last_offset, last_is_known, last_lines = nil, nil, false, 0  -- the record
local function apply_events()
  for _, event in ipairs(events) do
    local source, offset, id, item, units, timestamp, is_complete = unpack(event)
    if offset == last_offset and source == last_source then
      last_lines = last_lines + 1
    else
      last_source, last_offset, last_lines = source, offset, 1
      last_is_known = not is_complete and is_position_known(source, offset)
    end
    if offset <= (low_water_marks[source] or -1) then
      duplicates = duplicates + 1
    elseif last_is_known then
      duplicates = duplicates + 1
    elseif id ~= '' and known[id] then
      duplicates = duplicates + 1
      if is_complete then raise_floor(source, offset) else remember_copy(source, offset, id) end
    else
      applied = applied + 1
      if item == '' then
        -- What was applied from other sources stays recognized. Of this source only what came before it does: should
        -- later offsets have been applied already (the stream is read again), they are erased here and count again.
        for seen_source, positions in pairs(seen) do
          if seen_source ~= source and #positions > 0 then raise_floor(seen_source, positions[#positions - 1]) end
        end
        raise_floor(source, offset)
        seen, known, seen_count, seen_changed = {}, {}, 0, true
        entries, touched, complete, item_count, heap = {}, {}, true, 0, nil
        erased, forgotten = true, true
      else
        forgotten = false
        if is_complete then
          raise_floor(source, offset)
          if id ~= '' then remember_imported(timestamp, id) end
        else
          if id ~= '=' then remember(source, offset, id) end
        end
        local entry = read(item)
        if entry then
          entry[1] = entry[1] + units
          if timestamp > entry[2] then entry[2] = timestamp end
          if timestamp < entry[3] then entry[3] = timestamp end
          if units > 0 then entry[4] = entry[4] + 1 end
        else
          entries[item] = {units, timestamp, timestamp, units > 0 and 1 or 0}
          item_count = item_count + 1
        end
        touched[item] = true
        if heap then push(entries[item][2], item) end
        if item_count > max_items then evict_oldest() end
      end
    end
  end
  if not seen_changed then return end
  -- Evict from the source that holds most, its lowest offset first: its low-water mark then rises over nothing unknown.
  -- The ids of the last record stay if it has several lines: a copy of an order must count once, however long it is.
  local first = {}
  while seen_count > max_ids do
    local largest, size = nil, 0
    for source, positions in pairs(seen) do
      local at = first[source] or 0
      local left = #positions - at
      local is_last = last_lines > 1 and source == last_source and positions[at + 1] == last_offset
      if left > 0 and not is_last and (left > size or (left == size and source < largest)) then
        largest, size = source, left
      end
    end
    if not largest then break end
    local at = first[largest] or 0
    raise_floor(largest, seen[largest][at + 1])
    first[largest] = at + 2
    seen_count = seen_count - 1
  end
  for source, skip in pairs(first) do
    local kept = {}
    for i = skip + 1, #seen[source] do kept[#kept + 1] = seen[source][i] end
    seen[source] = #kept > 0 and kept or nil
  end
end

local is_computed = pcall(apply_events)
if refused then return refused end
if not is_computed then return set_aside() end

-- In this order a write that Redis refuses, as to a user who lacks the right, does no harm: what the keys hold comes first, so
-- that they do not agree and the user is set aside; and an event is known before it counts, or it would count again.
if applied > 0 then revision = revision + 1 end
if next(marks_changed) then
  local fields = {}
  for source in pairs(marks_changed) do
    fields[#fields + 1] = source
    fields[#fields + 1] = string.format('%.0f', low_water_marks[source])
  end
  redis.call('HSET', applied_key, unpack(fields))
end
if applied > 0 or seen_changed or next(marks_changed) then
  redis.call('HSET', applied_key, 'revision', string.format('%.0f', revision), 'holds', what_is_held())
end
if seen_changed then
  if seen_count > 0 then redis.call('SET', seen_key, cmsgpack.pack(seen)) else redis.call('DEL', seen_key) end
end
if applied > 0 then
  local removed, written = {}, {}
  if erased then
    for _, item in ipairs(redis.call('HKEYS', history_key)) do
      if not entries[item] then removed[#removed + 1] = item end
    end
  end
  for item in pairs(touched) do
    local entry = entries[item]
    if entry then
      local quantity
      if entry[1] % MILLION == 0 then
        quantity = string.format('%.0f', entry[1] / MILLION)
      else
        quantity = string.gsub(string.format('%.6f', entry[1] / MILLION), '0+$', '')
      end
      written[#written + 1] = item
      local value = quantity .. '|' .. string.format('%.0f', entry[2])
      if entry[4] ~= 1 or entry[3] ~= entry[2] then
        value = value .. string.format('|%.0f|%.0f', entry[4], entry[2] - entry[3])
      end
      written[#written + 1] = value
    elseif not erased then
      removed[#removed + 1] = item
    end
  end
  for i = 1, #written, 2000 do redis.call('HSET', history_key, unpack(written, i, math.min(i + 1999, #written))) end
  for i = 1, #removed, 2000 do redis.call('HDEL', history_key, unpack(removed, i, math.min(i + 1999, #removed))) end
end
if forgotten then
  redis.call('EXPIRE', applied_key, ARGV[5])
elseif applied > 0 then
  redis.call('PERSIST', applied_key)
end

if erased then redis.call('DEL', recs_key, KEYS[5]) end

local current = -1
if listed == revision and redis.pcall('GETRANGE', recs_key, 0, 0) == '{' then current = listed_sequence end
local history = ''
if ARGV[4] == '1' and item_count > 0 then history = table.concat(redis.call('HGETALL', history_key), '\n') end
return {applied, duplicates, revision, current, history, 0}
