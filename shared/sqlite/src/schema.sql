-- What waits. A queue is `work/<destination>`, `dead/<destination>`, `unrouted` or `refused`.
-- `body` is the provider's bytes; nothing here is trusted that the seal doesn't cover.
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    -- Milliseconds since the epoch: not to be handed out before.
    due INTEGER NOT NULL,
    route TEXT NOT NULL,
    event TEXT NOT NULL,
    trace TEXT,
    attempt INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    dead TEXT,
    error TEXT,
    seal TEXT NOT NULL,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL,
    countersignature TEXT
) STRICT;
CREATE INDEX message_in_turn ON message (queue, due, id);

-- What was accepted, for replay and reconciliation.
CREATE TABLE archive (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    route TEXT NOT NULL,
    event TEXT NOT NULL,
    trace TEXT,
    seal TEXT NOT NULL,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- How many bytes it has.
CREATE TABLE archived (bytes INTEGER NOT NULL) STRICT;
INSERT INTO archived VALUES (0);
CREATE TRIGGER archive_takes AFTER INSERT ON archive BEGIN
    UPDATE archived SET bytes = bytes + length(new.envelope) + length(new.body);
END;
CREATE TRIGGER archive_gives AFTER DELETE ON archive BEGIN
    UPDATE archived SET bytes = bytes - length(old.envelope) - length(old.body);
END;

-- What is known of each delivery.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    destination TEXT NOT NULL,
    -- The provider's id, where the key doesn't have it.
    event TEXT,
    -- When it was given up, while it is dead.
    dead INTEGER,
    -- Milliseconds since the epoch: forgotten after. None: kept.
    until INTEGER,
    -- The record and the summary (MessagePack), and the history: its lines one after the other.
    record BLOB NOT NULL,
    summary BLOB NOT NULL,
    history BLOB NOT NULL
) STRICT;
CREATE INDEX delivery_of_event ON delivery (event) WHERE event IS NOT NULL;
CREATE INDEX delivery_dead ON delivery (destination, dead) WHERE dead IS NOT NULL;

-- Letters that a pass looks at just now, held back from others while its process lives.
CREATE TABLE held (
    id INTEGER PRIMARY KEY,
    until INTEGER NOT NULL,
    pid INTEGER NOT NULL DEFAULT 0
) STRICT;
