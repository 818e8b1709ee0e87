-- An operator's re-queue. ARGV: generation, attempt, who, retention. Changes no state:
-- the new generation is claimed like any other message.
note({ what = 'requeued', generation = tonumber(ARGV[1]), attempt = tonumber(ARGV[2]), by = ARGV[3] })
keep(ARGV[4])
return now
