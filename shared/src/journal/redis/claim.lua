-- lifecycle::step for a claim. ARGV: generation, attempt, lease, retention, worker, body, id,
-- summary. Answers: name, fence or remaining, reclaimed, now.
local generation, attempt = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease, retention, by = math.max(tonumber(ARGV[3]), 1), ARGV[4], ARGV[5]
local body, id = ARGV[6], ARGV[7]
local d = read()
local answer, what, number, reclaimed, more = 'claimed', CLAIMED, 0, 0, ''

if d then
  local older = generation < d.generation
    or (generation == d.generation and attempt < d.attempt)
  if id ~= NO_ID and d.id ~= NO_ID and id ~= d.id then
    answer, what, more = 'suspected', SUSPECTED, id
  elseif body ~= d.body then
    answer, what, more = 'conflict', CONFLICT, body
  elseif d.state == DELIVERED then
    answer, what = 'done', DUPLICATE
  elseif d.state == DEAD and generation == d.generation then
    answer, what = 'dead', DUPLICATE_DEAD
  elseif older then
    answer, what = 'stale', STALE
  elseif d.state == IN_FLIGHT and now < d.till then
    answer, what, number = 'busy', BUSY, d.till - now
  elseif d.state == IN_FLIGHT then
    reclaimed = 1
  end
else
  d = { fence = -1, body = body, id = id, summary = ARGV[8], history = '' }
end

local fence = 0
if answer == 'claimed' then
  fence = math.max(d.fence + 1, now)
  number = fence
  d.state, d.reason, d.generation, d.attempt = IN_FLIGHT, 0, generation, attempt
  d.fence, d.till = fence, now + lease
end
if answer ~= 'claimed' and #d.history >= COPIES then
  if d.state ~= DEAD then redis.call('PEXPIRE', KEYS[1], retention) end
  return { answer, number, reclaimed, now }
end
write(d, retention, { now, what, generation, attempt, by, fence, reclaimed, more })
return { answer, number, reclaimed, now }
