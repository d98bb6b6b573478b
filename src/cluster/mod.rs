//! What instances share through Redis. The one room that speaks to it; Redis is soft: whatever happens to it, requests
//! go on, decided by this instance's memory.
//!
//! All command traffic of limits, rests, counts and claims goes through one task ([`task`]) on a thread of its own:
//! it drains whatever gathered while the last round trip was in flight and sends it as one pipeline ([`link`]). Each
//! concern is a [`Part`] that puts calls into the round and takes their answers. Large values, the subscription and the
//! event stream have connections of their own. Off is absence: without a Redis URL nothing here is built.

#![allow(dead_code, reason = "parts of it are being built")]

mod budgets;
mod call;
mod codec;
mod conn;
mod connector;
mod dial;
mod limits;
mod link;
mod news;
mod node;
mod reply;
mod rests;
#[cfg(test)]
mod rests_tests;
mod resync;
mod slots;
mod subscribe;
mod task;
#[cfg(test)]
mod testing;
mod url;
mod wire;

use budgets::Budgets;
use call::{Answer, Call};
use codec::Names;
use connector::Connector;
use limits::Limits;
use link::Link;
use news::NewsOut;
use rests::Rests;
use resync::Progress;
use subscribe::{Ear, Listening};

use crate::base::bell::Bell;
use crate::base::tasks::{self, Drain};
use crate::base::{Now, Secret};
use crate::state::breakers::BreakerCalls;
use crate::state::catalog::Directory;
use crate::state::delta::Delta;
use crate::state::desk::Desk;
use crate::state::ledger::Till;
use crate::state::news::{Listener, News};
use crate::state::outbox::Tells;
use crate::state::reach::Reach;
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
    /// Where it is published whether Redis is there.
    pub reach: Arc<Reach>,
    /// What gathered to be told and spent.
    pub tells: Tells<Delta>,
    /// Where limits are asked about and leased.
    pub limits: Arc<Desk>,
    /// Where budgets are.
    pub budgets: Arc<Till>,
    /// Who rests, as this instance knows it.
    pub directory: Arc<Directory>,
    /// What breakers count and claim.
    pub breakers: BreakerCalls,
    /// Small messages on their way out.
    pub news: Tells<News>,
    /// Who acts on the others' messages.
    pub listeners: Vec<Listener>,
}

/// A running connection to the others.
#[derive(Debug)]
pub struct Cluster {
    progress: Arc<Progress>,
    thread: std::thread::JoinHandle<()>,
}

impl Cluster {
    /// Starts the Redis thread. Never waits for Redis: unreachable at start is the same as down. Fails only on a URL that
    /// can't be read or when there is no thread to be had.
    pub fn start(config: &ClusterConfig, shared: Shared) -> Result<Self, String> {
        let connector = Connector::new(config.url.reveal(), None).map_err(|e| format!("redis_url: {e}"))?;
        let (names, epoch) = (Names::new(&config.prefix), config.epoch);
        let Shared { bell, drain, reach, tells, limits, budgets, directory, breakers, news, listeners } = shared;
        let progress = Arc::new(Progress::new());
        let ear = Ear { epoch, directory: Arc::clone(&directory), listeners };
        let listening = Listening {
            way: connector.way("subscription"),
            channel: names.news(),
            ear,
            progress: Arc::clone(&progress),
            bell: Arc::clone(&bell),
        };
        let link = Link::new(connector, "rounds", names.probe(), config.deadline, reach);
        let parts: Vec<Box<dyn Part>> = vec![
            Box::new(Rests::new(names.clone(), epoch, directory, tells, breakers, Arc::clone(&progress))),
            Box::new(Limits::new(names.clone(), limits)),
            Box::new(Budgets::new(names.clone(), budgets)),
            Box::new(NewsOut::new(names, epoch, news)),
        ];
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let thread = tasks::thread("redis".to_owned(), move || {
            let listening = tasks::spawn_on(runtime.handle(), "subscription", listening.run(drain.clone()));
            runtime.block_on(async {
                task::run(link, parts, bell, drain).await;
                // It ends by itself in the same phase.
                let _ = listening.await;
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Ok(Self { progress, thread: thread.map_err(|e| e.to_string())? })
    }

    /// Waits until the others' rests are known here: at most `patience`, and no longer than it takes to find that there is
    /// no Redis. Whether they are.
    pub async fn known(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.progress.settled()).await.unwrap_or(false)
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
