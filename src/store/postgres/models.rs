//! Virtual models.

use super::call::{QUERY, WRITE};
use super::error::named;
use super::values::params;
use super::{Postgres, Tx};
use crate::base::VirtualModelId;
use crate::state::catalog::VirtualModel;
use crate::store::columns::{self, Columns as _, MODEL};
use crate::store::decode::{found, targets_json};
use crate::store::error::Result;
use crate::store::rows::VirtualModelRow;
use tokio_postgres::Row;

impl Postgres {
    /// Inserts a virtual model at the end, or replaces the one of its id.
    pub(crate) async fn put_virtual_model(&self, model: VirtualModel) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let put = tx
                .execute(
                    "INSERT INTO virtual_models (id, name, strategy, sticky, enabled, position, targets, changed_seq)
                     VALUES ($1, $2, $3, $4, TRUE, (SELECT coalesce(max(position), 0) + 1 FROM virtual_models), $5, $6)
                     ON CONFLICT (id) DO UPDATE SET name = excluded.name, strategy = excluded.strategy,
                     sticky = excluded.sticky, targets = excluded.targets, changed_seq = excluded.changed_seq",
                    params![
                        model.id.0.cast_signed(),
                        &*model.name,
                        model.strategy.name(),
                        i64::from(model.sticky),
                        targets_json(&model)?,
                        seq
                    ],
                )
                .await;
            named(put, || format!("there is already a virtual model `{}`", model.name))?;
            Ok(())
        })
        .await
    }

    /// All that are not removed, by position.
    pub(crate) async fn virtual_models(&self) -> Result<Vec<VirtualModelRow>> {
        self.run(QUERY, |tx| async move {
            let sql = format!("SELECT {MODEL} FROM virtual_models WHERE NOT deleted ORDER BY position, id");
            tx.rows(&sql, &[]).await?.iter().map(columns::model).collect()
        })
        .await
    }

    /// Removes one.
    pub(crate) async fn remove_virtual_model(&self, id: VirtualModelId) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let sql = "UPDATE virtual_models SET deleted = TRUE, changed_seq = $2 WHERE id = $1 AND NOT deleted";
            found(tx.execute(sql, params![id.0.cast_signed(), seq]).await?, || format!("virtual model {id}"))
        })
        .await
    }

    /// Switches one on or off.
    pub(crate) async fn enable_virtual_model(&self, id: VirtualModelId, enabled: bool) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let sql = "UPDATE virtual_models SET enabled = $2, changed_seq = $3 WHERE id = $1 AND NOT deleted";
            let changed = tx.execute(sql, params![id.0.cast_signed(), enabled, seq]).await?;
            found(changed, || format!("virtual model {id}"))
        })
        .await
    }

    /// Puts those named first, in that order; the others follow as they were.
    pub(crate) async fn reorder_virtual_models(&self, ids: Vec<VirtualModelId>) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let room = i64::try_from(ids.len()).unwrap_or(i64::MAX);
            tx.execute("UPDATE virtual_models SET position = position + $1", params![room]).await?;
            for (place, id) in (1i64..).zip(&ids) {
                let sql = "UPDATE virtual_models SET position = $2, changed_seq = $3 WHERE id = $1 AND NOT deleted";
                let changed = tx.execute(sql, params![id.0.cast_signed(), place, seq]).await?;
                found(changed, || format!("virtual model {id}"))?;
            }
            Ok(())
        })
        .await
    }
}

impl Tx {
    /// Virtual models changed in (`seq`, `up_to`].
    pub(super) async fn models_after(&self, seq: i64, up_to: i64) -> Result<Vec<(u64, Option<VirtualModelRow>)>> {
        let sql = format!(
            "SELECT {MODEL}, deleted FROM virtual_models WHERE changed_seq > $1 AND changed_seq <= $2
             ORDER BY changed_seq"
        );
        let read_one = |row: &Row| Ok((row.count(0)?, if row.flag(7)? { None } else { Some(columns::model(row)?) }));
        self.rows(&sql, params![seq, up_to]).await?.iter().map(read_one).collect()
    }
}
