//! One connection. Every trip on it runs under our own deadline around the whole of it; a trip that missed it, or was
//! given up half-way, ends the connection, so that no late answer is ever taken for another's.

use super::call::{Answer, Call, Fault, Script};
use super::reply::{Broken, Reply};
use super::url::Target;
use crate::base::metrics::METRICS;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A connection, logged in.
pub(super) struct Conn {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    target: Arc<Target>,
    /// A trip is under way, or one did not end well.
    spoilt: bool,
}

impl Conn {
    pub(super) fn new(connection: MultiplexedConnection, driver: JoinHandle<()>, target: Arc<Target>) -> Self {
        Self { connection, driver, target, spoilt: false }
    }

    /// Whether it can be used (as far as anybody noticed).
    pub(super) fn is_alive(&self) -> bool {
        !self.spoilt && !self.driver.is_finished()
    }

    /// Sends all as one pipeline; what each came to, in order. Scripts not known there are loaded and called again in a
    /// second trip with a deadline of its own.
    pub(super) async fn trip(&mut self, calls: &[&Call], deadline: Duration) -> Result<Vec<Reply>, Broken> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.cmd.clone());
        }
        let mut replies: Vec<Reply> =
            self.pipeline(&pipeline, calls.len(), deadline).await?.into_iter().map(Reply::of).collect();
        let again: Vec<usize> = (0..calls.len()).filter(|&n| replies[n] == Reply::NoScript).collect();
        if !again.is_empty() {
            // Each once, however many call it: a server that was emptied forgets all of them at once.
            let mut scripts: Vec<&Script> = Vec::new();
            for script in again.iter().filter_map(|&n| calls[n].script) {
                if !scripts.iter().any(|&known| std::ptr::eq(known, script)) {
                    scripts.push(script);
                }
            }
            let mut pipeline = Pipeline::with_capacity(scripts.len() + again.len());
            for script in &scripts {
                pipeline.add_command(script.load());
            }
            for &n in &again {
                pipeline.add_command(calls[n].cmd.clone());
            }
            let values = self.pipeline(&pipeline, scripts.len() + again.len(), deadline).await?;
            for (n, value) in again.into_iter().zip(values.into_iter().skip(scripts.len())) {
                replies[n] = Reply::of(value);
            }
        }
        if replies.iter().any(|reply| matches!(reply, Reply::Elsewhere { asking: false, .. })) {
            self.target.turned_out_a_cluster();
        }
        Ok(replies)
    }

    /// Several calls to this one server, an answer for each. For connections of their own, which have no other server
    /// to follow a key to: one that lives elsewhere now ends the connection; ask for another.
    pub(super) async fn round(&mut self, calls: &[Call], deadline: Duration) -> Result<Vec<Answer>, Broken> {
        let mut answers = Vec::with_capacity(calls.len());
        for reply in self.trip(&calls.iter().collect::<Vec<_>>(), deadline).await? {
            answers.push(match reply {
                Reply::Is(answer) => answer,
                Reply::NoScript => Err(Fault::Refused("NOSCRIPT".to_owned())),
                Reply::Down(why) => return Err(self.unfit(why)),
                Reply::Elsewhere { .. } => return Err(self.unfit("the key lives elsewhere now".to_owned())),
            });
        }
        Ok(answers)
    }

    /// One command, which may block there for less than `deadline`.
    pub(super) async fn command(&mut self, call: Call, deadline: Duration) -> Result<Answer, Broken> {
        let mut answers = self.round(&[call], deadline).await?;
        Ok(answers.pop().unwrap_or(Err(Fault::Down)))
    }

    /// It is not to be used again: what is wrong may be of this connection alone (its login, say).
    pub(super) fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// Asks whether it is alive, without borrowing it meanwhile.
    pub(super) fn ping(&self, deadline: Duration) -> impl Future<Output = bool> + Send + use<> {
        let (mut connection, target) = (self.connection.clone(), Arc::clone(&self.target));
        async move {
            let ping = redis::cmd("PING");
            !target.alone.load(Ordering::Acquire)
                && matches!(within(deadline, connection.send_packed_command(&ping)).await, Some(Ok(_)))
        }
    }

    fn unfit(&mut self, why: String) -> Broken {
        self.spoil();
        Broken::Unfit(why)
    }

    async fn pipeline(&mut self, pipeline: &Pipeline, count: usize, deadline: Duration) -> Result<Vec<Value>, Broken> {
        if !self.is_alive() {
            return Err(Broken::Lost("the connection was closed".to_owned()));
        }
        self.spoilt = true;
        if self.target.alone.load(Ordering::Acquire) {
            return Err(Broken::Unfit("it is another deployment's".to_owned()));
        }
        let sent = within(deadline, self.connection.send_packed_commands(pipeline, 0, count)).await;
        match sent {
            Some(Ok(values)) if values.len() == count => {
                self.spoilt = false;
                Ok(values)
            }
            Some(Ok(_)) => Err(Broken::Lost("it spoke no Redis".to_owned())),
            Some(Err(error)) => Err(Broken::of(&error)),
            None => Err(Broken::Timeout),
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // Closes the socket now: what the server has not carried out yet is not carried out later.
        self.driver.abort();
    }
}

/// Bounds a trip. When the timer fires, what has arrived meanwhile still counts: it may have been this thread that was
/// late, not the server. Yielding lets the runtime look at its sockets and the connection's driver hand on what came.
pub(super) async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return Some(done),
        () = tokio::time::sleep(deadline) => {}
    }
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    tokio::select! {
        biased;
        done = &mut work => {
            METRICS.redis_late_wakeups.inc();
            Some(done)
        }
        () = std::future::ready(()) => None,
    }
}
