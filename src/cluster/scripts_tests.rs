//! Scripts beside their later versions, on servers that lost what they had.

use super::call::{Call, Script, script};
use super::codec::Names;
use super::connector::Connector;
use super::dial::Held;
use super::testing::RedisServer;
use crate::base::AccountId;
use redis::Value;
use std::time::Duration;

static REST: Script = script!("rest.lua");
static RESTS: Script = script!("rests.lua");
static CLAIM: Script = script!("claim.lua");
static FAILURES: Script = script!("failures.lua");
static LEAD: Script = script!("lead.lua");

async fn run(held: &mut Held, call: Call) -> Value {
    held.command(call, Duration::from_secs(20)).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_later_version_added_to_is_read_and_not_taken_for_nothing() {
    let server = RedisServer::start();
    let mut held = Connector::new(&server.url(), None).unwrap().way("test").connection(b"").await;
    let (names, account) = (Names::new("t"), AccountId(5));
    let (table, trial, failures) = (names.rests(account), names.trial(account), names.failures(account, 7));
    let far = "9000000000000000";
    let set = Call::new("HSET", &table).arg(&table).arg("account");
    run(&mut held, set.arg(format!("7 {far} 3 1 {far} 1 and more"))).await;
    // (generation, left, level, reason, keep, ago, the server's time)
    let older = REST.call(&[&table]).arg("account").arg(6).arg(1000).arg(1).arg(1).arg(1000).arg(-1).arg(-1);
    let Value::Array(winner) = run(&mut held, older).await else { panic!() };
    assert_eq!(winner[..2], [Value::Int(0), Value::Int(7)], "the greater generation wins");
    let Value::Array(all) = run(&mut held, RESTS.call(&[&table])).await else { panic!() };
    assert_eq!((all.len(), &all[1]), (6, &Value::Int(7)));
    let claim = CLAIM.call(&[&table, &trial]).arg("account").arg("me").arg(6).arg(1000);
    let Value::Array(changed) = run(&mut held, claim).await else { panic!() };
    assert_eq!(changed[..2], [Value::Int(2), Value::Int(7)]);
    for entry in [format!("{far} 2 and more"), "something else".to_owned()] {
        run(&mut held, Call::new("RPUSH", &failures).arg(&failures).arg(entry)).await;
    }
    assert_eq!(run(&mut held, FAILURES.call(&[&failures]).arg(1).arg(30_000).arg(10)).await, Value::Int(3));
}

#[tokio::test]
async fn no_number_of_a_lease_is_handed_out_twice_though_redis_is_emptied() {
    let server = RedisServer::start();
    let mut held = Connector::new(&server.url(), None).unwrap().way("test").connection(b"").await;
    let [lease, counter] = Names::new("t").lease("work");
    let mut last = 0;
    for lost in ["FLUSHALL", "FLUSHALL", "DEL t:{lead}:work", "DEL t:{lead}:work"] {
        server.command(lost);
        let Value::Int(number) = run(&mut held, LEAD.call(&[&lease, &counter]).arg("a").arg(15_000)).await else {
            panic!()
        };
        assert!(number > last, "{lost}: {number} after {last}");
        let again = run(&mut held, LEAD.call(&[&lease, &counter]).arg("a").arg(15_000)).await;
        assert_eq!(again, Value::Int(number), "renewed under its number");
        assert_eq!(run(&mut held, LEAD.call(&[&lease, &counter]).arg("b").arg(15_000)).await, Value::Int(0));
        last = number;
    }
    // The clock was set back.
    run(&mut held, Call::new("SET", &counter).arg(&counter).arg("9000000000000000")).await;
    server.command("DEL t:{lead}:work");
    assert_eq!(
        run(&mut held, LEAD.call(&[&lease, &counter]).arg("a").arg(15_000)).await,
        Value::Int(9_000_000_000_000_001)
    );
}
