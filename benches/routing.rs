//! What routing costs a request: looking a name up, asking eight candidates whether they rest, picking one.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, criterion_group, criterion_main};
use merido::base::{AccountId, ModelId, Now, VirtualModelId};
use merido::dialect::Dialect;
use merido::routing::{Dice, Plan, Tried, pick, resolve};
use merido::state::catalog::{
    Account, Auth, BaseUrl, Catalog, Directory, Model, Provider, Strategy, VirtualModel, VirtualTarget,
};
use merido::state::rest::{Breaker, Cost, Penalty, Reason};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const T0: Now = Now::from_nanos(3_600_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const LOCK: Penalty =
    Penalty::LockModel(Cost { reason: Reason::RateLimited, named: Some(HOUR), base: HOUR, cap: HOUR });
const BREAKER: Breaker = Breaker { failures: 5, window: Duration::from_secs(30), open: HOUR, cap: HOUR };
const STRATEGIES: [Strategy; 5] =
    [Strategy::Failover, Strategy::LoadBalance, Strategy::Weighted, Strategy::CostOptimized, Strategy::LatencyBased];

/// One provider `p` with eight accounts and a model `m`; a virtual model of eight pinned targets for each strategy.
fn directory() -> Directory {
    let model = Arc::new(Model { name: "m".into(), id: ModelId::of("m"), context: 0, max_output: 0, price: None });
    let provider = Arc::new(Provider {
        name: "p".into(),
        dialect: Dialect::OpenAi,
        auth: Auth::Bearer,
        http2: false,
        models: [("m".into(), model)].into_iter().collect(),
    });
    let accounts = (0..8).map(|n| {
        Arc::new(Account {
            id: AccountId(n),
            provider: Arc::clone(&provider),
            label: n.to_string().into(),
            weight: 1,
            base: BaseUrl::parse("http://127.0.0.1:1").unwrap(),
            credential: None,
        })
    });
    let virtual_models = STRATEGIES.map(|strategy| VirtualModel {
        id: VirtualModelId(0),
        name: strategy.name().into(),
        strategy,
        sticky: 1,
        targets: (0..8)
            .map(|n| VirtualTarget {
                provider: "p".into(),
                model: "m".into(),
                account: Some(n.to_string().into()),
                weight: 1 + n,
            })
            .collect(),
    });
    let directory = Directory::new();
    directory.publish(Catalog::build(accounts.collect(), virtual_models.into()));
    directory
}

fn check(c: &mut Criterion) {
    let mut group = c.benchmark_group("check 8 candidates");
    let model = Some(ModelId::of("m"));
    for (name, hurt) in [("healthy", 0), ("all locked", 1), ("all cooling", 2), ("another model locked", 3)] {
        let directory = directory();
        for n in 0..8 {
            let live = directory.live().of(AccountId(n));
            match hurt {
                1 => drop(live.punish(&LOCK, model, T0, T0)),
                2 => drop(live.open(&BREAKER, T0, T0)),
                3 => drop(live.punish(&LOCK, Some(ModelId(1)), T0, T0)),
                _ => {}
            }
        }
        let catalog = directory.catalog();
        let Plan::Direct { seats, .. } = resolve(&catalog, None, "p/m").unwrap() else { return };
        let now = T0 + Duration::from_secs(1);
        group.bench_function(name, |b| {
            b.iter(|| seats.all.iter().filter(|seat| seat.live.resting(black_box(model), now).is_none()).count());
        });
    }
}

fn names(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve");
    let catalog = directory().catalog();
    for name in ["p/m", "m", "failover", "p/unlisted"] {
        group.bench_function(name, |b| b.iter(|| resolve(&catalog, None, black_box(name)).is_ok()));
    }
}

fn picks(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick of 8");
    let directory = directory();
    let catalog = directory.catalog();
    let now = T0 + Duration::from_secs(1);
    for name in ["p/m", "failover", "load_balance", "weighted", "cost_optimized", "latency_based"] {
        let plan = resolve(&catalog, None, name).unwrap();
        let mut dice = Dice::new(1);
        if let Plan::Virtual(route) = &plan {
            route.legs.iter().flat_map(|leg| &leg.speeds).for_each(|s| s.observe(Duration::from_millis(200), now));
        }
        group.bench_function(name, |b| b.iter(|| pick(&plan, &mut Tried::default(), &mut dice, black_box(now))));
    }
    let live = directory.live().of(AccountId(0));
    let model = Some(ModelId::of("m"));
    group.bench_function("succeed, all well", |b| b.iter(|| live.succeed(black_box(model), now, now)));
}

criterion_group!(benches, check, names, picks);
criterion_main!(benches);
