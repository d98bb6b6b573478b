//! Runs the steps that are due, and settles who the deployment is, in one transaction under an advisory lock.

use super::call::{QUERY, WRITE, transact};
use super::connect;
use super::values::{params, whole};
use super::{Postgres, Tx};
use crate::base::Clock;
use crate::store::engine::Deployment;
use crate::store::error::{Result, StoreError};
use crate::store::migrations::{Step, due, steps};
use std::sync::Arc;
use std::time::Duration;

const STEPS: &[Step] = steps!("postgres": "0001_init", "0002_audit", "0003_client_ids", "0004_day_sums");

/// "merido" and a number of ours: other programs may use advisory locks in the same database.
pub(super) const MIGRATION_LOCK: i64 = 0x6d65_7269_646f_0001;
/// One instance prunes, or makes a partition, at a time.
pub(super) const PARTITION_LOCK: i64 = 0x6d65_7269_646f_0002;

/// A transaction without the bounds of everyday's.
pub(super) const WHOLE: &str = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0";

/// A step may rewrite a table, and others wait for it.
const PATIENCE: Duration = Duration::from_secs(600);
/// A database that is just starting, as in a freshly started group of containers.
const BOOT: u32 = 20;
const BOOT_PAUSE: Duration = Duration::from_millis(500);

impl Postgres {
    pub(super) async fn migrate<T>(
        &self,
        found: impl FnOnce(Option<Deployment>) -> Result<(Option<Deployment>, T)>,
    ) -> Result<T> {
        self.wait_for_boot().await?;
        let tx = Tx(Arc::new(connect::take(&self.inner.pool).await?));
        // Not the write lane's bounds: twenty instances wait here for one.
        transact(tx, WHOLE, PATIENCE, |tx| async move {
            tx.migrate().await?;
            let (new, out) = found(tx.deployment().await?)?;
            if let Some(new) = new {
                tx.found(&new).await?;
            }
            Ok(out)
        })
        .await
    }

    /// Tries to connect for as long as a database needs to start; refusals for other reasons come at once.
    async fn wait_for_boot(&self) -> Result<()> {
        let mut tries = 0;
        loop {
            match connect::take(&self.inner.pool).await {
                Ok(_) => return Ok(()),
                Err(e) if tries < BOOT && e.message.contains("57P03") => {
                    tries += 1;
                    tokio::time::sleep(BOOT_PAUSE).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The schema's version.
    pub(crate) async fn schema_version(&self) -> Result<u32> {
        self.run(QUERY, |tx| async move { tx.version().await }).await
    }

    /// The deployment's row as it is now.
    pub(crate) async fn deployment(&self) -> Result<Option<Deployment>> {
        self.run(QUERY, |tx| async move { tx.deployment().await }).await
    }

    /// Replaces the wrapped data key if it is still `old`; whether it was.
    pub(crate) async fn rewrap(&self, old: Vec<u8>, new: Vec<u8>) -> Result<bool> {
        self.run(WRITE, |tx| async move {
            let sql = "UPDATE meta SET wrapped_key = $2 WHERE wrapped_key = $1";
            Ok(tx.execute(sql, params![old, new]).await? == 1)
        })
        .await
    }
}

impl Tx {
    pub(super) async fn migrate(&self) -> Result<()> {
        self.rows("SELECT pg_advisory_xact_lock($1)", params![MIGRATION_LOCK]).await?;
        self.batch(
            "CREATE TABLE IF NOT EXISTS schema_version
             (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_ms BIGINT NOT NULL)",
        )
        .await?;
        for (version, Step { name, sql }) in due(self.version().await?, STEPS)? {
            self.batch(sql).await?;
            let insert = "INSERT INTO schema_version (version, name, applied_ms) VALUES ($1, $2, $3)";
            self.execute(insert, params![i64::from(version), name, whole(Clock::unix_ms())]).await?;
        }
        Ok(())
    }

    async fn version(&self) -> Result<u32> {
        let version: i64 = self.one("SELECT coalesce(max(version), 0) FROM schema_version", &[]).await?.try_get(0)?;
        u32::try_from(version).map_err(|_| StoreError::corrupt("the store holds a schema version out of range"))
    }

    pub(super) async fn deployment(&self) -> Result<Option<Deployment>> {
        let row = self.maybe("SELECT deployment, wrapped_key, canary FROM meta", &[]).await?;
        let read = |row: tokio_postgres::Row| -> Result<Deployment> {
            let id: i64 = row.try_get(0)?;
            Ok(Deployment { id: id.cast_unsigned(), wrapped_key: row.try_get(1)?, canary: row.try_get(2)? })
        };
        row.map(read).transpose()
    }

    /// Writes a new deployment's row.
    pub(super) async fn found(&self, new: &Deployment) -> Result<()> {
        self.execute(
            "INSERT INTO meta (id, deployment, wrapped_key, canary, change_seq, session_epoch, created_ms)
             VALUES (1, $1, $2, $3, 0, 0, $4)",
            params![new.id.cast_signed(), new.wrapped_key, new.canary, whole(Clock::unix_ms())],
        )
        .await?;
        Ok(())
    }
}
