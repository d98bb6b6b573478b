-- Login failures over all instances; the same rules as state/throttle. Counted before the password is looked at.
-- KEYS: failures of the address (zset by time), its refusal (hash), failures and refusal over all, known addresses (zset).
-- ARGV: what ('attempt', 'right', 'not_judged'), attempt, address, loopback, window, most per address, most over all,
-- longest refusal, forgiven after, known for, known at most; times in ms. Answers {ms to wait, whether it is known}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local attempt, address = ARGV[2], ARGV[3]
local window, longest, forgiven, known_for = tonumber(ARGV[5]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local function refusal(key)
  local held = redis.call('HMGET', key, 'since', 'till', 'level')
  return tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3] or 0)
end

local function refuses(failures, key)
  local since, till, level = refusal(key)
  if now < till and now >= since - 1000 then
    return math.min(till - now, longest)
  end
  redis.call('ZREMRANGEBYSCORE', failures, '-inf', now - window)
  if till > 0 and now - till >= forgiven then
    redis.call('DEL', key)
  end
  return 0
end

local function add(failures, key, most)
  redis.call('ZADD', failures, now, attempt)
  redis.call('PEXPIRE', failures, window)
  if redis.call('ZCARD', failures) >= most then
    local _, _, level = refusal(key)
    local long = math.min(window * 2 ^ math.min(level, 8), longest)
    redis.call('HSET', key, 'since', now, 'till', now + long, 'level', level + 1)
    redis.call('PEXPIRE', key, long + forgiven)
  end
end

local function refund(failures, key, most)
  local count = redis.call('ZCARD', failures)
  if redis.call('ZREM', failures, attempt) == 0 then
    return
  end
  local since, till, level = refusal(key)
  if count >= most and till > since then
    redis.call('HSET', key, 'till', since, 'level', math.max(level - 1, 0))
  end
end

local most, most_all = tonumber(ARGV[6]), tonumber(ARGV[7])
if ARGV[1] == 'attempt' then
  local seen = tonumber(redis.call('ZSCORE', KEYS[5], address) or -known_for)
  local known = now - seen < known_for
  local spared = known or ARGV[4] == '1'
  local wait = refuses(KEYS[1], KEYS[2])
  if not spared then
    wait = math.max(wait, refuses(KEYS[3], KEYS[4]))
  end
  if wait == 0 then
    add(KEYS[1], KEYS[2], most)
    if not spared then
      add(KEYS[3], KEYS[4], most_all)
    end
  end
  return {wait, known and 1 or 0}
end
refund(KEYS[3], KEYS[4], most_all)
if ARGV[1] == 'right' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('ZADD', KEYS[5], now, address)
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - known_for)
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -1 - tonumber(ARGV[11]))
  redis.call('PEXPIRE', KEYS[5], known_for)
else
  refund(KEYS[1], KEYS[2], most)
end
return {0, 1}
