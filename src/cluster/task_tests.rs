//! Who goes out in a round, and who waits.

use super::*;
use crate::base::tasks::DrainSwitch;
use crate::cluster::call::Answer;
use crate::cluster::codec::Names;
use crate::cluster::connector::Connector;
use crate::cluster::limits::tests::linked;
use crate::cluster::testing::RedisServer;
use crate::state::reach::Reach;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// So many calls that may wait, and whether somebody waits for another.
#[derive(Default)]
struct Counter {
    backlog: usize,
    asks: usize,
    sent: usize,
    answered: Arc<AtomicUsize>,
}

fn incr(key: &str) -> Call {
    Call::new("INCR", key.as_bytes()).arg(key)
}

impl Part for Counter {
    fn gather(&mut self, round: &mut Round<'_>) {
        for _ in 0..self.asks {
            round.ask(incr("asked"));
        }
        self.sent += self.asks;
    }

    fn tend(&mut self, round: &mut Round<'_>) {
        while round.room > 0 && self.backlog > 0 {
            round.tend(incr("tended"));
            (self.backlog, self.sent) = (self.backlog - 1, self.sent + 1);
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, _: Now) {
        let own: Vec<Answer> = answers.collect();
        assert_eq!(own.len(), std::mem::take(&mut self.sent));
        assert!(own.iter().all(|answer| matches!(answer, Ok(redis::Value::Int(_)))), "{own:?}");
        self.answered.fetch_add(own.len(), Ordering::SeqCst);
    }
}

#[test]
fn no_backlog_stands_before_who_waits_and_none_starves() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut link = linked(&server, &runtime);
    let bell = Bell::default();
    let counts: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
    let part = |n: usize, backlog, asks| -> Box<dyn Part> {
        Box::new(Counter { backlog, asks, sent: 0, answered: Arc::clone(&counts[n]) })
    };
    let number = |key: &str| -> usize { server.command(&format!("INCRBY {key} 0"))[1..].trim().parse().unwrap() };
    // Two with much to say, and one whom somebody waits for.
    let mut parts = vec![part(0, 5_000, 0), part(1, 5_000, 0), part(2, 0, 1)];
    for turn in 1..=30 {
        runtime.block_on(round(&mut link, &mut parts, &bell, false, turn));
        assert_eq!((number("asked"), number("tended")), (turn, turn * TENDED_BESIDE_ASKS), "a few beside the ask");
    }
    let said: Vec<usize> = counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert!(said[0] >= 300 && said[1] >= 300 && said[2] == 30, "{said:?}");
    // Nobody waits: more, but no more than whoever comes next would wait one trip for.
    let mut parts = vec![part(0, 5_000, 0), part(1, 5_000, 0)];
    let before = number("tended");
    runtime.block_on(round(&mut link, &mut parts, &bell, false, 1));
    assert_eq!(number("tended"), before + TENDED);
}

/// Asks whose Redis it is whenever it was away, and lets nobody in before that was answered well.
struct Door {
    known: bool,
    friendly: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Part for Door {
    fn gather(&mut self, round: &mut Round<'_>) {
        if !round.up {
            self.known = false;
        } else if !self.known {
            round.push(incr("door"));
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, _: Now) {
        if answers.next().is_some_and(|answer| answer.is_ok()) {
            self.known = self.friendly.load(Ordering::SeqCst);
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn due(&self) -> Option<Now> {
        Some(Clock::now() + Duration::from_millis(20))
    }

    fn objects(&self) -> Option<Box<str>> {
        (!self.known).then(|| "not known yet".into())
    }
}

/// Writes in every round that it may take part in.
struct Writes;

impl Part for Writes {
    fn gather(&mut self, round: &mut Round<'_>) {
        if round.up {
            round.push(incr("written"));
        }
    }

    fn settle(&mut self, _: &mut dyn Iterator<Item = Answer>, _: Now) {}
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Clock::now();
    while !holds() {
        assert!(Clock::now().since(began) < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn after_each_connection_nothing_goes_out_before_it_is_known_whose_redis_it_is() {
    let mut server = RedisServer::start();
    let (friendly, asked) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default());
    let door = Door { known: false, friendly: Arc::clone(&friendly), asked: Arc::clone(&asked) };
    let connector = Connector::new(&server.url(), None).unwrap();
    let patience = Duration::from_secs(5);
    let link = Link::new(connector, "test", Names::new("t").probe(), patience, Arc::new(Reach::new()));
    let (switch, bell) = (DrainSwitch::new(), Arc::<Bell>::default());
    let drain = switch.drain();
    let thread = crate::base::tasks::thread("redis".to_owned(), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(link, vec![Box::new(door), Box::new(Writes)], bell, drain));
    })
    .unwrap();
    eventually("it is used", || server.command("EXISTS written").starts_with(":1"));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Somebody else's now, on the same address; and again, now that it is known to be.
    friendly.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        let before = asked.load(Ordering::SeqCst);
        server.revive();
        eventually("its door was knocked at", || asked.load(Ordering::SeqCst) >= before + 3);
        assert!(server.command("EXISTS written").starts_with(":0"), "others took part meanwhile");
    }
    friendly.store(true, Ordering::SeqCst);
    eventually("it is used again", || server.command("EXISTS written").starts_with(":1"));
    switch.advance(Phase::Cut);
    thread.join().unwrap();
}
