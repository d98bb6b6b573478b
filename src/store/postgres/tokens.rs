//! Management tokens: only their hashes.

use super::Postgres;
use super::call::{ADMIT, QUERY, WRITE};
use super::error::named;
use super::values::{params, whole};
use crate::base::TokenId;
use crate::store::columns::{self, TOKEN};
use crate::store::decode::found;
use crate::store::error::Result;
use crate::store::rows::TokenRow;

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
            let sql = format!("SELECT {TOKEN} FROM tokens ORDER BY created_ms, id");
            tx.rows(&sql, &[]).await?.iter().map(columns::token).collect()
        })
        .await
    }

    /// The token of that hash.
    pub(crate) async fn token_by_hash(&self, hash: [u8; 32]) -> Result<Option<TokenRow>> {
        self.run(ADMIT, move |tx| async move {
            let sql = format!("SELECT {TOKEN} FROM tokens WHERE hash = $1");
            tx.maybe(&sql, params![&hash[..]]).await?.as_ref().map(columns::token).transpose()
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
