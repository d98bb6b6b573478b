-- Takes or renews a lease. KEYS: the lease, its counter. ARGV: instance, ttl in ms. Answers its number, 0: another's.
local held = redis.call('GET', KEYS[1])
if not held then
  local fence = redis.call('INCR', KEYS[2])
  redis.call('SET', KEYS[1], ARGV[1] .. ':' .. fence, 'PX', ARGV[2])
  return fence
end
local owner, fence = string.match(held, '^(.*):(%d+)$')
if owner ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(fence)
