//! Management tokens: only their hashes.

use super::catalog::named;
use super::{Embedded, first, gathered};
use crate::base::TokenId;
use crate::store::columns::{self, TOKEN};
use crate::store::decode::found;
use crate::store::error::Result;
use crate::store::rows::TokenRow;
use rusqlite::params;

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
            let mut select = tx.prepare_cached(&format!("SELECT {TOKEN} FROM tokens ORDER BY created_ms, id"))?;
            gathered(select.query([])?, columns::token)
        })
        .await
    }

    /// The token of that hash.
    pub(crate) async fn token_by_hash(&self, hash: [u8; 32]) -> Result<Option<TokenRow>> {
        self.watch(move |tx| {
            let mut select = tx.prepare_cached(&format!("SELECT {TOKEN} FROM tokens WHERE hash = ?1"))?;
            first(select.query([hash])?, columns::token)
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
