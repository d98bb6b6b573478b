//! The live memory of one instance. No socket, no file, no spawn, no clock: whatever depends on time takes `now`.
//!
//! Nothing in here is serializable; `store/` and the wire formats own theirs.

pub mod answer;
mod attempts;
mod base_url;
pub mod breakers;
pub mod buckets;
pub mod budgets;
pub mod bus;
pub mod catalog;
pub mod cooldowns;
pub mod dedup;
pub mod delta;
mod demand;
pub mod desk;
pub mod embed;
pub mod latency;
pub mod lead;
pub mod lease;
pub mod ledger;
pub mod limit_headers;
pub mod limiter;
pub mod live;
pub mod logins;
pub mod model_locks;
pub mod news;
pub mod outbox;
pub mod peers;
pub mod providers;
pub mod reach;
pub mod rest;
pub mod semantic;
mod shelf;
pub mod subject;
pub mod targets;
pub mod throttle;
pub mod unknown_keys;
pub mod usage;
