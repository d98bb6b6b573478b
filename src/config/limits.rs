//! Limits in time and what failures cost, with their defaults. Numbers only: `routing` and `upstream` act on them.

use std::time::Duration;

/// Limits in time.
#[derive(Clone, PartialEq, Debug)]
pub struct Timeouts {
    /// Connecting to a provider, TLS included.
    pub connect: Duration,
    /// A streamed answer's first byte.
    pub first_byte_stream: Duration,
    /// A non-streamed answer's first byte.
    pub first_byte: Duration,
    /// Silence within a stream or a body, either side.
    pub stream_idle: Duration,
    /// A client's request head.
    pub client_header: Duration,
    /// An idle client connection.
    pub keep_alive: Duration,
    /// An idle provider connection in the pool (below what providers keep: 60 s is common).
    pub upstream_idle: Duration,
}

/// What a failure costs (CLUSTER numbers; see `routing/verdict`).
#[derive(Clone, PartialEq, Debug)]
pub struct BreakerSettings {
    /// First rest of an account whose credentials were refused; doubles.
    pub auth_cooldown: Duration,
    /// Its cap.
    pub auth_cooldown_cap: Duration,
    /// Lock of a model that an account may not use.
    pub model_lock: Duration,
    /// Lock after quota words without a reset.
    pub quota_lock: Duration,
    /// First lock after a 429 without a reset; doubles.
    pub rate_limit_lock: Duration,
    /// Its cap.
    pub rate_limit_lock_cap: Duration,
    /// Failures within `window` that open an account's breaker.
    pub failures: u32,
    /// The window.
    pub window: Duration,
    /// First rest of an open breaker; doubles.
    pub open: Duration,
    /// Its cap.
    pub open_cap: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte_stream: Duration::from_secs(120),
            first_byte: Duration::from_secs(600),
            stream_idle: Duration::from_secs(120),
            client_header: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            upstream_idle: Duration::from_secs(50),
        }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            auth_cooldown: Duration::from_secs(120),
            auth_cooldown_cap: Duration::from_secs(30 * 60),
            model_lock: Duration::from_secs(120),
            quota_lock: Duration::from_secs(600),
            rate_limit_lock: Duration::from_secs(1),
            rate_limit_lock_cap: Duration::from_secs(240),
            failures: 5,
            window: Duration::from_secs(30),
            open: Duration::from_secs(30),
            open_cap: Duration::from_secs(300),
        }
    }
}
