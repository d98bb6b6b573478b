//! What every engine must answer to questions about the log and the totals.

use super::*;
use crate::base::{AccountId, Clock};
use crate::state::catalog::Key;
use crate::state::usage::{Counts, LogRow, Tokens, Total};
use crate::store::refresh::env_id;
use crate::store::rows::UsageBatch;
use crate::store::tests::{account, key, row};
use crate::store::usage_query::UsageBy;
use std::sync::Arc;

/// A Monday's midnight.
const MONDAY: u64 = 1_699_833_600_000;
const DAY: u64 = 86_400_000;

fn asked(n: u64, key: Option<&Arc<Key>>, change: impl FnOnce(&mut LogRow)) -> LogRow {
    let mut row = LogRow { key: key.cloned(), error: None, client_request_id: None, ..row(n, 200) };
    row.time_ms = MONDAY + n * DAY / 10;
    row.id.epoch = 0x77;
    change(&mut row);
    row
}

fn numbers(page: &LogPage) -> Vec<u64> {
    page.rows.iter().map(|row| row.id.n).collect()
}

/// Part of the body all engines are put through; the store holds no log rows yet.
pub(in crate::store) async fn questions(store: &Store) {
    let made = store.create_key(key("Finance")).await.unwrap();
    let changes = store.changes_since(0).await.unwrap();
    let key = Arc::new(changes.keys.into_iter().find(|(_, k)| k.id == made.info.id).unwrap().1);
    let rows = (0..40)
        .map(|n| {
            asked(n, (n % 4 == 0).then_some(&key), |row| match n {
                7 => (row.status, row.error) = (429, Some("100% of the_quota".into())),
                8 => (row.status, row.model) = (503, None),
                9 => (row.requested_model, row.model) = ("Special".into(), Some("gpt-x".into())),
                10 => row.client_request_id = Some("trace-10".into()),
                // Three of the same millisecond, and a text that no text column may choke on.
                21 | 22 => row.time_ms = MONDAY + 20 * DAY / 10,
                23 => row.error = Some("odd \0 text".into()),
                _ => {}
            })
            .into()
        })
        .collect();
    store.append(Arc::new(UsageBatch { writer: 77, number: 1, totals: Vec::new(), rows })).await.unwrap();
    filters(store, key.id).await;
    pages(store).await;
    sums(store, made.info.id).await;
    store.prune(u64::MAX >> 1, 0).await.unwrap();
}

async fn filters(store: &Store, key: KeyId) {
    let ask = async |filter: LogFilter| numbers(&store.logs(&filter, None, 100).await.unwrap());
    let all = LogFilter::default();
    assert_eq!(ask(all.clone()).await.len(), 40);
    let q = |text: &str| LogFilter { q: Some(text.to_owned()), ..LogFilter::default() };
    let status = |text: &str| LogFilter { status: Some(text.parse().unwrap()), ..LogFilter::default() };
    assert_eq!(ask(status("429")).await, [7]);
    assert_eq!(ask(status("error")).await, [8, 7]);
    assert_eq!(ask(status("5xx")).await, [8]);
    assert_eq!(ask(status("ok")).await.len(), 38);
    assert_eq!(ask(LogFilter { key_id: Some(key), ..status("ok") }).await, [36, 32, 28, 24, 20, 16, 12, 4, 0]);
    assert_eq!(ask(LogFilter { key_id: Some(KeyId(0)), ..all.clone() }).await.len(), 30);
    assert_eq!(ask(LogFilter { model: Some("gpt-x".into()), ..all.clone() }).await, [9]);
    assert_eq!(ask(LogFilter { provider: Some("openai".into()), ..all.clone() }).await, [0u64; 0]);
    assert_eq!(ask(LogFilter { model: Some("openai/gpt-x".into()), ..all.clone() }).await, [0u64; 0]);
    let (since_ms, until_ms) = (Some(MONDAY + DAY / 2), Some(MONDAY + DAY * 7 / 10));
    assert_eq!(ask(LogFilter { since_ms, until_ms, ..all }).await, [6, 5]);
    assert_eq!(ask(q("SPECIAL")).await, [9]);
    assert_eq!(ask(q("100%")).await, [7]);
    assert_eq!(ask(q("the_quota")).await, [7]);
    assert_eq!(ask(q("the-quota")).await, [0u64; 0], "an underscore is itself");
    assert_eq!(ask(q("finance")).await.len(), 10);
    assert_eq!(ask(q("trace-10")).await, [10]);
    assert_eq!(ask(q("odd")).await, [23]);
    let printed = RequestId { epoch: 0x77, n: 9 }.to_string();
    assert_eq!(ask(q(&printed)).await, [9]);
    assert!(StatusRange::from_str("9xx").is_err() && StatusRange::from_str("42").is_err());
}

async fn pages(store: &Store) {
    let filter = LogFilter { model: Some("m".into()), ..LogFilter::default() };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.logs(&filter, cursor, 7).await.unwrap();
        assert!(page.rows.len() <= 7);
        seen.extend(numbers(&page));
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().unwrap());
    }
    let mut once = seen.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((seen.len(), once.len()), (38, 38), "each row on one page, those of one moment too: {seen:?}");
    assert!("zz-1".parse::<LogCursor>().is_err() && "1".parse::<LogCursor>().is_err());
}

async fn sums(store: &Store, key: KeyId) {
    let openai = store.add_account(account("openai", Some("sums"))).await.unwrap();
    // Of days whose minutes are kept.
    let midnight = (Clock::unix_ms() / DAY - 20) * DAY;
    let start = (midnight / 60_000) as u32;
    let total = |account, model: &str, minute, cost_nanos| Total {
        key,
        account,
        model: model.into(),
        minute: start + minute,
        counts: Counts {
            requests: 2,
            errors: 1,
            tokens: Tokens { prompt: 3, completion: 4, ..Tokens::default() },
            cost_nanos,
        },
    };
    let totals = vec![
        total(openai.id, "a", 0, 10),
        total(openai.id, "b", 1_439, 20),
        total(env_id("openai"), "a", 1_440, 40),
        total(env_id("groq"), "a", 3_000, 80),
        total(AccountId(0), "-", 4_000, 0),
    ];
    store.append(Arc::new(UsageBatch { writer: 77, number: 2, totals, rows: Vec::new() })).await.unwrap();
    store.remove_account(openai.id).await.unwrap();
    let ask = async |by: &[UsageBy], from: u64, to: u64| {
        store.usage(by, midnight + from * 60_000, midnight + to * 60_000).await.unwrap()
    };
    let whole = ask(&[], 0, 5_000).await;
    assert_eq!((whole.len(), whole[0].counts.cost_nanos, whole[0].counts.requests), (1, 150, 10));
    assert_eq!(ask(&[], 5_000, 9_000).await, [], "nothing is no row");
    let days = ask(&[UsageBy::Day], 0, 5_000).await;
    let first = (midnight / DAY) as u32;
    let costs: Vec<_> = days.iter().map(|row| (row.day.unwrap() - first, row.counts.cost_nanos)).collect();
    assert_eq!(costs, [(0, 30), (1, 40), (2, 80)]);
    let cut = ask(&[UsageBy::Day], 1, 3_000).await;
    let costs: Vec<_> = cut.iter().map(|row| row.counts.cost_nanos).collect();
    assert_eq!(costs, [20, 40], "both ends are cut to the minute");
    let providers = ask(&[UsageBy::Provider], 0, 5_000).await;
    let names: Vec<_> = providers.iter().map(|row| (row.provider.as_deref().unwrap(), row.counts.cost_nanos)).collect();
    assert_eq!(names, [("groq", 80), ("openai", 70), ("-", 0)], "removed accounts keep their provider");
    assert!(providers.iter().all(|row| row.account.is_none() && row.model.is_none()));
    let accounts = ask(&[UsageBy::Account, UsageBy::Model], 0, 1_441).await;
    let labels: Vec<_> =
        accounts.iter().map(|row| (row.account_label.as_deref().unwrap(), row.model.as_deref().unwrap())).collect();
    assert_eq!(labels, [("env", "a"), ("sums", "b"), ("sums", "a")]);
    let keys = ask(&[UsageBy::Key], 0, 5_000).await;
    assert_eq!(
        (keys[0].key, keys[0].key_name.as_deref(), keys[0].counts.tokens.prompt),
        (Some(key), Some("Finance"), 15)
    );

    // A span that begins or ends where minutes are no longer kept is of whole days, before they are gone and after.
    let old = start - 30 * 1_440;
    let total = |minute, cost_nanos| Total { minute, ..total(env_id("groq"), "a", 0, cost_nanos) };
    let mut totals = vec![total(old + 100, 160), total(old + 200, 320), total(old + 1_500, 640)];
    // More than one step of pruning takes, in one minute.
    totals.extend((0..5_100).map(|key| Total { key: KeyId(key << 51), ..total(old + 100, 0) }));
    store.append(Arc::new(UsageBatch { writer: 77, number: 3, totals, rows: Vec::new() })).await.unwrap();
    let cost = async |from: i64, to: i64| {
        let at = |minute: i64| midnight.checked_add_signed((minute - 30 * 1_440) * 60_000).unwrap();
        let rows = store.usage(&[], at(from), at(to)).await.unwrap();
        rows.iter().map(|row| row.counts.cost_nanos).sum::<i64>()
    };
    let all = store.usage_totals().await.unwrap();
    let past = all.iter().filter(|total| total.minute < start).count();
    assert!(past >= 5_103 && all.len() >= past + 5);
    for gone in [0, past] {
        assert_eq!(store.usage_totals().await.unwrap().len(), all.len() - gone);
        assert_eq!([cost(150, 160).await, cost(150, 1_441).await], [480, 1_120], "{gone} gone");
        assert_eq!(cost(150, 30 * 1_440 + 1).await, 1_130, "{gone} gone");
        assert_eq!(ask(&[UsageBy::Day], 1, 3_000).await, cut, "{gone} gone");
        let (mut steps, mut rows) = (0, 0);
        loop {
            let pruned = store.prune_minutes().await.unwrap();
            (steps, rows) = (steps + 1, rows + pruned.rows);
            if !pruned.more {
                break;
            }
        }
        assert_eq!((steps, rows), (if gone == 0 { 2 } else { 1 }, (past - gone) as u64));
    }
}
