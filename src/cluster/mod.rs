//! What instances share through Redis. The one room that speaks to it; Redis is soft: whatever happens to it, requests
//! go on, decided by this instance's memory.
//!
//! All command traffic of limits, rests, counts and claims goes through one task ([`task`]) on a thread of its own:
//! it drains whatever gathered while the last round trip was in flight and sends it as one pipeline ([`link`]). Each
//! concern is a [`Part`] that puts calls into the round and takes their answers. Large values, the subscription and the
//! event stream have connections of their own. Off is absence: without a Redis URL nothing here is built.

mod budgets;
mod call;
mod codec;
mod conn;
mod connector;
mod counts;
mod dedup;
mod dial;
mod events;
mod lead;
mod limits;
mod link;
mod news;
mod node;
mod peers;
mod reply;
mod rests;
#[cfg(test)]
mod rests_tests;
mod resync;
#[cfg(test)]
mod scripts_tests;
mod slots;
mod subscribe;
mod task;
#[cfg(test)]
pub(crate) mod testing;
mod url;
mod values;
mod wire;

use budgets::Budgets;
use call::{Answer, Call};
use codec::Names;
use connector::Connector;
use counts::{LoginCounts, Strikes};
use dedup::Answers;
use lead::Leading;
use limits::Limits;
use link::Link;
use news::NewsOut;
use node::Patience;
use peers::{Heartbeat, View};
pub use peers::{Hello, Identity, meet};
use rests::Rests;
use resync::Progress;
use subscribe::{Ear, Listening};
use values::{Rounds, Values};
use wire::Voice;

use crate::base::bell::Bell;
use crate::base::seal::{DataKey, SealError};
use crate::base::tasks::{self, Drain};
use crate::base::{Now, Secret};
use crate::state::breakers::BreakerCalls;
use crate::state::bus::Bus;
use crate::state::catalog::Directory;
use crate::state::dedup::Ends;
use crate::state::delta::Delta;
use crate::state::desk::Desk;
use crate::state::lead::Lead;
use crate::state::ledger::Till;
use crate::state::logins::Sayings;
use crate::state::news::{Listener, News};
use crate::state::outbox::Tells;
use crate::state::peers::Peers;
use crate::state::reach::Reach;
use crate::state::unknown_keys::UnknownKeys;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;
use tokio::runtime::Builder;

/// The role of the shared rounds' connection.
const ROUNDS: &str = "rounds";
/// Calls of a round that nobody waits for: all parts' together, in their turns; and while somebody waits for others.
const TENDED: usize = 256;
const TENDED_BESIDE_ASKS: usize = 32;
/// A round with large values has four deadlines, so long at least, and the time that its bytes take at so many a second:
/// 16 Mbit/s count as a network that works.
const VALUES_AT_LEAST: Duration = Duration::from_millis(100);
const VALUES_SLOWEST: u32 = 2_000_000;

/// What it takes to find the others.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where Redis is; may hold a password.
    pub url: Secret,
    /// Extra roots (PEM) to check its certificate by.
    pub extra_roots: Option<PathBuf>,
    /// In front of every key.
    pub prefix: String,
    /// Bound on each round trip.
    pub deadline: Duration,
    /// This process' epoch: random per start, the instance's id among its peers.
    pub epoch: u64,
    /// Its name, for people.
    pub instance: Arc<str>,
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
    /// Who rests, as this instance knows it, and the catalog's version it serves by.
    pub directory: Arc<Directory>,
    /// What gathered to be told and spent.
    pub tells: Tells<Delta>,
    /// Where limits are asked about and leased.
    pub limits: Arc<Desk>,
    /// Where budgets are.
    pub budgets: Arc<Till>,
    /// What breakers count and claim.
    pub breakers: BreakerCalls,
    /// Small messages on their way out.
    pub news: Tells<News>,
    /// Who acts on the others' messages.
    pub listeners: Vec<Listener>,
    /// Live events.
    pub bus: Arc<Bus>,
    /// Live instances as last counted, this one included; what was put in before any was. An outage leaves it as it is.
    pub instances: Arc<AtomicU32>,
    /// What instances know of each other, count and keep together.
    pub company: Company,
}

/// What instances know of each other, count and keep together.
#[derive(Debug)]
pub struct Company {
    /// What this instance says of itself.
    pub hello: Hello,
    /// Where others are listed.
    pub peers: Arc<Peers>,
    /// Who removes old rows.
    pub retention: Arc<Lead>,
    /// Logins to be counted.
    pub logins: Sayings,
    /// Unknown API keys to be counted.
    pub unknown: Arc<UnknownKeys>,
    /// Finished answers to be shared; `None`: they are not.
    pub answers: Option<Ends>,
    /// The deployment's key: what leaves for Redis is sealed or hashed below it.
    pub key: DataKey,
}

/// A running connection to the others.
#[derive(Debug)]
pub struct Cluster {
    progress: Arc<Progress>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Cluster {
    /// Starts the Redis threads. Never waits for Redis: unreachable at start is the same as down. Fails only on a URL that
    /// can't be read or when there is no thread to be had.
    pub fn start(config: &ClusterConfig, shared: Shared) -> Result<Self, String> {
        // A pool for each thread: connections belong to the one that opened them.
        let wrong = |e: String| format!("redis_url: {e}");
        let alone = Arc::new(AtomicBool::new(!shared.company.hello.met));
        let (url, roots) = (config.url.reveal(), config.extra_roots.as_deref());
        let guarded = || Connector::guarded(url, roots, &alone).map_err(wrong);
        let no_key = |e: SealError| e.to_string();
        let Shared { bell, drain, reach, directory, tells, breakers, news, .. } = shared;
        let Company { hello, peers, retention, logins, unknown, answers, key } = shared.company;
        let hidden = key.sub_key("addresses in redis").map_err(no_key)?;
        let (names, epoch) = (Names::new(&config.prefix).hiding(hidden), config.epoch);
        let voice = Voice { epoch, secret: key.sub_key("messages in redis").map_err(no_key)? };
        let progress = Arc::new(Progress::new());
        let connector = Connector::new(url, roots).map_err(wrong)?;
        let listening = Listening {
            way: guarded()?.way("subscription"),
            channel: names.news(),
            ear: Ear { voice, directory: Arc::clone(&directory), listeners: shared.listeners },
            progress: Arc::clone(&progress),
            bell: Arc::clone(&bell),
        };
        let link = Link::new(connector, ROUNDS, names.probe(), config.deadline, Arc::clone(&reach));
        let seen = Arc::clone(&peers);
        let view = View { directory: Arc::clone(&directory), peers: seen, instances: shared.instances };
        let parts: Vec<Box<dyn Part>> = vec![
            // Keeps the door: first of all.
            Box::new(Heartbeat::new(&names, hello, view, Arc::clone(&alone))),
            Box::new(Limits::new(names.clone(), shared.limits).showing(Arc::clone(&peers))),
            Box::new(Budgets::new(names.clone(), shared.budgets)),
            Box::new(Rests::new(names.clone(), voice, directory, tells, breakers, Arc::clone(&progress))),
            Box::new(NewsOut::new(names.clone(), voice, news)),
            Box::new(LoginCounts::new(names.clone(), hidden, epoch, logins)),
            Box::new(Strikes::new(&names, hidden, unknown)),
            Box::new(Leading::new(&names, "retention", epoch, retention)),
        ];
        let mut threads = Vec::new();
        let instance = Arc::clone(&config.instance);
        let events = events::start(guarded()?, names.clone(), shared.bus, Arc::clone(&peers), instance, drain.clone());
        threads.push(events.map_err(|e| e.to_string())?);
        if let Some(ends) = answers {
            let deadline = (config.deadline * 4).max(VALUES_AT_LEAST);
            let answers = Answers::new(key.child("dedup values").map_err(no_key)?, &config.prefix);
            let patience = Patience::by_size(deadline, VALUES_SLOWEST);
            let link = Link::new(guarded()?, "values", names.probe(), patience, Arc::default());
            let values = Values::new(link, names, answers, ends, epoch, Rounds { reach, drain: drain.clone() });
            threads.push(thread("redis-values", values.run(Arc::clone(&alone)))?);
        }
        let rounds = async move {
            let here = tokio::runtime::Handle::current();
            let listening = tasks::spawn_on(&here, "subscription", listening.run(drain.clone()));
            task::run(link, parts, bell, drain).await;
            // It ends by itself in the same phase.
            let _ = listening.await;
        };
        threads.push(thread("redis", rounds)?);
        Ok(Self { progress, threads })
    }

    /// Waits until the others' rests are known here: at most `patience`, and little longer than it takes to find that there
    /// is no Redis. Whether they are.
    pub async fn known(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.progress.settled()).await.unwrap_or(false)
    }

    /// Waits for its last round; shutdown's last phase must have been reached.
    pub fn wait(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a redis thread panicked");
            }
        }
    }
}

fn thread(name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<std::thread::JoinHandle<()>, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let thread = tasks::thread(name.to_owned(), move || {
        runtime.block_on(work);
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    thread.map_err(|e| e.to_string())
}

/// One concern that travels in the shared rounds.
///
/// Called by the one Redis task only, never concurrently. Nothing here may block or take long: asks wait meanwhile.
trait Part: Send {
    /// Puts into the round what somebody waits for, and what is little and must be said in time. Called whenever the bell
    /// rang or somebody was due, so often with nothing to say. While Redis is down ([`Round::up`] is false) calls are
    /// answered [`call::Fault::Down`] without any trip.
    fn gather(&mut self, round: &mut Round<'_>);

    /// Puts in what may wait, however much of it there is: at most [`Round::room`] calls, the most overdue first. What
    /// finds no room must make it due. After every part's `gather`; the parts' turns to be first go round, so that none
    /// starves.
    fn tend(&mut self, _round: &mut Round<'_>) {}

    /// The answers to what it put into the round just sent, in that order; not called when it put nothing.
    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now);

    /// When it wants to speak without being rung for.
    fn due(&self) -> Option<Now> {
        None
    }

    /// Redis came back, or was reached for the first time: what it holds may be empty or old.
    fn returned(&mut self, _now: Now) {}

    /// It was tried, and nobody is there.
    fn unreachable(&mut self) {}

    /// Why Redis must not be used by anybody but this part, though it may be there: until that ends all other parts are
    /// served as if it were away. Looked at after each round.
    fn objects(&self) -> Option<Box<str>> {
        None
    }

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
    /// Calls that nobody waits for yet to go in at most.
    room: usize,
    /// Somebody waits for one of its calls.
    asked: bool,
}

impl<'a> Round<'a> {
    fn new(calls: &'a mut Vec<Call>, now: Now, up: bool) -> Self {
        Self { calls, now, up, room: usize::MAX, asked: false }
    }

    /// One call more.
    fn push(&mut self, call: Call) {
        self.calls.push(call);
    }

    /// One call more that somebody waits for.
    fn ask(&mut self, call: Call) {
        self.asked = true;
        self.calls.push(call);
    }

    /// One call more of those that may wait: look at [`Round::room`] first.
    fn tend(&mut self, call: Call) {
        self.room = self.room.saturating_sub(1);
        self.calls.push(call);
    }
}
