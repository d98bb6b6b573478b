//! The real limiter, the real part and a real Redis, one step at a time: who gets what, what is lost, what comes back.

use super::*;
use crate::base::bell::Bell;
use crate::base::sync::AtomicU32;
use crate::base::{KeyId, RequestId};
use crate::cluster::connector::Connector;
use crate::cluster::link::Link;
use crate::cluster::testing::{HasUrl, RedisServer};
use crate::cluster::{Call, call};
use crate::state::buckets::{Limits as Limited, Which};
use crate::state::desk::Policy;
use crate::state::limiter::{Decision, Limiter, Refusal, Reservation, Taken, Waiting};
use crate::state::reach::Reach;
use crate::state::subject::Subject;
use tokio::sync::oneshot::error::TryRecvError;

pub(super) const KEY: Subject = Subject::Key(KeyId(7));
/// The server's clock at `START` of ours, in microseconds.
const EPOCH: u64 = 1_800_000_000_000_000;
pub(in crate::cluster) const START: Now = Now::from_nanos(3_600_000_000_000);

/// One instance without a task: rounds are made by hand, time is told.
pub(super) struct Instance {
    pub(super) limiter: Limiter,
    pub(super) part: Limits,
    pub(super) desk: Arc<Desk>,
    reach: Arc<Reach>,
}

impl Instance {
    pub(super) fn new(policy: Policy, live: &Arc<AtomicU32>, epoch: u64) -> Self {
        let reach = Arc::new(Reach::new());
        reach.set(true, None, START);
        let desk = Desk::new(Arc::<Bell>::default(), Arc::clone(&reach), Arc::clone(live), policy, epoch);
        let desk = Arc::new(desk);
        let part = Limits::new(Names::new("t"), Arc::clone(&desk));
        Self { limiter: Limiter::shared(Arc::clone(&desk)), part, desk, reach }
    }

    /// What its next round holds.
    pub(super) fn gather(&mut self, now: Now, up: bool) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut round = Round::new(&mut calls, now, up);
        self.part.gather(&mut round);
        self.part.tend(&mut round);
        calls
    }

    pub(super) fn ask(&self, limits: &Limited, tokens: u64, now: Now) -> Taken {
        self.limiter.ask(KEY, limits, RequestId { epoch: 1, n: 1 }, tokens, now)
    }

    pub(super) fn settle(&mut self, answers: Vec<Answer>, now: Now) {
        self.part.settle(&mut answers.into_iter(), now);
    }
}

pub(in crate::cluster) fn server_clock(now: Now) -> u64 {
    EPOCH + now.micros_since(START)
}

/// The calls as a server would see them whose clock is there: the script takes it for its last argument.
pub(in crate::cluster) fn at(calls: &[Call], clock: u64) -> Vec<Call> {
    calls.iter().cloned().map(|call| call.arg(clock)).collect()
}

/// Instances on one server, and virtual time.
struct World {
    server: RedisServer,
    runtime: tokio::runtime::Runtime,
    link: Link,
    instances: Vec<Instance>,
    now: Now,
    calls: usize,
}

impl World {
    fn new(count: u32) -> Self {
        let server = RedisServer::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let link = linked(&server, &runtime);
        let live = Arc::new(AtomicU32::new(count));
        let instances = (0..count).map(|n| Instance::new(Policy::Closed, &live, n.into())).collect();
        Self { server, runtime, link, instances, now: START, calls: 0 }
    }

    /// One round of one instance, lost on the way there or back if `lose` says so.
    fn round(&mut self, of: usize, lose: Option<Lost>) -> usize {
        let calls = self.instances[of].gather(self.now, true);
        self.calls += calls.len();
        let count = calls.len();
        if count == 0 {
            return 0;
        }
        let answers = match lose {
            Some(Lost::Call) => vec![Err(call::Fault::Down); count],
            Some(Lost::Reply) => {
                self.runtime.block_on(self.link.round(&at(&calls, server_clock(self.now))));
                vec![Err(call::Fault::Down); count]
            }
            None => self.runtime.block_on(self.link.round(&at(&calls, server_clock(self.now)))),
        };
        for answer in &answers {
            assert!(!matches!(answer, Err(call::Fault::Refused(_))), "{answer:?}");
        }
        self.instances[of].settle(answers, self.now);
        count
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn take(&mut self, of: usize, limits: &Limited, tokens: u64) -> Decision {
        match self.instances[of].ask(limits, tokens, self.now) {
            Taken::Now(decision) => decision,
            Taken::Later(waiting) => {
                self.round(of, None);
                word(waiting, self.now)
            }
        }
    }

    fn get(&mut self, of: usize, limits: &Limited, tokens: u64) -> Result<Reservation, Refusal> {
        self.take(of, limits, tokens).outcome
    }

    fn ok(&mut self, of: usize, limits: &Limited) -> bool {
        self.get(of, limits, 0).is_ok()
    }
}

/// A way to `server` that is open, to all of it.
pub(in crate::cluster) fn linked(server: &impl HasUrl, runtime: &tokio::runtime::Runtime) -> Link {
    let connector = Connector::new(&server.redis_url(), None).unwrap();
    let mut link =
        Link::new(connector, "test", Names::new("t").probe(), Duration::from_secs(10), Arc::new(Reach::new()));
    runtime.block_on(async {
        while !link.is_whole() {
            link.changed().await;
        }
    });
    link
}

#[derive(Clone, Copy)]
enum Lost {
    Call,
    Reply,
}

pub(super) fn word(mut waiting: Waiting, now: Now) -> Decision {
    match waiting.answer.try_recv() {
        Ok(decision) => decision,
        Err(TryRecvError::Closed) => waiting.alone(now),
        Err(TryRecvError::Empty) => panic!("nobody answered"),
    }
}

fn requests(rpm: u32, burst: u32) -> Limited {
    Limited { rpm, burst, tpm: 0, max_parallel: 0 }
}

#[test]
fn slow_keys_are_exact_to_the_request_over_all_instances() {
    let mut world = World::new(3);
    let limits = requests(60, 10);
    let admitted = (0..30).filter(|n| world.ok(n % 3, &limits)).count();
    assert_eq!(admitted, 10, "the burst, wherever they came in");
    let trips = world.calls;
    assert!((0..30).all(|n| !world.ok(n % 3, &limits)));
    assert_eq!(world.calls, trips, "who is refused costs no trip");
    // One a second for a minute, asked ten times a second on each.
    let mut more = 0;
    for _ in 0..600 {
        world.pass(100);
        more += (0..3).filter(|&n| world.ok(n, &limits)).count();
    }
    assert_eq!(more, 60);
}

#[test]
fn remaining_is_one_story_over_instances_and_never_rises_by_itself() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 60, burst: 6, tpm: 600, max_parallel: 0 };
    for n in 0..6usize {
        let headers = world.take(n % 2, &limits, 50).headers;
        let (requests, tokens) = (headers.requests.unwrap(), headers.tokens.unwrap());
        assert_eq!((requests.limit, requests.remaining), (6, 5 - n as u64));
        assert_eq!((tokens.limit, tokens.remaining), (600, 550 - 50 * n as u64));
    }
    let refused = world.take(0, &limits, 50);
    assert_eq!(refused.headers.requests.unwrap().remaining, 0);
    let Refusal { which, retry_after } = refused.outcome.unwrap_err();
    assert_eq!((which, retry_after), (Which::Requests, Duration::from_secs(1)));
}

#[test]
fn a_busy_key_is_paid_from_its_lease_and_stays_within_its_limit() {
    let mut world = World::new(2);
    // 1,250 a second for 2,000 asked: both sides lease all the time.
    let limits = requests(75_000, 300);
    let (mut admitted, mut now_paid, mut offered) = (0u32, 0u32, 0u32);
    for _ in 0..3_000 {
        for of in 0..2 {
            offered += 1;
            match world.instances[of].ask(&limits, 0, world.now) {
                Taken::Now(decision) => {
                    let paid = u32::from(decision.outcome.is_ok());
                    (admitted, now_paid) = (admitted + paid, now_paid + paid);
                }
                Taken::Later(waiting) => {
                    world.round(of, None);
                    admitted += u32::from(word(waiting, world.now).outcome.is_ok());
                }
            }
            world.round(of, None);
        }
        world.pass(1);
    }
    let most = 300 + 1_250 * 3;
    assert!(admitted <= most && f64::from(admitted) >= 0.97 * f64::from(most), "{admitted} of {most}");
    assert!(offered > most);
    // At four fifths of it, nearly nobody waits and a call serves many.
    world.pass(1_000);
    let limits = requests(150_000, 600);
    world.calls = 0;
    let (mut waited, mut offered) = (0, 0);
    for _ in 0..2_000 {
        for of in 0..2 {
            offered += 1;
            if let Taken::Later(waiting) = world.instances[of].ask(&limits, 0, world.now) {
                waited += 1;
                world.round(of, None);
                assert!(word(waiting, world.now).outcome.is_ok());
            }
            world.round(of, None);
        }
        world.pass(1);
    }
    assert!(waited * 20 < offered, "{waited} of {offered} waited");
    assert!(world.calls * 10 < offered, "{} calls for {offered} requests", world.calls);
}

#[test]
fn a_lease_nobody_uses_goes_back_once_and_one_of_a_dead_instance_lapses() {
    let mut world = World::new(2);
    let limits = requests(60_000, 400);
    let mut spent = 0;
    for _ in 0..40 {
        spent += u64::from(world.ok(0, &limits));
        world.round(0, None);
        world.pass(1);
    }
    // Idle: the look at its lease gives it back, and its reply being lost changes nothing.
    world.pass(200);
    assert_eq!(world.round(0, Some(Lost::Reply)), 1);
    world.pass(40);
    let left = world.take(1, &limits, 0).headers.requests.unwrap().remaining;
    assert_eq!(left, 399, "{spent} flowed in again and the lease is back, once");
    // A dead one's is counted as spent, but only until it lapses.
    for _ in 0..40 {
        assert!(world.ok(0, &limits));
        world.round(0, None);
        world.pass(1);
    }
    let left = world.take(1, &limits, 0).headers.requests.unwrap().remaining;
    assert!(left < 390, "{left}: part of it is lent");
    world.pass(700);
    let left = world.take(1, &limits, 0).headers.requests.unwrap().remaining;
    assert_eq!(left, 399, "nobody has it any more");
}

#[test]
fn at_the_end_everything_goes_back() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 60_000, burst: 400, tpm: 600_000, max_parallel: 40 };
    let mut running = Vec::new();
    for _ in 0..40 {
        running.extend(world.get(0, &limits, 100).ok());
        world.round(0, None);
        world.pass(1);
    }
    assert_eq!(running.len(), 40);
    for one in running {
        one.settle(1, 40, world.now);
    }
    let mut calls = Vec::new();
    let now = world.now;
    world.instances[0].part.close(&mut Round::new(&mut calls, now, true));
    let answers = world.runtime.block_on(world.link.round(&at(&calls, server_clock(now))));
    world.instances[0].settle(answers, now);
    let all: Vec<_> = (0..40).filter_map(|_| world.get(1, &limits, 100).ok()).collect();
    assert_eq!(all.len(), 40, "every slot is back");
    world.pass(20);
    let headers = world.take(1, &limits, 0).headers;
    // 40 at 40 tokens each, 40 at 100; 20 ms at ten tokens a millisecond flowed in, and 40 ms before.
    let left = headers.tokens.unwrap().remaining;
    assert!((594_000 + 200..=596_000).contains(&left), "{left}");
}

#[test]
fn both_buckets_or_neither_and_a_small_ask_gets_by_a_large_one() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 60, burst: 5, tpm: 1_000, max_parallel: 0 };
    let first = world.get(0, &limits, 900).unwrap();
    assert_eq!(first.reserved(), 900);
    let refused = world.take(1, &limits, 500);
    assert_eq!(refused.outcome.unwrap_err().which, Which::Tokens);
    assert_eq!(refused.headers.requests.unwrap().remaining, 4, "a request refused for its tokens costs no request");
    assert_eq!(world.take(1, &limits, 500).outcome.unwrap_err().which, Which::Tokens, "from memory");
    let trips = world.calls;
    assert!(world.get(1, &limits, 80).is_ok() && world.calls == trips + 1, "a small one still asks");
    // Many in one call, in the order they came.
    let asked: Vec<_> = [400, 15, 400, 5].map(|n| world.instances[0].ask(&limits, n, world.now)).into();
    world.round(0, None);
    let verdicts: Vec<bool> = asked
        .into_iter()
        .map(|taken| match taken {
            Taken::Now(decision) => decision.outcome.is_ok(),
            Taken::Later(waiting) => word(waiting, world.now).outcome.is_ok(),
        })
        .collect();
    assert_eq!(verdicts, [false, true, false, true]);
}

#[test]
fn usage_is_settled_once_whatever_is_lost_and_debt_stays() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 0, burst: 0, tpm: 6_000, max_parallel: 0 };
    let one = world.get(0, &limits, 1_000).unwrap();
    let two = world.get(0, &limits, 1_000).unwrap();
    let gone = world.get(0, &limits, 1_000).unwrap();
    let left = |world: &mut World| world.take(1, &limits, 0).headers.tokens.unwrap().remaining;
    assert_eq!(left(&mut world), 3_000);
    one.settle(1, 100, world.now);
    // Settlements gather for a while; this one's call is lost, the next one's reply.
    assert_eq!(world.round(0, None), 0);
    world.pass(50);
    assert_eq!(world.round(0, Some(Lost::Call)), 1);
    world.pass(50);
    two.settle(1, 300, world.now);
    assert_eq!(world.round(0, Some(Lost::Reply)), 1);
    world.pass(50);
    assert_eq!(world.round(0, None), 1);
    assert_eq!(left(&mut world), 3_000 + 900 + 700 + 15, "15 flowed in");
    drop(gone);
    world.round(0, None);
    world.pass(50);
    world.round(0, None);
    assert_eq!(left(&mut world), 4_615 + 5, "who leaves keeps the debit");
    // Far more than was set aside: debt, which outlives a restarted instance and Redis' own forgetting.
    let big = world.get(0, &limits, 100).unwrap();
    big.settle(1, 40_100, world.now);
    world.round(0, None);
    world.pass(50);
    world.round(0, None);
    assert_eq!(world.take(1, &limits, 1).outcome.unwrap_err().which, Which::Tokens);
    let life: f64 = world.server.command("PTTL t:{k7}:limit:1").trim().trim_start_matches(':').parse().unwrap();
    assert!(life > 60_000.0 + 400_000.0, "41,480 tokens come in at a hundred a second: {life}");
    world.pass(1_100);
    world.server.command("FLUSHALL");
    assert_eq!(world.take(1, &limits, 1).outcome.unwrap_err().which, Which::Tokens, "who heard of it says so again");
}

#[test]
fn what_a_lost_reply_had_granted_is_not_lost() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 60, burst: 10, tpm: 6_000, max_parallel: 0 };
    for (n, lost) in [Lost::Reply, Lost::Call, Lost::Reply].into_iter().enumerate() {
        let Taken::Later(waiting) = world.instances[0].ask(&limits, 100, world.now) else { panic!("{n}") };
        assert_eq!(world.round(0, Some(lost)), 1);
        assert_eq!(word(waiting, world.now).outcome.unwrap_err().which, Which::Away);
    }
    let headers = world.take(0, &limits, 100).headers;
    assert_eq!((headers.requests.unwrap().remaining, headers.tokens.unwrap().remaining), (9, 5_900));
}

#[test]
fn usage_said_in_doubt_is_not_charged_again_when_redis_has_forgotten_who_said_it() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 0, burst: 0, tpm: 6_000, max_parallel: 0 };
    world.get(0, &limits, 100).unwrap().settle(1, 12_000, world.now);
    world.round(0, None);
    world.pass(50);
    assert_eq!(world.round(0, Some(Lost::Reply)), 1, "carried out, and nobody here knows");
    // Cut off for longer than Redis remembers: 6,110 tokens flow in, and the other one's call makes it forget.
    world.pass(61_100);
    let left = |world: &mut World| world.take(1, &limits, 0).headers.tokens.unwrap().remaining;
    assert_eq!(left(&mut world), 115);
    assert_eq!(world.round(0, None), 1);
    world.pass(1_000);
    assert_eq!(left(&mut world), 215);
}

#[test]
fn word_that_comes_in_the_last_moment_is_not_charged_for_nothing() {
    let mut world = World::new(1);
    let limits = Limited { tpm: 100, ..Limited::default() };
    let Taken::Later(waiting) = world.instances[0].ask(&limits, 60, world.now) else { panic!("nothing is known yet") };
    world.round(0, None);
    // The timer fired before anybody looked.
    assert!(waiting.alone(world.now).outcome.is_ok(), "charged over there, and refused here");
}

#[test]
fn an_operators_change_travels_with_the_next_call() {
    let mut world = World::new(2);
    let limits = requests(60, 4);
    assert!(world.ok(0, &limits) && world.ok(1, &limits));
    let cut = requests(60, 1);
    assert!(world.ok(0, &cut) && !world.ok(1, &cut), "two were left, cut to one");
    let raised = requests(600, 100);
    assert!(!world.ok(1, &raised), "never filled up by the change");
    world.pass(1_000);
    assert_eq!((0..20).filter(|n| world.ok(n % 2, &raised)).count(), 10, "ten a second from now on");
}

#[test]
fn requests_at_once_are_counted_over_all_instances() {
    let mut world = World::new(3);
    let limits = Limited { rpm: 0, burst: 0, tpm: 0, max_parallel: 5 };
    let mut running: Vec<_> = (0..9).filter_map(|n| world.get(n % 3, &limits, 0).ok()).collect();
    assert_eq!(running.len(), 5);
    running.pop();
    for of in 0..3 {
        world.round(of, None);
    }
    let more = world.get(2, &limits, 0);
    assert!(more.is_ok() && !world.ok(0, &limits));
    // Ten seconds later they still run: renewed each second. One instance dies: its slots lapse.
    for _ in 0..100 {
        world.pass(100);
        for of in 0..3 {
            world.round(of, None);
        }
    }
    assert!(!world.ok(1, &limits));
    let (gone, _kept): (Vec<_>, Vec<_>) = running.into_iter().enumerate().partition(|(n, _)| n % 3 == 0);
    assert_eq!(gone.len(), 2);
    for _ in 0..60 {
        world.pass(100);
        for of in 1..3 {
            world.round(of, None);
        }
    }
    let held: Vec<_> = (0..4).filter_map(|_| world.get(1, &limits, 0).ok()).collect();
    assert_eq!(held.len(), 2);
}

#[test]
fn while_redis_is_away_the_policy_decides_and_nobody_waits() {
    let live = Arc::new(AtomicU32::new(4));
    let limits = Limited { rpm: 240, burst: 40, tpm: 0, max_parallel: 8 };
    let admitted = |policy| {
        let mut one = Instance::new(policy, &live, 1);
        let waiting = one.ask(&limits, 0, START);
        let Taken::Later(waiting) = waiting else { panic!("while it is there one waits") };
        one.reach.set(false, Some("gone"), START);
        assert!(one.gather(START, false).is_empty(), "nothing is sent");
        let mut got = vec![word(waiting, START).outcome];
        for _ in 0..30 {
            let Taken::Now(decision) = one.ask(&limits, 0, START) else { panic!("somebody waits") };
            got.push(decision.outcome);
            if policy != Policy::Closed {
                assert!(got.iter().filter(|one| one.is_ok()).count() <= 2, "a quarter of the slots");
                got.retain(Result::is_err);
            }
        }
        let free = Limited { max_parallel: 0, ..limits };
        let outcomes: Vec<_> = (0..30)
            .map(|_| match one.ask(&free, 0, START) {
                Taken::Now(decision) => decision.outcome.map_err(|refusal| refusal.which),
                Taken::Later(_) => panic!("somebody waits"),
            })
            .collect();
        (outcomes.iter().filter(|one| one.is_ok()).count(), outcomes.into_iter().find_map(Result::err), one)
    };
    let (open, _, one) = admitted(Policy::Open);
    assert_eq!((open, one.desk.counts().1), (30, 30 + 31));
    let (none, why, _) = admitted(Policy::Closed);
    assert_eq!((none, why), (0, Some(Which::Away)));
}

#[path = "limits_leases_tests.rs"]
mod leases;

#[path = "limits_backlog_tests.rs"]
mod backlog;
