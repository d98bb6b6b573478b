//! merido: a gateway for LLM traffic. One endpoint in front, many providers and accounts behind.
//!
//! The map, a line a room. **Imports point down; rooms on one floor do not see each other; only `app` sees the
//! whole house.** `tests/tidy.rs` holds this table against the code.
//!
//! ```text
//!  6  app                          wiring only
//!  5  urls       cli               which URL goes to whom · what a command does to the store
//!  4  proxy      admin             the two things we do
//!  3  server  upstream  store  cluster   the arms that touch the world
//!  2  routing                      pure decisions
//!  1  config  dialect  state       plain settings · formats · memory
//!  0  base                         words, clock, errors, stripes, tasks, telemetry
//! ```
//!
//! What a request goes through, and why each wall stands where it does: `ARCHITECTURE.md`.

pub mod base;

pub mod config;
pub mod dialect;
pub mod state;

pub mod routing;

pub mod cluster;
pub mod server;
pub mod store;
pub mod upstream;

pub mod admin;
pub mod proxy;

pub mod cli;
pub mod urls;

pub mod app;
