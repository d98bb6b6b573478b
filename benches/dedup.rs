//! What dedup costs a request it applies to, and what the similarity cache's built-in embedding costs.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, StatusCode};
use merido::base::{KeyId, Now};
use merido::state::answer::{Answer, Head};
use merido::state::dedup::{Asked, Caller, Claim, Dedup, Fingerprints, Limits, Seat};
use merido::state::embed::embed;
use merido::state::semantic::{self, Semantic};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

const NOW: Now = Now::from_nanos(1);

fn table() -> Arc<Dedup> {
    Dedup::new(Limits { ttl: Duration::from_secs(60), kept: 64 << 20, answer: 8 << 20, flying: 64 << 20 })
}

fn claim(idempotency_key: &[u8], body: &[u8]) -> Claim {
    Fingerprints::new([1; 32]).claim(&Asked {
        caller: Caller::Key(KeyId(1)),
        method: "POST",
        path_and_query: "/v1/chat/completions",
        versions: &[None, None, None],
        idempotency_key: Some(idempotency_key),
        catalog_version: 1,
        body,
    })
}

fn head() -> Head {
    Head { status: StatusCode::OK, headers: HeaderMap::new() }
}

fn answer_once(table: &Arc<Dedup>, claim: &Claim) {
    let Seat::Leader(mut leader) = table.seat(claim, NOW) else { return };
    leader.head(head());
    leader.push(Bytes::from_static(&[b'x'; 1024]));
    leader.finish(NOW);
}

fn seats(c: &mut Criterion) {
    let body = vec![b'x'; 2048];
    c.bench_function("dedup/fingerprint of 2 KB", |b| b.iter(|| claim(black_box(b"key"), black_box(&body))));

    let kept = table();
    let one = claim(b"key", &body);
    answer_once(&kept, &one);
    c.bench_function("dedup/hit", |b| b.iter(|| kept.seat(black_box(&one), NOW)));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(kept.seat(&one, NOW));
            }
        });
        c.bench_function("dedup/hit, another core on the same key", |b| b.iter(|| kept.seat(black_box(&one), NOW)));
        stop.store(true, Ordering::Relaxed);
    });

    let fresh = table();
    c.bench_function("dedup/lead, answer 1 KB, failed", |b| {
        b.iter(|| {
            let Seat::Leader(mut leader) = fresh.seat(black_box(&one), NOW) else { panic!("it leads") };
            leader.head(head());
            leader.push(Bytes::from_static(&[b'x'; 1024]));
        });
    });
    let mut n = 0u64;
    c.bench_function("dedup/lead, answer 1 KB, kept", |b| {
        b.iter_batched(
            || {
                n += 1;
                claim(&n.to_le_bytes(), b"")
            },
            |claim| answer_once(&fresh, &claim),
            BatchSize::SmallInput,
        );
    });
    let busy = table();
    let Seat::Leader(mut leader) = busy.seat(&one, NOW) else { panic!("it leads") };
    leader.head(head());
    leader.push(Bytes::from_static(b"x"));
    let cx = Context::from_waker(Waker::noop());
    c.bench_function("dedup/follow, read 2 steps, leave", |b| {
        b.iter(|| {
            let Seat::Follower(mut follower) = busy.seat(black_box(&one), NOW) else { panic!("it follows") };
            (follower.poll_next(&cx), follower.poll_next(&cx))
        });
    });
}

fn similar(c: &mut Criterion) {
    let question = "Could you explain how value added tax is computed for a shop that sells to 3 countries?";
    c.bench_function("semantic/embed 90 bytes", |b| b.iter(|| embed(black_box(question))));
    let cache = Semantic::new(semantic::Limits { threshold: 0.95, ttl: Duration::from_secs(60), bytes: 64 << 20 });
    let answer = Arc::new(Answer { head: Arc::new(head()), body: Bytes::from_static(b"x") });
    for n in 0..64 {
        cache.store(&[0; 32], embed(&format!("{question} {n}")).unwrap(), Arc::clone(&answer), NOW);
    }
    let vector = embed(&format!("{question} 63")).unwrap();
    c.bench_function("semantic/lookup among 64", |b| b.iter(|| cache.lookup(&[0; 32], black_box(&vector), NOW)));
}

criterion_group!(benches, seats, similar);
criterion_main!(benches);
