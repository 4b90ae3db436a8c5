-- Writes users' lists, each if it was computed from the newest history, with a model not older than the list's.
--
-- KEYS  of each user: applied (hash), recs (string)
-- ARGV  of each user: 1 revision the list was computed from    2 sequence of its model
--                     3 the list as JSON, "" = no list         4 seconds until it expires
-- returns for each user one of the words that recsys.store.users.PublishOutcome explains
local function publish(applied_key, recs_key, own_revision, own_sequence, list, ttl_s)
  local revision, sequence = tonumber(own_revision), tonumber(own_sequence)
  local state = redis.call('HMGET', applied_key, 'revision', 'listed', 'sequence')
  local newest = tonumber(state[1] or '0')
  local listed, listed_sequence = tonumber(state[2] or '-1'), tonumber(state[3] or '-1')
  if listed_sequence > sequence then
    return listed >= revision and 'superseded' or 'model_older'
  end
  if newest ~= revision then return 'revision_moved' end
  if list == '' then
    redis.call('DEL', recs_key)
  else
    redis.call('SET', recs_key, list, 'EX', ttl_s)
  end
  if newest > 0 then redis.call('HSET', applied_key, 'listed', own_revision, 'sequence', own_sequence) end
  return 'published'
end

local outcomes = {}
for i = 1, #KEYS / 2 do
  local k, a = 2 * i, 4 * i
  outcomes[i] = publish(KEYS[k - 1], KEYS[k], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], ARGV[a])
end
return outcomes
