-- Appends batches of live events, once each. KEYS[1]: the stream. KEYS[2]: the last number of this writer in it.
-- ARGV: the number these follow ('' = whatever there is), their last, MAXLEN, TTL in ms, then the batches.
-- {0, id}: appended. {1, ms}: it had them already (a lost reply). {2, number or ''}: it has not what they follow.
local have = redis.call('GET', KEYS[2])
if have and redis.call('EXISTS', KEYS[1]) == 0 then have = false end
if have and tonumber(have) >= tonumber(ARGV[2]) then
  local t = redis.call('TIME')
  return {1, t[1] .. string.format('%03d', math.floor(t[2] / 1000))}
end
if ARGV[1] ~= '' and have ~= ARGV[1] then return {2, have or ''} end
local id
for i = 5, #ARGV do
  id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'b', ARGV[i])
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {0, id}
