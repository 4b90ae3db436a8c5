-- Reads users' states, as apply.lua returns them when there are no events, for less.
--
-- KEYS  of each user: history (hash), applied (hash), recs (string)
-- returns for each user {revision, sequence of the model behind the current list or -1,
--         history: HGETALL joined by line breaks,
--         1 if the user is set aside, or must be because the history is not what apply.lua left, else 0}
local function is_whole(revision, holds, item_count)
  if not revision then return item_count == 0 and not holds end
  local of, items = string.match(holds or '', '^(%d+):(%d+):')
  return of ~= revision or tonumber(items) == item_count
end

local states = {}
for i = 1, #KEYS, 3 do
  local history_key, applied_key, recs_key = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local state = redis.call('HMGET', applied_key, 'revision', 'listed', 'sequence', 'holds', 'aside')
  local current = -1
  if state[1] and state[1] == state[2] and redis.call('EXISTS', recs_key) == 1 then current = tonumber(state[3]) end
  local flat = redis.call('HGETALL', history_key)
  local aside = (state[5] or not is_whole(state[1], state[4], #flat / 2)) and 1 or 0
  states[#states + 1] = {tonumber(state[1] or '0'), current, table.concat(flat, '\n'), aside}
end
return states
