-- Moves the applied offsets of a consumer's partitions forward, and finds out whether Redis still holds the last write.
--
-- KEYS  applied offsets (hash: source -> next offset to be applied)
-- ARGV  for each source: its name, the mark that must be there ("" = none yet), the new mark
-- returns the applied offsets that are there afterwards, -1 for a missing one; they never move back
local marks = {}
for i = 1, #ARGV, 3 do
  local source, expected, new = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local found = whole(redis.call('HGET', KEYS[1], source))
  if expected and (not found or found < expected) then
    marks[#marks + 1] = found or -1
  else
    if not found or found < new then
      redis.call('HSET', KEYS[1], source, string.format('%.0f', new))
      found = new
    end
    marks[#marks + 1] = found
  end
end
return marks
