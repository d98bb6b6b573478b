//! Virtual models.

use super::catalog::named;
use super::{Embedded, gathered, next_seq};
use crate::base::VirtualModelId;
use crate::state::catalog::VirtualModel;
use crate::store::columns::{self, Columns as _, MODEL};
use crate::store::decode::{found, targets_json};
use crate::store::error::Result;
use crate::store::rows::VirtualModelRow;
use rusqlite::{Transaction, params};

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
                "SELECT {MODEL} FROM virtual_models WHERE deleted = 0 ORDER BY position, id"
            ))?;
            gathered(select.query([])?, columns::model)
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
        "SELECT {MODEL}, deleted FROM virtual_models WHERE changed_seq > ?1 AND changed_seq <= ?2
         ORDER BY changed_seq"
    ))?;
    gathered(select.query([seq, up_to])?, |row| {
        Ok((row.count(0)?, if row.flag(7)? { None } else { Some(columns::model(row)?) }))
    })
}
