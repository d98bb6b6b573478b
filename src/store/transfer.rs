//! From the embedded file to PostgreSQL, whole: the same deployment, data key, keys, accounts, totals and log.
//!
//! The file is read in one transaction on its own thread and written in one transaction there, a piece at a time. A
//! target that holds anything is refused, and what fails halfway leaves nothing behind. What the file is given
//! meanwhile does not come along: stop the gateway first.

use super::embedded::Embedded;
use super::engine::Deployment;
use super::error::Result;
use super::postgres::Postgres;
use super::{Store, StoreConfig, StoreError, seals};
use crate::base::Secret;
use tokio::sync::mpsc;

/// A table and its columns, each with the type it has there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Int,
    Text,
    Bytes,
    Bool,
}

/// Some rows of a table, column by column, as text (bytes in hex).
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) table: Table,
    pub(super) columns: Vec<Vec<Option<String>>>,
}

/// What was moved, for people: rows by table.
pub type Moved = Vec<(&'static str, u64)>;

/// Rows in a piece.
pub(super) const PIECE: usize = 2_000;

use Kind::{Bool, Bytes, Int, Text};

const SUMS: [(&str, Kind); 8] = [
    ("requests", Int),
    ("errors", Int),
    ("prompt", Int),
    ("completion", Int),
    ("cache_read", Int),
    ("cache_write", Int),
    ("reasoning", Int),
    ("cost_nanos", Int),
];

/// In this order. `repeats` stays behind: it lives for minutes.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "providers",
        columns: &[
            ("name", Text),
            ("dialect", Text),
            ("auth", Text),
            ("http2", Bool),
            ("base_url", Text),
            ("changed_seq", Int),
        ],
    },
    Table {
        name: "accounts",
        columns: &[
            ("id", Int),
            ("provider", Text),
            ("label", Text),
            ("base_url", Text),
            ("weight", Int),
            ("secret", Bytes),
            ("created_ms", Int),
            ("changed_seq", Int),
            ("deleted", Bool),
        ],
    },
    Table {
        name: "keys",
        columns: &[
            ("id", Int),
            ("name", Text),
            ("hash", Bytes),
            ("rpm", Int),
            ("burst", Int),
            ("tpm", Int),
            ("max_parallel", Int),
            ("models", Text),
            ("budget_nanos", Int),
            ("expires_ms", Int),
            ("created_ms", Int),
            ("changed_seq", Int),
            ("deleted", Bool),
        ],
    },
    Table { name: "dead_hashes", columns: &[("changed_seq", Int), ("hash", Bytes)] },
    Table {
        name: "virtual_models",
        columns: &[
            ("id", Int),
            ("name", Text),
            ("strategy", Text),
            ("sticky", Int),
            ("enabled", Bool),
            ("position", Int),
            ("targets", Text),
            ("changed_seq", Int),
            ("deleted", Bool),
        ],
    },
    Table {
        name: "tokens",
        columns: &[
            ("id", Int),
            ("name", Text),
            ("hash", Bytes),
            ("scope", Text),
            ("created_ms", Int),
            ("expires_ms", Int),
        ],
    },
    Table { name: "ended_sessions", columns: &[("id", Int), ("expires_ms", Int)] },
    Table {
        name: "audit",
        columns: &[
            ("seq", Int),
            ("time_ms", Int),
            ("actor", Text),
            ("actor_id", Text),
            ("actor_name", Text),
            ("action", Text),
            ("target", Text),
            ("address", Text),
            ("detail", Text),
        ],
    },
    Table { name: "writers", columns: &[("epoch", Int), ("last_batch", Int), ("seen_ms", Int)] },
    Table {
        name: "usage",
        columns: &with_sums::<4, 12>([("minute", Int), ("key_id", Int), ("account_id", Int), ("model", Text)]),
    },
    Table {
        name: "usage_days",
        columns: &with_sums::<4, 12>([("day", Int), ("key_id", Int), ("account_id", Int), ("model", Text)]),
    },
    Table { name: "usage_key_days", columns: &with_sums::<2, 10>([("day", Int), ("key_id", Int)]) },
    Table {
        name: "usage_model_days",
        columns: &with_sums::<3, 11>([("day", Int), ("account_id", Int), ("model", Text)]),
    },
    Table {
        name: "request_log",
        columns: &[
            ("seq", Int),
            ("epoch", Int),
            ("n", Int),
            ("time_ms", Int),
            ("client_request_id", Text),
            ("key_id", Int),
            ("key_name", Text),
            ("dialect", Text),
            ("endpoint", Text),
            ("requested_model", Text),
            ("provider", Text),
            ("account_id", Int),
            ("account", Text),
            ("model", Text),
            ("status", Int),
            ("stream", Bool),
            ("cache", Text),
            ("attempts", Int),
            ("timeline", Text),
            ("prompt", Int),
            ("completion", Int),
            ("cache_read", Int),
            ("cache_write", Int),
            ("reasoning", Int),
            ("cost_nanos", Int),
            ("latency_ms", Int),
            ("first_byte_ms", Int),
            ("overhead_us", Int),
            ("error", Text),
            ("estimated", Bool),
            ("sampled", Int),
            ("size", Int),
        ],
    },
];

/// Where in `request_log` its time stands: its partition follows from that.
pub(super) const TIME_COLUMN: usize = 3;

const fn with_sums<const N: usize, const M: usize>(first: [(&'static str, Kind); N]) -> [(&'static str, Kind); M] {
    let mut out = [("", Int); M];
    let mut at = 0;
    while at < M {
        out[at] = if at < N { first[at] } else { SUMS[at - N] };
        at += 1;
    }
    out
}

/// Of the one row of `meta` what is not the deployment's identity: `change_seq` and `session_epoch`.
pub(super) type Counters = (i64, i64);

/// Moves the embedded store of `config` to the database at `url`.
pub async fn move_store(config: &StoreConfig, url: &Secret) -> Result<Moved> {
    if !config.dir.join(super::embedded::FILE).exists() {
        return Err(StoreError::not_found(format!("embedded store in {}", config.dir.display())));
    }
    let source = config.master();
    // Opened as ever: a wrong master key must be found here, not at the first start over there.
    let (from, _) = Embedded::open(&config.dir, move |found| seals::settle(&source, found))?;
    let deployment = from.deployment().await?;
    let deployment = deployment.ok_or_else(|| StoreError::corrupt("the store has no deployment"))?;
    let (send, pieces) = mpsc::channel(4);
    let receiving = Postgres::receive(url, move |found| seals::adopt(found.as_ref(), deployment), pieces);
    let (sent, received) = tokio::join!(from.export(send), receiving);
    // When the target refused, its own words say more than ours of a closed channel.
    let moved = received?;
    sent?;
    Ok(moved)
}

/// What [`Embedded::export`] sends.
#[derive(Debug)]
pub(super) enum Part {
    Rows(Piece),
    /// The last: everything was sent.
    End(Counters),
}

/// Says whether there is room for a deployment.
pub(super) trait Adopt: FnOnce(Option<Deployment>) -> Result<Deployment> + Send + 'static {}
impl<T: FnOnce(Option<Deployment>) -> Result<Deployment> + Send + 'static> Adopt for T {}

impl Store {
    /// More than one instance may use this store at a time.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, super::Engine::Postgres(_))
    }
}
