-- What one key has spent, over all instances, in nanodollars. KEYS[1]: its only key.
-- ARGV: 1 caller, 2 seq, 3 budget, 4 the greatest total the caller ever heard, 5 spent by it since ever, 6 of which we had
--       said so, 7 set aside by it, 8 more room wanted, 9 live instances, 10 how many ask, 11 whether 4 was heard from Redis
--       (0: it is the store's word, for when nothing is known here), 12… what each would set aside.
-- Answers {total, a digit per ask (0 granted), room added}, or nothing for a seq already seen.
-- The total only rises, so the greater of what is here and what the caller heard is right: that is how one that was lost
-- comes back. The value: cmsgpack of {form, total, then five numbers a caller: name, seq, spent, set aside, until (µs)}.
local FORM, CLAIM, MEMORY, MOST = 1, 10000000, 600000000, 9007199254740991
local floor, max, min = math.floor, math.max, math.min
local function arg(n) return tonumber(ARGV[n]) end
local me, seq, budget, asks = arg(1), arg(2), arg(3), arg(10)
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local stepped = ARGV[12 + asks] -- tests step the clock
if stepped then now = tonumber(stepped) end

local raw = redis.call('GET', KEYS[1])
local fine, old = pcall(cmsgpack.unpack, raw or '')
if not (raw and fine and type(old) == 'table' and old[1] == FORM) then old = nil end -- somebody else wrote it
local total, used, claimed = arg(4), arg(6), 0
local new = {FORM, 0}
if old then
  total = arg(11) == 1 and max(total, old[2]) or old[2]
  for i = 3, #old, 5 do
    -- The clock was set back: nothing may last longer than it would have.
    local till = min(old[i + 4], now + CLAIM)
    if old[i] == me then
      if seq <= old[i + 1] then return false end
      used = old[i + 2]
    elseif now < till + MEMORY then
      -- What a silent instance had set aside is nobody's; what it spent stays known, or it would count twice.
      local claim = now < till and old[i + 3] or 0
      local n = #new
      new[n + 1], new[n + 2], new[n + 3], new[n + 4], new[n + 5] = old[i], old[i + 1], old[i + 2], claim, till
      claimed = claimed + claim
    end
  end
end
total = min(total + max(0, arg(5) - used), MOST)

local mine = arg(7)
local verdicts = {}
for i = 1, asks do
  if total + claimed + mine < budget then
    mine = mine + arg(11 + i)
    verdicts[i] = 0
  else
    verdicts[i] = 1
  end
end
-- Room only while it is far to the line: near it every request is asked about.
local room = arg(8)
if room * 8 * (arg(9) + 1) > budget - total - claimed - mine then room = 0 end
mine = mine + room

local n = #new
new[2] = total
new[n + 1], new[n + 2], new[n + 3], new[n + 4], new[n + 5] = me, seq, arg(5), min(mine, MOST), now + CLAIM
redis.call('SET', KEYS[1], cmsgpack.pack(new), 'PX', 2592000000)
return {total, table.concat(verdicts), room}
