//! The way to Redis: one pipeline a round, under one deadline, and the knowledge whether anybody is there.
//!
//! A round that misses its deadline costs its connection, so that no late answer is ever taken for another's. From then
//! on calls are answered [`Fault::Down`] at once, until a probe got through.

use super::call::{Answer, Call, Fault, Script, script};
use mobc_redis::RedisConnectionManager;
use mobc_redis::mobc::Pool;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use std::time::Duration;

/// Whether scripts that write work there.
static PROBE: Script = script!("probe.lua");

/// The way to one Redis.
pub(super) struct Link {
    pool: Pool<RedisConnectionManager>,
    held: Option<MultiplexedConnection>,
    deadline: Duration,
}

impl Link {
    /// To the Redis at `url`. Connects when first used.
    pub(super) fn new(url: &str, deadline: Duration) -> RedisResult<Self> {
        let manager = RedisConnectionManager::new(redis::Client::open(url)?);
        // The task keeps its connection: nothing is checked out for a round, so nothing is PINGed either.
        let pool = Pool::builder().max_open(4).test_on_check_out(false).build(manager);
        Ok(Self { pool, held: None, deadline })
    }

    /// Whether calls go out.
    pub(super) fn is_up(&self) -> bool {
        self.held.is_some()
    }

    /// Tries to reach it.
    pub(super) async fn connect(&mut self) -> bool {
        let got = tokio::time::timeout(Duration::from_secs(1), self.pool.get()).await;
        self.held = got.ok().and_then(Result::ok).map(mobc_redis::mobc::Connection::into_inner);
        self.held.is_some()
    }

    /// Sends all of them as one pipeline; an answer for each, in order.
    pub(super) async fn round(&mut self, calls: &[Call]) -> Vec<Answer> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.cmd.clone());
        }
        let Some(values) = self.send(&pipeline, calls.len()).await else {
            return vec![Err(Fault::Down); calls.len()];
        };
        let mut answers: Vec<Answer> = values.into_iter().map(judged).collect();
        let again: Vec<usize> = (0..calls.len())
            .filter(|&n| {
                calls[n].script.is_some() && matches!(&answers[n], Err(Fault::Refused(why)) if why == "NOSCRIPT")
            })
            .collect();
        if !again.is_empty() {
            let mut pipeline = Pipeline::new();
            for &n in &again {
                pipeline.add_command(calls[n].script.map_or_else(redis::Cmd::new, super::call::Script::load));
                pipeline.add_command(calls[n].cmd.clone());
            }
            let values = self.send(&pipeline, again.len() * 2).await;
            for (at, n) in again.into_iter().enumerate() {
                answers[n] = values.as_ref().map_or(Err(Fault::Down), |values| judged(values[at * 2 + 1].clone()));
            }
        }
        answers
    }

    async fn send(&mut self, pipeline: &Pipeline, count: usize) -> Option<Vec<Value>> {
        let connection = self.held.as_mut()?;
        let sent = tokio::time::timeout(self.deadline, connection.send_packed_commands(pipeline, 0, count)).await;
        if let Ok(Ok(values)) = sent {
            return Some(values);
        }
        self.held = None;
        None
    }
}

fn judged(value: Value) -> Answer {
    match value {
        Value::ServerError(error) => Err(Fault::Refused(error.code().to_owned())),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::codec::Names;
    use crate::cluster::testing::RedisServer;

    #[tokio::test]
    async fn a_script_that_the_server_does_not_know_is_loaded_on_the_way() {
        let server = RedisServer::start();
        let mut link = Link::new(&server.url(), Duration::from_secs(5)).unwrap();
        assert!(link.connect().await);
        let names = Names::new("t");
        let calls =
            [Call::new("SET", b"a").arg("a").arg(1), PROBE.call(&[&names.probe()]), Call::new("GET", b"a").arg("a")];
        for _ in 0..2 {
            let answers = link.round(&calls).await;
            assert_eq!(answers[0], Ok(Value::Okay));
            assert!(matches!(answers[1], Ok(Value::Int(micros)) if micros > 1_600_000_000_000_000), "{answers:?}");
            assert_eq!(answers[2], Ok(Value::BulkString(b"1".to_vec())));
            server.command("SCRIPT FLUSH");
        }
    }
}
