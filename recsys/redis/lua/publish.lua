-- Writes users' lists, each if it was computed from the newest history, with a model not older than the list's.
--
-- KEYS  of each user: applied (hash), recs (string), again (string)
-- ARGV  of each user: 1 revision the lists were computed from    2 sequence of their model
--                     3 the list as JSON, "" = no list           4 the list of what to buy again, "" = none
--                     5 seconds until they expire
-- returns for each user one of the words that recsys.redis.users.PublishOutcome explains
local function put(key, list, ttl_s)
  if list == '' then redis.call('DEL', key) else redis.call('SET', key, list, 'EX', ttl_s) end
end

-- A sequence is a time in seconds: one so far ahead is none, and must not keep newer lists out.
local CENTURY = 100 * 365 * 24 * 3600

local function publish(applied_key, recs_key, again_key, own_revision, own_sequence, list, again, ttl_s)
  local revision, sequence = tonumber(own_revision), tonumber(own_sequence)
  local state = redis.pcall('HMGET', applied_key, 'revision', 'listed', 'sequence', 'aside')
  if state.err then
    if is_other_kind(state) then return 'revision_moved' end  -- whoever reads it again sees it
    return state
  end
  local newest = whole(state[1] or '0') or -1
  local listed, listed_sequence = whole(state[2]) or -1, whole(state[3]) or -1
  if listed_sequence > sequence and listed_sequence < sequence + CENTURY then
    return listed >= revision and 'superseded' or 'model_older'
  end
  if newest ~= revision or state[4] then return 'revision_moved' end
  put(recs_key, list, ttl_s)
  put(again_key, again, ttl_s)
  if newest > 0 then redis.call('HSET', applied_key, 'listed', own_revision, 'sequence', own_sequence) end
  return 'published'
end

local outcomes = {}
for i = 1, #KEYS / 3 do
  local k, a = 3 * i, 5 * i
  outcomes[i] = publish(
    KEYS[k - 2], KEYS[k - 1], KEYS[k], ARGV[a - 4], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], ARGV[a]
  )
  if type(outcomes[i]) == 'table' then return outcomes[i] end
end
return outcomes
