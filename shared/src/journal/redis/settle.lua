-- lifecycle::step for a settle. ARGV: fence, generation, attempt, outcome, next_at,
-- retention, worker, reason, result, summary. Answers: name, now.
local fence, generation, attempt = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local outcome, next_at, retention = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local known = read()
local current = known and known.state == 'in_flight' and known.fence == fence
local entry = cjson.decode(ARGV[9])
entry.generation, entry.attempt, entry.by = generation, attempt, ARGV[7]
local answer = 'settled'

-- Already so: this settle was sent twice, because the first answer got lost.
local target = ({ delivered = 'delivered', retry = 'waiting', dead = 'dead' })[outcome]
local as_attempt = outcome == 'retry' and attempt + 1 or attempt
if known and known.fence == fence and known.state == target and known.attempt == as_attempt then
  return { answer, now }
end

if outcome == 'delivered' then
  entry.what = 'delivered'
  if current then
    write('delivered', generation, attempt, fence, 0)
  else
    -- A late success is still a success. It never lowers the fence.
    answer, entry.late = 'settled_late', true
    local last = known or { generation = generation, attempt = attempt, fence = fence }
    write('delivered', last.generation, last.attempt, last.fence, 0)
  end
  redis.call('HDEL', KEYS[1], 'reason')
elseif not current then
  answer, entry.what = 'superseded', 'superseded'
elseif outcome == 'retry' then
  entry.what, entry.next_at = 'failed', next_at
  write('waiting', generation, attempt + 1, fence, next_at)
else
  entry.what, entry.reason = 'dead', ARGV[8]
  write('dead', generation, attempt, fence, 0)
  redis.call('HSET', KEYS[1], 'reason', ARGV[8])
end
if known or answer ~= 'superseded' then redis.call('HSETNX', KEYS[1], 'event', ARGV[10]) end
note(entry)
keep(retention)
return { answer, now }
