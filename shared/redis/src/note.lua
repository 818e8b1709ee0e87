-- What an operator does. ARGV: what, generation, who, reason, retention. Changes no state: the new
-- generation is claimed like any other message. Answers whether there is such a delivery.
--@delivery.lua
local d = read()
if not d then return 0 end
local what = tonumber(ARGV[1])
write(d, ARGV[5], line(what, tonumber(ARGV[2]), 1, ARGV[3], 0, 0, ARGV[4]), what == DISCARDED)
return 1
