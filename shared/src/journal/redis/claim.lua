-- lifecycle::step for a claim. ARGV: generation, attempt, lease, retention, worker, summary.
-- Answers: name, fence or remaining, reclaimed, now.
local generation, attempt = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease, retention = math.max(tonumber(ARGV[3]), 1), ARGV[4]
local known = read()
local answer, what, number, reclaimed = 'claimed', 'claimed', 0, 0

if known then
  local older = generation < known.generation
    or (generation == known.generation and attempt < known.attempt)
  if known.state == 'delivered' then
    answer, what = 'done', 'duplicate'
  elseif known.state == 'dead' and generation == known.generation then
    answer, what = 'dead', 'duplicate_dead'
  elseif older then
    answer, what = 'stale', 'stale'
  elseif known.state == 'in_flight' and now < known['until'] then
    answer, what, number = 'busy', 'busy', known['until'] - now
  elseif known.state == 'in_flight' then
    reclaimed = 1
  end
end

local entry = { what = what, generation = generation, attempt = attempt, by = ARGV[5] }
if answer == 'claimed' then
  number = math.max(known and known.fence + 1 or 0, now)
  write('in_flight', generation, attempt, number, now + lease)
  redis.call('HSETNX', KEYS[1], 'event', ARGV[6])
  redis.call('HDEL', KEYS[1], 'reason')
  entry.fence, entry.reclaimed = number, reclaimed == 1
end
note(entry)
keep(retention)
return { answer, number, reclaimed, now }
