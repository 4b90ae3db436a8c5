-- Puts what was made anew of a user in place of what was set aside, unless something has come meanwhile.
--
-- KEYS  history, applied, seen, recs, again; then the same five as they were made anew
-- ARGV  1 how many calls have passed the user over, as the caller saw it    2 the revision that the caller saw
--       3 the revision of what was made anew, "0" = nothing
--       4 seconds until the bookkeeping of a user without any event expires
-- returns 1 if done, 0 if events were passed over meanwhile, -1 if the user is not set aside, -2 if Redis has lost what
--         was made anew
-- The mark goes last: whatever fails before, the user is still set aside, and is made again from the beginning.
local state = redis.call('HMGET', KEYS[2], 'aside', 'revision')
if not state[1] then return -1 end
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return 0 end
local made = redis.call('HMGET', KEYS[7], 'revision', 'holds')
if (made[1] or '0') ~= ARGV[3] then return -2 end
local revision = string.format('%.0f', tonumber(state[2]) + 1)
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
