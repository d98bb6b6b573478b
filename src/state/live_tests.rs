//! The live records under threads, messages and operators.

use super::*;
use crate::state::rest::{Cost, TOMBSTONE};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const T0: Now = Now::from_nanos(3_600_000_000_000);
const A: AccountId = AccountId(1);
const M: ModelId = ModelId(7);
const LIMIT: Cost = Cost { reason: Reason::RateLimited, named: None, base: S, cap: Duration::from_secs(240) };
const AUTH: Cost =
    Cost { reason: Reason::Credentials, named: None, base: Duration::from_secs(120), cap: Duration::from_secs(1800) };
const BREAKER: Breaker = Breaker {
    failures: 5,
    window: Duration::from_secs(30),
    open: Duration::from_secs(30),
    cap: Duration::from_secs(300),
};

fn threads<R: Send>(n: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let barrier = std::sync::Barrier::new(n);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..n)
            .map(|i| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(i)
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn names_outside_the_catalog_create_no_lock() {
    let live = Live::new();
    for _ in 0..1000 {
        assert_eq!(live.of(A).punish(&Penalty::LockModel(LIMIT), None, T0, T0), Outcome::default());
    }
    assert_eq!((live.of(A).lock_count(), live.resting(T0).len()), (0, 0));
}

#[test]
fn fifty_in_flight_are_told_once_from_any_thread() {
    for _ in 0..50 {
        let account = Live::new().of(A);
        let told: usize = threads(5, |_| {
            (0..10).filter(|_| account.punish(&Penalty::LockModel(LIMIT), Some(M), T0, T0 + S).delta.is_some()).count()
        })
        .iter()
        .sum();
        assert_eq!(told, 1);
        assert_eq!(account.succeed(Some(M), T0, T0 + 2 * S), [None, None], "an old slow success");
        assert!(account.resting(Some(M), T0 + S).is_some());
    }
}

#[test]
fn a_half_open_account_lets_exactly_one_of_many_threads_in() {
    for round in 0..200u32 {
        let account = Arc::new(AccountLive::new(A));
        assert!(account.open(&BREAKER, T0, T0).is_some());
        let t = T0 + (31 + round) * S;
        let probes: Vec<_> = threads(4, |_| account.admit(t)).into_iter().filter_map(Result::ok).collect();
        assert_eq!(probes.len(), 1);
        assert!(probes[0].is_some());
        drop(probes);
        assert!(account.admit(t).is_ok_and(|probe| probe.is_some()), "dropped without a verdict: the next probes");
    }
}

#[test]
fn no_thread_enters_beside_a_probe_that_fails_or_succeeds() {
    // Each thread that is let in as a probe counts itself; two at once, or one let in during a rest, is the fault.
    for round in 0..300u32 {
        let account = Arc::new(AccountLive::new(A));
        account.open(&BREAKER, T0, T0);
        let t = T0 + 40 * S;
        let inside = AtomicU32::new(0);
        let let_in: Vec<u32> = threads(4, |i| {
            let mut count = 0;
            for step in 0..20u32 {
                let now = t + Duration::from_micros(u64::from(step));
                let Ok(probe) = account.admit(now) else { continue };
                let Some(probe) = probe else { continue };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two probes at once");
                count += 1;
                if (round as usize + i).is_multiple_of(2) {
                    account.punish(&Penalty::CountFailure(BREAKER), None, now, now + Duration::from_nanos(1));
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(probe);
            }
            count
        });
        let rest = account.cooldown.rest(t).unwrap();
        if rest.level > 0 {
            assert_eq!(rest.level, 1, "once it failed nobody else may come in: {let_in:?}");
        }
    }
}

#[test]
fn lists_tell_who_rests_and_unlocking_is_told_once() {
    let live = Live::new();
    live.of(A).punish(&Penalty::CoolAccount(AUTH), None, T0, T0);
    live.of(A).punish(&Penalty::LockModel(LIMIT), Some(M), T0, T0);
    live.of(AccountId(2)).punish(&Penalty::LockModel(LIMIT), Some(M), T0, T0);
    let rows = live.resting(T0);
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].account, rows[0].model, rows[0].until), (A, None, T0 + 120 * S));
    assert_eq!((rows[1].model, rows[1].reason.name()), (Some(M), "rate_limited"));
    assert_eq!(live.resting(T0 + S).len(), 1, "ended locks are no longer listed");
    assert_eq!(live.unlock(A, T0).len(), 2);
    assert_eq!(live.unlock(A, T0), []);
    assert!(live.unlock_model(AccountId(2), M, T0).is_some());
    assert_eq!(live.unlock_model(AccountId(2), M, T0), None);
    assert_eq!(live.unlock_model(AccountId(3), M, T0), None);
    assert_eq!(live.resting(T0), []);
    assert_eq!(live.snapshot(T0).len(), 3, "the tombstones are in the snapshot");
    assert_eq!(live.of(A).resting(Some(M), T0), None);
}

#[test]
fn accounts_that_are_gone_are_forgotten_once_their_rests_are() {
    let live = Live::new();
    live.of(A).punish(&Penalty::LockModel(LIMIT), Some(M), T0, T0);
    live.of(AccountId(2));
    live.retain(|_| false, T0);
    assert_eq!(live.records().len(), 1);
    let later = T0 + TOMBSTONE + 2 * S;
    (0..64).for_each(|index| live.sweep(index, later));
    live.retain(|_| false, later);
    assert!(live.records().is_empty());
}

#[test]
fn attempts_are_counted_while_they_run() {
    let account = Live::new().of(A);
    let (one, two) = (account.enter(), account.enter());
    assert_eq!(account.running(), 2);
    drop((one, two));
    assert_eq!(account.running(), 0);
}

#[test]
fn accounts_that_only_others_name_are_not_remembered_without_end() {
    let live = Live::new();
    live.of(A);
    let rest = Rest { generation: 1, until: T0 + S, level: 1, reason: Reason::Failing, keep: T0 + S };
    let named = |account| Delta { account: AccountId(account), model: None, rest, since: Delta::LONG_AGO };
    let heard = (2..200_000).filter(|&account| live.apply(&named(account), T0)).count();
    assert!(heard <= 65_536 && live.records().len() <= 65_537, "{heard}");
    assert!(live.apply(&named(A.0), T0), "known ones are heard of all the same");
}
