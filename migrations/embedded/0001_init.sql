-- The embedded store, first form. Forward only: never edit a step that was released, add the next one.
-- 64-bit ids are stored as SQLite's signed integers, bit for bit. Times are Unix milliseconds, money is nanodollars.

-- One row. Every change of the catalog takes the next `change_seq` inside its own transaction, so numbers become
-- visible in their order and a reader that saw n never misses one below it.
CREATE TABLE meta (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    deployment   INTEGER NOT NULL,
    wrapped_key  BLOB    NOT NULL,
    canary       BLOB    NOT NULL,
    change_seq   INTEGER NOT NULL,
    log_bytes    INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL
) STRICT;

-- Providers outside the built-in catalogue.
CREATE TABLE providers (
    name         TEXT    PRIMARY KEY,
    dialect      TEXT    NOT NULL,
    auth         TEXT    NOT NULL,
    http2        INTEGER NOT NULL,
    base_url     TEXT,
    changed_seq  INTEGER NOT NULL
) STRICT;
CREATE INDEX providers_changed ON providers (changed_seq);

CREATE TABLE accounts (
    id           INTEGER PRIMARY KEY,
    provider     TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    base_url     TEXT,
    weight       INTEGER NOT NULL,
    secret       BLOB    NOT NULL, -- sealed; emptied when the account is removed
    created_ms   INTEGER NOT NULL,
    changed_seq  INTEGER NOT NULL,
    deleted      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX accounts_label ON accounts (provider, label) WHERE deleted = 0;
CREATE INDEX accounts_changed ON accounts (changed_seq);

CREATE TABLE keys (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,
    rpm          INTEGER,
    burst        INTEGER,
    tpm          INTEGER,
    max_parallel INTEGER,
    models       TEXT, -- JSON array of names; NULL = all
    budget_nanos INTEGER,
    expires_ms   INTEGER,
    created_ms   INTEGER NOT NULL,
    changed_seq  INTEGER NOT NULL,
    deleted      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX keys_hash ON keys (hash);
CREATE UNIQUE INDEX keys_changed ON keys (changed_seq);

-- Hashes that stopped being valid (revoked or rotated): what a directory must forget, however often a key changed
-- between two looks.
CREATE TABLE dead_hashes (
    changed_seq  INTEGER NOT NULL,
    hash         BLOB    NOT NULL,
    PRIMARY KEY (changed_seq, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE virtual_models (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,
    strategy     TEXT    NOT NULL,
    sticky       INTEGER NOT NULL,
    enabled      INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    targets      TEXT    NOT NULL, -- JSON array
    changed_seq  INTEGER NOT NULL,
    deleted      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX virtual_models_name ON virtual_models (name) WHERE deleted = 0;
CREATE INDEX virtual_models_changed ON virtual_models (changed_seq);

-- Management tokens. Not part of the catalog: looked up when used.
CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL UNIQUE,
    scope        TEXT    NOT NULL,
    created_ms   INTEGER NOT NULL,
    expires_ms   INTEGER
) STRICT;

-- Exact totals.
CREATE TABLE usage (
    minute       INTEGER NOT NULL,
    key_id       INTEGER NOT NULL,
    account_id   INTEGER NOT NULL,
    model        TEXT    NOT NULL,
    requests     INTEGER NOT NULL,
    errors       INTEGER NOT NULL,
    prompt       INTEGER NOT NULL,
    completion   INTEGER NOT NULL,
    cache_read   INTEGER NOT NULL,
    cache_write  INTEGER NOT NULL,
    reasoning    INTEGER NOT NULL,
    cost_nanos   INTEGER NOT NULL,
    PRIMARY KEY (minute, key_id, account_id, model)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_key ON usage (key_id, minute);

-- The last batch each writer brought: a batch sent again because its answer was lost counts once.
CREATE TABLE writers (
    epoch        INTEGER PRIMARY KEY,
    last_batch   INTEGER NOT NULL,
    seen_ms      INTEGER NOT NULL
) STRICT;

CREATE TABLE request_log (
    seq               INTEGER PRIMARY KEY,
    epoch             INTEGER NOT NULL, -- with n: the internal request id
    n                 INTEGER NOT NULL,
    time_ms           INTEGER NOT NULL,
    client_request_id TEXT,
    key_id            INTEGER NOT NULL, -- 0 = anonymous
    key_name          TEXT,
    dialect           TEXT    NOT NULL,
    endpoint          TEXT    NOT NULL,
    requested_model   TEXT    NOT NULL,
    provider          TEXT,
    account_id        INTEGER,
    account           TEXT,
    model             TEXT,
    status            INTEGER NOT NULL,
    stream            INTEGER NOT NULL,
    cache             TEXT    NOT NULL,
    attempts          INTEGER NOT NULL,
    timeline          TEXT, -- JSON array, one object an attempt
    prompt            INTEGER NOT NULL,
    completion        INTEGER NOT NULL,
    cache_read        INTEGER NOT NULL,
    cache_write       INTEGER NOT NULL,
    reasoning         INTEGER NOT NULL,
    cost_nanos        INTEGER NOT NULL,
    latency_ms        INTEGER NOT NULL,
    first_byte_ms     INTEGER,
    overhead_us       INTEGER NOT NULL,
    error             TEXT,
    estimated         INTEGER NOT NULL,
    sampled           INTEGER NOT NULL, -- how many requests this row stands for
    size              INTEGER NOT NULL  -- what the row costs, indexes included, about
) STRICT;
CREATE UNIQUE INDEX request_log_id ON request_log (epoch, n);
CREATE INDEX request_log_time ON request_log (time_ms);
CREATE INDEX request_log_key ON request_log (key_id, time_ms);
CREATE INDEX request_log_model ON request_log (model, time_ms);
CREATE INDEX request_log_provider ON request_log (provider, time_ms);
CREATE INDEX request_log_status ON request_log (status, time_ms);
CREATE INDEX request_log_client ON request_log (client_request_id) WHERE client_request_id IS NOT NULL;
