-- Totals of a day by what is asked for most, so that a month of many keys is read in a glance: all that a key did, and
-- all that an account did with a model.
CREATE TABLE usage_key_days (
    day          INTEGER NOT NULL,
    key_id       INTEGER NOT NULL,
    requests     INTEGER NOT NULL,
    errors       INTEGER NOT NULL,
    prompt       INTEGER NOT NULL,
    completion   INTEGER NOT NULL,
    cache_read   INTEGER NOT NULL,
    cache_write  INTEGER NOT NULL,
    reasoning    INTEGER NOT NULL,
    cost_nanos   INTEGER NOT NULL,
    PRIMARY KEY (day, key_id)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_key_days
    SELECT day, key_id, SUM(requests), SUM(errors), SUM(prompt), SUM(completion), SUM(cache_read), SUM(cache_write),
           SUM(reasoning), SUM(cost_nanos)
    FROM usage_days GROUP BY day, key_id;

CREATE TABLE usage_model_days (
    day          INTEGER NOT NULL,
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
    PRIMARY KEY (day, account_id, model)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_model_days
    SELECT day, account_id, model, SUM(requests), SUM(errors), SUM(prompt), SUM(completion), SUM(cache_read), SUM(cache_write),
           SUM(reasoning), SUM(cost_nanos)
    FROM usage_days GROUP BY day, account_id, model;

-- What a key has spent in all.
DROP INDEX usage_days_key;
CREATE INDEX usage_key_days_key ON usage_key_days (key_id);
