-- Before each of the scripts, after the numbers that layout.rs gives them: the time.
-- KEYS[1] is the delivery (string), as layout.rs describes it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Bytes of a history: its newest lines are kept. Copies without effect are listed up to half
-- of it, so that a flood of them neither hides what happened nor costs more than a look.
local HISTORY = 32768
local COPIES = HISTORY / 2
