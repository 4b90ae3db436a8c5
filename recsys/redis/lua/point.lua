-- Moves the model pointer, if it is still the one that the caller saw.
--
-- KEYS  model (string)
-- ARGV  1 the pointer as the caller saw it, "" = none    2 the new pointer
-- returns 1 if it moved, else 0
local seen = redis.call('GET', KEYS[1]) or ''
if seen ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
