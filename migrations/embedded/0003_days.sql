-- Totals by day, so that a question about months reads days and not minutes.
CREATE TABLE usage_days (
    day          INTEGER NOT NULL,
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
    PRIMARY KEY (day, key_id, account_id, model)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_days
    SELECT minute / 1440, key_id, account_id, model, SUM(requests), SUM(errors), SUM(prompt), SUM(completion),
           SUM(cache_read), SUM(cache_write), SUM(reasoning), SUM(cost_nanos)
    FROM usage GROUP BY 1, 2, 3, 4;

-- Failures by time: what people look for. All the rest is found by time alone.
DROP INDEX request_log_status;
CREATE INDEX request_log_failures ON request_log (time_ms) WHERE status >= 400;

-- What a key has spent in all is asked for every few seconds.
CREATE INDEX usage_days_key ON usage_days (key_id);
