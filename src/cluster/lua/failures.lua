-- Adds to an account's failures; answers how many there were within the window. KEYS[1]: the account's list for one
-- generation of its rest. ARGV: how many, the window in ms, the most to remember.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local window = tonumber(ARGV[2])
redis.call('RPUSH', KEYS[1], string.format('%.0f %s', now, ARGV[1]))
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[3]), -1)
redis.call('PEXPIRE', KEYS[1], window)
local sum, gone = 0, 0
for _, entry in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  -- A later version may have added to the end.
  local at, count = string.match(entry .. ' ', '^(%d+) (%d+) ')
  if at and tonumber(at) <= now - window then gone = gone + 1 elseif at then sum = sum + tonumber(count) end
end
if gone > 0 then redis.call('LTRIM', KEYS[1], gone, -1) end
return sum
