//! The PostgreSQL engine: one store that many instances share.
//!
//! Its connections live on a runtime and thread of their own, so that neither a slow database nor the decoding of a
//! million keys delays the control plane, and `open` may be called from anywhere. Calls come in three lanes with a bound
//! each (writes, queries, the refresher's watch): a long question holds up neither usage nor news.
//!
//! Every call is one transaction under our own deadline around all of it ([`call`]). Statements are unnamed and nothing
//! is set beyond a transaction, so a pooler in transaction mode (`PgBouncer`) may stand in between; only
//! [`listen`](Postgres::listen) needs a session, and without it changes are found by looking.
//!
//! When it fails: [`StoreErrorKind::Unavailable`] and the caller retries or says so. It sees sealed secrets and hashes
//! only.

mod audit;
mod call;
mod catalog;
mod connect;
mod error;
mod keys;
mod listen;
mod logs;
mod migrate;
mod models;
mod prune;
mod receive;
mod sessions;
mod tokens;
mod usage;
mod values;

pub(crate) use listen::Listening;

use super::engine::Deployment;
use super::error::{Result, StoreError};
use crate::base::Secret;
use crate::base::tasks;
use connect::{Link, Pool};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// Transactions at once: writes, queries, watching.
const LANES: [usize; 3] = [4, 4, 2];

/// Handle to the engine; the thread ends when the last is gone.
#[derive(Clone)]
pub(crate) struct Postgres {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    pool: Pool,
    link: Link,
    lanes: [Semaphore; 3],
    /// Days whose partition is known to be there.
    days: Mutex<HashSet<i64>>,
    /// Of minutes before this one no totals are left.
    minutes_gone: AtomicU32,
    /// The last call had no answer at all: whoever comes next need not wait as long to learn it.
    silent: AtomicBool,
    /// Dropped with the last handle: the thread's sign to end.
    _stop: oneshot::Sender<()>,
}

/// A transaction in progress. Its statements are unnamed; values go with their types.
#[derive(Clone)]
struct Tx(Arc<connect::Connection>);

type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl Postgres {
    /// Connects, migrates, and lets `found` check or invent the deployment inside the migration's lock. Blocks: call it
    /// before serving.
    pub(crate) fn open<T: Send + 'static>(
        url: &Secret,
        found: impl FnOnce(Option<Deployment>) -> Result<(Option<Deployment>, T)> + Send + 'static,
    ) -> Result<(Self, T)> {
        let engine = Self::connect(url)?;
        let migrating = engine.clone();
        let (send, answer) = std::sync::mpsc::channel();
        let task = async move {
            // Nobody listens any more: then nobody wanted to know.
            let _ = send.send(migrating.migrate(found).await);
        };
        drop(tasks::spawn_on(&engine.inner.runtime, "store migration", task));
        let out = answer.recv().map_err(|_| StoreError::unavailable("the store's thread has ended"))??;
        Ok((engine, out))
    }

    /// The engine, with no connection made yet.
    fn connect(url: &Secret) -> Result<Self> {
        let link = Link::new(url)?;
        let (stop, stopped) = oneshot::channel();
        let (send, started) = std::sync::mpsc::channel();
        let size = LANES.iter().sum();
        let pool_link = link.clone();
        let thread = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = send.send(Ok((runtime.handle().clone(), pool_link.pool(size))));
                let _ = runtime.block_on(stopped);
            }
            Err(e) => drop(send.send(Err(e))),
        };
        let failed = |e: String| StoreError::unavailable(format!("cannot start the store's thread: {e}"));
        tasks::thread("store".to_owned(), thread).map_err(|e| failed(e.to_string()))?;
        let (runtime, pool) = started.recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        let inner = Inner {
            runtime,
            pool: pool?,
            link,
            lanes: LANES.map(Semaphore::new),
            days: Mutex::default(),
            minutes_gone: AtomicU32::new(0),
            silent: AtomicBool::new(false),
            _stop: stop,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it is; no password.
    pub(crate) fn place(&self) -> String {
        self.inner.link.place()
    }
}

impl Tx {
    async fn batch(&self, sql: &str) -> Result<()> {
        Ok(self.0.batch_execute(sql).await?)
    }

    async fn rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        Ok(self.0.query_typed(sql, params).await?)
    }

    async fn one(&self, sql: &str, params: &[Param<'_>]) -> Result<Row> {
        self.maybe(sql, params).await?.ok_or_else(|| StoreError::corrupt("the store lacks a row it must have"))
    }

    async fn maybe(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>> {
        Ok(self.0.query_typed_opt(sql, params).await?)
    }

    /// How many rows it touched.
    async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        Ok(self.0.execute_typed(sql, params).await?)
    }

    /// Takes the next change number, and with it the lock that orders all changes: call it first.
    async fn next_seq(&self) -> Result<i64> {
        let sql = "UPDATE meta SET change_seq = change_seq + 1 RETURNING change_seq";
        Ok(self.one(sql, &[]).await?.try_get(0)?)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("place", &self.place()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
