-- Adds a delivery to the index of an event's ID. KEYS[1] the index (set). ARGV: delivery key,
-- retention, and whether the delivery is dead: then the index is kept like the delivery.
-- GT leaves an index without expiry unchanged, because no expiry counts as the longest.
local new = redis.call('EXISTS', KEYS[1]) == 0
redis.call('SADD', KEYS[1], ARGV[1])
if ARGV[3] == '1' then
  redis.call('PERSIST', KEYS[1])
elseif new then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2], 'GT')
end
