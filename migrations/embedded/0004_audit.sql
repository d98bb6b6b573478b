-- Who changed what and who logged in, and the answers that a repeated request gets again.

CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,
    time_ms     INTEGER NOT NULL,
    actor       TEXT    NOT NULL, -- `session`, `token`, `anybody`, `nobody`, `command`
    actor_id    TEXT,
    actor_name  TEXT,
    action      TEXT    NOT NULL,
    target      TEXT,
    address     TEXT,
    detail      TEXT    NOT NULL -- JSON object
) STRICT;

-- Requests that came with an `Idempotency-Key`, for minutes.
CREATE TABLE repeats (
    id          BLOB    PRIMARY KEY, -- keyed hash of who asked and the header's value
    request     BLOB    NOT NULL,    -- hash of what was asked
    answer      BLOB,                -- sealed; NULL: not answered yet
    created_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX repeats_age ON repeats (created_ms);

-- Listings come in pages.
CREATE INDEX keys_order ON keys (created_ms, id) WHERE deleted = 0;
