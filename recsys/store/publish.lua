-- Writes one user's list if it was computed from the newest history, with a model not older than the list's.
--
-- KEYS  applied (hash), recs (string)
-- ARGV  1 revision the list was computed from    2 sequence of its model
--       3 the list as JSON, "" = no list    4 seconds until it expires
-- returns one of the words that recsys.store.users.PublishOutcome explains
local revision, sequence = tonumber(ARGV[1]), tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[1], 'revision', 'listed', 'sequence')
local newest = tonumber(state[1] or '0')
local listed, listed_sequence = tonumber(state[2] or '-1'), tonumber(state[3] or '-1')
if listed_sequence > sequence then
  return listed >= revision and 'superseded' or 'model_older'
end
if newest ~= revision then return 'revision_moved' end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
end
if newest > 0 then redis.call('HSET', KEYS[1], 'listed', ARGV[1], 'sequence', ARGV[2]) end
return 'published'
