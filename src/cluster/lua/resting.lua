-- Notes that there is something to remember about accounts. KEYS[1]: a shard of the list of accounts.
-- ARGV: account, ms to remember it, … The list forgets by itself.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for n = 1, #ARGV, 2 do
  local ends = now + tonumber(ARGV[n + 1])
  local there = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if not there or tonumber(there) < ends then redis.call('ZADD', KEYS[1], string.format('%.0f', ends), ARGV[n]) end
end
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then redis.call('PEXPIRE', KEYS[1], math.max(1, tonumber(last[2]) - now)) end
return 1
