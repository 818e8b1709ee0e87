-- The type that an identity of a source came with first, where the signature leaves the type open.
CREATE TABLE IF NOT EXISTS first_type (
    key TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    -- Milliseconds since the epoch: forgotten after.
    until INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS first_type_until ON first_type (until);

-- When the file was last worked on, in milliseconds since the epoch: shows a clock that was stepped.
CREATE TABLE IF NOT EXISTS last_seen (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;

-- How each worker does: as it told at last, until when that is believed.
CREATE TABLE IF NOT EXISTS worker (
    name TEXT PRIMARY KEY,
    until INTEGER NOT NULL,
    beat BLOB NOT NULL
) STRICT;

-- What operators want of a destination's workers.
CREATE TABLE IF NOT EXISTS wish (
    destination TEXT NOT NULL,
    wish TEXT NOT NULL,
    said BLOB NOT NULL,
    PRIMARY KEY (destination, wish)
) STRICT;

-- What operators did.
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    act BLOB NOT NULL
) STRICT;

-- Who may ask the operators' API.
CREATE TABLE IF NOT EXISTS token (
    id TEXT PRIMARY KEY,
    token BLOB NOT NULL
) STRICT;

-- What many dead letters are to go through, how far it is, and what an operator wants of it.
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY,
    job BLOB NOT NULL,
    halt BLOB
) STRICT;

-- Whose a destination is, of those who run jobs, and until when.
CREATE TABLE IF NOT EXISTS desk (
    destination TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;

-- Findings that stand or stood, and what was done about them.
CREATE TABLE IF NOT EXISTS incident (
    id TEXT PRIMARY KEY,
    incident BLOB NOT NULL
) STRICT;
