//! What a request pays when the tables are very full: a million keys, five thousand virtual models, a thousand accounts.
//! `cargo bench --bench extremes`. Prints a table; each row is the same work on a small table and on the large one.
//!
//! Memory is counted by the allocator, so it is what the table asked for, without what the heap rounds up.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use merido::base::seal::key_hash;
use merido::base::{AccountId, Clock, KeyId, ModelId, Now, RequestId, VirtualModelId};
use merido::dialect::Dialect;
use merido::routing::{Dice, Tried, pick, resolve};
use merido::state::buckets::Limits;
use merido::state::catalog::{
    Account, Auth, BaseUrl, Catalog, Directory, Key, Model, Provider, Strategy, VirtualModel, VirtualTarget,
};
use merido::state::limiter::Limiter;
use merido::state::subject::Subject;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ID: RequestId = RequestId { epoch: 1, n: 1 };
const WIDE: Limits = Limits { rpm: 60_000, burst: 60_000, tpm: 1_000_000, max_parallel: 100 };
const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
/// Stripes a sweep goes through, one a second.
const ROUND: usize = 64;

/// Nanoseconds of one of `rounds` runs of `work`, the best of five tries: what disturbs only ever adds.
fn ns(rounds: u64, mut work: impl FnMut(u64)) -> f64 {
    let tries = (0..5).map(|_| {
        let start = Clock::now();
        (0..rounds).for_each(&mut work);
        Clock::now().since(start).as_nanos() as f64 / rounds as f64
    });
    tries.fold(f64::INFINITY, f64::min)
}

/// Bytes the heap holds more after `work` than before.
fn held<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let region = Region::new(HEAP);
    let made = work();
    let change = region.change();
    (made, change.bytes_allocated as f64 - change.bytes_deallocated as f64)
}

fn row(what: &str, small: f64, large: f64) {
    println!("| {what} | {small:.0} | {large:.0} |");
}

/// A key of a spread-out order: neighbours in time are no neighbours in memory.
fn scattered(n: u64, of: u64) -> u64 {
    n.wrapping_mul(7_919) % of
}

fn limiter(keys: u64, now: Now) -> (Limiter, f64) {
    held(|| {
        let limiter = Limiter::new();
        for n in 0..keys {
            drop(limiter.take(Subject::Key(KeyId(n)), &WIDE, ID, 0, now));
        }
        limiter
    })
}

fn limits() {
    let now = Clock::now();
    let (few, few_bytes) = limiter(FEW, now);
    let (many, many_bytes) = limiter(MANY, now);
    row("limiter: bytes a key", few_bytes / FEW as f64, many_bytes / MANY as f64);
    let whole = |limiter: &Limiter, keys: u64| {
        ns(200_000, |n| {
            if let Ok(place) = limiter.take(Subject::Key(KeyId(scattered(n, keys))), &WIDE, ID, 500, now).outcome {
                place.settle(1, 400, now);
            }
        })
    };
    row("limiter: take, settle, give back, ns", whole(&few, FEW), whole(&many, MANY));
    let sweep = |limiter: &Limiter, now: Now| {
        let mut longest = 0.0f64;
        let mut dropped = 0;
        for tick in 0..ROUND {
            let start = Clock::now();
            dropped += limiter.sweep(tick, now);
            longest = longest.max(Clock::now().since(start).as_nanos() as f64 / 1000.0);
        }
        (longest, dropped)
    };
    row("limiter: longest sweep of a stripe that keeps all, µs", sweep(&few, now).0, sweep(&many, now).0);
    let later = now + Duration::from_secs(3600);
    let ((few_us, few_gone), (many_us, many_gone)) = (sweep(&few, later), sweep(&many, later));
    row("limiter: longest sweep of a stripe that forgets all, µs", few_us, many_us);
    row("limiter: forgotten by that", few_gone as f64, many_gone as f64);
}

fn key(n: u64) -> (String, Key) {
    let key = Key {
        id: KeyId(n),
        name: format!("key-{n}").into(),
        rpm: Some(60_000),
        burst: None,
        tpm: Some(1_000_000),
        max_parallel: None,
        models: None,
        budget_nanos: None,
        expires_unix_ms: None,
    };
    (format!("mrd_{n:040}"), key)
}

fn keys() {
    let fill = |count: u64| {
        held(|| {
            let directory = Directory::new();
            for n in 0..count {
                let (plain, key) = key(n);
                directory.put_key(key_hash(&plain), key);
            }
            directory
        })
    };
    let ((few, few_bytes), (many, many_bytes)) = (fill(FEW), fill(MANY));
    row("keys: bytes a key", few_bytes / FEW as f64, many_bytes / MANY as f64);
    let hashes = |of: u64| (0..1024).map(|n| key_hash(&key(scattered(n * 31, of)).0)).collect::<Vec<_>>();
    let find = |directory: &Directory, of: u64| {
        let hashes = hashes(of);
        ns(200_000, |n| drop(black_box(directory.key(&hashes[n as usize % hashes.len()]))))
    };
    row("keys: look-up by hash, ns", find(&few, FEW), find(&many, MANY));
}

fn catalog(accounts: u64, models: usize) -> Catalog {
    let model = Arc::new(Model { name: "m".into(), id: ModelId::of("m"), context: 0, max_output: 0, price: None });
    let provider = Arc::new(Provider {
        name: "p".into(),
        dialect: Dialect::OpenAi,
        auth: Auth::Bearer,
        http2: false,
        models: [("m".into(), model)].into_iter().collect(),
    });
    let accounts = (0..accounts).map(|n| {
        Arc::new(Account {
            id: AccountId(n),
            provider: Arc::clone(&provider),
            label: n.to_string().into(),
            weight: 1,
            base: BaseUrl::parse("http://127.0.0.1:1").unwrap(),
            credential: None,
        })
    });
    let target =
        |label: &str| VirtualTarget { provider: "p".into(), model: "m".into(), account: Some(label.into()), weight: 1 };
    let virtual_models = (0..models).map(|n| VirtualModel {
        id: VirtualModelId(n as u64),
        name: format!("model-{n}").into(),
        strategy: Strategy::LoadBalance,
        sticky: 1,
        targets: vec![target("0"), target("1")],
    });
    Catalog::build(accounts.collect(), virtual_models.collect())
}

fn routes() {
    let now = Clock::now();
    let publish = |accounts, models| {
        let start = Clock::now();
        let (directory, bytes) = held(|| {
            let directory = Directory::new();
            directory.publish(catalog(accounts, models));
            directory
        });
        (directory, bytes, Clock::now().since(start).as_nanos() as f64 / 1000.0)
    };
    let (few, few_bytes, few_us) = publish(2, 1);
    let (many, many_bytes, many_us) = publish(1_000, 5_000);
    row("catalog of 2 accounts, 1 model / 1,000, 5,000: KiB", few_bytes / 1024.0, many_bytes / 1024.0);
    row("catalog: build and publish, µs", few_us, many_us);
    let route = |directory: &Directory, name: &str| {
        let mut dice = Dice::new(1);
        ns(200_000, |_| {
            let catalog = directory.catalog();
            let plan = resolve(&catalog, None, black_box(name)).unwrap();
            black_box(pick(&plan, &mut Tried::default(), &mut dice, now));
        })
    };
    row("virtual model of two targets: resolve and pick, ns", route(&few, "model-0"), route(&many, "model-0"));
    row("a provider's model over all its accounts: resolve and pick, ns", route(&few, "p/m"), route(&many, "p/m"));
}

fn main() {
    println!("| 1,000 keys, small catalog / 1,000,000 keys, large catalog | small | large |\n|---|--:|--:|");
    limits();
    keys();
    routes();
}
