-- Somebody watches live events. KEYS[1]: the mark that says so. KEYS[2]: the stream. ARGV[1]: the mark's time in ms.
-- Answers the server's time in ms and the stream's last id ('' = there is no stream).
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local t = redis.call('TIME')
return {t[1] * 1000 + math.floor(t[2] / 1000), last and last[1] or ''}
