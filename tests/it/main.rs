//! The integration tests: one binary, one module a subject. Real sockets, a real gateway on a free port, a scripted
//! provider behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(unreachable_pub, missing_docs, reason = "a binary's modules: who may see them is nobody's question")]

mod aborts;
mod bad_input;
mod bad_provider;
mod dedup;
mod docker;
mod sdk;
mod semantic;
mod smoke;
mod support;
