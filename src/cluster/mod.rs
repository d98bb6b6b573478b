//! What instances share through Redis. The one room that speaks to it; Redis is soft: whatever happens to it, requests
//! go on, decided by this instance's memory.
//!
//! All command traffic of limits, rests, counts and claims goes through one task ([`task`]) on a thread of its own:
//! it drains whatever gathered while the last round trip was in flight and sends it as one pipeline ([`link`]). Each
//! concern is a [`Part`] that puts calls into the round and takes their answers. Large values, the subscription and the
//! event stream have connections of their own. Off is absence: without a Redis URL nothing here is built.

#![allow(dead_code, reason = "parts of it are being built")]

mod call;
mod codec;
mod link;
mod task;
#[cfg(test)]
mod testing;

use call::{Answer, Call};
use codec::Names;
use link::Link;

use crate::base::bell::Bell;
use crate::base::tasks::{self, Drain};
use crate::base::{Now, Secret};
use crate::state::delta::Delta;
use crate::state::outbox::{Asks, Tells};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;

/// What it takes to find the others.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where Redis is; may hold a password.
    pub url: Secret,
    /// In front of every key.
    pub prefix: String,
    /// Bound on each round trip.
    pub deadline: Duration,
    /// This process' epoch: random per start, the instance's id among its peers.
    pub epoch: u64,
}

/// The ends of this instance's memory that others share.
#[derive(Debug)]
pub struct Shared {
    /// Wakes the Redis task.
    pub bell: Arc<Bell>,
    /// *Cut*: every request has ended; one last round, then the end. The switch is the cluster's own.
    pub drain: Drain,
    /// What gathered to be told and spent.
    pub tells: Tells<Delta>,
    /// Who waits for an answer.
    pub asks: Asks,
}

/// A running connection to the others.
#[derive(Debug)]
pub struct Cluster {
    thread: std::thread::JoinHandle<()>,
}

impl Cluster {
    /// Starts the Redis thread. Never waits for Redis: unreachable at start is the same as down. Fails only on a URL that
    /// can't be read or when there is no thread to be had.
    pub fn start(config: &ClusterConfig, shared: Shared) -> Result<Self, String> {
        let link = Link::new(config.url.reveal(), config.deadline).map_err(|e| format!("redis_url: {e}"))?;
        let _names = Names::new(&config.prefix);
        let parts: Vec<Box<dyn Part>> = Vec::new();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let thread = tasks::thread("redis".to_owned(), move || {
            runtime.block_on(task::run(link, parts, shared.bell, shared.drain));
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Ok(Self { thread: thread.map_err(|e| e.to_string())? })
    }

    /// Waits for its last round; shutdown's last phase must have been reached.
    pub fn wait(self) {
        if self.thread.join().is_err() {
            tracing::error!("the redis thread panicked");
        }
    }
}

/// One concern that travels in the shared rounds.
///
/// Called by the one Redis task only, never concurrently. Nothing here may block or take long: asks wait meanwhile.
trait Part: Send {
    /// Puts what it has to say into the round. Called whenever the bell rang or somebody was due, so often with nothing
    /// to say. While Redis is down ([`Round::up`] is false) calls are answered [`call::Fault::Down`] without any trip.
    fn gather(&mut self, round: &mut Round<'_>);

    /// The answers to what it put into the round just sent, in that order; not called when it put nothing.
    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now);

    /// When it wants to speak without being rung for.
    fn due(&self) -> Option<Now> {
        None
    }

    /// Redis came back, or was reached for the first time: what it holds may be empty or old.
    fn returned(&mut self, _now: Now) {}

    /// The last round before the end: gives back what others could use.
    fn close(&mut self, _round: &mut Round<'_>) {}
}

/// A round under way.
struct Round<'a> {
    calls: &'a mut Vec<Call>,
    /// When it is sent.
    now: Now,
    /// Whether there is a Redis to send it to.
    up: bool,
}

impl Round<'_> {
    /// One call more.
    fn push(&mut self, call: Call) {
        self.calls.push(call);
    }
}
