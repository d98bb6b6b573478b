//! The cluster's count of logins against this instance's: the same rules, said once in Rust and once in Lua.

use super::*;
use crate::base::Clock;
use crate::cluster::connector::Connector;
use crate::cluster::testing::RedisServer;
use crate::state::logins::Logins;
use crate::state::throttle::{Attempt, Throttle};
use redis::Value;

/// Small and seeded: the same sequence each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test]
async fn the_script_decides_as_the_instance_does() {
    let server = RedisServer::start();
    let connector = Connector::new(&server.url(), None).unwrap();
    let mut conn = connector.way("test").connection(b"").await;
    for seed in 1..=12 {
        server.command("FLUSHALL");
        let throttle = Throttle::new();
        let (_logins, said) = Logins::open(Arc::default());
        let counts = LoginCounts::new(Names::new("t"), [3; 32], seed, said);
        let (mut dice, mut open, mut refused): (_, Vec<(Attempt, Counted)>, _) = (Dice(seed), Vec::new(), 0);
        for number in 1..=300 {
            let now = Clock::now();
            if dice.roll(5) == 0 && !open.is_empty() {
                let (attempt, counted) = open.swap_remove(dice.roll(open.len() as u64) as usize);
                let right = dice.roll(8) == 0;
                let call = counts.call(if right { "right" } else { "not_judged" }, counted);
                conn.command(call, Duration::from_secs(20)).await.unwrap().unwrap();
                if right {
                    throttle.succeeded(attempt, now);
                } else {
                    throttle.not_judged(attempt);
                }
                continue;
            }
            // One of them is this machine, which the count over all spares.
            let net = Net::V4([0x7f00_0001, 1, 2, 3, 4, 5, 6, 7, 8][dice.roll(9) as usize]);
            let counted = Counted { net, number };
            let answer = conn.command(counts.call("attempt", counted), Duration::from_secs(20)).await.unwrap().unwrap();
            let (wait, _known): (u64, bool) = redis::from_owned_redis_value(answer).unwrap();
            match throttle.attempt(net, now) {
                Ok(attempt) => {
                    assert_eq!(wait, 0, "seed {seed}, {number}: let in here, refused there");
                    open.push((attempt, counted));
                }
                Err(throttled) => {
                    refused += 1;
                    let here = throttled.retry_after;
                    let apart = here.abs_diff(Duration::from_millis(wait));
                    let late = Duration::from_secs(20);
                    assert!(wait > 0 && apart < late, "seed {seed}, {number}: {wait} ms there, {here:?} here");
                }
            }
        }
        assert!(refused > 20, "seed {seed}: {refused} refusals test too little");
    }
}

#[tokio::test]
async fn strikes_of_one_minute_add_up_and_addresses_are_bounded() {
    let server = RedisServer::start();
    let connector = Connector::new(&server.url(), None).unwrap();
    let mut conn = connector.way("test").connection(b"").await;
    let key = Names::new("t").strikes();
    let mut tell = async |most: u32, counts: &[(&str, u32)]| {
        let mut call = STRIKES.call(&[&key]).arg(60_000).arg(most);
        for (net, count) in counts {
            call = call.arg(*net).arg(*count);
        }
        let answer: Value = conn.command(call, Duration::from_secs(20)).await.unwrap().unwrap();
        redis::from_owned_redis_value::<Vec<u32>>(answer).unwrap()
    };
    assert_eq!(tell(100, &[("a", 3), ("b", 1)]).await, [3, 1]);
    assert_eq!(tell(100, &[("b", 5)]).await, [6]);
    // The window's own field counts, too.
    assert_eq!(tell(4, &[("c", 1), ("d", 1), ("a", 1)]).await, [1, 0, 4], "no room for a fourth address");
    server.command("HSET t:{strikes} @ 5");
    assert_eq!(tell(100, &[("a", 2)]).await, [2], "a new window");
}

#[test]
fn of_many_attempts_at_once_each_is_counted_in_its_round() {
    let (logins, said) = Logins::open(Arc::default());
    let mut counts = LoginCounts::new(Names::new("t"), [3; 32], 1, said);
    let waiting: Vec<_> = (0..70).filter_map(|_| logins.attempt(Net::V4(1))).collect();
    let now = Clock::now();
    let mut sent = Vec::new();
    while sent.last() != Some(&0) {
        let mut calls = Vec::new();
        counts.gather(&mut Round::new(&mut calls, now, true));
        assert_eq!(counts.due().is_some(), calls.len() == A_ROUND, "the next round follows at once");
        let answer = Value::Array(vec![Value::Int(0), Value::Int(0)]);
        counts.settle(&mut vec![Ok(answer); calls.len()].into_iter(), now);
        sent.push(calls.len());
    }
    assert_eq!(sent, [32, 32, 6, 0]);
    for (_, mut verdict) in waiting {
        assert_eq!(verdict.try_recv(), Ok(Verdict::In { known: false }), "nobody decides alone");
    }
    // While Redis is away each is answered at once: nobody to ask.
    let (_, mut verdict) = logins.attempt(Net::V4(1)).unwrap();
    counts.gather(&mut Round::new(&mut Vec::new(), now, false));
    assert_eq!(verdict.try_recv(), Err(oneshot::error::TryRecvError::Closed));
}
