//! One purse, one thread, made-up time.

use super::*;

const START: Now = Now::from_nanos(3_600_000_000_000);

fn purse(rpm: u32, burst: u32, tpm: u32) -> (Purse, Limits) {
    let limits = Limits { rpm, burst, tpm, max_parallel: 0 };
    (Purse::new(&limits, START), limits)
}

/// How many of `n` are let in at `now`.
fn admitted(purse: &mut Purse, limits: &Limits, n: usize, now: Now) -> usize {
    purse.refresh(limits, now);
    (0..n).filter(|_| purse.take(0).is_ok()).count()
}

#[test]
fn exactly_the_burst_and_then_exactly_the_rate() {
    let (mut purse, limits) = purse(7, 50, 0);
    assert_eq!(admitted(&mut purse, &limits, 200, START), 50);
    // 7 a minute, asked every 10 ms for 10 minutes: 70, not one more or less however time is cut.
    let mut now = START;
    let mut more = 0;
    for _ in 0..60_000 {
        now = now + Duration::from_millis(10);
        more += admitted(&mut purse, &limits, 3, now);
    }
    assert_eq!(more, 70);
    assert_eq!(admitted(&mut purse, &limits, 200, now + Duration::from_secs(86_400)), 50, "never above the burst");
}

#[test]
fn the_wait_named_is_the_wait_needed() {
    let (mut purse, limits) = purse(7, 1, 0);
    assert!(purse.take(0).is_ok());
    let wait = purse.requests.time_to_cover(1);
    assert_eq!(wait, Duration::from_micros(8_571_429));
    assert_eq!(admitted(&mut purse, &limits, 1, START + wait - Duration::from_micros(1)), 0);
    assert_eq!(admitted(&mut purse, &limits, 1, START + wait), 1);
}

#[test]
fn both_buckets_are_charged_or_neither() {
    let (mut purse, limits) = purse(60, 2, 100);
    assert_eq!(purse.take(90), Ok(Some(90)));
    assert_eq!(purse.take(90), Err(Which::Tokens));
    assert_eq!(purse.requests.whole(), 1, "a request refused for its tokens costs no request");
    assert_eq!(purse.take(10), Ok(Some(10)), "a large ask refused does not block a small one");
    assert_eq!(purse.take(0), Err(Which::Requests));
    assert_eq!(purse.tokens.whole(), 0);
    purse.refresh(&limits, START + Duration::from_secs(1));
    assert_eq!(purse.take(100), Err(Which::Tokens), "one request flowed in, 1.67 tokens did");
    assert_eq!(purse.requests.whole(), 1);
}

#[test]
fn usage_replaces_the_estimate_and_debt_stays() {
    let (mut purse, limits) = purse(0, 0, 600);
    assert_eq!(purse.take(10_000), Ok(Some(600)), "an estimate above the burst needs a full bucket");
    purse.settle(600, 100, START);
    assert_eq!(purse.tokens.whole(), 500);
    assert_eq!(purse.take(500), Ok(Some(500)));
    purse.settle(500, 1_700, START);
    assert_eq!((purse.tokens.whole(), purse.take(1)), (0, Err(Which::Tokens)));
    // 1,200 in debt at ten a second: 120.1 s to the next single token.
    assert_eq!(purse.tokens.time_to_cover(1), Duration::from_millis(120_100));
    purse.refresh(&limits, START + Duration::from_millis(120_099));
    assert_eq!(purse.take(1), Err(Which::Tokens));
    purse.refresh(&limits, START + Duration::from_millis(120_100));
    assert_eq!(purse.take(1), Ok(Some(1)));
}

#[test]
fn a_refund_never_fills_above_the_brim_and_absurd_usage_does_not_overflow() {
    let (mut purse, limits) = purse(0, 0, 600);
    assert_eq!(purse.take(600), Ok(Some(600)));
    purse.settle(600, 0, START + Duration::from_secs(3_600));
    assert_eq!(purse.tokens.whole(), 600);
    for _ in 0..8 {
        purse.settle(0, u64::MAX, START);
    }
    purse.refresh(&limits, START + Duration::from_secs(3_600));
    assert_eq!(purse.take(1), Err(Which::Tokens));
    purse.refresh(&limits, Now::from_nanos(u64::MAX));
    assert_eq!(purse.tokens.whole(), 600, "584 years forgive anything");
}

#[test]
fn changed_limits_cut_balances_and_never_raise_them() {
    let (mut purse, limits) = purse(60, 10, 100);
    assert_eq!(admitted(&mut purse, &limits, 4, START), 4);
    let raised = Limits { burst: 1_000, ..limits };
    purse.refresh(&raised, START);
    assert_eq!((purse.requests.whole(), purse.requests.holds()), (6, 1_000));
    let cut = Limits { burst: 5, ..limits };
    purse.refresh(&cut, START);
    assert_eq!(purse.requests.whole(), 5);
    assert_eq!(admitted(&mut purse, &cut, 9, START), 5);
    // Switched off and on again at once: nothing was forgiven.
    purse.refresh(&Limits::default(), START);
    assert!(purse.take(1_000_000).is_ok(), "no limit");
    purse.refresh(&limits, START);
    assert_eq!(purse.take(0), Err(Which::Requests));
    // Time spent without the limit counts as time.
    purse.refresh(&limits, START + Duration::from_secs(3));
    assert_eq!(purse.requests.whole(), 3);
}

#[test]
fn clocks_of_two_cores_may_disagree() {
    let (mut purse, limits) = purse(60, 1, 0);
    let later = START + Duration::from_secs(10);
    assert_eq!(admitted(&mut purse, &limits, 2, later), 1);
    assert_eq!(admitted(&mut purse, &limits, 2, START), 0);
    assert_eq!(admitted(&mut purse, &limits, 2, later + Duration::from_millis(999)), 0, "no second counted twice");
    assert_eq!(admitted(&mut purse, &limits, 2, later + Duration::from_secs(1)), 1);
}

#[test]
fn the_longer_wait_is_the_one_named() {
    let (mut purse, _) = purse(60, 1, 60);
    assert!(purse.take(60).is_ok());
    assert_eq!(purse.take(1), Err(Which::Requests));
    assert_eq!(purse.take(30), Err(Which::Tokens));
}

#[test]
fn a_key_has_its_own_limits_or_the_defaults() {
    let mut key = Key {
        id: crate::base::KeyId(1),
        name: "k".into(),
        rpm: None,
        burst: None,
        tpm: None,
        max_parallel: Some(3),
        models: None,
        budget_nanos: None,
        expires_unix_ms: None,
    };
    let defaults = Limits { rpm: 100, burst: 7, tpm: 1_000, max_parallel: 0 };
    assert_eq!(Limits::of(&key, &defaults), Limits { rpm: 100, burst: 7, tpm: 1_000, max_parallel: 3 });
    key.rpm = Some(20);
    assert_eq!(Limits::of(&key, &defaults).requests_at_once(), 20);
    key.rpm = Some(0);
    key.tpm = Some(0);
    key.max_parallel = None;
    assert!(Limits::of(&key, &defaults).is_none(), "a key may be free of the defaults");
}
