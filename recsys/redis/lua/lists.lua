-- Reads what apps want to know of users, for less than two commands each.
--
-- KEYS  of all users: recs (strings); then of the same users: applied (hashes)
-- returns for each user, one behind the other: list or false, revision of the history or false; also false where a key
--         is of another kind
local users = #KEYS / 2
local lists = redis.call('MGET', unpack(KEYS, 1, users))
local found = {}
for user = 1, users do
  found[2 * user - 1] = lists[user]
  local revision = redis.pcall('HGET', KEYS[users + user], 'revision')
  if type(revision) == 'table' then
    if not is_other_kind(revision) then return revision end
    revision = false
  end
  found[2 * user] = revision
end
return found
