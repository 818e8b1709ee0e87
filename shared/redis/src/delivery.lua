-- The delivery as it is stored.

-- `rest` is everything from the fingerprints on. Only a new history line changes it.
local function read()
  local raw = redis.call('GET', KEYS[1])
  if not raw then return nil end
  local version, state, reason, expired, generation, attempt, fence, till, body, id, length, at =
    struct.unpack(HEADER .. PRINTS, raw)
  if version ~= VERSION then error('a delivery of version ' .. version) end
  return {
    state = state, reason = reason, expired = expired, generation = generation,
    attempt = attempt, fence = fence, till = till, body = body, id = id,
    rest = raw:sub(REST), lines = at + length - REST,
  }
end

-- A history line. `by` is cut to what its length byte can say.
local function line(what, generation, attempt, by, number, flag, more)
  by = by:sub(1, 255)
  return struct.pack(LINE, LINE_BYTES + #by + #more, now, what, generation, attempt, number,
    flag, #by) .. by .. more
end

-- Writes the delivery with one more history line. It expires `retention` from now, or never.
-- A dead letter keeps its expiry, usually none, until an operator discards it.
local function write(d, retention, line, discarded)
  local rest = d.rest .. line
  while #rest - d.lines > HISTORY do
    local length = struct.unpack('<I2', rest, d.lines + 1)
    rest = rest:sub(1, d.lines) .. rest:sub(d.lines + 3 + length)
  end
  local raw = struct.pack(HEADER, VERSION, d.state, d.reason, d.expired, d.generation, d.attempt,
    d.fence, d.till) .. rest
  if not retention then
    redis.call('SET', KEYS[1], raw)
  elseif d.state == DEAD and not discarded then
    redis.call('SET', KEYS[1], raw, 'KEEPTTL')
  else
    redis.call('SET', KEYS[1], raw, 'PX', retention)
  end
end
