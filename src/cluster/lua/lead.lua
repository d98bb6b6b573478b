-- Takes or renews a lease. KEYS: the lease, its counter. ARGV: instance, ttl in ms. Answers its number, 0: another's.
-- The number only rises, by the clock if the counter was lost: a Redis that was emptied hands out none that was held.
local held = redis.call('GET', KEYS[1])
if not held then
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2] -- microseconds: no two leases in one
  local fence = math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, now)
  local text = string.format('%.0f', fence)
  redis.call('SET', KEYS[2], text)
  redis.call('SET', KEYS[1], ARGV[1] .. ':' .. text, 'PX', ARGV[2])
  return fence
end
local owner, fence = string.match(held, '^(.*):(%d+)$')
if owner ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(fence)
