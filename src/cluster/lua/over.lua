-- A call led for all is over. KEYS: the answer, the claim. ARGV: token, whether it ended well, ms. Without an answer to
-- share after a good end, whoever waits is told for so long to call alone; after a bad one the next of them leads.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[2], '-', 'PX', ARGV[3])
else
  redis.call('DEL', KEYS[2])
end
return 1
