-- Moves the model pointer, if it is still the one that the caller saw.
--
-- KEYS  model (string)
-- ARGV  1 the pointer as the caller saw it, "" = none, "of another kind" = no string    2 the new pointer
--       3 how many bytes of it are compared at most
-- returns 1 if it moved, else 0
local seen = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[3] - 1)
if type(seen) == 'table' then
  if not is_other_kind(seen) then return seen end
  seen = 'of another kind'
end
if seen ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
