//! Several instances' memories on one real Redis: what each tells, counts and claims, and what a break costs.

use super::testing::{RedisServer, company, desk, till};
use super::{Cluster, ClusterConfig, Shared};
use crate::base::bell::Bell;
use crate::base::tasks::{DrainSwitch, Phase};
use crate::base::{AccountId, Clock, ModelId, Now, Secret};
use crate::state::breakers::{Breakers, Claimed, Claiming};
use crate::state::bus::Bus;
use crate::state::catalog::Directory;
use crate::state::delta::Delta;
use crate::state::live::AccountLive;
use crate::state::news::{Heard, Herald, Kind, Listener, News};
use crate::state::outbox::Outbox;
use crate::state::rest::{Breaker, Cost, Penalty, Reason};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const A: AccountId = AccountId(1);
const M: ModelId = ModelId(7);
const LIMIT: Cost =
    Cost { reason: Reason::RateLimited, named: None, base: Duration::from_secs(60), cap: Duration::from_secs(240) };
const AUTH: Cost =
    Cost { reason: Reason::Credentials, named: None, base: Duration::from_secs(120), cap: Duration::from_secs(1800) };
const BREAKER: Breaker = Breaker {
    failures: 5,
    window: Duration::from_secs(30),
    open: Duration::from_secs(30),
    cap: Duration::from_secs(300),
};

/// One instance's memory and its way to the others.
struct Instance {
    directory: Arc<Directory>,
    outbox: Outbox<Delta>,
    breakers: Breakers,
    herald: Herald,
    heard: Arc<AtomicUsize>,
    gaps: Arc<AtomicUsize>,
    switch: DrainSwitch,
    cluster: Option<Cluster>,
}

impl Instance {
    /// With a generous deadline: on a busy machine a trip that is late is not what is tested.
    fn start(server: &RedisServer, epoch: u64) -> Self {
        Self::with_deadline(server, epoch, 5 * S)
    }

    fn with_deadline(server: &RedisServer, epoch: u64, deadline: Duration) -> Self {
        let (bell, directory) = (Arc::<Bell>::default(), Arc::new(Directory::new()));
        let (outbox, tells) = Outbox::open(4096, Arc::clone(&bell));
        let (herald, news) = Outbox::open(64, Arc::clone(&bell));
        let (breakers, calls) = Breakers::open(64, Arc::clone(&bell));
        let (heard, gaps) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&heard), Arc::clone(&gaps));
        let listener = Listener::new(Kind::CATALOG, move |heard| match heard {
            Heard::News(_) => drop(counts.0.fetch_add(1, Ordering::SeqCst)),
            Heard::Gap => drop(counts.1.fetch_add(1, Ordering::SeqCst)),
        });
        let config = ClusterConfig {
            url: Secret::new(server.url()),
            extra_roots: None,
            prefix: "t".to_owned(),
            deadline,
            epoch,
            instance: "i".into(),
        };
        let switch = DrainSwitch::new();
        let shared = Shared {
            limits: desk(&bell, epoch),
            budgets: till(&bell, epoch),
            bell,
            drain: switch.drain(),
            reach: Arc::default(),
            tells,
            directory: Arc::clone(&directory),
            breakers: calls,
            news,
            bus: Bus::new(epoch, 1),
            instances: Arc::default(),
            company: company(epoch),
            listeners: vec![listener],
        };
        let cluster = Some(Cluster::start(&config, shared).unwrap());
        Self { directory, outbox, breakers, herald, heard, gaps, switch, cluster }
    }

    /// Knows all that the others know.
    fn joined(server: &RedisServer, epoch: u64) -> Self {
        let instance = Self::start(server, epoch);
        assert!(instance.knows(5 * S));
        instance
    }

    fn knows(&self, patience: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.cluster.as_ref().unwrap().known(patience))
    }

    fn of(&self, account: AccountId) -> Arc<AccountLive> {
        self.directory.live().of(account)
    }

    /// An attempt that began at `started` comes to this now.
    fn punish(&self, account: AccountId, penalty: &Penalty, started: Now) {
        let outcome = self.of(account).punish(penalty, Some(M), started, Clock::now());
        if let Some(delta) = outcome.delta {
            self.outbox.tell(delta);
        } else if let Penalty::CountFailure(breaker) = penalty
            && outcome.failures > 0
        {
            self.breakers.failed(account, breaker, started);
        }
    }

    fn succeed(&self, account: AccountId, started: Now) {
        for delta in self.of(account).succeed(Some(M), started, Clock::now()).into_iter().flatten() {
            self.outbox.tell(delta);
        }
    }

    fn unlock(&self, account: AccountId) {
        self.directory.live().unlock(account, Clock::now()).into_iter().for_each(|delta| self.outbox.tell(delta));
    }

    fn claim(&self, account: AccountId) -> (Claiming, Option<Claimed>) {
        let (claiming, answer) = self.breakers.claim(account).unwrap();
        (claiming, answer.blocking_recv().ok())
    }

    fn rests(&self, account: AccountId) -> bool {
        self.of(account).resting(Some(M), Clock::now()).is_some()
    }

    /// All it remembers, without the times: (account, model, generation, level, reason).
    fn view(&self) -> Vec<(AccountId, Option<ModelId>, u32, u8, Reason)> {
        let all = self.directory.live().snapshot(Clock::now());
        let mut all: Vec<_> =
            all.iter().map(|d| (d.account, d.model, d.rest.generation, d.rest.level, d.rest.reason)).collect();
        all.sort_unstable();
        all
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.switch.advance(Phase::Cut);
        self.cluster.take().unwrap().wait();
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Clock::now();
    while !holds() {
        assert!(Clock::now().since(start) < Duration::from_secs(20), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_rest_here_is_a_rest_there() {
    let server = RedisServer::start();
    let (a, b) = (Instance::joined(&server, 1), Instance::joined(&server, 2));
    let mut took: Vec<Duration> = (0..200)
        .map(|n| {
            let account = AccountId(100 + n);
            assert!(!b.rests(account));
            let began = Clock::now();
            a.punish(account, &Penalty::LockModel(LIMIT), Clock::now());
            while !b.rests(account) {
                assert!(Clock::now().since(began) < Duration::from_secs(10), "trip {n} was never honoured");
                std::thread::yield_now();
            }
            Clock::now().since(began)
        })
        .collect();
    took.sort_unstable();
    println!("a trip is honoured elsewhere after p50 {:?}, p99 {:?}, at most {:?}", took[100], took[197], took[199]);
    assert!(took[197] < S, "{took:?}");
    let until = |of: &Instance| of.of(AccountId(100)).resting(Some(M), Clock::now()).unwrap();
    assert!(until(&a).since(until(&b)).max(until(&b).since(until(&a))) < S, "one deadline");
}

#[test]
fn who_comes_late_knows_everything_before_it_serves() {
    let server = RedisServer::start();
    let a = Instance::joined(&server, 1);
    for n in 0..300 {
        a.punish(AccountId(n), &Penalty::LockModel(LIMIT), Clock::now());
    }
    a.punish(A, &Penalty::CoolAccount(AUTH), Clock::now());
    a.unlock(AccountId(2));
    let early = Instance::joined(&server, 2);
    eventually("an early one hears of all", || early.view() == a.view());
    let late = Instance::start(&server, 3);
    assert!(late.knows(5 * S));
    assert_eq!(late.view(), a.view(), "at once, tombstones included");
    assert_eq!(late.view().len(), 301);
}

#[test]
fn without_a_redis_nobody_waits_long_and_what_was_told_goes_out_on_return() {
    let mut server = RedisServer::start();
    server.kill();
    let (a, b) = (Instance::start(&server, 1), Instance::start(&server, 2));
    let began = Clock::now();
    assert!(!a.knows(20 * S));
    assert!(Clock::now().since(began) < 10 * S, "a refused connection says it at once");
    a.punish(A, &Penalty::CoolAccount(AUTH), Clock::now());
    assert_eq!(a.claim(AccountId(9)).1, None, "claims are left to the asker");
    server.revive();
    eventually("b hears of it", || b.rests(A));
}

#[test]
fn whoever_was_cut_off_knows_all_on_return() {
    let mut server = RedisServer::start();
    let (a, b) = (Instance::joined(&server, 1), Instance::joined(&server, 2));
    a.punish(A, &Penalty::CoolAccount(AUTH), Clock::now());
    eventually("b hears of it", || b.rests(A));
    // Connections reset again and again while a goes on telling.
    for n in 0..20 {
        a.punish(AccountId(1000 + n), &Penalty::LockModel(LIMIT), Clock::now());
        server.command("CLIENT KILL TYPE pubsub");
        a.punish(AccountId(2000 + n), &Penalty::LockModel(LIMIT), Clock::now());
        if n % 4 == 0 {
            server.command("CLIENT KILL TYPE normal");
        }
    }
    eventually("b knows all", || b.view().len() == 41 && b.view() == a.view());
    // Redis loses everything: whoever remembers tells it again, and a newcomer knows.
    server.revive();
    eventually("redis is told again", || {
        let late = Instance::start(&server, 3);
        late.knows(5 * S) && late.view() == a.view()
    });
}

#[test]
fn a_frozen_redis_is_noticed_and_what_happened_meanwhile_arrives_without_getting_longer() {
    let server = RedisServer::start();
    let quick = |epoch| Instance::with_deadline(&server, epoch, Duration::from_millis(100));
    let (a, b) = (quick(1), quick(2));
    a.punish(AccountId(2), &Penalty::LockModel(LIMIT), Clock::now());
    eventually("both are there", || b.rests(AccountId(2)));
    server.freeze();
    a.punish(A, &Penalty::CoolAccount(AUTH), Clock::now());
    let until = |of: &Instance| of.of(A).resting(None, Clock::now()).unwrap();
    let want = until(&a);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!b.rests(A));
    server.thaw();
    eventually("b hears of it", || b.rests(A));
    eventually("both agree", || a.view() == b.view());
    for of in [&a, &b] {
        assert!(want.until(until(of)) < S, "what was sent before the freeze was carried out after it");
    }
}

#[test]
fn what_an_operator_ended_does_not_come_back_and_a_fresh_trip_holds() {
    let mut server = RedisServer::start();
    let (a, b) = (Instance::joined(&server, 1), Instance::joined(&server, 2));
    b.punish(A, &Penalty::LockModel(LIMIT), Clock::now());
    eventually("a hears of it", || a.rests(A));
    let old = Clock::now();
    // Both lose Redis; b trips once more; a's operator ends it; then Redis is back, empty.
    server.kill();
    let gaps = b.gaps.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(20));
    b.punish(A, &Penalty::LockModel(Cost { named: Some(600 * S), ..LIMIT }), Clock::now());
    a.unlock(A);
    assert!(b.rests(A) && !a.rests(A));
    server.revive();
    eventually("b is back", || b.gaps.load(Ordering::SeqCst) > gaps);
    eventually("the operator's word is b's, too", || !b.rests(A));
    eventually("both agree", || a.view() == b.view());
    assert!(!a.rests(A));
    // Of attempts from before the word, none says anything; a fresh one is honoured by all.
    b.punish(A, &Penalty::LockModel(LIMIT), old);
    assert!(!b.rests(A));
    b.punish(A, &Penalty::LockModel(LIMIT), Clock::now());
    eventually("a fresh trip is honoured", || a.rests(A) && b.rests(A));
}

#[test]
fn a_trip_that_did_not_know_of_the_clearing_is_told_at_its_generation() {
    let server = RedisServer::start();
    let a = Instance::joined(&server, 1);
    a.punish(A, &Penalty::LockModel(LIMIT), Clock::now());
    a.unlock(A);
    eventually("redis knows", || server.command("HLEN t:{acc_0000000000000001}:rests").contains(":1"));
    // Knows nothing of it, as if the message had been lost, and meets the limit itself.
    let b = Instance::joined(&server, 2);
    let (outbox, directory) = (&b.outbox, Directory::new());
    std::thread::sleep(Duration::from_millis(50));
    let trip = directory.live().of(A).punish(&Penalty::LockModel(LIMIT), Some(M), Clock::now(), Clock::now());
    assert_eq!(trip.delta.unwrap().rest.generation, 0);
    outbox.tell(trip.delta.unwrap());
    eventually("all honour it", || a.rests(A) && b.rests(A));
    assert_eq!(a.view()[0].2, 1, "at the clearing's generation");
}

#[test]
fn failures_of_two_instances_open_the_breaker_on_both() {
    let server = RedisServer::start();
    let (a, b) = (Instance::joined(&server, 1), Instance::joined(&server, 2));
    let penalty = Penalty::CountFailure(BREAKER);
    for who in [&a, &b, &a, &b] {
        who.punish(A, &penalty, Clock::now());
    }
    let counted = || server.command("LRANGE t:{acc_0000000000000001}:failures:0 0 -1");
    let sum = || -> u32 { counted().lines().filter_map(|line| line.split_once(' ')?.1.parse::<u32>().ok()).sum() };
    eventually("four are counted", || sum() == 4);
    assert!(!a.rests(A) && !b.rests(A), "four are not five");
    a.punish(A, &penalty, Clock::now());
    eventually("open on both", || a.rests(A) && b.rests(A));
    assert_eq!(a.view(), [(A, None, 0, 0, Reason::Failing)]);
    // Cleared, the count starts anew everywhere.
    a.unlock(A);
    eventually("closed on both", || !a.rests(A) && !b.rests(A));
    b.punish(A, &penalty, Clock::now());
    eventually("one of the next generation", || {
        server.command("LLEN t:{acc_0000000000000001}:failures:1").contains(":1")
    });
    assert!(!b.rests(A));
}

#[test]
fn one_trial_a_cluster() {
    let server = RedisServer::start();
    let (a, b) = (Instance::joined(&server, 1), Instance::joined(&server, 2));
    let short = Cost { base: Duration::from_millis(300), ..AUTH };
    a.punish(A, &Penalty::CoolAccount(short), Clock::now());
    eventually("b hears of it", || b.rests(A));
    // While it rests nobody may try, whatever an instance thinks.
    assert_eq!(b.claim(A).1, Some(Claimed::Changed));
    eventually("it is over for both", || !a.rests(A) && !b.rests(A));
    eventually("and there", || matches!(a.claim(A).1, Some(Claimed::Granted)));
    eventually("given back", || server.command("EXISTS t:{acc_0000000000000001}:trial").contains(":0"));
    let trial = a.of(A).admit(Clock::now()).unwrap().unwrap();
    let (claiming, said) = a.claim(A);
    assert_eq!(said, Some(Claimed::Granted));
    assert!(matches!(b.claim(A).1, Some(Claimed::Elsewhere(left)) if left > S), "b is not the one");
    // Its verdict comes before its end: whoever claims then hears that there is nothing to try.
    a.succeed(A, Clock::now());
    drop((claiming, trial));
    eventually("the claim ends", || server.command("EXISTS t:{acc_0000000000000001}:trial").contains(":0"));
    let mut other = b.claim(A);
    assert!(matches!(other.1, Some(Claimed::Changed | Claimed::Granted)));
    eventually("b knows that it is well", || b.of(A).admit(Clock::now()).is_ok_and(|probe| probe.is_none()));
    other.1 = None;
    // A holder that vanishes keeps nobody out for long; one that lives renews.
    let (held, said) = a.claim(AccountId(5));
    assert_eq!(said, Some(Claimed::Granted));
    let ttl = || server.command("PTTL t:{acc_0000000000000005}:trial");
    let left = |text: String| text.trim().trim_start_matches(':').parse::<i64>().unwrap();
    assert!(left(ttl()) <= 10_000);
    drop(held);
    eventually("given back", || left(ttl()) == -2);
}

#[test]
fn news_reach_the_others_and_not_oneself() {
    let server = RedisServer::start();
    let (a, b) = (Instance::joined(&server, 1), Instance::joined(&server, 2));
    assert_eq!(b.gaps.load(Ordering::SeqCst), 1, "the first connection is a gap");
    let skipped = crate::base::metrics::METRICS.cluster_skipped.get();
    a.herald.tell(News::new(Kind(200), *b"nobody listens"));
    a.herald.tell(News::new(Kind::CATALOG, []));
    eventually("b hears", || b.heard.load(Ordering::SeqCst) == 1);
    assert_eq!(a.heard.load(Ordering::SeqCst), 0);
    assert!(crate::base::metrics::METRICS.cluster_skipped.get() > skipped);
    // Another version, nonsense: skipped, and what follows is heard.
    for wrong in ["2nothing", "x", "\u{1}"] {
        server.command(&format!("PUBLISH t:news {wrong}"));
    }
    a.herald.tell(News::new(Kind::CATALOG, []));
    eventually("b hears on", || b.heard.load(Ordering::SeqCst) == 2);
    server.command("CLIENT KILL TYPE pubsub");
    eventually("a break is a gap", || b.gaps.load(Ordering::SeqCst) == 2);
}

#[path = "rests_simulation.rs"]
mod simulation;
