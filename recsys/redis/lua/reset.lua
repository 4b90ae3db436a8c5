-- Erases all that is kept of a user, so that the history can be made again, but not the revision: a list that was computed
-- from what is erased must never look like one of the new history.
--
-- KEYS  history (hash), applied (hash), seen (string), recs (string), again (string)
-- ARGV  1 seconds until the bookkeeping of a user without any event expires
-- The revision comes first, and no key is touched again after it may have gone: see apply.lua.
local fields = redis.call('HKEYS', KEYS[2])
local revision = tonumber(redis.call('HGET', KEYS[2], 'revision') or 0)
if revision > 0 then
  redis.call('HSET', KEYS[2], 'revision', string.format('%.0f', revision + 1))
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
local others = {}
for _, field in ipairs(fields) do
  if field ~= 'revision' then others[#others + 1] = field end
end
for i = 1, #others, 2000 do redis.call('HDEL', KEYS[2], unpack(others, i, math.min(i + 1999, #others))) end
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4], KEYS[5])
return revision
