-- Reads what apps want to know of users, for less than two commands each.
--
-- KEYS  of all users: recs (strings); then of the same users: applied (hashes)
-- ARGV  1 the last byte of a list to read
-- returns for each user, one behind the other: list, empty if there is none; revision of the history, empty if it is too
--         long for one; both also empty where a key is of another kind
-- Numbers as text: to make text of one costs Redis half as much as the command itself.
local pcall, users, found = redis.pcall, #KEYS / 2, {}
for user = 1, users do
  local list, revision = pcall('GETRANGE', KEYS[user], '0', ARGV[1]), pcall('HGET', KEYS[users + user], 'revision')
  if type(list) == 'table' then
    if not is_other_kind(list) then return list end  -- what Redis refuses
    list = ''
  end
  if type(revision) == 'table' then
    if not is_other_kind(revision) then return revision end
    revision = ''
  end
  found[2 * user - 1] = list
  found[2 * user] = revision and #revision < 16 and revision or ''
end
return found
