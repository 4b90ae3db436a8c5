-- Reads a string.
--
-- KEYS  string
-- returns it; false if there is none; the empty string if the key is of another kind
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' and value.err then return string.find(value.err, 'WRONGTYPE', 1, true) and '' or value end
return value
