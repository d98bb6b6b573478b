//! Management tokens: only their hashes.

use super::Postgres;
use super::call::{ADMIT, QUERY, WRITE};
use super::error::named;
use super::values::{params, whole};
use crate::base::TokenId;
use crate::store::decode::{bad_row, found};
use crate::store::error::Result;
use crate::store::rows::{Scope, TokenRow};
use tokio_postgres::Row;

pub(super) const COLUMNS: &str = "id, name, scope, created_ms, expires_ms";

impl Postgres {
    /// Inserts a token.
    pub(crate) async fn add_token(&self, token: TokenRow, hash: [u8; 32]) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let inserted = tx
                .execute(
                    "INSERT INTO tokens (id, name, hash, scope, created_ms, expires_ms)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                    params![
                        token.id.0.cast_signed(),
                        token.name,
                        &hash[..],
                        token.scope.name(),
                        whole(token.created_ms),
                        token.expires_ms.map(whole)
                    ],
                )
                .await;
            named(inserted, || "a token of that id is already there".to_owned())?;
            Ok(())
        })
        .await
    }

    /// All tokens, in the order they were made.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>> {
        self.run(QUERY, |tx| async move {
            let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY created_ms, id");
            tx.rows(&sql, &[]).await?.iter().map(read).collect()
        })
        .await
    }

    /// The token of that hash.
    pub(crate) async fn token_by_hash(&self, hash: [u8; 32]) -> Result<Option<TokenRow>> {
        self.run(ADMIT, move |tx| async move {
            let sql = format!("SELECT {COLUMNS} FROM tokens WHERE hash = $1");
            tx.maybe(&sql, params![&hash[..]]).await?.as_ref().map(read).transpose()
        })
        .await
    }

    /// Removes a token.
    pub(crate) async fn revoke_token(&self, id: TokenId) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let gone = tx.execute("DELETE FROM tokens WHERE id = $1", params![id.0.cast_signed()]).await?;
            found(gone, || format!("token {id}"))
        })
        .await
    }
}

pub(super) fn read(row: &Row) -> Result<TokenRow> {
    let scope: String = row.try_get(2)?;
    Ok(TokenRow {
        id: TokenId(row.try_get::<_, i64>(0)?.cast_unsigned()),
        name: row.try_get(1)?,
        scope: Scope::from_name(&scope).ok_or_else(|| bad_row("a token of an unknown scope"))?,
        created_ms: row.try_get::<_, i64>(3)?.cast_unsigned(),
        expires_ms: row.try_get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
    })
}
