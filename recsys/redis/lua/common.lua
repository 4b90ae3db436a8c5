-- What every script of this folder begins with.

-- A number as this project writes it, or nil. Python has the same rule: recsys.redis.damage.whole_or_none.
local function whole(value)
  return value and #value < 16 and string.find(value, '^%d+$') and tonumber(value) or nil
end

-- Whether Redis has said that a key is of another kind.
local function is_other_kind(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true)
end

