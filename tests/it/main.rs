//! The integration tests: one binary, one module a subject. Real sockets, a real gateway on a free port, a scripted
//! provider behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "threads and clocks of the world around the gateway, not of its own")]
#![allow(clippy::cast_possible_wrap, reason = "small numbers")]
#![allow(clippy::needless_pass_by_value, clippy::format_push_string, reason = "tests read better so")]
#![allow(clippy::float_cmp, reason = "counters are whole numbers")]
#![allow(unreachable_pub, missing_docs, reason = "a binary's modules: who may see them is nobody's question")]

mod aborts;
mod access_log;
mod api;
mod bad_input;
mod bad_provider;
mod browser;
mod cli;
mod cluster_dedup;
mod cluster_events;
mod cluster_logins;
mod cluster_peers;
mod cluster_rests;
mod dedup;
mod disconnect;
mod docker;
mod early;
mod edge;
mod fallback;
mod gate;
mod leaks;
mod limits;
mod openapi;
mod passhead;
mod passthrough;
mod postgres;
mod redis_chaos;
mod redis_cluster;
mod redis_limits;
mod redis_link;
mod runbook;
mod sdk;
mod secrets;
mod semantic;
mod shutdown;
mod smoke;
mod support;
mod traces;
mod translate;
mod usage_exact;
