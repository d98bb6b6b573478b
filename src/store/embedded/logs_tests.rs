//! Questions are served by indexes: asked of SQLite's planner, which has no statistics here, as in any deployment.

use super::*;
use crate::store::query::{LogFilter, StatusRange};
use crate::store::tests::config;
use crate::store::{Engine, Store};

/// What the planner says of `sql`.
async fn plan(store: &Store, sql: String, values: Vec<Value>) -> String {
    let Engine::Embedded(engine) = &store.engine else { panic!("another engine") };
    let asked = engine.query(move |tx| {
        let mut explain = tx.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let lines = explain.query_map(params_from_iter(&values), |row| row.get::<_, String>(3))?;
        Ok(lines.collect::<rusqlite::Result<Vec<_>>>()?)
    });
    asked.await.unwrap().join("\n")
}

#[tokio::test]
async fn every_filter_has_its_index_and_is_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&config(dir.path())).unwrap();
    let cursor = Some(LogCursor { time_ms: 1_000_000, seq: 77 });
    let all = LogFilter::default();
    let (since_ms, until_ms) = (Some(1), Some(2_000_000));
    let key_id = Some(KeyId(7));
    let errors = Some(StatusRange { from: 500, to: 599 });
    let fine = Some(StatusRange { from: 0, to: 399 });
    let model = Some("m7".to_owned());
    for (index, filter) in [
        ("request_log_time", all.clone()),
        ("request_log_time", LogFilter { since_ms, until_ms, ..all.clone() }),
        ("request_log_time", LogFilter { status: fine, ..all.clone() }),
        ("request_log_failures", LogFilter { status: errors, ..all.clone() }),
        ("request_log_failures", LogFilter { status: errors, since_ms, until_ms, ..all.clone() }),
        ("request_log_key", LogFilter { key_id, ..all.clone() }),
        ("request_log_key", LogFilter { key_id, since_ms, until_ms, ..all.clone() }),
        ("request_log_key", LogFilter { key_id, status: errors, ..all.clone() }),
        ("request_log_model", LogFilter { model: model.clone(), until_ms, ..all.clone() }),
        ("request_log_provider", LogFilter { provider: Some("p7".into()), ..all.clone() }),
        ("request_log_client", LogFilter { q: Some("c77".into()), ..all.clone() }),
        // The text itself: a bounded look along the index of what else was asked for.
        ("request_log_key", LogFilter { key_id, q: Some("c77".into()), ..all.clone() }),
    ] {
        let selects = LogSelect::variants(&filter, cursor, store.engine.spelling());
        for (n, select) in selects.iter().enumerate() {
            let plan = plan(&store, select.sql(LOG), select.values.clone()).await;
            let exact = index == "request_log_client";
            assert!(!plan.contains("TEMP B-TREE"), "in order as it is read\n{filter:?}\n{plan}");
            let index = match n {
                0 if filter.q.is_some() => "request_log_client",
                1 if exact => "request_log_time",
                _ => index,
            };
            assert!(plan.contains(&format!("INDEX {index}")), "{index}\n{filter:?}\n{plan}");
        }
    }
    for (index, by_key) in [("PRIMARY KEY", false), ("PRIMARY KEY", true)] {
        let select = UsageSelect {
            key: by_key,
            account: false,
            model: false,
            day: false,
            from: 2_870,
            to: 9 * 1_440 + 5,
            present: i64::MAX,
        };
        let plan = plan(&store, select.sql(), Vec::new()).await;
        let reads: Vec<&str> = plan.lines().filter(|line| line.contains("usage")).collect();
        assert_eq!(reads.len(), 3, "the broken day, the whole days, the rest\n{plan}");
        assert!(reads.iter().all(|line| line.contains("SEARCH") && line.contains(index)), "{plan}");
    }
}
