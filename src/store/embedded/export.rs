//! Reading everything out, for another engine: one transaction, a piece at a time.

use super::Embedded;
use crate::store::error::{Result, StoreError};
use crate::store::transfer::{PIECE, Part, Piece, TABLES, Table};
use rusqlite::Transaction;
use rusqlite::types::ValueRef;
use std::fmt::Write as _;
use tokio::sync::mpsc::Sender;

impl Embedded {
    /// Sends all rows of all tables, then the end. Blocks its own thread while nobody takes what it has.
    pub(crate) async fn export(&self, to: Sender<Part>) -> Result<()> {
        self.query(move |tx| {
            for table in TABLES {
                rows(tx, *table, &to)?;
            }
            let counters =
                tx.query_row("SELECT change_seq, session_epoch FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            send(&to, Part::End(counters))
        })
        .await
    }
}

fn rows(tx: &Transaction<'_>, table: Table, to: &Sender<Part>) -> Result<()> {
    let width = table.columns.len();
    let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let mut select = tx.prepare(&format!("SELECT {} FROM {}", names.join(", "), table.name))?;
    let mut found = select.query([])?;
    let empty = || vec![Vec::with_capacity(PIECE); width];
    let mut columns: Vec<Vec<Option<String>>> = empty();
    while let Some(row) = found.next()? {
        for (at, column) in columns.iter_mut().enumerate() {
            column.push(text(row.get_ref(at)?));
        }
        if columns[0].len() == PIECE {
            send(to, Part::Rows(Piece { table, columns: std::mem::replace(&mut columns, empty()) }))?;
        }
    }
    if columns[0].is_empty() { Ok(()) } else { send(to, Part::Rows(Piece { table, columns })) }
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(n) => Some(n.to_string()),
        ValueRef::Real(n) => Some(n.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).replace('\0', "\u{fffd}")),
        ValueRef::Blob(bytes) => Some(bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })),
    }
}

fn send(to: &Sender<Part>, part: Part) -> Result<()> {
    to.blocking_send(part).map_err(|_| StoreError::unavailable("nobody takes what the store holds"))
}
