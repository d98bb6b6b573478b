//! The embedded engine: one SQLite file, written by one thread, read by two more.
//!
//! Each connection lives on an OS thread of its own behind a bounded channel, so no async task ever waits for a disk
//! and a long log query delays neither a write nor the refresh. Another process (a command) may use the same file at
//! the same time: SQLite's own locks order the writes, `change_seq` tells the others.
//!
//! When it fails: every call ends in a `StoreError`; a full channel is `Unavailable` at once rather than a queue that
//! grows. The engine sees sealed secrets and hashes only.

mod audit;
mod catalog;
mod export;
mod keys;
mod logs;
mod migrate;
mod models;
mod sessions;
mod tokens;
mod usage;

use super::columns::Columns;
use super::engine::Deployment;
use super::error::{Result, StoreError, StoreErrorKind};
use crate::base::tasks;
use crossbeam::channel::{Sender, TrySendError, bounded};
use rusqlite::{Connection, ErrorCode, Row, Rows, Transaction, TransactionBehavior};
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The file in the data directory.
pub(crate) const FILE: &str = "merido.db";
const QUEUE: usize = 256;
const BUSY: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Handle to the three threads; they end when the last handle is gone.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    path: Arc<Path>,
    write: Lane,
    query: Lane,
    watch: Lane,
}

#[derive(Clone, Debug)]
struct Lane(Sender<Job>);

impl Embedded {
    /// Opens (and makes, and migrates) the store in `dir`. `found` is called inside the migration's own write lock
    /// with what identifies the deployment, or without it on the very first start, when it must invent one: so of
    /// many processes starting at once exactly one invents. Blocks: call it before serving.
    pub(crate) fn open<T>(
        dir: &Path,
        found: impl FnOnce(Option<Deployment>) -> Result<(Option<Deployment>, T)>,
    ) -> Result<(Self, T)> {
        let failed = |what: &str, e: std::io::Error| {
            StoreError::unavailable(format!("cannot {what} {}: {e}; see MERIDO_DATA_DIR", dir.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("make the data directory", e))?;
        let path = dir.join(FILE);
        // Made by us first: SQLite would make it readable to all, and its journal files take after it.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| failed("write the store in", e))?;
        let mut writer = connect(&path)?;
        let out = migrate::run(&mut writer, found)?;
        let reader = |name| -> Result<Lane> {
            let connection = connect(&path)?;
            connection.pragma_update(None, "query_only", true)?;
            Lane::start(name, connection)
        };
        let (query, watch) = (reader("store-query")?, reader("store-watch")?);
        Ok((Self { path: path.into(), query, watch, write: Lane::start("store-write", writer)? }, out))
    }

    /// Where it is.
    pub(crate) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// One write transaction. Takes the write lock at its start: a transaction that reads first and then wants to
    /// write could be refused by another writer halfway, without waiting.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write
            .run(move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let out = work(&tx)?;
                tx.commit()?;
                Ok(out)
            })
            .await
    }

    /// One consistent look, on the thread for queries.
    async fn query<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.query.run(move |connection| work(&connection.transaction()?)).await
    }

    /// One consistent look, on the thread that nothing long ever runs on.
    async fn watch<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.watch.run(move |connection| work(&connection.transaction()?)).await
    }
}

impl Lane {
    fn start(name: &str, mut connection: Connection) -> Result<Self> {
        let (send, jobs) = bounded::<Job>(QUEUE);
        tasks::thread(name.to_owned(), move || {
            for job in jobs {
                job(&mut connection);
            }
        })
        .map_err(|e| StoreError::unavailable(format!("cannot start the store's thread: {e}")))?;
        Ok(Self(send))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waits any more: the work is done all the same, its answer is dropped.
            let _ = answer.send(work(connection));
        });
        self.0.try_send(job).map_err(|e| {
            StoreError::unavailable(match e {
                TrySendError::Full(_) => "the store has too much to do; try again",
                TrySendError::Disconnected(_) => "the store's thread has ended",
            })
        })?;
        answered.await.unwrap_or_else(|_| Err(StoreError::unavailable("the store's thread dropped the call")))
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Only has a say before the first table; lets retention give space back.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // The switch to WAL does not wait for others that switch too: many processes may start at once.
    let mut tries = 0;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Ok(()) => break,
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(e.into()),
        }
    }
    // NORMAL under WAL: a killed process loses nothing, a power cut at most the last moments and never consistency.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What was deleted is overwritten: a removed account's secret does not linger in a free page.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(connection)
}

/// Takes the next change number; call it in the transaction that makes the change.
fn next_seq(tx: &Transaction<'_>) -> Result<i64> {
    let seq = tx
        .prepare_cached("UPDATE meta SET change_seq = change_seq + 1 RETURNING change_seq")?
        .query_row([], |row| row.get(0))?;
    Ok(seq)
}

/// All rows, each as `read` makes it.
fn gathered<'s, T>(mut rows: Rows<'s>, read: impl Fn(&Row<'s>) -> Result<T>) -> Result<Vec<T>> {
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(read(row)?);
    }
    Ok(out)
}

/// The one row there may be, as `read` makes it.
fn first<'s, T>(mut rows: Rows<'s>, read: impl Fn(&Row<'s>) -> Result<T>) -> Result<Option<T>> {
    rows.next()?.map(read).transpose()
}

impl Columns for Row<'_> {
    fn int(&self, at: usize) -> Result<i64> {
        Ok(self.get(at)?)
    }

    fn some_int(&self, at: usize) -> Result<Option<i64>> {
        Ok(self.get(at)?)
    }

    fn text(&self, at: usize) -> Result<String> {
        Ok(self.get(at)?)
    }

    fn some_text(&self, at: usize) -> Result<Option<String>> {
        Ok(self.get(at)?)
    }

    fn bytes(&self, at: usize) -> Result<Vec<u8>> {
        Ok(self.get(at)?)
    }

    fn some_bytes(&self, at: usize) -> Result<Option<Vec<u8>>> {
        Ok(self.get(at)?)
    }

    fn flag(&self, at: usize) -> Result<bool> {
        Ok(self.get(at)?)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        let kind = match e.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => StoreErrorKind::Conflict,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
            Some(_) => StoreErrorKind::Unavailable,
            None => match e {
                rusqlite::Error::QueryReturnedNoRows => StoreErrorKind::NotFound,
                _ => StoreErrorKind::Corrupt,
            },
        };
        Self::new(kind, format!("the embedded store: {e}"))
    }
}
