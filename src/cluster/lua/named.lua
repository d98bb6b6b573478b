-- What an Idempotency-Key is used for. KEYS[1]: the name. ARGV: hash of the request's content, ms to remember it.
-- Answers 1: this content; 0: another one's, remembered still.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
