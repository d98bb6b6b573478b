-- An instance's heartbeat. KEYS: owner of the prefix, beats (zset by time), words (hash by instance).
-- ARGV: identity, instance, ttl in ms, its word. Answers {1, instance, age in ms, word, …} or {0, identity of the owner}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ttl = tonumber(ARGV[3])
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return {0, owner}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
-- Silent for too long; or from before the clock was set back.
for _, range in ipairs({{'-inf', now - ttl}, {now + ttl, '+inf'}}) do
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], range[1], range[2])) do
    redis.call('ZREM', KEYS[2], gone)
    redis.call('HDEL', KEYS[3], gone)
  end
end
redis.call('PEXPIRE', KEYS[2], ttl * 2)
redis.call('PEXPIRE', KEYS[3], ttl * 2)
local out = {1}
local all = redis.call('ZRANGE', KEYS[2], 0, 999, 'WITHSCORES')
for n = 1, #all, 2 do
  out[#out + 1] = all[n]
  out[#out + 1] = math.max(0, now - tonumber(all[n + 1]))
  out[#out + 1] = redis.call('HGET', KEYS[3], all[n]) or ''
end
return out
