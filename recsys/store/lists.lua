-- Reads what apps want to know of users, for less than two commands each.
--
-- KEYS  of each user: recs (string), applied (hash)
-- returns for each user, one behind the other: list or false, revision of the history or false
local found = {}
for i = 1, #KEYS, 2 do
  found[i] = redis.call('GET', KEYS[i])
  found[i + 1] = redis.call('HGET', KEYS[i + 1], 'revision')
end
return found
