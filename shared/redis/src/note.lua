-- Records an operator's action. ARGV: kind, generation, operator, reason, retention. Changes no
-- state: the new generation is claimed like any other message. Returns whether the delivery exists.
--@delivery.lua
local d = read()
if not d then return 0 end
local what = tonumber(ARGV[1])
write(d, ARGV[5], line(what, tonumber(ARGV[2]), 1, ARGV[3], 0, 0, ARGV[4]), what == DISCARDED)
return 1
