//! How long a call may take. Each is one transaction, under bounds of our own around all of it; when one passes, the
//! connection is closed, so that no late answer is ever read, and the server ends the statement by its own timeout.
//!
//! Two bounds, since two things go wrong: a database that does not answer at all (frozen, cut off) is noticed by how
//! long it takes to *begin* a transaction, one that is slow by how long the work takes. What an operator waits for is
//! answered within five seconds whatever happens: a call that found the database silent makes the next ones patient
//! for moments only, until one of them, or the refresher's own look, gets an answer.

use super::connect::{self, Connection};
use super::{Postgres, Tx};
use crate::base::{Clock, Now, tasks};
use crate::store::error::{Result, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Undoing a transaction.
const ROLLBACK: Duration = Duration::from_millis(500);
/// To begin one, right after a call that had no answer.
const HURRY: Duration = Duration::from_millis(500);

/// A lane, and how long a call in it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) lane: usize,
    /// Begins the transaction. What it sets holds for that alone. `lock_timeout`: whoever waits for a row longer than
    /// this waits for somebody who hangs.
    pub(super) begin: &'static str,
    /// Until the transaction has begun: a turn in the lane, a connection, an answer.
    pub(super) reach: Duration,
    /// From then on. The server's own timeout is a little shorter.
    pub(super) work: Duration,
}

macro_rules! begin {
    (write, $statement:literal, $lock:literal) => {
        concat!(
            "BEGIN; SET LOCAL statement_timeout = ",
            $statement,
            "; SET LOCAL lock_timeout = ",
            $lock,
            "; SET LOCAL idle_in_transaction_session_timeout = 20000"
        )
    };
    (read, $statement:literal) => {
        concat!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off; SET LOCAL statement_timeout = ",
            $statement,
            "; SET LOCAL idle_in_transaction_session_timeout = 20000"
        )
    };
}

// `jit`: compiling a question costs more than any of ours takes.
const WRITES: usize = 0;
const QUERIES: usize = 1;
const WATCH: usize = 2;

/// An operator waits: `HURRY` or `reach`, and then `work`, stay below five seconds together with a second such call.
const PROMPT: (Duration, Duration) = (Duration::from_millis(2_500), Duration::from_secs(4));
/// A task of ours waits.
const PATIENT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));

/// A change that somebody waits for.
pub(super) const WRITE: Manner =
    Manner { lane: WRITES, begin: begin!(write, 3500, 3000), reach: PROMPT.0, work: PROMPT.1 };
/// Usage and retention.
pub(super) const BULK: Manner =
    Manner { lane: WRITES, begin: begin!(write, 12000, 5000), reach: PATIENT.0, work: PATIENT.1 };
/// A question that somebody waits for.
pub(super) const QUERY: Manner = Manner { lane: QUERIES, begin: begin!(read, 3500), reach: PROMPT.0, work: PROMPT.1 };
/// A whole table.
pub(super) const SURVEY: Manner =
    Manner { lane: QUERIES, begin: begin!(read, 12000), reach: PATIENT.0, work: PATIENT.1 };
/// Who may come in: in the lane where nothing long ever runs.
pub(super) const ADMIT: Manner = Manner { lane: WATCH, ..QUERY };
/// What changed, in the same lane. Always patient, so that somebody notices when the database answers again.
pub(super) const LOOK: Manner = Manner { lane: WATCH, ..SURVEY };

impl Manner {
    fn is_prompt(&self) -> bool {
        self.reach < PATIENT.0
    }
}

impl Postgres {
    /// Runs `work` in a transaction on the engine's own runtime. It goes on when its caller is dropped.
    pub(super) async fn run<T, F>(&self, manner: Manner, work: impl FnOnce(Tx) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let engine = self.clone();
        let call = async move { engine.call(manner, work).await };
        let ended = tasks::spawn_on(&self.inner.runtime, "store call", call).await;
        ended.unwrap_or_else(|_| Err(StoreError::unavailable("the store's thread dropped the call")))
    }

    async fn call<T, F>(&self, manner: Manner, work: impl FnOnce(Tx) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let inner = &self.inner;
        let hurried = manner.is_prompt() && inner.silent.load(Ordering::Relaxed);
        let until = after(if hurried { HURRY } else { manner.reach });
        let Ok(Ok(_turn)) = within(until, inner.lanes[manner.lane].acquire()).await else {
            return Err(StoreError::unavailable("the store has too much to do; try again"));
        };
        let connection = match within(until, connect::take(&inner.pool)).await {
            Ok(taken) => taken?,
            Err(late) => {
                inner.silent.store(true, Ordering::Relaxed);
                return Err(late);
            }
        };
        let tx = Tx(Arc::new(connection));
        if let Err(error) = begin(&tx, until, manner.begin, &inner.silent).await {
            tx.discard();
            return Err(error);
        }
        match finish(tx, after(manner.work), work).await {
            Ended::In(done) => done,
            Ended::Late => {
                // The server's own timeout should have ended it before.
                inner.silent.store(true, Ordering::Relaxed);
                Err(late(manner.work))
            }
        }
    }
}

/// One transaction outside the lanes, under a bound of its own.
pub(super) async fn transact<T, F>(tx: Tx, begin: &str, bound: Duration, work: impl FnOnce(Tx) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let until = after(bound);
    if let Err(error) = within(until, tx.batch(begin)).await.and_then(|begun| begun) {
        tx.discard();
        return Err(error);
    }
    match finish(tx, until, work).await {
        Ended::In(done) => done,
        Ended::Late => Err(late(bound)),
    }
}

async fn begin(tx: &Tx, until: Now, sql: &str, silent: &AtomicBool) -> Result<()> {
    let begun = within(until, tx.batch(sql)).await;
    silent.store(begun.is_err(), Ordering::Relaxed);
    begun?
}

enum Ended<T> {
    /// Within its time.
    In(Result<T>),
    /// Its connection is closed.
    Late,
}

/// The work of a transaction that has begun, and its end.
async fn finish<T, F>(tx: Tx, until: Now, work: impl FnOnce(Tx) -> F) -> Ended<T>
where
    F: Future<Output = Result<T>>,
{
    let whole = async {
        let out = work(tx.clone()).await?;
        tx.batch("COMMIT").await?;
        Ok(out)
    };
    let refused = match within(until, whole).await {
        Ok(Ok(out)) => return Ended::In(Ok(out)),
        Ok(Err(error)) => error,
        Err(_) => {
            tx.discard();
            return Ended::Late;
        }
    };
    if !matches!(within(after(ROLLBACK), tx.batch("ROLLBACK")).await, Ok(Ok(()))) {
        tx.discard();
    }
    Ended::In(Err(refused))
}

fn after(span: Duration) -> Now {
    Clock::now() + span
}

async fn within<T>(until: Now, asked: impl Future<Output = T>) -> Result<T> {
    let left = Clock::now().until(until);
    tokio::time::timeout(left, asked).await.map_err(|_| StoreError::unavailable("the database does not answer"))
}

fn late(bound: Duration) -> StoreError {
    StoreError::unavailable(format!("the database did not answer within {} s", bound.as_secs()))
}

impl Tx {
    /// Closes the connection instead of giving it back: nobody knows what it would say next.
    fn discard(self) {
        if let Some(connection) = Arc::into_inner(self.0) {
            drop(Connection::take(connection));
        }
    }
}
