-- A finished answer, or who makes the call. KEYS: the answer, the claim. ARGV: token ('': do not claim), ttl of a claim
-- in ms. Answers {1, the answer, ms it is kept still}, {2}: the claim is ours, {3}: another's, {4}: call alone, {0}: nothing.
local answer = redis.call('GET', KEYS[1])
if answer then
  return {1, answer, redis.call('PTTL', KEYS[1])}
end
if ARGV[1] == '' then
  return {0}
end
local held = redis.call('GET', KEYS[2])
if not held then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  return {2}
end
if held == ARGV[1] then
  return {2}
end
return {held == '-' and 4 or 3}
