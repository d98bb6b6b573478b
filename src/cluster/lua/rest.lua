-- Merges one rest into its account's table; the greater (generation, end, level, reason) wins.
-- KEYS[1]: the account's table. ARGV: field, generation, ms left (may be below 0), level, reason (0: cleared), ms to
-- remember it, ms since it came about (below 0: not known), this server's time when it was sent (below 0: not known).
-- Answers {1, this server's time} when ours holds (or what holds is the same), else {0, generation, left, level, reason,
-- keep, ago, this server's time}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local field = ARGV[1]
local generation, left, level = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reason, keep, ago = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local ends = 0
-- A server that was frozen carries out late what was sent long ago. A clock that was set says nothing.
local late = now - tonumber(ARGV[8])
if tonumber(ARGV[8]) >= 0 and late > 50 and late < 600000 then left = left - late end
if reason > 0 then ends = now + left end

local held = redis.call('HGET', KEYS[1], field)
if held then
  -- A later version may have added to the end.
  local g, e, l, r, k, s = string.match(held .. ' ', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ')
  g, e, l, r, k, s = tonumber(g), tonumber(e), tonumber(l), tonumber(r), tonumber(k), tonumber(s)
  if g and k > now then
    local order = generation - g
    if order == 0 then order = ends - e end
    if order == 0 then order = level - l end
    if order == 0 then order = reason - r end
    if order == 0 then return {1, now} end
    if order < 0 then
      local rest = 0
      if r > 0 then rest = e - now end
      return {0, g, rest, l, r, k - now, now - s, now}
    end
  end
end
local since = now
if ago >= 0 then since = now - ago end
redis.call('HSET', KEYS[1], field, string.format('%.0f %.0f %.0f %.0f %.0f %.0f', generation, ends, level, reason, now + keep, since))
if redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
return {1, now}
