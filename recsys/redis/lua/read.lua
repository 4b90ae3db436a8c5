-- Reads users' states, as apply.lua returns them when there are no events, for less.
--
-- KEYS  of each user: history (hash), applied (hash), recs (string)
-- returns for each user {revision, sequence of the model behind the current list or -1,
--         history: HGETALL joined by line breaks}
local states = {}
for i = 1, #KEYS, 3 do
  local history_key, applied_key, recs_key = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local state = redis.call('HMGET', applied_key, 'revision', 'listed', 'sequence')
  local current = -1
  if state[1] and state[1] == state[2] and redis.call('EXISTS', recs_key) == 1 then current = tonumber(state[3]) end
  local history = table.concat(redis.call('HGETALL', history_key), '\n')
  states[#states + 1] = {tonumber(state[1] or '0'), current, history}
end
return states
