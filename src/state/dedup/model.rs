//! The same sources as the real table, compiled against shuttle's locks: its scheduler tries interleavings at every
//! lock, and finds what waits for ever (a lost wake-up) as well as what breaks an invariant.

#![allow(
    clippy::duplicate_mod,
    dead_code,
    unreachable_pub,
    reason = "a second copy of the modules: only a part is used"
)]

use super::fingerprint;
use fingerprint::{Claim, Name};
use flight::Limits;
use seats::{Follower, Leader, Seat, Step};
use std::sync::Arc;
use table::Dedup;

#[path = "flight.rs"]
mod flight;
#[path = "scenario.rs"]
mod scenario;
#[path = "seats.rs"]
mod seats;
#[path = "table.rs"]
mod table;

mod sync {
    use std::collections::HashMap;
    use std::hash::Hash;

    #[derive(Debug)]
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    /// One stripe: every pair of keys meets.
    #[derive(Debug)]
    pub(super) struct Stripes<K, V>(Mutex<HashMap<K, V>>);

    impl<K: Hash + Eq, V> Stripes<K, V> {
        pub(super) fn new(_: usize) -> Self {
            Self(Mutex::new(HashMap::new()))
        }

        pub(super) fn with<R>(&self, _: &K, work: impl FnOnce(&mut HashMap<K, V>) -> R) -> R {
            work(&mut self.0.lock())
        }

        pub(super) fn with_stripe<R>(&self, _: usize, work: impl FnOnce(&mut HashMap<K, V>) -> R) -> R {
            work(&mut self.0.lock())
        }

        pub(super) fn len(&self) -> usize {
            self.0.lock().len()
        }
    }
}

mod rt {
    use shuttle::rand::Rng;
    use std::future::poll_fn;
    use std::task::{Context, Poll};

    pub(super) fn random(below: usize) -> usize {
        shuttle::rand::thread_rng().gen_range(0..below)
    }

    /// The scheduler needs none: it switches at every lock.
    pub(super) fn pause() {}

    pub(super) fn wait<T>(mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> T {
        shuttle::future::block_on(poll_fn(|cx| poll(cx)))
    }

    pub(super) fn look<T>(mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> Poll<T> {
        shuttle::future::block_on(poll_fn(|cx| Poll::Ready(poll(cx))))
    }
}

fn clients(n: usize) {
    let world = Arc::new(scenario::World::new());
    let threads: Vec<_> = (0..n)
        .map(|_| {
            let world = Arc::clone(&world);
            shuttle::thread::spawn(move || world.client())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    world.over();
}

#[test]
fn invariants_hold_under_a_model_checker() {
    shuttle::check_random(|| clients(4), 4_000);
    shuttle::check_pct(|| clients(5), 2_000, 3);
}
