-- Puts what was made anew of a user in place of what was set aside, unless something has come meanwhile.
--
-- KEYS  history, applied, seen, recs, again; then the same five as they were made anew
-- ARGV  1 how many calls have passed the user over, as the caller saw it    2 the revision that the caller saw
--       3 the revision of what was made anew, "0" = nothing
--       4 seconds until the bookkeeping of a user without any event expires
-- returns 1 if done, 0 if events were passed over meanwhile, -1 if the user is not set aside, -2 if Redis has lost what
--         was made anew
-- The mark goes last: whatever fails before, the user is still set aside, and is made again from the beginning.
local function fields(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if is_other_kind(found) then return {} end
  return found
end

local state = fields(KEYS[2], 'aside', 'revision')
if state.err then return state end
if not state[1] then return -1 end
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return 0 end
local made = fields(KEYS[7], 'revision', 'holds')
if made.err then return made end
if (made[1] or '0') ~= ARGV[3] then return -2 end
if made[1] and not string.find(made[2] or '', '^%d+:') then return -2 end
-- A revision that is no number is replaced by one that cannot have been reached.
local revision = string.format('%.0f', (whole(state[2]) or tonumber(redis.call('TIME')[1])) + 1)
for i = 1, 3, 2 do
  if redis.call('EXISTS', KEYS[5 + i]) == 1 then redis.call('RENAME', KEYS[5 + i], KEYS[i]) else redis.call('DEL', KEYS[i]) end
end
redis.call('DEL', KEYS[4], KEYS[5])
if made[1] then
  redis.call('HSET', KEYS[7], 'revision', revision, 'holds', (string.gsub(made[2], '^%d+', revision)))
  redis.call('RENAME', KEYS[7], KEYS[2])
else
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], 'revision', revision)
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
return 1
