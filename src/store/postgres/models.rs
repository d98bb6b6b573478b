//! Virtual models.

use super::call::{QUERY, WRITE};
use super::error::named;
use super::values::params;
use super::{Postgres, Tx};
use crate::base::VirtualModelId;
use crate::state::catalog::VirtualModel;
use crate::store::decode::{found, targets_json, virtual_model};
use crate::store::error::Result;
use crate::store::rows::VirtualModelRow;
use tokio_postgres::Row;

const COLUMNS: &str = "id, name, strategy, sticky, enabled, position, targets";

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
            let sql = format!("SELECT {COLUMNS} FROM virtual_models WHERE NOT deleted ORDER BY position, id");
            tx.rows(&sql, &[]).await?.iter().map(read).collect()
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
            "SELECT {COLUMNS}, deleted FROM virtual_models WHERE changed_seq > $1 AND changed_seq <= $2
             ORDER BY changed_seq"
        );
        let read_one = |row: &Row| {
            let (id, gone): (i64, bool) = (row.try_get(0)?, row.try_get(7)?);
            Ok((id.cast_unsigned(), if gone { None } else { Some(read(row)?) }))
        };
        self.rows(&sql, params![seq, up_to]).await?.iter().map(read_one).collect()
    }
}

fn read(row: &Row) -> Result<VirtualModelRow> {
    let number = |at| row.try_get::<_, i64>(at);
    let (of, targets): (_, String) = ((row.try_get(1)?, row.try_get(2)?), row.try_get(6)?);
    let (sticky, position) = (number(3)? as u32, number(5)? as u32);
    virtual_model(number(0)?.cast_unsigned(), of, sticky, &targets, row.try_get(4)?, position)
}
