-- A call goes on. KEYS: its claim. ARGV: token, ttl in ms. Answers whether the claim is still ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
