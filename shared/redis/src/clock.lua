-- Precedes every script, after the constants from layout.rs: the time.
-- KEYS[1] is the delivery (string), as layout.rs describes it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
