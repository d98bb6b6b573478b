//! The live memory of one instance. No socket, no file, no spawn, no clock: whatever depends on time takes `now`.
//!
//! Nothing in here is serializable; `store/` and the wire formats own theirs.

pub mod catalog;
pub mod cooldowns;
pub mod delta;
pub mod latency;
pub mod live;
pub mod model_locks;
pub mod rest;
pub mod targets;
