//! What the database refuses, in the store's words. Only the server's own message is passed on: details may quote rows.

use super::super::error::{StoreError, StoreErrorKind};
use std::error::Error as _;
use tokio_postgres::error::SqlState;

impl From<tokio_postgres::Error> for StoreError {
    fn from(e: tokio_postgres::Error) -> Self {
        let Some(refusal) = e.as_db_error() else {
            let cause = e.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            // `Display` of some versions repeats the cause.
            let said = e.to_string();
            let said = if said.contains(&cause) { said } else { format!("{said}{cause}") };
            return Self::unavailable(format!("the database: {said}"));
        };
        let code = refusal.code();
        let kind = match code {
            code if *code == SqlState::UNIQUE_VIOLATION => StoreErrorKind::Conflict,
            // Data of ours that it cannot take: trying again brings nothing.
            code if code.code().starts_with("22") || code.code().starts_with("23") => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Unavailable,
        };
        Self::new(kind, format!("the database: {} ({})", refusal.message(), code.code()))
    }
}

/// No partition takes the row, or it went while we wrote.
pub(super) fn no_partition(e: &StoreError) -> bool {
    e.message.contains("no partition of relation")
}

/// A broken uniqueness, said in the operator's words.
pub(super) fn named<T>(done: Result<T, StoreError>, conflict: impl FnOnce() -> String) -> Result<T, StoreError> {
    done.map_err(|e| {
        if e.kind == StoreErrorKind::Conflict { StoreError::new(StoreErrorKind::Conflict, conflict()) } else { e }
    })
}
