//! What a request pays at the limits: alone, and with every core at one key. `cargo bench --bench limits`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use merido::base::{AccountId, Clock, KeyId, Now, RequestId};
use merido::state::buckets::Limits;
use merido::state::budgets::Budgets;
use merido::state::desk::{Desk, LimitReply, Policy};
use merido::state::lease::Turn;
use merido::state::limit_headers::{Family, for_each};
use merido::state::limiter::{Decision, Limiter, Taken};
use merido::state::live::AccountLive;
use merido::state::outbox::{Outbox, Tell};
use merido::state::reach::Reach;
use merido::state::subject::{Net, Subject};
use merido::state::throttle::Throttle;
use merido::state::unknown_keys::UnknownKeys;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Duration;

const ID: RequestId = RequestId { epoch: 1, n: 1 };
const WIDE: Limits = Limits { rpm: 60_000_000, burst: 100_000_000, tpm: u32::MAX, max_parallel: 1_000 };
const KEYS: u64 = 10_000;

/// Time for `rounds` of `work` on each of all cores at once: from the first start to the last end.
fn on_all_cores(rounds: u64, work: impl Fn(usize) + Sync) -> Duration {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let gate = Barrier::new(cores);
    let (gate, work) = (&gate, &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    gate.wait();
                    let start = Clock::now();
                    for _ in 0..rounds {
                        work(core);
                    }
                    (start, Clock::now())
                })
            })
            .collect();
        let times: Vec<(Now, Now)> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        let start = times.iter().map(|(start, _)| *start).min().unwrap_or_default();
        times.iter().map(|(_, end)| *end).max().unwrap_or_default().since(start)
    })
}

fn buckets(c: &mut Criterion) {
    let now = Clock::now();
    let limiter = Limiter::new();
    for n in 0..KEYS {
        drop(limiter.take(Subject::Key(KeyId(n)), &WIDE, ID, 0, now));
    }
    let mut group = c.benchmark_group("limits");
    let mut n = 0u64;
    // The reservations are settled outside the time measured.
    group.bench_function("take, one of 10,000 keys", |b| {
        b.iter_batched_ref(
            || {
                n += 7_919;
                (KeyId(n % KEYS), None)
            },
            |(key, kept)| *kept = Some(limiter.take(Subject::Key(*key), &WIDE, ID, 500, now)),
            BatchSize::SmallInput,
        );
    });
    let key = Subject::Key(KeyId(1));
    group.bench_function("take, the same key", |b| {
        b.iter_batched_ref(|| None, |kept| *kept = Some(limiter.take(key, &WIDE, ID, 500, now)), BatchSize::SmallInput);
    });
    let whole = |key| {
        if let Ok(place) = limiter.take(key, &WIDE, ID, 500, now).outcome {
            place.settle(1, 400, now);
        }
    };
    group.bench_function("take + settle + give back", |b| b.iter(|| whole(black_box(key))));
    group.bench_function("take + settle + give back, all cores, one key", |b| {
        b.iter_custom(|rounds| on_all_cores(rounds, |_| whole(black_box(key))));
    });
    group.bench_function("take + settle + give back, all cores, own keys", |b| {
        b.iter_custom(|rounds| on_all_cores(rounds, |core| whole(Subject::Key(KeyId(core as u64)))));
    });
    let tight = Limits { rpm: 1, burst: 1, tpm: 0, max_parallel: 0 };
    let spent = Subject::Key(KeyId(KEYS));
    drop(limiter.take(spent, &tight, ID, 0, now));
    group.bench_function("refused", |b| b.iter(|| limiter.take(spent, &tight, ID, 0, now)));
    group.bench_function("refused, all cores, one key", |b| {
        b.iter_custom(|rounds| on_all_cores(rounds, |_| drop(black_box(limiter.take(spent, &tight, ID, 0, now)))));
    });
    let headers = limiter.take(key, &WIDE, ID, 500, now).headers;
    group.bench_function("headers, both families", |b| {
        b.iter(|| {
            for family in [Family::OpenAi, Family::Anthropic] {
                for_each(&headers, family, 1_767_225_599_000, |name, value| {
                    black_box((name, value));
                });
            }
        });
    });
    group.finish();
}

/// Instances of a cluster: paid from a lease in hand. What Redis would say is made up, and it is always generous.
fn leased(c: &mut Criterion) {
    let mut now = Clock::now();
    let reach = Arc::new(Reach::new());
    reach.set(true, None, now);
    let desk = Arc::new(Desk::new(Arc::default(), reach, Arc::default(), Policy::Open, 1));
    let limiter = Limiter::shared(Arc::clone(&desk));
    let answer = |now: Now| {
        let plenty = u64::from(u32::MAX);
        for account in desk.take().0 {
            if let Some(call) = account.call(Turn::Listed, now) {
                let reply = LimitReply {
                    start: (1 << 50, 1 << 50),
                    verdicts: vec![b'0'; call.asks.len()],
                    kept: call.held,
                    leased: (plenty, plenty * 1_000),
                    slots: u32::MAX,
                };
                account.answered(&desk, Some(&reply), now);
            }
        }
    };
    let key = Subject::Key(KeyId(1));
    let mut group = c.benchmark_group("limits");
    group.bench_function("leased: ask + settle + give back", |b| {
        b.iter_custom(|rounds| {
            // A lease lapses by the clock that asks bring: it stands still while they are timed.
            now = now + Duration::from_millis(300);
            let _waits = limiter.ask(key, &WIDE, ID, 500, now);
            answer(now);
            let start = Clock::now();
            let mut paid = 0;
            for _ in 0..rounds {
                if let Taken::Now(Decision { outcome: Ok(place), .. }) =
                    limiter.ask(black_box(key), &WIDE, ID, 500, now)
                {
                    place.settle(1, 500, now);
                    paid += 1;
                }
            }
            let took = Clock::now().since(start);
            assert_eq!(paid, rounds, "all are paid from the lease");
            took
        });
    });
    group.finish();
}

fn counters(c: &mut Criterion) {
    let mut group = c.benchmark_group("limits");
    let live = Arc::new(AccountLive::new(AccountId(1)));
    group.bench_function("running: enter + leave", |b| b.iter(|| drop(black_box(live.enter()))));
    group.bench_function("running: enter + leave, all cores, one account", |b| {
        b.iter_custom(|rounds| on_all_cores(rounds, |_| drop(black_box(live.enter()))));
    });
    let budgets = Budgets::new();
    let spend = |key| {
        if let Ok(hold) = budgets.reserve(key, i64::MAX, 1_000) {
            hold.settle(1, 1);
        }
    };
    group.bench_function("budget: reserve + settle", |b| b.iter(|| spend(black_box(KeyId(1)))));
    group.bench_function("budget: reserve + settle, all cores, one key", |b| {
        b.iter_custom(|rounds| on_all_cores(rounds, |_| spend(KeyId(1))));
    });
    group.finish();
}

#[derive(Debug)]
struct Told;

impl Tell for Told {
    type Key = ();
    fn key(&self) {}
    fn merge(&mut self, _: Self) {}
}

fn doors(c: &mut Criterion) {
    let mut group = c.benchmark_group("limits");
    let now = Clock::now();
    let throttle = Throttle::new();
    group.bench_function("throttle: attempt + success", |b| {
        b.iter(|| {
            if let Ok(attempt) = throttle.attempt(Net::V4(1), now) {
                throttle.succeeded(attempt, now);
            }
        });
    });
    for n in 0..5 {
        drop(throttle.attempt(Net::V4(2), now + Duration::from_secs(n)));
    }
    let later = now + Duration::from_secs(10);
    group.bench_function("throttle: refused", |b| b.iter(|| throttle.attempt(Net::V4(2), later).is_err()));
    let unknown = UnknownKeys::new(Duration::from_secs(10));
    unknown.learn([7; 32], now);
    group.bench_function("unknown keys: hit", |b| b.iter(|| unknown.contains(black_box(&[7; 32]), now)));
    let mut n = 0u64;
    group.bench_function("unknown keys: learn, table full", |b| {
        b.iter(|| {
            n += 1;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            unknown.learn(hash, now);
        });
    });
    let closed: Outbox<Told> = Outbox::closed();
    group.bench_function("outbox: tell, closed", |b| b.iter(|| black_box(&closed).tell(Told)));
    let (open, _tells) = Outbox::open(64, std::sync::Arc::default());
    group.bench_function("outbox: tell, open, merged", |b| b.iter(|| black_box(&open).tell(Told)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = buckets, leased, counters, doors
}
criterion_main!(benches);
