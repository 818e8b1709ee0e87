-- lifecycle::step for a renewal. ARGV: fence, lease. Returns: name, now. Written in place,
-- without a history line: the line of the attempt's outcome is enough.
--@delivery.lua
local d = read()
if not d or d.state ~= IN_FLIGHT or d.fence ~= tonumber(ARGV[1]) then return { 'lost', now } end
local till = math.max(d.till, now + math.max(tonumber(ARGV[2]), 1))
redis.call('SETRANGE', KEYS[1], TILL, struct.pack('<I7', till))
return { 'renewed', now }
