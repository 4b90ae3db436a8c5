-- Reads users' states, as apply.lua returns them when there are no events, for less.
--
-- KEYS  of each user: history (hash), applied (hash), recs (string)
-- returns for each user {revision, sequence of the model behind the current list or -1,
--         history: HGETALL joined by line breaks,
--         1 if the user is set aside, or must be because the keys are not what apply.lua left, else 0}
local DAMAGED = {0, -1, '', 1}

local function is_whole(revision, holds, item_count)
  if not revision then return item_count == 0 and not holds end
  local of, items = string.match(holds or '', '^(%d+):(%d+):')
  return of ~= revision or tonumber(items) == item_count
end

local states = {}
for i = 1, #KEYS, 3 do
  local history_key, applied_key, recs_key = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local state = redis.pcall('HMGET', applied_key, 'revision', 'listed', 'sequence', 'holds', 'aside')
  local flat = redis.pcall('HGETALL', history_key)
  if is_other_kind(state) or is_other_kind(flat) then
    states[#states + 1] = DAMAGED
  elseif state.err or flat.err then
    return state.err and state or flat
  else
    local revision, sequence = whole(state[1] or '0'), whole(state[3]) or -1
    local aside = (state[5] or not revision or not is_whole(state[1], state[4], #flat / 2)) and 1 or 0
    local current = -1
    if state[1] and state[1] == state[2] and redis.pcall('GETRANGE', recs_key, 0, 0) == '{' then current = sequence end
    states[#states + 1] = {revision or 0, current, table.concat(flat, '\n'), aside}
  end
end
return states
