//! The harness's one clock.
//!
//! Must never be read inside a parser: those take what they need as arguments. Reading it cannot fail; a wall clock
//! before 1970 counts as zero, which shows up as absurd event delays rather than as a crash.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time: every latency and every deadline.
#[expect(clippy::disallowed_methods, reason = "this file is the harness's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall time in µs since 1970: the one clock the mock and the generator, two processes on one machine, share.
#[expect(clippy::disallowed_methods, reason = "this file is the harness's clock")]
pub(crate) fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
