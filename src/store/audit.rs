//! What the control plane itself keeps: the audit, the answers of repeatable requests, and keys page by page.
//!
//! An entry of the audit is written after the change it tells of. No secret goes into one; whoever writes it sees to
//! that. The answer of a repeatable request may hold a new key, so it is sealed and gone after minutes.

use super::error::Result;
use super::rows::KeyInfo;
use super::{Store, StoreError};
use crate::base::{Clock, KeyId};

/// Entries kept; the oldest go first.
pub const KEPT: u64 = 100_000;
/// How long a repeated request gets the first one's answer.
pub const REPEATABLE_MS: u64 = 10 * 60 * 1000;

/// What happened, to be written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// What kind of somebody: `session`, `token`, `anybody` (no password is set), `nobody` (a login that failed),
    /// `command`.
    pub actor: String,
    /// Which of them.
    pub actor_id: Option<String>,
    /// By name.
    pub actor_name: Option<String>,
    /// `key.create`, `login`, …
    pub action: String,
    /// The id of what was changed.
    pub target: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// JSON object: the fields that were set. No secrets.
    pub detail: String,
}

/// An entry as it is read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRow {
    /// Rises with each entry.
    pub seq: u64,
    /// What happened.
    pub entry: AuditEntry,
}

/// What is known of a repeatable request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// It is the first: go on, and say how it ended.
    First,
    /// The first has not been answered.
    Pending {
        /// What was asked then.
        request: [u8; 32],
    },
    /// It was answered.
    Answered {
        /// What was asked then.
        request: [u8; 32],
        /// The answer, as sealed.
        answer: Vec<u8>,
    },
}

impl Store {
    /// Writes down what happened.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        self.engine.add_audit(entry, KEPT).await
    }

    /// The newest `limit` entries before `before` (all: `None`), newest first.
    pub async fn audit_rows(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>> {
        self.engine.audit_rows(before, limit).await
    }

    /// At most `limit` keys after that one (its `created_ms` and id), in the order they were made.
    pub async fn keys_page(&self, after: Option<(u64, KeyId)>, limit: u32) -> Result<Vec<KeyInfo>> {
        self.engine.keys_page(after, limit).await
    }

    /// Begins the request `id`, unless it has begun already. Forgets those older than [`REPEATABLE_MS`].
    pub async fn begin_repeat(&self, id: [u8; 32], request: [u8; 32]) -> Result<Repeat> {
        let now = Clock::unix_ms();
        match self.engine.begin_repeat(id, request, now, now.saturating_sub(REPEATABLE_MS)).await? {
            Repeat::Answered { request, answer } => {
                let answer = self.seals.data.sealer("repeats")?.open(&id, &answer).map_err(StoreError::from)?;
                Ok(Repeat::Answered { request, answer })
            }
            other => Ok(other),
        }
    }

    /// The answer of the request `id`; `None`: it changed nothing and may be tried again.
    pub async fn end_repeat(&self, id: [u8; 32], answer: Option<&[u8]>) -> Result<()> {
        let sealer = self.seals.data.sealer("repeats")?;
        let sealed = answer.map(|answer| sealer.seal(&id, answer)).transpose()?;
        self.engine.end_repeat(id, sealed).await
    }
}
