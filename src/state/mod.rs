//! The live memory of one instance. No socket, no file, no spawn, no clock: whatever depends on time takes `now`.
//!
//! Nothing in here is serializable; `store/` and the wire formats own theirs.

pub mod buckets;
pub mod catalog;
pub mod limit_headers;
pub mod limiter;
pub mod providers;
pub mod subject;
pub mod usage;
pub mod providers;
