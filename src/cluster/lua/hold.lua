-- Renews or ends a claim, if it still is the claimant's. KEYS[1]: the claim. ARGV: claimant, ms (0: it ends).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
