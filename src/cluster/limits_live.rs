//! Limits in real time: two instances with their own Redis threads, and what they cost a real server.
//!
//! Counters are asserted, times are only printed: `cargo test --lib limits::live -- --ignored --nocapture`.

use super::*;
use crate::base::bell::Bell;
use crate::base::sync::AtomicU32;
use crate::base::tasks::{self, DrainSwitch, Phase};
use crate::base::{Clock, KeyId, RequestId};
use crate::cluster::connector::Connector;
use crate::cluster::link::Link;
use crate::cluster::task;
use crate::cluster::testing::RedisServer;
use crate::state::buckets::Limits as Limited;
use crate::state::desk::Policy;
use crate::state::limiter::{Limiter, Taken};
use crate::state::reach::Reach;
use crate::state::subject::Subject;

/// One instance: its limiter, and a thread that speaks with Redis.
struct Live {
    limiter: Limiter,
    reach: Arc<Reach>,
    switch: DrainSwitch,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default, Debug, Clone, Copy)]
struct Tally {
    offered: u64,
    admitted: u64,
    waited: u64,
}

impl Live {
    fn start(server: &RedisServer, epoch: u64) -> Self {
        let (bell, reach) = (Arc::<Bell>::default(), Arc::new(Reach::new()));
        let live = Arc::new(AtomicU32::new(2));
        let desk = Desk::new(Arc::clone(&bell), Arc::clone(&reach), live, Policy::Closed, epoch);
        let desk = Arc::new(desk);
        let part = Limits::new(Names::new("t"), Arc::clone(&desk));
        let connector = Connector::new(&server.url(), None).unwrap();
        let patience = Duration::from_secs(5);
        let link = Link::new(connector, "test", Names::new("t").probe(), patience, Arc::clone(&reach));
        let switch = DrainSwitch::new();
        let drain = switch.drain();
        let thread = tasks::thread("redis".to_owned(), move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(task::run(link, vec![Box::new(part)], bell, drain));
        });
        let thread = thread.unwrap();
        let started = Clock::now();
        while !reach.is_up() {
            assert!(Clock::now().since(started) < Duration::from_secs(20), "not connected");
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { limiter: Limiter::shared(desk), reach, switch, thread: Some(thread) }
    }

    /// `rate` requests a second of the keys in turn for so many seconds, each in its place in time; as many at once as
    /// are late.
    async fn drive(&self, keys: u64, limits: Limited, rate: f64, seconds: f64) -> Tally {
        let (began, mut tally) = (Clock::now(), Tally::default());
        let mut pending = Vec::new();
        while Clock::now().since(began).as_secs_f64() < seconds {
            let due = (Clock::now().since(began).as_secs_f64() * rate) as u64;
            while tally.offered < due {
                tally.offered += 1;
                let subject = Subject::Key(KeyId(1 + tally.offered % keys));
                let id = RequestId { epoch: 1, n: tally.offered };
                match self.limiter.ask(subject, &limits, id, 100, Clock::now()) {
                    Taken::Now(decision) => tally.admitted += u64::from(decision.outcome.is_ok()),
                    Taken::Later(waiting) => {
                        tally.waited += 1;
                        pending.push(waiting);
                    }
                }
            }
            pending.retain_mut(|waiting| match waiting.answer.try_recv() {
                Ok(decision) => {
                    tally.admitted += u64::from(decision.outcome.is_ok());
                    false
                }
                Err(error) => error == tokio::sync::oneshot::error::TryRecvError::Empty,
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for waiting in pending {
            if let Ok(Ok(decision)) = tokio::time::timeout(Duration::from_secs(5), waiting.answer).await {
                tally.admitted += u64::from(decision.outcome.is_ok());
            }
        }
        tally
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        assert!(self.reach.is_up(), "the link broke");
        self.switch.advance(Phase::Cut);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Two instances at `rate` each; the sum, and the commands that the server ran for limits.
fn both(server: &RedisServer, keys: u64, limits: Limited, rate: f64, seconds: f64) -> (Tally, f64) {
    let sides = [Live::start(server, 1), Live::start(server, 2)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = evals(server);
    let (one, two) = runtime.block_on(async {
        tokio::join!(sides[0].drive(keys, limits, rate, seconds), sides[1].drive(keys, limits, rate, seconds))
    });
    let commands = evals(server).0 - before.0;
    let tally = Tally {
        offered: one.offered + two.offered,
        admitted: one.admitted + two.admitted,
        waited: one.waited + two.waited,
    };
    (tally, commands)
}

/// Scripts run so far, and the microseconds of the server's time they took.
fn evals(server: &RedisServer) -> (f64, f64) {
    let text = server.command("INFO commandstats");
    let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or("calls=0,usec=0");
    let field = |name: &str| -> f64 {
        let value = line.split(',').find_map(|part| part.strip_prefix(name)).unwrap_or("0");
        value.trim().parse().unwrap()
    };
    (field("calls="), field("usec="))
}

#[test]
fn a_hot_key_waits_for_nobody_and_calls_seldom() {
    let server = RedisServer::start();
    // 0.8 of the limit, over both.
    let rate: f64 = std::env::var("MERIDO_TEST_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(400.0);
    let rpm = (2.0 * rate / 0.8 * 60.0) as u32;
    let limits = Limited { rpm, burst: 0, tpm: rpm * 100, max_parallel: 0 };
    // A machine that starves us for longer than a lease lasts makes requests wait: then that run says nothing.
    let runs = (0..5).map(|_| {
        let (tally, commands) = both(&server, 1, limits, rate, 3.0);
        let per_request = commands / tally.offered as f64;
        eprintln!("{tally:?}, {commands} commands: {per_request:.4} a request");
        assert_eq!(tally.admitted, tally.offered, "all are within the limit");
        per_request < 0.1 && tally.waited * 20 <= tally.offered
    });
    assert!(runs.into_iter().any(|well| well), "too many calls, or too many waited, five times in a row");
}

#[test]
#[ignore = "a measurement"]
fn what_limits_cost_the_server() {
    let server = RedisServer::start();
    let report = |name: &str, tally: Tally, before: (f64, f64), after: (f64, f64), cpu: f64| {
        let (calls, usec) = (after.0 - before.0, after.1 - before.1);
        let thousands = tally.offered as f64 / 1_000.0;
        eprintln!(
            "{name}: {} offered, {} admitted, {} waited; {:.4} commands a request; {:.1} µs in scripts and {:.1} µs of \
             server CPU per 1,000 requests; {:.1} µs a script",
            tally.offered,
            tally.admitted,
            tally.waited,
            calls / tally.offered as f64,
            usec / thousands,
            cpu * 1e6 / thousands,
            usec / calls.max(1.0)
        );
    };
    let cpu = |server: &RedisServer| server.info("used_cpu_user") + server.info("used_cpu_sys");
    let hot = Limited { rpm: 600_000, burst: 0, tpm: 0, max_parallel: 0 };
    let slow = Limited { rpm: 600, burst: 0, tpm: 0, max_parallel: 0 };
    let over = Limited { rpm: 30_000, burst: 500, tpm: 0, max_parallel: 0 };
    let runs = [("hot key", 1, hot), ("10,000 slow keys", 10_000, slow), ("over the limit, 4 times", 1, over)];
    for (name, keys, limits) in runs {
        server.command("FLUSHALL");
        let (before, started) = (evals(&server), cpu(&server));
        let (tally, _) = both(&server, keys, limits, 1_000.0, 5.0);
        report(name, tally, before, evals(&server), cpu(&server) - started);
    }
    // A million keys, one request each, as batches of one instance would bring them.
    server.command("FLUSHALL");
    let million: u64 = std::env::var("MERIDO_TEST_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(1_000_000);
    let side = Live::start(&server, 3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (before, started) = (evals(&server), cpu(&server));
    let mut tally = Tally::default();
    for batch in 0..million / 512 {
        let mut waiting = Vec::new();
        for n in 0..512 {
            tally.offered += 1;
            let subject = Subject::Key(KeyId(batch * 512 + n));
            match side.limiter.ask(subject, &slow, RequestId { epoch: 1, n }, 0, Clock::now()) {
                Taken::Now(decision) => tally.admitted += u64::from(decision.outcome.is_ok()),
                Taken::Later(one) => waiting.push(one),
            }
        }
        tally.waited += waiting.len() as u64;
        for one in waiting {
            tally.admitted += u64::from(runtime.block_on(one.answer).unwrap().outcome.is_ok());
        }
    }
    report("a million keys", tally, before, evals(&server), cpu(&server) - started);
    eprintln!("memory: {:.0} bytes a key", server.info("used_memory") / million as f64);
}
