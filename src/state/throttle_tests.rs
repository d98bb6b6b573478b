//! Guesses against the throttle, in made-up time.

use super::*;

const START: Now = Now::from_nanos(3_600_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn net(n: u32) -> Net {
    Net::V4(0x0a00_0000 + n)
}

/// How many of `n` wrong guesses are looked at.
fn wrong(throttle: &Throttle, net: Net, n: usize, now: Now) -> usize {
    (0..n).filter(|_| throttle.attempt(net, now).is_ok()).count()
}

fn wait(throttle: &Throttle, net: Net, now: Now) -> Duration {
    throttle.attempt(net, now).unwrap_err().retry_after
}

#[test]
fn five_guesses_then_five_ten_and_fifteen_minutes_of_silence() {
    let throttle = Throttle::new();
    let mut now = START;
    for expected in [5, 10, 15, 15] {
        assert_eq!(wrong(&throttle, net(1), 100, now), 5);
        assert_eq!(wait(&throttle, net(1), now), expected * MINUTE);
        now = now + expected * MINUTE - Duration::from_millis(1);
        assert_eq!(wait(&throttle, net(1), now), Duration::from_secs(1), "never less than a second");
        now = now + Duration::from_millis(1);
    }
    now = now + 2 * FORGIVEN;
    assert_eq!(wrong(&throttle, net(1), 100, now), 5);
    assert_eq!(wait(&throttle, net(1), now), 5 * MINUTE, "an hour of peace forgives");
}

#[test]
fn slow_guesses_slide_out_of_the_window() {
    let throttle = Throttle::new();
    let mut now = START;
    for _ in 0..100 {
        assert_eq!(wrong(&throttle, net(1), 1, now), 1, "four in five minutes are allowed for ever");
        now = now + Duration::from_secs(75);
    }
}

#[test]
fn twenty_from_anywhere_silence_strangers_but_not_those_we_know() {
    let throttle = Throttle::new();
    let home = throttle.attempt(net(900), START).unwrap();
    throttle.succeeded(home, START);
    let now = START + 24 * 60 * MINUTE;
    let looked_at: usize = (0..50).map(|n| wrong(&throttle, net(n), 1, now)).sum();
    assert_eq!(looked_at, 20);
    assert_eq!(wait(&throttle, net(77), now), 5 * MINUTE);
    assert_eq!(wrong(&throttle, net(900), 100, now), 5, "known: only its own count");
    assert_eq!(wrong(&throttle, Net::V4(0x7f00_0001), 100, now), 5, "loopback too");
    assert_eq!(wait(&throttle, net(77), now + 4 * MINUTE), MINUTE, "and neither fed the count over all");
    let much_later = START + KNOWN_FOR;
    assert_eq!((0..50).map(|n| wrong(&throttle, net(n), 1, much_later)).sum::<usize>(), 20);
    assert!(throttle.attempt(net(900), much_later).is_err(), "30 days later a stranger again");
}

#[test]
fn a_right_password_is_refunded_even_when_it_filled_the_count() {
    let throttle = Throttle::new();
    assert_eq!(wrong(&throttle, net(1), 4, START), 4);
    let right = throttle.attempt(net(1), START + MINUTE).unwrap();
    assert!(throttle.attempt(net(1), START + MINUTE).is_err(), "counted before it is looked at");
    throttle.succeeded(right, START + MINUTE);
    assert_eq!(wrong(&throttle, net(1), 100, START + MINUTE), 5, "a fresh start");

    let throttle = Throttle::new();
    let looked_at: usize = (0..19).map(|n| wrong(&throttle, net(n), 1, START)).sum();
    assert_eq!(looked_at, 19);
    let twentieth = throttle.attempt(net(50), START).unwrap();
    assert!(throttle.attempt(net(51), START).is_err());
    throttle.not_judged(twentieth);
    assert_eq!(wrong(&throttle, net(51), 2, START), 1, "the twentieth never was");
    assert_eq!(wait(&throttle, net(52), START), 5 * MINUTE, "and its refusal was no first one");
}

#[test]
fn a_flood_of_addresses_costs_no_memory() {
    let throttle = Throttle::new();
    for n in 0..100_000 {
        drop(throttle.attempt(net(n), START));
    }
    assert_eq!(throttle.sweep(START), OVERALL);
    for n in 0..5_000 {
        throttle.remember(net(n), START + n * Duration::from_secs(1));
    }
    assert_eq!(throttle.book.lock().known.len(), KNOWN_AT_MOST);
    assert!(throttle.book.lock().known.contains_key(&net(4_999)), "the newest stay");
    assert_eq!(throttle.sweep(START + 2 * FORGIVEN), 0);
    throttle.sweep(START + KNOWN_FOR + 5_000 * MINUTE);
    assert!(throttle.book.lock().known.is_empty());
}

#[cfg(not(feature = "shuttle"))]
#[test]
fn parallel_guesses_are_not_free() {
    for _ in 0..50 {
        let throttle = Throttle::new();
        let looked_at: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| wrong(&throttle, net(1), 10, START))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(looked_at, 5);
    }
}

#[cfg(feature = "shuttle")]
#[test]
fn model_of_the_throttle() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    shuttle::check_pct(
        || {
            let shared = Arc::new((Throttle::new(), AtomicUsize::new(0)));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    shuttle::thread::spawn(move || {
                        let looked_at = wrong(&shared.0, net(1), 3, START);
                        shared.1.fetch_add(looked_at, Ordering::SeqCst);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(shared.1.load(Ordering::SeqCst), 5);
        },
        500,
        3,
    );
}
