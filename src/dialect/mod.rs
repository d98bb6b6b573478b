//! Formats: the dialects clients and providers speak, read and written without a socket, a clock or a lock.
//!
//! The same-dialect path never parses a whole body: `peek` finds what the gateway needs, `usage` reads what the
//! provider counted, and every other byte rides along. `translate` is for callers and providers that differ.

mod array;
pub mod echo;
mod echo_stream;
pub mod errors;
pub mod estimate;
mod lines;
pub mod peek;
pub mod question;
mod scan;
pub mod splice;
pub mod sse;
pub mod translate;
pub mod usage;

pub use crate::base::{Dialect, Endpoint};
