-- Notes that a consumer is about to apply records, as it has read them: none of them may be read in another way later.
--
-- KEYS  readings (hash), see readings.lua
-- ARGV  1 fingerprint: how the consumer reads
--       then for each source: its name; the end of what is about to be applied
-- returns the first source that another consumer reads in another way by now; then nothing is noted; "" = there is none
for i = 2, #ARGV, 2 do
  local begins = redis.call('HGET', KEYS[1], 'from ' .. ARGV[i]) or ''
  if begins ~= '' and string.match(begins, '(%w*)$') ~= ARGV[1] then return ARGV[i] end
end
for i = 2, #ARGV, 2 do
  local read = whole(redis.call('HGET', KEYS[1], 'read ' .. ARGV[i])) or 0
  if tonumber(ARGV[i + 1]) > read then redis.call('HSET', KEYS[1], 'read ' .. ARGV[i], ARGV[i + 1]) end
end
return ''
