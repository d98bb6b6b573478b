//! Management tokens: only their hashes.

use super::Embedded;
use super::catalog::named;
use crate::base::TokenId;
use crate::store::decode::{bad_row, found};
use crate::store::error::Result;
use crate::store::rows::{Scope, TokenRow};
use rusqlite::{OptionalExtension as _, Row, params};

pub(super) const COLUMNS: &str = "id, name, scope, created_ms, expires_ms";

impl Embedded {
    /// Inserts a token.
    pub(crate) async fn add_token(&self, token: TokenRow, hash: [u8; 32]) -> Result<()> {
        self.write(move |tx| {
            let inserted = tx.execute(
                "INSERT INTO tokens (id, name, hash, scope, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    token.id.0.cast_signed(),
                    token.name,
                    hash,
                    token.scope.name(),
                    token.created_ms.cast_signed(),
                    token.expires_ms.map(u64::cast_signed)
                ],
            );
            named(inserted, || "a token of that id is already there".to_owned())?;
            Ok(())
        })
        .await
    }

    /// All tokens, in the order they were made.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>> {
        self.query(|tx| {
            let mut select = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens ORDER BY created_ms, id"))?;
            let mut rows = select.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                out.push(read(row)?);
            }
            Ok(out)
        })
        .await
    }

    /// The token of that hash.
    pub(crate) async fn token_by_hash(&self, hash: [u8; 32]) -> Result<Option<TokenRow>> {
        self.watch(move |tx| {
            let mut select = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1"))?;
            select.query_row([hash], |row| Ok(read(row))).optional()?.transpose()
        })
        .await
    }

    /// Removes a token.
    pub(crate) async fn revoke_token(&self, id: TokenId) -> Result<()> {
        self.write(move |tx| {
            let gone = tx.execute("DELETE FROM tokens WHERE id = ?1", [id.0.cast_signed()])?;
            found(gone as u64, || format!("token {id}"))
        })
        .await
    }
}

pub(super) fn read(row: &Row<'_>) -> Result<TokenRow> {
    let scope: String = row.get(2)?;
    Ok(TokenRow {
        id: TokenId(row.get::<_, i64>(0)?.cast_unsigned()),
        name: row.get(1)?,
        scope: Scope::from_name(&scope).ok_or_else(|| bad_row("a token of an unknown scope"))?,
        created_ms: row.get::<_, i64>(3)?.cast_unsigned(),
        expires_ms: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
    })
}
