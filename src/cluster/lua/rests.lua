-- All rests of one account. KEYS[1]: its table.
-- Answers {field, generation, ms left, level, reason, ms to remember it, …}; what need not be remembered is removed.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
local out, gone = {}, {}
for n = 1, #all, 2 do
  local g, e, l, r, k = string.match(all[n + 1] .. ' ', '^(%d+) (%d+) (%d+) (%d+) (%d+) %d+ ')
  if k and tonumber(k) > now then
    local left = 0
    if tonumber(r) > 0 then left = tonumber(e) - now end
    local at = #out
    out[at + 1], out[at + 2], out[at + 3] = all[n], tonumber(g), left
    out[at + 4], out[at + 5], out[at + 6] = tonumber(l), tonumber(r), tonumber(k) - now
  else
    gone[#gone + 1] = all[n]
  end
end
for _, field in ipairs(gone) do redis.call('HDEL', KEYS[1], field) end
return out
