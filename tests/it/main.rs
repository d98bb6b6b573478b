//! The integration tests: one binary, one module a subject. Real sockets, a real gateway on a free port, a scripted
//! provider behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod docker;
mod gate;
mod smoke;
mod support;
