-- What an operator does. ARGV: what, generation, who, reason, retention. Changes no state: the new
-- generation is claimed like any other message. Answers whether there is such a delivery.
local d = read()
if not d then return 0 end
write(d, ARGV[5], { now, tonumber(ARGV[1]), tonumber(ARGV[2]), 1, ARGV[3], 0, 0, ARGV[4] })
return 1
