//! The integration tests: one binary, one module a subject. Real sockets, a real gateway on a free port, a scripted
//! provider behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bad_input;
mod bad_provider;
mod cli;
mod docker;
mod leaks;
mod secrets;
mod shutdown;
mod smoke;
mod support;
