//! Who is next, by strategy, with seeds.

use super::super::resolve;
use super::super::testing::*;
use super::*;
use crate::state::catalog::{Catalog, Directory};
use crate::state::rest::{Breaker, Cost, Penalty};
use std::collections::HashMap;

const S: Duration = Duration::from_secs(1);
const T0: Now = Now::from_nanos(3_600_000_000_000);
const BREAKER: Breaker = Breaker {
    failures: 5,
    window: Duration::from_secs(30),
    open: Duration::from_secs(30),
    cap: Duration::from_secs(300),
};
const LIMIT: Penalty = Penalty::LockModel(Cost {
    reason: Reason::RateLimited,
    named: None,
    base: Duration::from_secs(10),
    cap: Duration::from_secs(240),
});

/// Providers a (accounts 1, 2), b (3), c (4); model m costs 9, 3, unknown.
fn directory(strategy: Strategy) -> Directory {
    let (a, b, c) = (provider("a", &[("m", 9)]), provider("b", &[("m", 3)]), provider("c", &[("m", 0)]));
    let accounts = vec![account(1, &a, "x", 3), account(2, &a, "y", 1), account(3, &b, "x", 1), account(4, &c, "x", 1)];
    let targets = [("a", "m", None, 5), ("b", "m", None, 3), ("c", "m", None, 2)];
    published(accounts, vec![virtual_model("v", strategy, &targets)])
}

fn plan(directory: &Directory, name: &str) -> Plan {
    let catalog: Arc<Catalog> = directory.catalog();
    resolve(&catalog, None, name).unwrap()
}

/// The accounts that one request would try, in order.
fn order(plan: &Plan, dice: &mut Dice, now: Now) -> Vec<u64> {
    let mut tried = Tried::default();
    let mut all = Vec::new();
    while let Pick::Go(target, _) = pick(plan, &mut tried, dice, now) {
        all.push(target.account().id.0);
    }
    all
}

fn firsts(plan: &Plan, requests: usize) -> HashMap<u64, usize> {
    let mut dice = Dice::new(7);
    let mut counts = HashMap::new();
    for _ in 0..requests {
        *counts.entry(order(plan, &mut dice, T0)[0]).or_default() += 1;
    }
    counts
}

#[track_caller]
fn about(count: Option<&usize>, want: usize) {
    let count = count.copied().unwrap_or(0);
    assert!(count.abs_diff(want) <= want / 10 + 30, "{count}, not about {want}");
}

#[test]
fn failover_goes_in_order_and_tries_each_account_once() {
    let directory = directory(Strategy::Failover);
    let plan = plan(&directory, "v");
    for seed in 0..50 {
        let all = order(&plan, &mut Dice::new(seed), T0);
        let mut first_two = all[..2].to_vec();
        first_two.sort_unstable();
        assert_eq!((first_two, &all[2..]), (vec![1, 2], &[3, 4][..]), "both of a's accounts before b");
    }
}

#[test]
fn load_balance_takes_turns_and_stays_for_sticky_requests() {
    let (a, b) = (provider("a", &[("m", 1)]), provider("b", &[("m", 1)]));
    let mut model = virtual_model("v", Strategy::LoadBalance, &[("a", "m", None, 1), ("b", "m", None, 1)]);
    model.sticky = 3;
    let directory = published(vec![account(1, &a, "x", 1), account(2, &b, "x", 1)], vec![model]);
    let plan = plan(&directory, "v");
    let mut dice = Dice::new(1);
    let turns: Vec<_> = (0..12).map(|_| order(&plan, &mut dice, T0)[0]).collect();
    assert_eq!(turns, [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]);
    assert_eq!(order(&plan, &mut dice, T0), [1, 2], "a retry goes to the other");
}

#[test]
fn weighted_follows_the_weights_and_renormalises_when_one_rests() {
    let directory = directory(Strategy::Weighted);
    let plan = plan(&directory, "v");
    let counts = firsts(&plan, 10_000);
    about(Some(&(counts[&1] + counts[&2])), 5_000);
    about(counts.get(&3), 3_000);
    about(counts.get(&4), 2_000);
    directory.live().of(AccountId(1)).open(&BREAKER, T0, T0);
    directory.live().of(AccountId(2)).open(&BREAKER, T0, T0);
    let counts = firsts(&plan, 10_000);
    about(counts.get(&3), 6_000);
    about(counts.get(&4), 4_000);
}

#[test]
fn cost_optimized_takes_the_cheapest_first_and_the_unknown_last() {
    let directory = directory(Strategy::CostOptimized);
    let all = order(&plan(&directory, "v"), &mut Dice::new(3), T0);
    assert_eq!((all[0], all[3]), (3, 4));
}

#[test]
fn accounts_of_one_provider_share_by_weight_when_idle_and_by_load_when_busy() {
    let directory = directory(Strategy::Failover);
    let plan = plan(&directory, "a/m");
    let counts = firsts(&plan, 10_000);
    about(counts.get(&1), 7_500);
    about(counts.get(&2), 2_500);
    // 1 is three times as strong; with four times the load of 2 the other is the better of two choices.
    let live = directory.live().of(AccountId(1));
    let _running: Vec<_> = (0..4).map(|_| live.enter()).collect();
    let _other = directory.live().of(AccountId(2)).enter();
    let counts = firsts(&plan, 10_000);
    assert!(counts[&2] > 4_000, "{counts:?}: 2 wins whenever both are drawn");
}

#[test]
fn latency_based_tries_everybody_once_and_then_the_fastest() {
    let directory = directory(Strategy::LatencyBased);
    let plan = plan(&directory, "v");
    let mut dice = Dice::new(5);
    let next = |now: Now, dice: &mut Dice| match pick(&plan, &mut Tried::default(), dice, now) {
        Pick::Go(target, _) => target,
        other => panic!("{other:?}"),
    };
    let mut first: Vec<Target> = (0..4).map(|_| next(T0, &mut dice)).collect();
    first.sort_by_key(|target| target.account().id);
    assert_eq!(first.iter().map(|t| t.account().id.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (target, ms) in first.iter().zip([300, 400, 100, 200]) {
        target.answered(Duration::from_millis(ms), T0 + S);
    }
    assert!((0..100).all(|_| next(T0 + S, &mut dice).account().id.0 == 3));
    first[2].failed(T0 + S);
    assert!((0..100).all(|_| next(T0 + S, &mut dice).account().id.0 == 4), "a failure weighs more than a slow answer");
    for (target, ms) in [(&first[3], 200), (&first[2], 200), (&first[0], 300), (&first[1], 400)] {
        target.answered(Duration::from_millis(ms), T0 + 32 * S);
    }
    let mut later: HashMap<u64, usize> = HashMap::new();
    for _ in 0..100 {
        *later.entry(next(T0 + 63 * S, &mut dice).account().id.0).or_default() += 1;
    }
    assert_eq!(later.len(), 4, "all are stale: each is tried by one: {later:?}");
}

#[test]
fn whoever_rests_or_is_locked_is_skipped_and_all_resting_says_until_when() {
    let directory = directory(Strategy::Failover);
    let (direct, v) = (plan(&directory, "a/m"), plan(&directory, "v"));
    let model = match &direct {
        Plan::Direct { model, .. } => model.id(),
        Plan::Virtual(_) => None,
    };
    let live = |id| directory.live().of(AccountId(id));
    live(1).punish(&LIMIT, model, T0, T0);
    assert_eq!(order(&direct, &mut Dice::new(1), T0), [2]);
    live(2).punish(&LIMIT, model, T0, T0 + S);
    let refused = pick(&direct, &mut Tried::default(), &mut Dice::new(1), T0 + S);
    let Pick::AllResting { earliest, why, limits_only } = refused else { panic!("{refused:?}") };
    assert_eq!((earliest, why, limits_only), (T0 + 10 * S, Reason::RateLimited, true));
    let error = refused.refusal(T0 + S).unwrap();
    assert_eq!((error.status(), error.retry_after), (429, Some(9 * S)));
    // The lock is on one model only, and the virtual model has other targets.
    assert_eq!(order(&plan(&directory, "a/other"), &mut Dice::new(1), T0 + S).len(), 2);
    assert_eq!(order(&v, &mut Dice::new(1), T0 + S), [3, 4]);
    live(3).open(&BREAKER, T0, T0);
    live(4).open(&BREAKER, T0, T0);
    let refused = pick(&v, &mut Tried::default(), &mut Dice::new(1), T0 + S);
    let error = refused.refusal(T0 + S).unwrap();
    assert_eq!((error.status(), error.retry_after), (503, Some(9 * S)), "not only limits: 503, earliest resume");
}

#[test]
fn one_probe_enters_a_half_open_account_and_the_rest_go_elsewhere() {
    let directory = directory(Strategy::Failover);
    let plan = plan(&directory, "v");
    for id in [1, 2, 3] {
        directory.live().of(AccountId(id)).open(&BREAKER, T0, T0);
    }
    let now = T0 + 31 * S;
    let mut probes = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..10 {
        let Pick::Go(target, probe) = pick(&plan, &mut Tried::default(), &mut Dice::new(9), now) else { panic!() };
        seen.push(target.account().id.0);
        probes.extend(probe);
    }
    assert_eq!((probes.len(), &seen[2..4]), (3, &[3, 4][..]), "{seen:?}");
    assert!(seen[3..].iter().all(|&id| id == 4));
}

#[test]
fn attempts_are_bounded_and_two_legs_to_one_model_are_one() {
    let a = provider("a", &[("m", 1)]);
    let accounts: Vec<_> = (0..20).map(|n| account(n, &a, &n.to_string(), 1)).collect();
    let targets = [("a", "m", Some("0"), 1), ("a", "m", None, 1), ("a", "m", Some("0"), 1)];
    let directory = published(accounts, vec![virtual_model("v", Strategy::Failover, &targets)]);
    let mut all = order(&plan(&directory, "v"), &mut Dice::new(2), T0);
    assert_eq!((all.len(), all[0]), (MOST_ATTEMPTS, 0));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), MOST_ATTEMPTS);
}

/// Random rests and strategies: whoever is picked is neither resting nor tried, and when nobody is, nobody could be.
#[test]
fn no_pick_ever_rests_or_repeats() {
    for seed in 0..300u64 {
        let mut dice = Dice::new(seed);
        let strategies = [
            Strategy::Failover,
            Strategy::LoadBalance,
            Strategy::Weighted,
            Strategy::CostOptimized,
            Strategy::LatencyBased,
        ];
        let directory = directory(strategies[dice.roll(5) as usize]);
        let plan = plan(&directory, if dice.roll(4) == 0 { "a/m" } else { "v" });
        let Plan::Virtual(route) = self::plan(&directory, "v") else { panic!() };
        let id = route.legs[0].model.id();
        let mut now = T0;
        for _ in 0..30 {
            now = now + Duration::from_millis(dice.roll(20_000));
            let hurt = directory.live().of(AccountId(1 + dice.roll(4)));
            if dice.roll(2) == 0 {
                hurt.punish(&LIMIT, id, now, now + S);
            } else {
                hurt.open(&BREAKER, now, now);
            }
            let mut tried = Tried::default();
            let mut seen = Vec::new();
            let mut probes = Vec::new();
            loop {
                let awake: Vec<u64> = (1..=4)
                    .filter(|&n| matches!(plan, Plan::Virtual(_)) || n <= 2)
                    .filter(|&n| !seen.contains(&n) && directory.live().of(AccountId(n)).resting(id, now).is_none())
                    .collect();
                match pick(&plan, &mut tried, &mut dice, now) {
                    Pick::Go(target, probe) => {
                        let n = target.account().id.0;
                        assert!(awake.contains(&n), "seed {seed}: {n} of {awake:?}");
                        seen.push(n);
                        probes.extend(probe);
                    }
                    other => {
                        assert!(awake.is_empty(), "seed {seed}: {other:?} while {awake:?} are awake");
                        if let Pick::AllResting { earliest, .. } = other {
                            assert!(earliest > now, "seed {seed}");
                        }
                        break;
                    }
                }
            }
        }
    }
}
