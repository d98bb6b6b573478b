-- Claims the one half-open trial of an account. KEYS[1]: the account's table of rests; KEYS[2]: the claim.
-- ARGV: field of the account's own rest, the claimant, its generation of that rest, ms the claim holds unless renewed.
-- Answers {1}: granted; {0, ms}: somebody else's for so long at most; {2, generation, left, level, reason, keep}: the
-- rest has changed since the claimant looked, there is nothing to try.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local g, e, l, r, k = string.match(held .. ' ', '^(%d+) (%d+) (%d+) (%d+) (%d+) %d+ ')
  g, e, l, r, k = tonumber(g), tonumber(e), tonumber(l), tonumber(r), tonumber(k)
  local own = tonumber(ARGV[3])
  -- Deadlines within 50 ms are the same.
  if g and k > now and (g > own or (g == own and r > 0 and e > now + 50)) then
    local left = 0
    if r > 0 then left = e - now end
    return {2, g, left, l, r, k - now}
  end
end
if redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[4]) or redis.call('GET', KEYS[2]) == ARGV[2] then return {1} end
return {0, redis.call('PTTL', KEYS[2])}
