-- Totals of a day by what is asked for most, so that a month of many keys is read in a glance: all that a key did, and
-- all that an account did with a model.
CREATE TABLE usage_key_days (
    day          BIGINT NOT NULL,
    key_id       BIGINT NOT NULL,
    requests     BIGINT NOT NULL,
    errors       BIGINT NOT NULL,
    prompt       BIGINT NOT NULL,
    completion   BIGINT NOT NULL,
    cache_read   BIGINT NOT NULL,
    cache_write  BIGINT NOT NULL,
    reasoning    BIGINT NOT NULL,
    cost_nanos   BIGINT NOT NULL,
    PRIMARY KEY (day, key_id)
) WITH (fillfactor = 50);
INSERT INTO usage_key_days
    SELECT day, key_id, CAST(SUM(requests) AS BIGINT), CAST(SUM(errors) AS BIGINT), CAST(SUM(prompt) AS BIGINT),
           CAST(SUM(completion) AS BIGINT), CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write) AS
           BIGINT), CAST(SUM(reasoning) AS BIGINT), CAST(SUM(cost_nanos) AS BIGINT)
    FROM usage_days GROUP BY day, key_id;

CREATE TABLE usage_model_days (
    day          BIGINT NOT NULL,
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
    PRIMARY KEY (day, account_id, model)
) WITH (fillfactor = 50);
INSERT INTO usage_model_days
    SELECT day, account_id, model, CAST(SUM(requests) AS BIGINT), CAST(SUM(errors) AS BIGINT), CAST(SUM(prompt) AS BIGINT),
           CAST(SUM(completion) AS BIGINT), CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write) AS
           BIGINT), CAST(SUM(reasoning) AS BIGINT), CAST(SUM(cost_nanos) AS BIGINT)
    FROM usage_days GROUP BY day, account_id, model;

-- What a key has spent in all.
DROP INDEX usage_days_key;
CREATE INDEX usage_key_days_key ON usage_key_days (key_id);
