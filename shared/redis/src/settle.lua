-- lifecycle::step for a settle. ARGV: fence, generation, attempt, outcome, next_at or the
-- reason's number, retention, worker, result, and body, id, summary only where the answer
-- was `forgotten`. Returns: name, now.
local fence, generation, attempt = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local outcome, number, retention, by = ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]

-- The usual case: the claim is current and the attempt succeeded. It comes first because every
-- event pays for it. It happens once per delivery, so the history is not trimmed.
local raw = outcome == 'delivered' and redis.call('GET', KEYS[1])
if raw then
  local version, state, _, _, _, _, known = struct.unpack(HEADER, raw)
  if version == VERSION and state == IN_FLIGHT and known == fence then
    local shown, more = by:sub(1, 255), ARGV[8]
    local settled = struct.pack(HEADER, VERSION, DELIVERED, 0, 0, generation, attempt, fence, 0)
      .. raw:sub(REST)
      .. struct.pack(LINE, LINE_BYTES + #shown + #more, now, DELIVERED_LINE, generation, attempt,
        number, 0, #shown) .. shown .. more
    redis.call('SET', KEYS[1], settled, 'PX', retention)
    return { 'settled', now }
  end
end

--@delivery.lua
local d = read()
local current = d and d.state == IN_FLIGHT and d.fence == fence
local answer, what, late, reason = 'settled', FAILED, 0, 0

-- Already settled: this settle was sent twice, because the first answer was lost.
local target = ({ delivered = DELIVERED, retry = WAITING, dead = DEAD })[outcome]
local as_attempt = outcome == 'retry' and attempt + 1 or attempt
if d and d.fence == fence and d.state == target and d.attempt == as_attempt then
  return { answer, now }
end

if not current and outcome ~= 'delivered' then
  answer, what = 'superseded', SUPERSEDED
  -- Forgotten, and there is nothing to record.
  if not d then return { answer, now } end
elseif not current then
  -- A late success is still a success. It never lowers the fence.
  answer, what, late = 'settled_late', DELIVERED_LINE, 1
  if not d and not ARGV[9] then return { 'forgotten', now } end
  if not d then
    local rest = struct.pack(PRINTS, ARGV[9], ARGV[10], #ARGV[11]) .. ARGV[11]
    d = { generation = generation, attempt = attempt, fence = fence, rest = rest, lines = #rest }
  end
  d.state, d.reason, d.expired, d.till = DELIVERED, 0, 0, 0
else
  d.state, d.reason, d.expired, d.till = target, 0, 0, 0
  d.generation, d.attempt = generation, as_attempt
  if outcome == 'delivered' then
    what = DELIVERED_LINE
  elseif outcome == 'retry' then
    d.till = number
  else
    what, d.reason = DEAD_LINE, number
  end
end
write(d, what ~= DEAD_LINE and retention, line(what, generation, attempt, by, number, late, ARGV[8]))
return { answer, now }
