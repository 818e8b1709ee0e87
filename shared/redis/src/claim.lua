-- lifecycle::step for a claim. ARGV: generation, attempt, lease, retention, worker, body, id,
-- summary, delivery key, type. KEYS[2] is the stream of claimed deliveries. Returns: name, fence or
-- remaining, expired, now.
local generation, attempt = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease, retention, by = math.max(tonumber(ARGV[3]), 1), ARGV[4], ARGV[5]
local body, id, summary = ARGV[6], ARGV[7], ARGV[8]

-- The usual case: the delivery is unknown. It comes first because every event pays for it.
local shown = by:sub(1, 255)
local new = struct.pack(HEADER .. PRINTS, VERSION, IN_FLIGHT, 0, 0, generation, attempt, now,
    now + lease, body, id, #summary) .. summary
  .. struct.pack(LINE, LINE_BYTES + #shown, now, CLAIMED, generation, attempt, now, 0, #shown)
  .. shown
if redis.call('SET', KEYS[1], new, 'NX', 'PX', retention) then
  -- The claim counts even if it cannot be listed.
  redis.pcall('XADD', KEYS[2], '*', 'k', ARGV[9], 't', ARGV[10])
  return { 'claimed', now, 0, now }
end

--@delivery.lua
local d = read()
local older = generation < d.generation
  or (generation == d.generation and attempt < d.attempt)
local answer, what, number, expired, more = 'claimed', CLAIMED, 0, 0, ''
if id ~= NO_ID and d.id ~= NO_ID and id ~= d.id then
  answer, what, more = 'suspected', SUSPECTED, id
elseif body ~= d.body and body ~= NO_BODY and d.body ~= NO_BODY then
  answer, what, more = 'conflict', CONFLICT, body
elseif d.state == DELIVERED then
  answer, what = 'done', DUPLICATE
elseif d.state == DEAD and generation == d.generation then
  answer, what = 'dead', DUPLICATE_DEAD
elseif older then
  answer, what = 'stale', STALE
elseif d.state == IN_FLIGHT and now < d.till then
  answer, what, number = 'busy', BUSY, d.till - now
elseif d.state == IN_FLIGHT and generation == d.generation and attempt == d.attempt then
  expired = math.min(d.expired + 1, 255)
end

local fence = 0
if answer == 'claimed' then
  fence = math.max(d.fence + 1, now)
  number = fence
  d.state, d.reason, d.expired, d.generation, d.attempt = IN_FLIGHT, 0, expired, generation, attempt
  d.fence, d.till = fence, now + lease
elseif #d.rest - d.lines >= COPIES then
  if d.state ~= DEAD then redis.call('PEXPIRE', KEYS[1], retention) end
  return { answer, number, expired, now }
end
write(d, retention, line(what, generation, attempt, by, fence, expired, more))
return { answer, number, expired, now }
