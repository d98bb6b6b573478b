-- Sessions are sealed tokens that no table holds: only what ends them early is kept.

-- Sessions sealed under a lower epoch are over.
ALTER TABLE meta ADD COLUMN session_epoch INTEGER NOT NULL DEFAULT 0;

-- Sessions that were logged out of, until they would have ended anyway.
CREATE TABLE ended_sessions (
    id          INTEGER PRIMARY KEY,
    expires_ms  INTEGER NOT NULL
) STRICT;
