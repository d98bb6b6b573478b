//! Virtual models.

use super::catalog::named;
use super::{Embedded, next_seq};
use crate::base::VirtualModelId;
use crate::state::catalog::VirtualModel;
use crate::store::decode::{found, targets_json, virtual_model};
use crate::store::error::Result;
use crate::store::rows::VirtualModelRow;
use rusqlite::{Row, Transaction, params};

const COLUMNS: &str = "id, name, strategy, sticky, enabled, position, targets";

impl Embedded {
    /// Inserts a virtual model at the end, or replaces the one of its id.
    pub(crate) async fn put_virtual_model(&self, model: VirtualModel) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let targets = targets_json(&model)?;
            let put = tx.execute(
                "INSERT INTO virtual_models (id, name, strategy, sticky, enabled, position, targets, changed_seq)
                 VALUES (?1, ?2, ?3, ?4, 1, (SELECT coalesce(max(position), 0) + 1 FROM virtual_models), ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, strategy = excluded.strategy,
                 sticky = excluded.sticky, targets = excluded.targets, changed_seq = excluded.changed_seq",
                params![model.id.0.cast_signed(), &*model.name, model.strategy.name(), model.sticky, targets, seq],
            );
            named(put, || format!("there is already a virtual model `{}`", model.name))?;
            Ok(())
        })
        .await
    }

    /// All that are not removed, by position.
    pub(crate) async fn virtual_models(&self) -> Result<Vec<VirtualModelRow>> {
        self.query(|tx| {
            let mut select = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM virtual_models WHERE deleted = 0 ORDER BY position, id"
            ))?;
            let mut rows = select.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                out.push(read(row)?);
            }
            Ok(out)
        })
        .await
    }

    /// Removes one.
    pub(crate) async fn remove_virtual_model(&self, id: VirtualModelId) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let update = "UPDATE virtual_models SET deleted = 1, changed_seq = ?2 WHERE id = ?1 AND deleted = 0";
            found(tx.execute(update, params![id.0.cast_signed(), seq])? as u64, || format!("virtual model {id}"))
        })
        .await
    }

    /// Switches one on or off.
    pub(crate) async fn enable_virtual_model(&self, id: VirtualModelId, enabled: bool) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let update = "UPDATE virtual_models SET enabled = ?2, changed_seq = ?3 WHERE id = ?1 AND deleted = 0";
            found(tx.execute(update, params![id.0.cast_signed(), enabled, seq])? as u64, || {
                format!("virtual model {id}")
            })
        })
        .await
    }

    /// Puts those named first, in that order; the others follow as they were.
    pub(crate) async fn reorder_virtual_models(&self, ids: Vec<VirtualModelId>) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let room = i64::try_from(ids.len()).unwrap_or(i64::MAX);
            tx.execute("UPDATE virtual_models SET position = position + ?1", [room])?;
            for (place, id) in (1i64..).zip(&ids) {
                let update = "UPDATE virtual_models SET position = ?2, changed_seq = ?3 WHERE id = ?1 AND deleted = 0";
                let changed = tx.execute(update, params![id.0.cast_signed(), place, seq])?;
                found(changed as u64, || format!("virtual model {id}"))?;
            }
            Ok(())
        })
        .await
    }
}

/// Virtual models changed in (`seq`, `up_to`].
pub(super) fn after(tx: &Transaction<'_>, seq: i64, up_to: i64) -> Result<Vec<(u64, Option<VirtualModelRow>)>> {
    let mut select = tx.prepare_cached(&format!(
        "SELECT {COLUMNS}, deleted FROM virtual_models WHERE changed_seq > ?1 AND changed_seq <= ?2
         ORDER BY changed_seq"
    ))?;
    let mut rows = select.query([seq, up_to])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get::<_, i64>(0)?.cast_unsigned();
        let gone: bool = row.get(7)?;
        out.push((id, if gone { None } else { Some(read(row)?) }));
    }
    Ok(out)
}

fn read(row: &Row<'_>) -> Result<VirtualModelRow> {
    let (id, targets): (i64, String) = (row.get(0)?, row.get(6)?);
    let of = (row.get(1)?, row.get(2)?);
    virtual_model(id.cast_unsigned(), of, row.get(3)?, &targets, row.get(4)?, row.get(5)?)
}
