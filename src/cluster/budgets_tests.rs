//! Real ledgers, the real part and a real Redis: a budget is one over all instances, whatever is lost.

use super::*;
use crate::base::KeyId;
use crate::base::bell::Bell;
use crate::base::metrics::METRICS;
use crate::base::sync::AtomicU32;
use crate::cluster::Call;
use crate::cluster::call::Fault;
use crate::cluster::limits::tests::{START, at, linked, server_clock};
use crate::cluster::link::Link;
use crate::cluster::testing::RedisServer;
use crate::state::budgets::{BudgetHold, Budgets as Books, Seeking, Sought};
use crate::state::reach::Reach;

const KEY: KeyId = KeyId(3);

struct Side {
    books: Books,
    part: Budgets,
    reach: Arc<Reach>,
}

struct World {
    server: RedisServer,
    runtime: tokio::runtime::Runtime,
    link: Link,
    sides: Vec<Side>,
    now: Now,
    calls: usize,
    refusals: bool,
}

impl World {
    fn new(count: u32) -> Self {
        let server = RedisServer::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let link = linked(&server, &runtime);
        let sides = (0..count).map(|n| Side::new(n.into(), count)).collect();
        Self { server, runtime, link, sides, now: START, calls: 0, refusals: false }
    }

    fn round(&mut self, of: usize, lose: Option<bool>) -> usize {
        let mut calls: Vec<Call> = Vec::new();
        let mut round = Round::new(&mut calls, self.now, true);
        self.sides[of].part.gather(&mut round);
        self.sides[of].part.tend(&mut round);
        self.calls += calls.len();
        let mut answers = vec![Err(Fault::Down); calls.len()];
        // Lost on the way there: nobody heard of it. On the way back: it was carried out.
        if lose != Some(true) && !calls.is_empty() {
            let came = self.runtime.block_on(self.link.round(&at(&calls, server_clock(self.now))));
            assert!(self.refusals || came.iter().all(Result::is_ok), "{came:?}");
            if lose.is_none() {
                answers = came;
            }
        }
        if !calls.is_empty() {
            self.sides[of].part.settle(&mut answers.into_iter(), self.now);
        }
        calls.len()
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(50) {
            for of in 0..self.sides.len() {
                self.round(of, None);
            }
            self.now = self.now + Duration::from_millis(50.min(millis));
        }
        for of in 0..self.sides.len() {
            self.round(of, None);
        }
    }

    fn hold(&mut self, of: usize, budget: i64, nanos: i64) -> Option<BudgetHold> {
        match self.sides[of].books.ask(KEY, budget, nanos, self.now) {
            Sought::Now(sought) => sought.ok(),
            Sought::Later(mut seeking) => {
                self.round(of, None);
                seeking.answer.try_recv().map_or_else(|_| seeking.alone(), Seeking::told).ok()
            }
        }
    }
}

impl Side {
    fn new(epoch: u64, live: u32) -> Self {
        let reach = Arc::new(Reach::new());
        reach.set(true, None, START);
        let live = Arc::new(AtomicU32::new(live));
        let till = Arc::new(Till::new(Arc::<Bell>::default(), Arc::clone(&reach), live, epoch));
        let part = Budgets::new(Names::new("t"), Arc::clone(&till));
        Self { books: Books::shared(till), part, reach }
    }
}

#[test]
fn one_budget_over_all_instances_to_the_request_that_crosses_the_line() {
    let mut world = World::new(3);
    let holds: Vec<_> = (0..30).filter_map(|n| world.hold(n % 3, 1_000, 100)).collect();
    assert_eq!(holds.len(), 10, "what is set aside elsewhere is not there");
    for hold in holds {
        hold.settle(1, 60);
    }
    world.pass(100);
    let more: Vec<_> = (0..30).filter_map(|n| world.hold(n % 3, 1_000, 100)).collect();
    assert_eq!(more.len(), 4, "600 were spent");
    assert_eq!(world.sides[0].books.spent(KEY), 600);
    drop(more);
    world.pass(100);
    assert!(world.hold(1, 1_000, 0).is_none(), "who leaves has spent the estimate");
    assert!(world.hold(1, 1_001, 0).is_some(), "an operator raised it");
}

#[test]
fn spending_counts_once_whatever_is_lost_and_a_total_survives_redis() {
    let mut world = World::new(2);
    let mut lost = [Some(true), Some(false), None, Some(false), None].into_iter().cycle();
    for _ in 0..10 {
        world.hold(0, 100_000, 500).unwrap().settle(1, 300);
        world.round(0, None);
        world.now = world.now + Duration::from_millis(50);
        world.round(0, lost.next().unwrap());
    }
    world.pass(100);
    world.hold(1, 100_000, 0).unwrap().settle(1, 7);
    world.pass(100);
    assert_eq!(world.sides[1].books.spent(KEY), 3_007);
    // Redis is emptied: the next to call tells it what it knows; a third, just started, hears it.
    world.server.command("FLUSHALL");
    world.hold(1, 100_000, 0).unwrap().settle(1, 3);
    world.pass(100);
    world.sides.push(Side::new(9, 3));
    drop(world.hold(2, 100_000, 0));
    assert_eq!(world.sides[2].books.spent(KEY), 3_010);
    world.pass(2_500);
    assert_eq!(world.sides[0].books.spent(KEY), 3_010, "nothing counts twice");
    // One that knows of more from the store keeps to that; but to a Redis that has a total it is no news: what others
    // spent and did not say yet may be in it, and would count again when they do.
    world.sides.push(Side::new(10, 4));
    world.sides[3].books.seed(KEY, 5_000);
    assert!(world.hold(3, 5_000, 1).is_none() && world.hold(3, 5_001, 1).is_some());
    drop(world.hold(0, 5_001, 0));
    assert_eq!(world.sides[0].books.spent(KEY), 3_010);
    // To one that has none it is.
    world.server.command("FLUSHALL");
    world.sides.push(Side::new(11, 5));
    world.sides[4].books.seed(KEY, 5_000);
    assert!(world.hold(4, 5_001, 1).is_some() && world.hold(0, 5_001, 1).is_none(), "set aside on the other");
}

#[test]
fn what_the_store_heard_of_an_outage_is_not_debited_again_by_who_spent_it() {
    let mut world = World::new(2);
    world.hold(0, 10_000, 400).unwrap().settle(1, 400);
    world.pass(100);
    world.sides[0].reach.set(false, Some("gone"), START);
    world.hold(0, 10_000, 100).unwrap().settle(1, 100);
    // One starts meanwhile, and knows all of it from the store. Redis is back: it is the first to speak.
    world.sides[1].books.seed(KEY, 500);
    assert_eq!(world.sides[1].books.spent(KEY), 500);
    drop(world.hold(1, 10_000, 0));
    world.sides[0].reach.set(true, None, START);
    world.pass(200);
    world.hold(1, 10_000, 50).unwrap().settle(1, 50);
    world.pass(200);
    drop(world.hold(0, 10_000, 0));
    for side in &world.sides {
        assert_eq!(side.books.spent(KEY), 550, "each dollar once");
    }
}

#[test]
fn what_was_said_in_doubt_is_not_debited_again_when_redis_has_forgotten_who_said_it() {
    let mut world = World::new(2);
    world.hold(0, 10_000, 400).unwrap().settle(1, 400);
    world.pass(100);
    world.hold(0, 10_000, 100).unwrap().settle(1, 100);
    world.round(0, None);
    world.now = world.now + Duration::from_millis(50);
    assert_eq!(world.round(0, Some(false)), 1, "carried out, and nobody here knows");
    // Cut off for longer than Redis remembers; the other one's calls make it forget.
    world.now = world.now + Duration::from_secs(620);
    drop(world.hold(1, 10_000, 0));
    world.hold(0, 10_000, 7).unwrap().settle(1, 7);
    world.pass(200);
    drop(world.hold(1, 10_000, 0));
    assert_eq!((world.sides[0].books.spent(KEY), world.sides[1].books.spent(KEY)), (507, 507));
}

#[test]
fn what_somebody_else_wrote_under_our_key_is_written_anew_or_counted() {
    let mut world = World::new(1);
    world.hold(0, 10_000, 0).unwrap().settle(1, 400);
    world.pass(100);
    for foreign in ["nonsense", "\u{1}", "9"] {
        world.server.command(&format!("SET t:{{k3}}:budget:1 {foreign}"));
        assert!(world.hold(0, 400, 0).is_none() && world.hold(0, 401, 0).is_some(), "{foreign}");
        world.pass(100);
    }
    world.sides.push(Side::new(9, 2));
    drop(world.hold(1, 10_000, 0));
    assert_eq!(world.sides[1].books.spent(KEY), 400);
    // No script can work on this one: each instance decides by what it knows.
    world.server.command("DEL t:{k3}:budget:1");
    world.server.command("LPUSH t:{k3}:budget:1 a");
    let before = METRICS.cluster_unreadable.get();
    world.refusals = true;
    assert!(world.hold(0, 401, 0).is_some());
    assert!(METRICS.cluster_unreadable.get() > before);
}

#[test]
fn away_from_redis_a_budget_never_opens() {
    let mut world = World::new(2);
    world.hold(0, 1_000, 400).unwrap().settle(1, 400);
    world.pass(100);
    drop(world.hold(1, 1_000, 0));
    world.sides[1].reach.set(false, Some("gone"), START);
    let alone: Vec<_> = (0..10).filter_map(|_| world.hold(1, 1_000, 100)).collect();
    assert_eq!(alone.len(), 6, "400 were spent as last heard");
    for hold in alone {
        hold.settle(1, 50);
    }
    // The store hears of the other's spending: 450 here, 800 there.
    world.sides[1].books.seed(KEY, 950);
    assert_eq!((0..10).filter_map(|_| world.hold(1, 1_000, 20)).map(std::mem::forget).count(), 3);
    world.sides[1].reach.set(true, None, START);
    world.pass(200);
    drop(world.hold(0, 10_000, 0));
    assert_eq!(world.sides[0].books.spent(KEY), 700, "only what was spent here is carried over");
}

#[test]
fn a_busy_key_has_room_and_a_dead_instances_claims_lapse() {
    let mut world = World::new(2);
    let (mut asked, budget) = (0, 1_000_000_000);
    for _ in 0..2_000 {
        asked += 1;
        world.hold(0, budget, 1_000).unwrap().settle(1, 900);
        world.now = world.now + Duration::from_millis(1);
        world.round(0, None);
    }
    assert!(world.calls * 10 < asked, "{} calls for {asked} requests", world.calls);
    world.pass(100);
    assert_eq!(world.sides[0].books.spent(KEY), 1_800_000);
    // One dies with its claims: they are nobody's after ten seconds.
    let budget = 1_800_000 + 100;
    std::mem::forget(world.hold(0, budget, 100).unwrap());
    world.round(0, None);
    assert!(world.hold(1, budget, 1).is_none());
    world.sides[0] = Side::new(8, 2);
    world.pass(10_100);
    assert!(world.hold(1, budget, 1).is_some());
}
