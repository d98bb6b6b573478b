//! What a live event costs its sender: with nobody listening, with a reader, and with all cores sending.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use merido::base::{KeyId, Now, RequestId};
use merido::dialect::Dialect;
use merido::state::bus::{Bus, Done, Event};
use merido::state::catalog::Key;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Request {
    key: Arc<Key>,
    model: Arc<str>,
}

impl Request {
    fn new() -> Self {
        let key = Key {
            id: KeyId(1),
            name: "bench".into(),
            rpm: None,
            burst: None,
            tpm: None,
            max_parallel: None,
            models: None,
            budget_nanos: None,
            expires_unix_ms: None,
        };
        Self { key: Arc::new(key), model: "fast".into() }
    }

    fn event(&self, n: u64) -> Event {
        Event {
            request: RequestId { epoch: 1, n },
            unix_ms: n,
            client_request_id: None,
            key: Some(Arc::clone(&self.key)),
            dialect: Dialect::OpenAi,
            stream: false,
            requested_model: Arc::clone(&self.model),
            account: None,
            model: Some(Arc::clone(&self.model)),
            done: Some(Done { status: 200, ..Done::default() }),
        }
    }
}

fn bench(c: &mut Criterion) {
    let request = Request::new();
    let bus = Bus::new(1, 4);
    c.bench_function("bus/emit, nobody listens", |b| {
        let mut n = 0;
        b.iter(|| {
            n += 1;
            black_box(&bus).emit_with(0, || request.event(n));
        });
    });

    let reader = bus.subscribe(None);
    let now = Now::from_nanos(1);
    // 2,000 at a time, the lane emptied in between: the sender's side alone.
    let emit_many = |lane: usize, request: &Request| {
        for n in 0..2_000 {
            bus.emit_with(lane, || request.event(n));
        }
    };
    c.bench_function("bus/emit x2000, a reader", |b| {
        b.iter_batched(|| bus.collect(now), |_| emit_many(0, &request), BatchSize::PerIteration);
    });

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The other core sends events of the same key, as fast as its lane is emptied.
            while !stop.load(Ordering::Relaxed) {
                emit_many(1, &request);
            }
        });
        c.bench_function("bus/emit x2000, another core too, same key", |b| {
            b.iter_batched(|| bus.collect(now), |_| emit_many(0, &request), BatchSize::PerIteration);
        });
        stop.store(true, Ordering::Relaxed);
    });
    c.bench_function("bus/collect 2000", |b| {
        b.iter_batched(
            || {
                bus.collect(now);
                emit_many(0, &request);
            },
            |()| bus.collect(now),
            BatchSize::PerIteration,
        );
    });
    drop(reader);

    // With a cluster and nobody watching anywhere: sent, numbered, kept for a moment, forgotten.
    let bus = Bus::new(1, 4);
    bus.tap();
    c.bench_function("bus/emit x2000, a cluster that does not watch", |b| {
        b.iter_batched(
            || {
                bus.collect(now);
                bus.forget_own(u64::MAX);
            },
            |()| (0..2_000).for_each(|n| bus.emit_with(0, || request.event(n))),
            BatchSize::PerIteration,
        );
    });
    c.bench_function("bus/collect and forget 2000, a cluster that does not watch", |b| {
        b.iter_batched(
            || (0..2_000).for_each(|n| bus.emit_with(0, || request.event(n))),
            |()| {
                bus.collect(now);
                bus.forget_own(u64::MAX);
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
