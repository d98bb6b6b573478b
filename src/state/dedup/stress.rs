//! The scenario on real threads, seeded: `MERIDO_TEST_SEED` replays one.

use super::{Claim, Dedup, Follower, Leader, Limits, Name, Seat, Step};
use std::sync::atomic::Ordering::SeqCst;

#[path = "scenario.rs"]
mod scenario;

mod rt {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::Thread;

    thread_local! {
        pub(super) static SEED: Cell<u64> = const { Cell::new(1) };
    }

    pub(super) fn random(below: usize) -> usize {
        SEED.with(|seed| {
            let mut x = seed.get() | 1;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            seed.set(x);
            (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
        })
    }

    /// Lets others in: the machine's own interleavings are too coarse for so short a life.
    pub(super) fn pause() {
        for _ in 0..random(20) {
            std::thread::yield_now();
        }
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    pub(super) fn wait<T>(mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            if let Poll::Ready(done) = poll(&Context::from_waker(&waker)) {
                return done;
            }
            std::thread::park();
        }
    }

    pub(super) fn look<T>(mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> Poll<T> {
        poll(&Context::from_waker(Waker::noop()))
    }
}

#[test]
fn invariants_hold_on_real_threads() {
    let seed: u64 = std::env::var("MERIDO_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_250_301);
    let mut seen = [0; 3];
    for round in 0..400u64 {
        let world = scenario::World::new();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (world, start) = (&world, &start);
                scope.spawn(move || {
                    rt::SEED.set(seed.wrapping_add(round * 8 + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    start.wait();
                    world.client();
                });
            }
        });
        world.over();
        for (sum, one) in seen.iter_mut().zip([&world.completed, &world.broken, &world.taken_over]) {
            *sum += one.load(SeqCst);
        }
    }
    assert!(seen.iter().all(|n| *n > 0), "every way was gone: completed, broken, taken over {seen:?} (seed {seed})");
}
