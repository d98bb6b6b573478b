-- PostgreSQL's store, first form. Forward only: never edit a step that was released, add the next one.
-- 64-bit ids are stored as signed numbers, bit for bit. Times are Unix milliseconds, money is nanodollars.

-- One row. Every change of the catalog takes the next `change_seq` inside its own transaction and holds the row until it
-- has committed: so numbers become visible in their order, and a reader that saw n never misses one below it.
CREATE TABLE meta (
    id            BIGINT PRIMARY KEY CHECK (id = 1),
    deployment    BIGINT NOT NULL,
    wrapped_key   BYTEA  NOT NULL,
    canary        BYTEA  NOT NULL,
    change_seq    BIGINT NOT NULL,
    session_epoch BIGINT NOT NULL,
    created_ms    BIGINT NOT NULL
);

-- Whoever listens looks at once; whoever cannot polls.
CREATE FUNCTION merido_catalog_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('merido_catalog', NEW.change_seq::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER meta_changed AFTER UPDATE OF change_seq ON meta
    FOR EACH ROW EXECUTE FUNCTION merido_catalog_changed();

-- Providers outside the built-in catalogue.
CREATE TABLE providers (
    name         TEXT    PRIMARY KEY,
    dialect      TEXT    NOT NULL,
    auth         TEXT    NOT NULL,
    http2        BOOLEAN NOT NULL,
    base_url     TEXT,
    changed_seq  BIGINT  NOT NULL
);
CREATE INDEX providers_changed ON providers (changed_seq);

CREATE TABLE accounts (
    id           BIGINT  PRIMARY KEY,
    provider     TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    base_url     TEXT,
    weight       BIGINT  NOT NULL,
    secret       BYTEA   NOT NULL, -- sealed; emptied when the account is removed
    created_ms   BIGINT  NOT NULL,
    changed_seq  BIGINT  NOT NULL,
    deleted      BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE UNIQUE INDEX accounts_label ON accounts (provider, label) WHERE NOT deleted;
CREATE INDEX accounts_changed ON accounts (changed_seq);

CREATE TABLE keys (
    id           BIGINT  PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BYTEA   NOT NULL,
    rpm          BIGINT,
    burst        BIGINT,
    tpm          BIGINT,
    max_parallel BIGINT,
    models       TEXT, -- JSON array of names; NULL = all
    budget_nanos BIGINT,
    expires_ms   BIGINT,
    created_ms   BIGINT  NOT NULL,
    changed_seq  BIGINT  NOT NULL,
    deleted      BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE UNIQUE INDEX keys_hash ON keys (hash);
CREATE INDEX keys_changed ON keys (changed_seq);

-- Hashes that stopped being valid (revoked or rotated): what a directory must forget, however often a key changed
-- between two looks.
CREATE TABLE dead_hashes (
    changed_seq  BIGINT  NOT NULL,
    hash         BYTEA   NOT NULL,
    PRIMARY KEY (changed_seq, hash)
);

CREATE TABLE virtual_models (
    id           BIGINT  PRIMARY KEY,
    name         TEXT    NOT NULL,
    strategy     TEXT    NOT NULL,
    sticky       BIGINT  NOT NULL,
    enabled      BOOLEAN NOT NULL,
    position     BIGINT  NOT NULL,
    targets      TEXT    NOT NULL, -- JSON array
    changed_seq  BIGINT  NOT NULL,
    deleted      BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE UNIQUE INDEX virtual_models_name ON virtual_models (name) WHERE NOT deleted;
CREATE INDEX virtual_models_changed ON virtual_models (changed_seq);

-- Management tokens. Not part of the catalog: looked up when used.
CREATE TABLE tokens (
    id           BIGINT  PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BYTEA   NOT NULL UNIQUE,
    scope        TEXT    NOT NULL,
    created_ms   BIGINT  NOT NULL,
    expires_ms   BIGINT
);

-- Sessions that were logged out of, until they would have ended anyway.
CREATE TABLE ended_sessions (
    id           BIGINT PRIMARY KEY,
    expires_ms   BIGINT NOT NULL
);

-- Exact totals, by minute and by day.
CREATE TABLE usage (
    minute       BIGINT NOT NULL,
    key_id       BIGINT NOT NULL,
    account_id   BIGINT NOT NULL,
    model        TEXT   NOT NULL,
    requests     BIGINT NOT NULL,
    errors       BIGINT NOT NULL,
    prompt       BIGINT NOT NULL,
    completion   BIGINT NOT NULL,
    cache_read   BIGINT NOT NULL,
    cache_write  BIGINT NOT NULL,
    reasoning    BIGINT NOT NULL,
    cost_nanos   BIGINT NOT NULL,
    PRIMARY KEY (minute, key_id, account_id, model)
) WITH (fillfactor = 80);

CREATE TABLE usage_days (
    day          BIGINT NOT NULL,
    key_id       BIGINT NOT NULL,
    account_id   BIGINT NOT NULL,
    model        TEXT   NOT NULL,
    requests     BIGINT NOT NULL,
    errors       BIGINT NOT NULL,
    prompt       BIGINT NOT NULL,
    completion   BIGINT NOT NULL,
    cache_read   BIGINT NOT NULL,
    cache_write  BIGINT NOT NULL,
    reasoning    BIGINT NOT NULL,
    cost_nanos   BIGINT NOT NULL,
    PRIMARY KEY (day, key_id, account_id, model)
) WITH (fillfactor = 50);
CREATE INDEX usage_days_key ON usage_days (key_id);

-- The last batch each writer brought: a batch sent again because its answer was lost counts once.
CREATE TABLE writers (
    epoch        BIGINT PRIMARY KEY,
    last_batch   BIGINT NOT NULL,
    seen_ms      BIGINT NOT NULL
);

-- The log, a partition a day (`request_log_YYYYMMDD`): made ahead, and dropped whole when their time has come.
CREATE SEQUENCE request_log_seq CACHE 1000;
CREATE TABLE request_log (
    seq               BIGINT  NOT NULL DEFAULT nextval('request_log_seq'),
    epoch             BIGINT  NOT NULL, -- with n: the internal request id
    n                 BIGINT  NOT NULL,
    time_ms           BIGINT  NOT NULL,
    client_request_id TEXT,
    key_id            BIGINT  NOT NULL, -- 0 = anonymous
    key_name          TEXT,
    dialect           TEXT    NOT NULL,
    endpoint          TEXT    NOT NULL,
    requested_model   TEXT    NOT NULL,
    provider          TEXT,
    account_id        BIGINT,
    account           TEXT,
    model             TEXT,
    status            BIGINT  NOT NULL,
    stream            BOOLEAN NOT NULL,
    cache             TEXT    NOT NULL,
    attempts          BIGINT  NOT NULL,
    timeline          TEXT, -- JSON array, one object an attempt
    prompt            BIGINT  NOT NULL,
    completion        BIGINT  NOT NULL,
    cache_read        BIGINT  NOT NULL,
    cache_write       BIGINT  NOT NULL,
    reasoning         BIGINT  NOT NULL,
    cost_nanos        BIGINT  NOT NULL,
    latency_ms        BIGINT  NOT NULL,
    first_byte_ms     BIGINT,
    overhead_us       BIGINT  NOT NULL,
    error             TEXT,
    estimated         BOOLEAN NOT NULL,
    sampled           BIGINT  NOT NULL, -- how many requests this row stands for
    size              BIGINT  NOT NULL  -- what the row costs, indexes included, about
) PARTITION BY RANGE (time_ms);
-- A row sent twice carries the same time: uniqueness within its day is uniqueness.
CREATE UNIQUE INDEX request_log_id ON request_log (epoch, n, time_ms);
CREATE INDEX request_log_time ON request_log (time_ms, seq);
CREATE INDEX request_log_key ON request_log (key_id, time_ms, seq);
CREATE INDEX request_log_model ON request_log (model, time_ms, seq);
CREATE INDEX request_log_provider ON request_log (provider, time_ms, seq);
CREATE INDEX request_log_failures ON request_log (time_ms, seq) WHERE status >= 400;
CREATE INDEX request_log_client ON request_log (client_request_id) WHERE client_request_id IS NOT NULL;

-- What the rows of a day cost, by writer, so that no two writers wait for one row. Writer 0: what was removed.
CREATE TABLE log_sizes (
    day          BIGINT NOT NULL,
    writer       BIGINT NOT NULL,
    rows         BIGINT NOT NULL,
    bytes        BIGINT NOT NULL,
    PRIMARY KEY (day, writer)
);
