-- Before each of the other scripts: the clock, and the delivery as it is stored, which
-- layout.rs describes, and whose numbers it puts before this. KEYS[1] the delivery (string).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local NO_ID = string.rep('\0', 8)
-- Bytes of a history: its newest lines are kept. Copies without effect are listed up to half
-- of it, so that a flood of them neither hides what happened nor costs more than a look.
local HISTORY = 32768
local COPIES = HISTORY / 2

local function read()
  local raw = redis.call('GET', KEYS[1])
  if not raw then return nil end
  local version, state, reason, generation, attempt, fence, till, body, id, length, at =
    struct.unpack(HEADER, raw)
  if version ~= VERSION then error('a delivery of version ' .. version) end
  return {
    state = state, reason = reason, generation = generation, attempt = attempt, fence = fence,
    till = till, body = body, id = id, summary = raw:sub(at, at + length - 1),
    history = raw:sub(at + length),
  }
end

-- Writes the delivery with one more line, and with its time: `retention` from now, or none.
-- A dead one keeps what it has, none as a rule, until an operator deals with it.
local function write(d, retention, line)
  local packed = cmsgpack.pack(line)
  local history = d.history .. struct.pack('<I2', #packed) .. packed
  while #history > HISTORY do
    local length, at = struct.unpack('<I2', history)
    history = history:sub(at + length)
  end
  local raw = struct.pack(HEADER, VERSION, d.state, d.reason, d.generation, d.attempt, d.fence,
    d.till, d.body, d.id, #d.summary) .. d.summary .. history
  if not retention then
    redis.call('SET', KEYS[1], raw)
  elseif d.state == DEAD and line[2] ~= DISCARDED then
    redis.call('SET', KEYS[1], raw, 'KEEPTTL')
  else
    redis.call('SET', KEYS[1], raw, 'PX', retention)
  end
end
