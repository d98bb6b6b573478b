//! The limiter's promises: once with made-up time, once under the machine's threads, once under the model checker.
//!
//! The invariants are checked by functions that take the thing to check, so that each can be handed a broken one and
//! seen to notice.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const START: Now = Now::from_nanos(3_600_000_000_000);
const KEY: Subject = Subject::Key(KeyId(7));

fn id(n: u64) -> RequestId {
    RequestId { epoch: 1, n }
}

/// A door that decides in two steps: what the limiter must not be.
fn racy(limiter: &Limiter, limits: &Limits, estimate: u64, now: Now) -> Option<Reservation> {
    let purse = limiter.purse(KEY, limits, now);
    let refused = {
        let mut held = purse.lock();
        held.refresh(limits, now);
        held.refuses(estimate)
    };
    #[cfg(not(feature = "shuttle"))]
    {
        // All eight have looked before the first one charges, whatever the scheduler does.
        static STEP: std::sync::Barrier = std::sync::Barrier::new(8);
        STEP.wait();
    }
    let reserved = refused.is_none().then(|| purse.lock().charge(estimate))?;
    Some(Reservation { purse, id: id(0), reserved, recorded: Attempts::default(), via: Via::Purse })
}

fn honest(limiter: &Limiter, limits: &Limits, estimate: u64, now: Now) -> Option<Reservation> {
    limiter.take(KEY, limits, id(0), estimate, now).outcome.ok()
}

type Door = fn(&Limiter, &Limits, u64, Now) -> Option<Reservation>;

fn running(limiter: &Limiter, limits: &Limits) -> u32 {
    limiter.purse(KEY, limits, START).lock().running
}

#[cfg(feature = "shuttle")]
mod model {
    use super::*;
    use shuttle::sync::Arc as Shared;

    /// Three threads at one door with room for two: never three, slots come back, tokens add up.
    fn check(door: Door, settle: fn(Reservation)) {
        shuttle::check_pct(
            move || {
                let limits = Limits { rpm: 60, burst: 2, tpm: 100, max_parallel: 2 };
                let limiter = Shared::new(Limiter::new());
                let seen = Shared::new(AtomicUsize::new(0));
                let inside = Shared::new(AtomicUsize::new(0));
                let threads: Vec<_> = (0..3)
                    .map(|_| {
                        let (limiter, seen, inside) = (limiter.clone(), seen.clone(), inside.clone());
                        shuttle::thread::spawn(move || {
                            if let Some(place) = door(&limiter, &limits, 30, START) {
                                seen.fetch_add(1, Ordering::SeqCst);
                                assert!(inside.fetch_add(1, Ordering::SeqCst) < 2, "more than max_parallel inside");
                                shuttle::thread::yield_now();
                                inside.fetch_sub(1, Ordering::SeqCst);
                                settle(place);
                            }
                        })
                    })
                    .collect();
                for thread in threads {
                    thread.join().unwrap();
                }
                let seen = seen.load(Ordering::SeqCst);
                assert!(seen <= 2, "more than the burst: {seen}");
                assert_eq!(running(&limiter, &limits), 0, "every slot is back");
                let left = limiter.purse(KEY, &limits, START).lock().tokens.whole();
                assert_eq!(left, 100 - 10 * seen as u64, "each admitted request cost what it used");
            },
            2_000,
            3,
        );
    }

    /// A sweep between "found" and "charged" must not make a second purse.
    fn sweeping(sweep: fn(&Limiter, usize) -> usize) {
        shuttle::check_pct(
            move || {
                let limits = Limits { rpm: 60, burst: 1, tpm: 0, max_parallel: 0 };
                let shared = Shared::new((Limiter::new(), AtomicUsize::new(0)));
                let mut threads: Vec<_> = (0..2)
                    .map(|_| {
                        let shared = shared.clone();
                        shuttle::thread::spawn(move || {
                            let admitted = usize::from(honest(&shared.0, &limits, 0, START).is_some());
                            shared.1.fetch_add(admitted, Ordering::SeqCst);
                        })
                    })
                    .collect();
                let sweeper = shared.clone();
                threads.push(shuttle::thread::spawn(move || {
                    for tick in 0..STRIPES {
                        sweep(&sweeper.0, tick);
                    }
                }));
                for thread in threads {
                    thread.join().unwrap();
                }
                assert_eq!(shared.1.load(Ordering::SeqCst), 1, "one purse, one request");
            },
            600,
            3,
        );
    }

    #[test]
    fn model_of_sweeping() {
        sweeping(|limiter, tick| limiter.sweep(tick, START));
    }

    #[test]
    #[should_panic(expected = "one purse, one request")]
    fn model_notices_a_sweep_of_a_purse_in_hand() {
        sweeping(|limiter, tick| limiter.keys.sweep_one(tick, |_, purse| !purse.lock().is_idle(START)));
    }

    fn once(place: Reservation) {
        place.settle(1, 10, START);
    }

    #[test]
    fn model_of_the_limiter() {
        check(honest, once);
    }

    #[test]
    #[should_panic(expected = "more than")]
    fn model_notices_a_decision_in_two_steps() {
        check(racy, once);
    }

    #[test]
    #[should_panic(expected = "each admitted request cost what it used")]
    fn model_notices_a_second_settlement() {
        check(honest, |mut place| {
            place.record(1, 10, START);
            place.purse.lock().settle(0, 10, START);
        });
    }

    #[test]
    #[should_panic(expected = "every slot is back")]
    fn model_notices_a_lost_slot() {
        check(honest, |mut place| {
            place.record(1, 10, START);
            std::mem::forget(place);
        });
    }
}

#[cfg(not(feature = "shuttle"))]
mod plain {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU64;

    /// A small generator of its own, so that a seed replays.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % below
        }
    }

    fn seed() -> u64 {
        std::env::var("MERIDO_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed)
    }

    #[test]
    fn of_200_at_once_exactly_the_burst_gets_in_twenty_times_over() {
        let limits = Limits { rpm: 60, burst: 50, tpm: 0, max_parallel: 0 };
        for _ in 0..20 {
            let limiter = Limiter::new();
            let (admitted, go) = (AtomicUsize::new(0), Barrier::new(8));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        go.wait();
                        for _ in 0..25 {
                            let place = limiter.take(KEY, &limits, id(0), 0, START).outcome;
                            admitted.fetch_add(usize::from(place.is_ok()), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(admitted.into_inner(), 50);
            let later = START + Duration::from_secs(3);
            let more = (0..10).filter(|_| limiter.take(KEY, &limits, id(0), 0, later).outcome.is_ok()).count();
            assert_eq!(more, 3, "then one a second");
        }
    }

    /// Threads take, settle, leave early and retry at one door while time moves in random steps. What came out is
    /// held against what may: see the asserts.
    fn stress(door: Door, settle: fn(Reservation, u64, Now), seed: u64) {
        let limits = Limits { rpm: 6_000, burst: 40, tpm: 60_000, max_parallel: 6 };
        let limiter = Limiter::new();
        let [clock, admitted, used, inside, most] = [const { AtomicU64::new(0) }; 5];
        let now_at = |micros| START + Duration::from_micros(micros);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (limiter, clock, admitted, used, inside, most) =
                    (&limiter, &clock, &admitted, &used, &inside, &most);
                scope.spawn(move || {
                    let mut dice = Dice(seed ^ (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    for _ in 0..6_000 {
                        let now = now_at(clock.fetch_add(dice.roll(400), Ordering::Relaxed));
                        let estimate = dice.roll(300);
                        let Some(place) = door(limiter, &limits, estimate, now) else { continue };
                        admitted.fetch_add(1, Ordering::Relaxed);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        for _ in 0..dice.roll(200) {
                            std::hint::spin_loop();
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if dice.roll(4) == 0 {
                            used.fetch_add(place.reserved(), Ordering::Relaxed);
                        } else {
                            let actual = dice.roll(estimate + 1);
                            used.fetch_add(actual, Ordering::Relaxed);
                            settle(place, actual, now);
                        }
                    }
                });
            }
        });
        let elapsed = clock.into_inner();
        let (admitted, used) = (admitted.into_inner(), used.into_inner());
        assert!(most.into_inner() <= 6, "promise broken: more inside than max_parallel");
        assert!(admitted <= 40 + 6_000 * elapsed / 60_000_000, "promise broken: {admitted} in {elapsed} µs");
        assert!(used <= 60_000 + 60_000 * elapsed / 60_000_000, "promise broken: {used} tokens in {elapsed} µs");
        assert_eq!(running(&limiter, &limits), 0, "every slot is back");
        assert!(admitted > 100, "the door must not be stuck: {admitted}");
    }

    #[test]
    fn a_long_seeded_stress_keeps_every_promise() {
        for round in 0..4 {
            stress(honest, |place, actual, now| place.settle(1, actual, now), seed() + round);
        }
    }

    #[test]
    #[should_panic(expected = "promise broken")]
    fn the_stress_notices_a_decision_in_two_steps() {
        for round in 0..50 {
            stress(racy, |place, actual, now| place.settle(1, actual, now), seed() + round);
        }
    }

    /// Time stands still, so nothing flows in and the books must balance to the token.
    fn books(settle: fn(Reservation, u64)) {
        let limits = Limits { rpm: 0, burst: 0, tpm: 4_000_000, max_parallel: 5 };
        let limiter = Limiter::new();
        let used = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (limiter, used) = (&limiter, &used);
                scope.spawn(move || {
                    let mut dice = Dice(seed() ^ (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    for _ in 0..3_000 {
                        let estimate = dice.roll(100);
                        let Some(place) = honest(limiter, &limits, estimate, START) else { continue };
                        // Half leave at a random point: some never settled, some settled above their estimate.
                        if dice.roll(2) == 0 {
                            used.fetch_add(estimate, Ordering::Relaxed);
                        } else {
                            let actual = dice.roll(150);
                            used.fetch_add(actual, Ordering::Relaxed);
                            settle(place, actual);
                        }
                    }
                });
            }
        });
        let left = limiter.purse(KEY, &limits, START).lock().tokens.whole();
        assert_eq!(4_000_000 - left, used.into_inner(), "the debit is what was used, to the token");
        assert_eq!(running(&limiter, &limits), 0, "every slot is back");
    }

    #[test]
    fn debits_are_right_to_the_token_however_requests_end() {
        books(|place, actual| place.settle(1, actual, START));
    }

    #[test]
    #[should_panic(expected = "to the token")]
    fn the_books_notice_a_second_settlement() {
        books(|mut place, actual| {
            place.record(1, actual, START);
            place.recorded = Attempts::default();
            place.reserved = Some(0);
            place.record(1, actual, START);
        });
    }

    #[test]
    #[should_panic(expected = "to the token")]
    fn the_books_notice_a_forgotten_settlement() {
        books(|place, _| drop(place));
    }

    #[test]
    #[should_panic(expected = "every slot is back")]
    fn the_books_notice_a_lost_slot() {
        books(|mut place, actual| {
            place.record(1, actual, START);
            std::mem::forget(place);
        });
    }

    #[test]
    fn an_attempt_counts_once_and_attempts_add_up() {
        let limits = Limits { rpm: 0, burst: 0, tpm: 1_000, max_parallel: 1 };
        let limiter = Limiter::new();
        let left = || limiter.purse(KEY, &limits, START).lock().tokens.whole();
        let mut place = limiter.take(KEY, &limits, id(1), 300, START).outcome.unwrap();
        assert_eq!((left(), place.reserved()), (700, 300));
        assert!(place.record(1, 100, START));
        assert!(!place.record(1, 100, START), "the same attempt again");
        assert_eq!((left(), place.reserved()), (900, 0));
        assert!(place.record(2, 50, START));
        assert_eq!(left(), 850);
        let refusal = limiter.take(KEY, &limits, id(2), 1, START).outcome.unwrap_err();
        assert_eq!(refusal.which, Which::Parallel, "a recorded request still runs");
        place.settle(2, 50, START);
        assert_eq!(left(), 850);
        drop(limiter.take(KEY, &limits, id(2), 200, START).outcome.unwrap());
        assert_eq!(left(), 650, "who leaves keeps the debit");
    }

    #[test]
    fn headers_tell_of_the_limits_there_are_and_never_rise() {
        let limits = Limits { rpm: 60, burst: 5, tpm: 0, max_parallel: 0 };
        let limiter = Limiter::new();
        let mut last = 5;
        for n in 0..8 {
            let decision = limiter.take(KEY, &limits, id(n), 0, START);
            let quota = decision.headers.requests.unwrap();
            assert_eq!((quota.limit, decision.headers.tokens), (5, None));
            assert!(quota.remaining < last || decision.outcome.is_err() && quota.remaining == 0);
            assert_eq!(quota.reset, Duration::from_secs(5 - quota.remaining));
            last = quota.remaining;
        }
        let refusal = limiter.take(KEY, &limits, id(9), 0, START + Duration::from_millis(400)).outcome.unwrap_err();
        assert_eq!(refusal, Refusal { which: Which::Requests, retry_after: Duration::from_millis(600) });
    }

    #[test]
    fn subjects_do_not_share_a_purse() {
        let limits = Limits { rpm: 1, burst: 1, tpm: 0, max_parallel: 0 };
        let limiter = Limiter::new();
        let addr = |text: &str| Subject::from(text.parse::<std::net::IpAddr>().unwrap());
        let ok = |subject| limiter.take(subject, &limits, id(0), 0, START).outcome.is_ok();
        assert!(ok(Subject::Key(KeyId(1))) && ok(Subject::Key(KeyId(2))));
        assert!(ok(addr("10.0.0.1")) && ok(addr("2001:db8::1")) && ok(addr("2001:db8:0:1::1")));
        assert!(!ok(addr("10.0.0.1")) && !ok(addr("2001:db8::ffff")), "the same /64 is the same caller");
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded_and_is_forgotten() {
        let limits = Limits { rpm: 60, burst: 10, tpm: 0, max_parallel: 0 };
        let limiter = Limiter::new();
        let held = limiter.take(Subject::Addr(Net::V4(0)), &limits, id(0), 0, START).outcome.unwrap();
        for n in 1..200_000 {
            drop(limiter.take(Subject::Addr(Net::V4(n)), &limits, id(0), 0, START));
        }
        let bound = STRIPES * ADDRS_PER_STRIPE;
        assert!(limiter.watched().1 <= bound + 1, "{:?}", limiter.watched());
        drop(limiter.take(KEY, &limits, id(0), 0, START));
        for tick in 0..STRIPES {
            limiter.sweep(tick, START);
        }
        assert!(limiter.watched().1 > bound / 2, "purses that owe something are remembered");
        assert_eq!(limiter.watched().0, 1);
        for tick in 0..STRIPES {
            limiter.sweep(tick, START + Duration::from_secs(1));
        }
        assert_eq!(limiter.watched(), (0, 1), "all full again: only the one with a request in flight stays");
        drop(held);
    }
}
