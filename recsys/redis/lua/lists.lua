-- Reads what apps want to know of users, for less than two commands each.
--
-- KEYS  of all users: recs (strings); then of the same users: applied (hashes)
-- returns for each user, one behind the other: list or false, revision of the history or false
local users = #KEYS / 2
local lists = redis.call('MGET', unpack(KEYS, 1, users))
local found = {}
for user = 1, users do
  found[2 * user - 1] = lists[user]
  found[2 * user] = redis.call('HGET', KEYS[users + user], 'revision')
end
return found
