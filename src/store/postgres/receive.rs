//! Taking a whole store in: migrate, check that nothing is there, write everything, in one transaction.

use super::call::transact;
use super::migrate::WHOLE;
use super::usage::DAY_MS;
use super::values::typed;
use super::{Param, Postgres, Tx, connect};
use crate::base::{Secret, tasks};
use crate::store::error::{Result, StoreError};
use crate::store::transfer::{Adopt, Counters, Kind, Moved, Part, Piece, TABLES, TIME_COLUMN};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// A store of some hundred gigabytes on a slow line.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

impl Postgres {
    /// Writes what `parts` bring into the empty database at `url`.
    pub(crate) async fn receive(url: &Secret, adopt: impl Adopt, mut parts: Receiver<Part>) -> Result<Moved> {
        let engine = Self::connect(url)?;
        let inner = Arc::clone(&engine.inner);
        let work = async move {
            let tx = Tx(Arc::new(connect::take(&inner.pool).await?));
            transact(tx, WHOLE, PATIENCE, |tx| async move {
                tx.migrate().await?;
                let deployment = adopt(tx.deployment().await?)?;
                tx.found(&deployment).await?;
                let mut moved: Moved = TABLES.iter().map(|table| (table.name, 0)).collect();
                let mut days = BTreeSet::new();
                loop {
                    match parts.recv().await {
                        Some(Part::Rows(piece)) => {
                            let rows = tx.piece(&piece, &mut days).await?;
                            let count = moved.iter_mut().find(|(name, _)| *name == piece.table.name);
                            if let Some((_, count)) = count {
                                *count += rows;
                            }
                        }
                        Some(Part::End(counters)) => return tx.close(counters).await.map(|()| moved),
                        None => return Err(StoreError::unavailable("reading the old store ended halfway")),
                    }
                }
            })
            .await
        };
        let ended = tasks::spawn_on(&engine.inner.runtime, "store move", work).await;
        ended.unwrap_or_else(|_| Err(StoreError::unavailable("the store's thread dropped the call")))
    }
}

impl Tx {
    async fn piece(&self, piece: &Piece, days: &mut BTreeSet<i64>) -> Result<u64> {
        let table = piece.table;
        if table.name == "request_log" {
            let times = piece.columns.get(TIME_COLUMN).into_iter().flatten().flatten();
            let found = times.filter_map(|time| time.parse::<i64>().ok()).map(|time| time / DAY_MS);
            let missing: BTreeSet<i64> = found.filter(|day| !days.contains(day)).collect();
            self.partitions(&missing.iter().copied().collect::<Vec<_>>()).await?;
            days.extend(missing);
        }
        let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        let values = table.columns.iter().map(|(name, kind)| match kind {
            Kind::Int => format!("CAST(u.{name} AS BIGINT)"),
            Kind::Text => format!("u.{name}"),
            Kind::Bytes => format!("decode(u.{name}, 'hex')"),
            Kind::Bool => format!("CAST(u.{name} AS BOOLEAN)"),
        });
        let values: Vec<_> = values.collect();
        let places: Vec<_> = (1..=names.len()).map(|n| format!("${n}")).collect();
        let names = names.join(", ");
        let sql = format!(
            "INSERT INTO {} ({names}) SELECT {} FROM unnest({}) AS u ({names})",
            table.name,
            values.join(", "),
            places.join(", ")
        );
        let params: Vec<Param<'_>> = piece.columns.iter().map(typed).collect();
        self.execute(&sql, &params).await
    }

    async fn close(&self, (change_seq, session_epoch): Counters) -> Result<()> {
        self.batch(&format!(
            "UPDATE meta SET change_seq = {change_seq}, session_epoch = {session_epoch};
             INSERT INTO log_sizes (day, writer, rows, bytes)
                 SELECT time_ms / {DAY_MS}, 0, count(*), sum(size) FROM request_log GROUP BY 1;
             SELECT setval('request_log_seq', (SELECT coalesce(max(seq), 0) + 1 FROM request_log));
             SELECT setval(pg_get_serial_sequence('audit', 'seq'), (SELECT coalesce(max(seq), 0) + 1 FROM audit))"
        ))
        .await
    }
}
