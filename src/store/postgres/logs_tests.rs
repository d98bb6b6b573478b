//! Questions are served by indexes: asked of the planner, on enough rows that it would rather not read them all.

use super::*;
use crate::base::Secret;
use crate::store::query::{LogFilter, StatusRange};
use crate::store::test_server::{self, run_sql};
use crate::store::usage_query::UsageBy;
use crate::store::{Engine, Store, StoreConfig};

const DAY: u64 = 86_400_000;
const FIRST: u64 = 19_700;

fn fill(url: &str) {
    for day in FIRST..FIRST + 3 {
        let (from, to) = (day * DAY, (day + 1) * DAY);
        let sql = format!(
            "CREATE TABLE request_log_x{day} (LIKE request_log INCLUDING ALL);
             ALTER TABLE request_log ATTACH PARTITION request_log_x{day} FOR VALUES FROM ({from}) TO ({to});
             INSERT INTO request_log (epoch, n, time_ms, client_request_id, key_id, dialect, endpoint, requested_model,
             provider, model, status, stream, cache, attempts, prompt, completion, cache_read, cache_write, reasoning,
             cost_nanos, latency_ms, overhead_us, estimated, sampled, size)
             SELECT 1, {day}::bigint * 1000000 + n, {from} + n * 4000, 'c' || n, n % 500, 'openai', 'chat', 'x', 'p' || n % 50,
             'm' || n % 200, CASE WHEN n % 97 = 0 THEN 500 ELSE 200 END, FALSE, 'miss', 1, 1, 1, 0, 0, 0, 1, 1, 1,
             FALSE, 1, 200 FROM generate_series(1::bigint, 20000) n;
             INSERT INTO usage SELECT {day} * 1440 + n % 1440, n % 500, 1, 'm' || n % 7, 1, 0, 1, 1, 0, 0, 0, 1
             FROM generate_series(1, 20000) n ON CONFLICT DO NOTHING;
             INSERT INTO usage_days SELECT {day}, n, 1, 'm', 1, 0, 1, 1, 0, 0, 0, 1 FROM generate_series(1, 20000) n;
             INSERT INTO usage_model_days SELECT {day}, 1, 'm', 20000, 0, 1, 1, 0, 0, 0, 1"
        );
        run_sql(url, &sql).unwrap();
    }
    run_sql(url, "ANALYZE").unwrap();
}

async fn plan(store: &Store, select: &LogSelect, sql: String) -> String {
    let Engine::Postgres(engine) = &store.engine else { panic!("another engine") };
    let select = select.clone();
    let rows = engine.run(QUERY, move |tx| async move {
        let values: Vec<Param<'_>> = select.values.iter().map(param).collect();
        tx.rows(&format!("EXPLAIN {sql}"), &values).await
    });
    let lines: Vec<String> = rows.await.unwrap().iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

#[tokio::test]
async fn every_filter_has_its_index_and_no_page_reads_a_day() {
    let config: StoreConfig = crate::store::tests::shared_config(test_server::database());
    let store = Store::open(&config).unwrap();
    fill(config.database_url.as_ref().map(Secret::reveal).unwrap());
    let all = LogFilter::default();
    let status = Some(StatusRange { from: 500, to: 599 });
    let until_ms = Some((FIRST + 2) * DAY);
    let spelling = store.engine.spelling();
    for (index, filter) in [
        ("time_ms_seq", all.clone()),
        ("time_ms_seq", LogFilter { until_ms, ..all.clone() }),
        ("key_id_time", LogFilter { key_id: Some(KeyId(7)), ..all.clone() }),
        ("model_time", LogFilter { model: Some("m7".into()), until_ms, ..all.clone() }),
        ("provider_time", LogFilter { provider: Some("p7".into()), ..all.clone() }),
        ("time_ms_seq", LogFilter { status, ..all.clone() }),
        ("key_id_time", LogFilter { key_id: Some(KeyId(7)), status, ..all.clone() }),
        ("client_request_id", LogFilter { q: Some("c77".into()), ..all.clone() }),
    ] {
        let cursor = store.logs(&all, None, 5).await.unwrap().next;
        let selects = LogSelect::variants(&filter, cursor, spelling);
        for select in selects {
            let plan = plan(&store, &select, select.sql(LOG)).await;
            assert!(!plan.contains("Seq Scan on request_log_x"), "{filter:?}\n{plan}");
            // The few failures of one key are sorted sooner than read in order, as are those of one client's id.
            let few = filter.key_id.is_some() && filter.status.is_some() || index == "client_request_id";
            assert!(few || !plan.contains("Sort Key: request_log"), "in order as it is read\n{filter:?}\n{plan}");
            if select.search.is_empty() {
                assert!(plan.contains(index), "{index}\n{filter:?}\n{plan}");
            }
        }
    }
    let found = store.logs(&LogFilter { q: Some("c77".into()), ..all.clone() }, None, 10).await.unwrap();
    assert_eq!(found.rows.len(), 3, "one a day");
    // A text nobody wrote: a bounded look, and where to go on.
    let mut cursor = None;
    let mut calls = 0;
    loop {
        let page = store.logs(&LogFilter { q: Some("nowhere".into()), ..all.clone() }, cursor, 10).await.unwrap();
        assert!(page.rows.is_empty());
        calls += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(calls, 2, "60,000 rows, 50,000 a call");
    let days = store.usage(&[UsageBy::Model], FIRST * DAY + 60_000, (FIRST + 2) * DAY + 120_000).await.unwrap();
    assert!(!days.is_empty(), "of days whose minutes are gone, too");
    let select = UsageSelect {
        key: true,
        account: false,
        model: false,
        day: false,
        from: 19_701 * 1_440,
        to: 19_701 * 1_440 + 5,
        present: i64::MAX,
    };
    let nothing = LogSelect::variants(&all, None, spelling).remove(0);
    let plan = plan(&store, &LogSelect { values: Vec::new(), ..nothing }, select.sql()).await;
    assert!(plan.contains("usage_pkey") && !plan.contains("Seq Scan"), "{plan}");
}
