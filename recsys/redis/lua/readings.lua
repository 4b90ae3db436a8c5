-- Notes from which record on records are read how, and up to which record they are read already.
--
-- KEYS  readings (hash): of each source "from <source>": "<offset> <fingerprint> <offset> <fingerprint> ...", ascending,
--       and "read <source>": the end of what is archived, or on its way there; of each fingerprint "as <fingerprint>"
-- ARGV  1 fingerprint    2 what it stands for, JSON
--       then for each source: its name; the first offset that no consumer has applied; the end of what the caller
--       reads, "" = it is a consumer, and reads all that comes
-- returns how many sources are read in another way from now on
local fingerprint, description = ARGV[1], ARGV[2]
local changed = 0
for i = 3, #ARGV, 3 do
  local source, unapplied, stop = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local begins = redis.call('HGET', KEYS[1], 'from ' .. source) or ''
  local read = whole(redis.call('HGET', KEYS[1], 'read ' .. source)) or 0
  local last = string.match(begins, '(%w*)$')
  if begins == '' or (not stop and last ~= fingerprint) then
    -- What is applied or read already keeps the way in which it was.
    local last_begin = whole(string.match(begins, '(%d+) %w+$')) or 0
    local at = string.format('%.0f', math.max(unapplied, read, last_begin))
    if begins == '' and at ~= '0' then begins = '0 before' end
    begins = string.gsub(begins, '^' .. at .. ' %w+$', '')
    begins = string.gsub(begins, ' ' .. at .. ' %w+$', '')
    if string.match(begins, '(%w*)$') ~= fingerprint then
      begins = (begins == '' and '' or begins .. ' ') .. at .. ' ' .. fingerprint
    end
    redis.call('HSET', KEYS[1], 'from ' .. source, begins, 'as ' .. fingerprint, description)
    changed = changed + 1
  end
  if stop and stop > read then redis.call('HSET', KEYS[1], 'read ' .. source, string.format('%.0f', stop)) end
end
return changed
