-- Before each of the other scripts: the clock, the record, the history.
-- KEYS[1] the record (hash), KEYS[2] the history (list): one slot.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read()
  local got = redis.call('HMGET', KEYS[1], 'state', 'generation', 'attempt', 'fence', 'until')
  if not got[1] then return nil end
  return {
    state = got[1], generation = tonumber(got[2]), attempt = tonumber(got[3]),
    fence = tonumber(got[4]), ['until'] = tonumber(got[5]),
  }
end

local function write(state, generation, attempt, fence, till)
  redis.call('HSET', KEYS[1], 'state', state, 'generation', generation, 'attempt', attempt,
    'fence', string.format('%.0f', fence), 'until', string.format('%.0f', till))
end

local function note(entry)
  entry.at = now
  redis.call('RPUSH', KEYS[2], cjson.encode(entry))
  redis.call('LTRIM', KEYS[2], -1000, -1)
end

-- A dead delivery is kept until an operator deals with it; all else has its time.
local function keep(retention)
  if redis.call('HGET', KEYS[1], 'state') == 'dead' then
    redis.call('PERSIST', KEYS[1])
    redis.call('PERSIST', KEYS[2])
  else
    redis.call('PEXPIRE', KEYS[1], retention)
    redis.call('PEXPIRE', KEYS[2], retention)
  end
end
