-- The buckets of one limited thing: requests, tokens, slots. KEYS[1]: its only key.
-- ARGV: 1 caller, 2 seq, 3 requests a minute, 4 burst, 5 tokens a minute, 6 slots, 7 live instances,
--       8 requests held, 9 of them given back, 10 wanted on lease, 11-13 the same of tokens, 14 fewest tokens worth leasing,
--       15 tokens used beyond those set aside, since ever, 16 of which we had said so, 17, 18 balances to begin with
--       if nothing is known here, 19 slots kept, 20 slots wanted beyond, 21 the last seq whose answer arrived, 22 how many
--       ask, 23… their tokens (if limited).
-- Answers {requests, tokens (parts, before the asks), a digit per ask (0 granted; 1 requests + 2 tokens or 4 slots are
-- short), requests kept, requests leased, tokens kept, tokens leased, slots}, or nothing for a seq already seen.
-- One request or token is U parts, so that a limit of n a minute brings n parts a millisecond: integers below 2^53 only.
-- The value: cmsgpack of {form, time of last refill (µs), balance, balance, then ten numbers a caller: its name, seq,
-- tokens used, requests out, tokens out, until when (µs), slots, until when (µs), requests and tokens of its last answer}.
local U, TTL, SLOTS, MEMORY, FORM = 60000, 250000, 5000000, 60000000, 1
local DEEPEST = -4503599627370496
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local function arg(n) return tonumber(ARGV[n]) end

local me, seq, rate, top, rate_t, parallel, live = arg(1), arg(2), arg(3), arg(4) * U, arg(5), arg(6), arg(7)
local top_t, asks = rate_t * U, arg(22)
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local stepped = ARGV[23 + (rate_t > 0 and asks or 0)] -- tests step the clock
if stepped then now = tonumber(stepped) end

local raw = redis.call('GET', KEYS[1])
local fine, old = pcall(cmsgpack.unpack, raw or '')
if not (raw and fine and type(old) == 'table' and old[1] == FORM) then old = nil end -- somebody else wrote it

local new = {FORM, now, 0, 0}
local out, out_t, taken = 0, 0, 0
local used, mine, mine_t, undone, undone_t = arg(16), 0, 0, 0, 0
local passed = 0
local bal, bal_t
if old then
  local last = old[2]
  if now < last then -- the clock was set back: nothing may last longer than it would have
    last = now
    for i = 10, #old, 10 do
      old[i] = min(old[i], now + TTL)
      old[i + 2] = min(old[i + 2], now + SLOTS)
    end
  end
  passed = floor((now - last) / 1000)
  new[2] = last + passed * 1000
  bal, bal_t = old[3], old[4]
  for i = 5, #old, 10 do
    local lapsed = now >= old[i + 5]
    if old[i] == me then
      if seq <= old[i + 1] then return false end
      used = old[i + 2]
      if not lapsed then mine, mine_t = old[i + 3], old[i + 4] end
      -- Its last answer never arrived, so nobody was let in by it.
      if old[i + 1] ~= arg(21) then undone, undone_t = old[i + 8], old[i + 9] end
    else
      local slots = now < old[i + 7] and old[i + 6] or 0
      if slots > 0 or now < old[i + 5] + MEMORY then
        local o, ot = old[i + 3], old[i + 4]
        if lapsed then o, ot = 0, 0 end -- what is left of a lease that lapsed counts as spent
        local n = #new
        new[n + 1], new[n + 2], new[n + 3], new[n + 4] = old[i], old[i + 1], old[i + 2], o
        new[n + 5], new[n + 6], new[n + 7], new[n + 8] = ot, old[i + 5], slots, old[i + 7]
        new[n + 9], new[n + 10] = old[i + 8], old[i + 9]
        out, out_t, taken = out + o, out_t + ot, taken + slots
      end
    end
  end
else
  bal, bal_t = arg(17), arg(18)
end

-- Book what is in hand, then refill up to what is not lent, then settle.
mine, mine_t = min(mine, arg(8)), min(mine_t, arg(11))
local function refill(b, rate, cap)
  if b < cap then
    if passed >= ceil((cap - b) / rate) then return cap end
    b = b + passed * rate
  end
  return min(b, cap)
end
local back, back_t = min(arg(9), mine), min(arg(12), mine_t)
if rate > 0 then
  bal = refill(bal, rate, top - (out + mine) * U)
  bal = min(bal + (back + undone) * U, top - (out + mine - back) * U)
end
local more = arg(15) - used
if rate_t > 0 then
  local cap = top_t - (out_t + mine_t) * U
  bal_t = refill(bal_t, rate_t, cap)
  cap = cap + back_t * U
  bal_t = max(min(bal_t + (back_t + undone_t - more) * U, cap), DEEPEST)
end
mine, mine_t = mine - back, mine_t - back_t
local start, start_t = bal, bal_t

-- The asks, in the order they came: all of what one needs, or nothing.
local slots = arg(19)
local verdicts = {}
for i = 1, asks do
  local need = rate_t > 0 and min(arg(22 + i) * U, top_t) or 0
  local short = (rate > 0 and bal < U) and 1 or 0
  if rate_t > 0 and bal_t < need then short = short + 2 end
  if short == 0 and parallel > 0 and taken + slots >= parallel then short = 4 end
  if short == 0 then
    if rate > 0 then bal = bal - U end
    if rate_t > 0 then bal_t = bal_t - need end
    if parallel > 0 then slots = slots + 1 end
  end
  verdicts[i] = short
end

-- The lease: of what is left, a share; both kinds or neither.
local lease = rate > 0 and max(0, min(arg(10), floor(bal / U / (live + 1)))) or 0
local lease_t = rate_t > 0 and max(0, min(arg(13), floor(bal_t / U / (live + 1)))) or 0
if rate_t > 0 and mine_t + lease_t < arg(14) then lease, lease_t = 0, 0 end
if rate > 0 and mine + lease < 1 then lease_t = 0 end
bal, bal_t = bal - lease * U, bal_t - lease_t * U
if parallel > 0 and (taken + slots) * 2 <= parallel then
  slots = slots + max(0, min(arg(20), floor((parallel - taken - slots) / (live + 1))))
end

local n = #new
new[3], new[4] = bal, bal_t
new[n + 1], new[n + 2], new[n + 3], new[n + 4] = me, seq, arg(15), mine + lease
new[n + 5], new[n + 6], new[n + 7], new[n + 8] = mine_t + lease_t, now + TTL, slots, now + SLOTS
new[n + 9], new[n + 10] = floor((start - bal) / U), floor((start_t - bal_t) / U)
-- Forgotten only when forgetting changes nothing: full again, debts paid, and a minute more.
local full = 0
if rate > 0 then full = max(full, ceil((top - bal) / rate)) end
if rate_t > 0 then full = max(full, ceil((top_t - bal_t) / rate_t)) end
redis.call('SET', KEYS[1], cmsgpack.pack(new), 'PX', full + 60000)
return {start, start_t, table.concat(verdicts), mine, lease, mine_t, lease_t, slots}
