//! Makes the rows: a month of requests of some three thousand keys (some busy, most not), sixty models, eight providers,
//! with the totals that belong to them. In the database's own language: nothing else makes ten million in minutes.

use crate::support::postgres::run_sql;
use rusqlite::Connection;
use std::path::Path;

pub const DAYS: i64 = 31;
pub const DAY_MS: i64 = 86_400_000;
/// The epoch of every row's internal id.
pub const EPOCH: u64 = 0xbe_5701;

const TARGETS: &str =
    "epoch, n, time_ms, client_request_id, key_id, key_name, dialect, endpoint, requested_model, provider,
    account_id, account, model, status, stream, cache, attempts, timeline, prompt, completion, cache_read, cache_write,
    reasoning, cost_nanos, latency_ms, first_byte_ms, overhead_us, error, estimated, sampled, size";

/// What each row says, from `n`, `time_ms` and three random numbers (`a` to `c`, 0 to 9,999).
fn values(yes: &str, no: &str, text: fn(&str) -> String) -> String {
    // Busy keys have small numbers. A key asks for four models, and a model is served by one of two accounts.
    let key = "(a % 100) * (b % 100)";
    let model = format!("(({key}) % 20 * 3 + c % 4) % 60");
    let account = format!("(({model}) % 8 * 3 + b % 2)");
    let status = "CASE WHEN c < 9700 THEN 200 WHEN c < 9850 THEN 429 WHEN c < 9950 THEN 500 ELSE 400 END";
    let (key_text, model_text, n_text) = (text(&format!("({key})")), text(&format!("({model})")), text("n"));
    let (provider, account_text) = (text(&format!("(({model}) % 8)")), text(&format!("({account})")));
    format!(
        "{EPOCH}, n, time_ms, CASE WHEN c % 10 < 3 THEN 'trace-' || {n_text} END, 1000 + {key},
         'team-' || {key_text}, 'openai', 'chat', 'model-' || {model_text}, 'provider-' || {provider},
         1 + {account}, 'account-' || {account_text}, 'model-' || {model_text}, {status},
         CASE WHEN a % 3 = 0 THEN {yes} ELSE {no} END, 'miss', 1,
         '[{{\"account\":\"account-' || {account_text} || '\",\"status\":200,\"ms\":812}}]',
         100 + a, 20 + b % 800, 0, 0, 0, 1000 * (100 + a), 300 + b, 100 + c % 900, 150,
         CASE WHEN c >= 9700 THEN 'the provider is overloaded; try again' END, {no}, 1, 560"
    )
}

const SUMS: &str =
    "count(*), CAST(sum(CASE WHEN status >= 400 THEN 1 ELSE 0 END) AS BIGINT), CAST(sum(prompt) AS BIGINT),
    CAST(sum(completion) AS BIGINT), 0, 0, 0, CAST(sum(cost_nanos) AS BIGINT)";

/// Each table of totals, from the rows of `source`.
fn totals(source: &str) -> String {
    let tables = [
        ("usage", 60_000, "key_id, account_id, model"),
        ("usage_days", DAY_MS, "key_id, account_id, model"),
        ("usage_key_days", DAY_MS, "key_id"),
        ("usage_model_days", DAY_MS, "account_id, model"),
    ];
    let each = tables.map(|(table, span_ms, by)| {
        // In the order of time, as they come.
        format!(
            "INSERT INTO {table} SELECT time_ms / {span_ms}, {by}, {SUMS} FROM {source}
             GROUP BY time_ms / {span_ms}, {by} ORDER BY 1"
        )
    });
    each.join("; ")
}

/// Fills the database at `url`: whole days up to `end_ms` (a multiple of a day), but nothing after `now_ms`.
pub fn postgres(url: &str, rows: u64, end_ms: i64, now_ms: i64) {
    let each = rows.cast_signed() / DAYS;
    let values = values("TRUE", "FALSE", |number| format!("({number})::text"));
    run_sql(url, &keys_sql("decode(lpad(to_hex(n), 64, '0'), 'hex')", "generate_series(0, 9801) n", "FALSE")).unwrap();
    for day in 0..DAYS {
        let from = end_ms - (DAYS - day) * DAY_MS;
        let name = format!("request_log_{}", date(from));
        // Its indexes are made when it becomes a partition, all rows at once.
        let sql = format!(
            "SET synchronous_commit = off; SET maintenance_work_mem = '512MB'; SET work_mem = '256MB';
             DROP TABLE IF EXISTS {name};
             CREATE TABLE {name} (LIKE request_log INCLUDING DEFAULTS);
             INSERT INTO {name} ({TARGETS}) SELECT {values} FROM (
               SELECT {day}::bigint * {each} + i AS n, {from} + i * {DAY_MS} / ({each} + 1) AS time_ms,
               floor(random() * 10000)::bigint AS a, floor(random() * 10000)::bigint AS b,
               floor(random() * 10000)::bigint AS c FROM generate_series(1::bigint, {each}) i OFFSET 0) made
               WHERE time_ms <= {now_ms};
             ALTER TABLE request_log ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({});
             INSERT INTO log_sizes SELECT {from} / {DAY_MS}, 0, count(*), sum(size) FROM {name};
             {}",
            from + DAY_MS,
            totals(&name)
        );
        run_sql(url, &sql).unwrap();
    }
    for table in ["request_log", "usage", "usage_days", "usage_key_days", "usage_model_days", "keys"] {
        run_sql(url, &format!("VACUUM ANALYZE {table}")).unwrap();
    }
}

/// Fills the file, likewise.
pub fn embedded(file: &Path, rows: u64, end_ms: i64, now_ms: i64) {
    let each = rows.cast_signed() / DAYS;
    let values = values("1", "0", |number| format!("({number})"));
    let raw = Connection::open(file).unwrap();
    let count = |to: i64| format!("WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < {to})");
    raw.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; PRAGMA temp_store = MEMORY").unwrap();
    let keys = keys_sql("cast(printf('%032d', n) AS BLOB)", "(SELECT i - 1 AS n FROM i)", "0");
    raw.execute_batch(&format!("{} {keys}", count(9_802))).unwrap();
    let indexes: Vec<(String, String)> = {
        let mut select = raw.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = 'request_log'").unwrap();
        let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        found.map(Result::unwrap).collect()
    };
    for (name, _) in &indexes {
        raw.execute_batch(&format!("DROP INDEX {name}")).unwrap();
    }
    for day in 0..DAYS {
        let from = end_ms - (DAYS - day) * DAY_MS;
        let sql = format!(
            "{} INSERT INTO request_log ({TARGETS}) SELECT {values} FROM (
               SELECT {day} * {each} + i AS n, {from} + i * {DAY_MS} / ({each} + 1) AS time_ms,
               abs(random() % 10000) AS a, abs(random() % 10000) AS b, abs(random() % 10000) AS c FROM i
               LIMIT -1 OFFSET 0) WHERE time_ms <= {now_ms}",
            count(each)
        );
        raw.execute_batch(&sql).unwrap();
        let source = format!("(SELECT * FROM request_log WHERE seq > {})", day * each);
        raw.execute_batch(&totals(&source)).unwrap();
    }
    for (_, sql) in &indexes {
        raw.execute_batch(sql).unwrap();
    }
    raw.execute_batch(
        "UPDATE meta SET log_bytes = (SELECT sum(size) FROM request_log); PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
}

/// Names for the rows' keys; they were there before anything that changes from now on.
fn keys_sql(hash: &str, numbers: &str, no: &str) -> String {
    format!(
        "INSERT INTO keys (id, name, hash, created_ms, changed_seq, deleted)
         SELECT 1000 + n, 'team-' || n, {hash}, 1, -n - 1, {no} FROM {numbers}"
    )
}

/// `20261231`.
fn date(ms: i64) -> String {
    let text = merido::base::Clock::rfc3339(ms.cast_unsigned());
    text.chars().take(10).filter(char::is_ascii_digit).collect()
}
