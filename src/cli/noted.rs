//! Writes into the audit what a command changed. An entry that cannot be written takes nothing back: it is said, no more.

use crate::base::Clock;
use crate::store::Store;
use crate::store::audit::AuditEntry;
use serde_json::Value;
use std::fmt::Display;

/// Something was changed by whoever runs this command.
pub(super) async fn noted(store: &Store, action: &str, target: impl Display, detail: Value) {
    // Who asked for root's power is who did it. What the environment says is no proof, but nobody else is asked.
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let entry = AuditEntry {
        time_ms: Clock::unix_ms(),
        actor: "command".to_owned(),
        actor_id: None,
        actor_name: name.filter(|name| !name.is_empty()),
        action: action.to_owned(),
        target: Some(target.to_string()),
        address: None,
        detail: detail.to_string(),
    };
    if let Err(error) = store.audit(entry).await {
        tracing::warn!(%error, action, "an entry of the audit could not be written");
    }
}
