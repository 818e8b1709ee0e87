-- lifecycle::step for a replay. ARGV: kind, operator, reason, retention. Returns: the new generation,
-- or false if the event is not delivered; now.
--@delivery.lua
local d = read()
if not d or d.state ~= DELIVERED then return { false, now } end
d.state, d.reason, d.expired, d.till = WAITING, 0, 0, now
d.generation, d.attempt = d.generation + 1, 1
write(d, ARGV[4], line(tonumber(ARGV[1]), d.generation, 1, ARGV[2], 0, 0, ARGV[3]))
return { d.generation, now }
