-- Whether scripts that write work here. KEYS[1]: the probe key. Answers the server's time in microseconds.
redis.call('SET', KEYS[1], '1', 'PX', 5000)
local t = redis.call('TIME')
return t[1] * 1000000 + t[2]
