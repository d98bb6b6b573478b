//! The live memory of one instance. No socket, no file, no spawn, no clock: whatever depends on time takes `now`.
//!
//! Nothing in here is serializable; `store/` and the wire formats own theirs.

pub mod answer;
pub mod bus;
pub mod catalog;
pub mod dedup;
pub mod embed;
pub mod semantic;
mod shelf;
