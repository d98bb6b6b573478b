//! What every test needs: a gateway on a free port, a scripted provider, a raw HTTP client, patience instead of sleeps.

pub mod client;
pub mod cut;
pub mod deaf;
pub mod dialects;
pub mod gateway;
pub mod load;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod redis;
pub mod redis_cluster;
pub mod shared;
pub mod slow_proxy;
pub mod tls;

use std::time::{Duration, Instant};

/// Asks again until it holds; fails after ten seconds with `what`.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
