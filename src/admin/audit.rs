//! `/api/audit`: who changed what, from where, when; and the writing of it.
//!
//! An entry that cannot be written is logged and counted: the change it tells of has happened and is not taken back.

use super::Admin;
use super::asked::{Answer, Asked, Note, refused, wrong};
use super::gate::Operator;
use super::query::Query;
use crate::base::metrics::METRICS;
use crate::base::{Clock, Error};
use crate::store::audit::{AuditEntry, AuditRow};
use serde_json::{Value, json};
use std::net::IpAddr;

impl Admin {
    /// Writes down what `operator` did; nobody: a login.
    pub(super) async fn noted(&self, operator: Option<&Operator>, address: IpAddr, note: Note) {
        let (actor, actor_id, actor_name) = match operator {
            Some(operator) => self.gate.identity(operator),
            None => ("nobody", None, None),
        };
        let entry = AuditEntry {
            time_ms: Clock::unix_ms(),
            actor: actor.to_owned(),
            actor_id,
            actor_name,
            action: note.action.to_owned(),
            target: note.target,
            address: Some(address.to_canonical().to_string()),
            detail: note.detail.to_string(),
        };
        if let Err(error) = self.store.audit(entry).await {
            METRICS.audit_lost.inc();
            tracing::error!(%error, action = note.action, actor, "an entry of the audit could not be written");
        }
    }

    pub(super) async fn audit(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut query = Query::parse(asked.query)?;
        let (limit, cursor) = (query.limit()?, query.text("cursor"));
        query.done()?;
        let before = cursor.map(|text| {
            text.parse::<u64>()
                .ok()
                .filter(|seq| *seq < 1 << 62)
                .ok_or_else(|| wrong("cursor", "is none that an earlier page gave"))
        });
        let mut rows = self.store.audit_rows(before.transpose()?, limit + 1).await.map_err(|e| refused(&e))?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|row| row.seq.to_string());
        Ok(Answer::ok(&json!({ "audit": rows.iter().map(shown).collect::<Vec<_>>(), "next_cursor": next })))
    }
}

fn shown(row: &AuditRow) -> Value {
    let entry = &row.entry;
    json!({
        "id": row.seq,
        "time": Clock::rfc3339(entry.time_ms),
        "actor": { "kind": entry.actor, "id": entry.actor_id, "name": entry.actor_name },
        "action": entry.action,
        "target": entry.target,
        "address": entry.address,
        "detail": serde_json::from_str::<Value>(&entry.detail).unwrap_or_else(|_| json!({})),
    })
}
