//! What a request pays to be counted (`state/usage`): one total, one log row, and one row sampled away.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use merido::base::{AccountId, KeyId, RequestId};
use merido::dialect::Endpoint;
use merido::state::usage::{CacheState, Counts, LogRow, Tokens, Usage};
use std::hint::black_box;
use std::sync::Arc;

fn row(model: &Arc<str>) -> LogRow {
    LogRow {
        id: RequestId { epoch: 1, n: 1 },
        time_ms: 1,
        client_request_id: None,
        key: None,
        endpoint: Endpoint::Chat,
        requested_model: Arc::clone(model),
        account: None,
        model: Some(Arc::clone(model)),
        status: 200,
        stream: false,
        cache: CacheState::Miss,
        attempts: 1,
        timeline: None,
        tokens: Tokens::default(),
        cost_nanos: Some(0),
        latency_ms: 1,
        first_byte_ms: None,
        overhead_us: 1,
        error: None,
        estimated: false,
        sampled: 1,
    }
}

fn usage(c: &mut Criterion) {
    let model: Arc<str> = "gpt-4o-mini-2024-07-18".into();
    let counts = Counts::one(Tokens { prompt: 100, completion: 20, ..Tokens::default() }, 30, false);
    let totals = Usage::new(2_000);
    let mut n = 0u64;
    c.bench_function("add to one of 64 totals", |b| {
        b.iter(|| {
            n += 1;
            totals.add(KeyId(n % 64), AccountId(1), black_box(&model), 29_000_000, &counts);
        });
    });
    let rows = Usage::new(u32::MAX);
    c.bench_function("log a row", |b| {
        b.iter_batched(
            || {
                if rows.queued() > 40_000 {
                    rows.take(true);
                }
            },
            |()| rows.log(false, 1_000, || row(&model)),
            BatchSize::SmallInput,
        );
    });
    let none = Usage::new(0);
    c.bench_function("a row sampled away", |b| b.iter(|| none.log(false, black_box(1_000), || row(&model))));
}

criterion_group!(benches, usage);
criterion_main!(benches);
