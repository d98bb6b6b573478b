//! The live memory of one instance. No socket, no file, no spawn, no clock: whatever depends on time takes `now`.
//!
//! Nothing in here is serializable; `store/` and the wire formats own theirs.

mod attempts;
pub mod buckets;
pub mod budgets;
pub mod catalog;
pub mod inflight;
pub mod limit_headers;
pub mod limiter;
pub mod providers;
pub mod subject;
pub mod usage;
pub mod outbox;
pub mod throttle;
pub mod unknown_keys;
pub mod answer;
pub mod bus;
pub mod dedup;
pub mod embed;
pub mod semantic;
mod shelf;
pub mod cooldowns;
pub mod delta;
pub mod latency;
pub mod live;
pub mod model_locks;
pub mod rest;
pub mod targets;
