-- Unknown API keys by address, in windows of one length. KEYS: the counts (hash). ARGV: window in ms, most addresses,
-- then address, count, … Answers the totals of the window, 0 where there was no room.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local window = tonumber(ARGV[1])
local began = tonumber(redis.call('HGET', KEYS[1], '@') or 0)
if now - began >= window or now < began then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], '@', now)
  redis.call('PEXPIRE', KEYS[1], window)
end
local most = tonumber(ARGV[2])
local room = most - redis.call('HLEN', KEYS[1])
local out = {}
for n = 3, #ARGV, 2 do
  local total = 0
  if room > 0 or redis.call('HEXISTS', KEYS[1], ARGV[n]) == 1 then
    total = redis.call('HINCRBY', KEYS[1], ARGV[n], ARGV[n + 1])
    if total == tonumber(ARGV[n + 1]) then
      room = room - 1
    end
  end
  out[#out + 1] = total
end
return out
