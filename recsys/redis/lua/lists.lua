-- Reads what apps want to know of users, for less than two commands each.
--
-- KEYS  of all users: recs (strings); then of the same users: applied (hashes)
-- ARGV  1 how many bytes of a list to read
-- returns for each user, one behind the other: list, empty if there is none; revision of the history, empty if it is
--         no number; both also empty where a key is of another kind
local function value_of(...)
  local value = redis.pcall(...)
  if is_other_kind(value) then return '' end
  return value
end

local users = #KEYS / 2
local found = {}
for user = 1, users do
  local list = value_of('GETRANGE', KEYS[user], 0, ARGV[1] - 1)
  local revision = value_of('HGET', KEYS[users + user], 'revision')
  if type(list) == 'table' then return list end  -- what Redis refuses
  if type(revision) == 'table' then return revision end
  found[2 * user - 1] = list
  found[2 * user] = whole(revision) and revision or ''
end
return found
