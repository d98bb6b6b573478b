//! `/api/tokens`: management tokens, for programs. Only hashes are kept; a token is shown once.

use super::Admin;
use super::asked::{Answer, Asked, refused, wrong};
use super::gate::Operator;
use crate::base::{Clock, Error, ErrorKind, TokenId};
use crate::store::rows::{Scope, TokenRow};
use serde_json::{Value, json};

/// A hundred years: more is a slip of the keyboard.
const LONGEST_TTL: u64 = 100 * 366 * 86_400;

impl Admin {
    pub(super) async fn tokens(&self) -> Result<Answer, Error> {
        let rows = self.store.tokens().await.map_err(|e| refused(&e))?;
        Ok(Answer::ok(&json!({ "tokens": rows.iter().map(shown).collect::<Vec<_>>() })))
    }

    pub(super) async fn add_token(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        only_admins(asked.operator)?;
        let mut fields = asked.fields;
        let name: String = fields.needed("name")?;
        let scope: Option<String> = fields.maybe("scope")?;
        let ttl: Option<u64> = fields.maybe("ttl_seconds")?;
        fields.done()?;
        // The least that is of any use: who wants more says so.
        let scope = scope.map_or(Some(Scope::Read), |scope| Scope::from_name(&scope));
        let scope = scope.ok_or_else(|| wrong("scope", "must be read, write or admin"))?;
        if ttl.is_some_and(|seconds| !(1..=LONGEST_TTL).contains(&seconds)) {
            return Err(wrong("ttl_seconds", "must be 1 second to 100 years; left out, it never expires"));
        }
        let expires_ms = ttl.map(|seconds| Clock::unix_ms() + seconds * 1000);
        let (row, plain) = self.store.create_token(&name, scope, expires_ms).await.map_err(|e| refused(&e))?;
        // So that it works as soon as it was answered.
        self.gate.forget().await?;
        let mut answer = shown(&row);
        answer["token"] = plain.reveal().into();
        let detail = json!({ "name": name, "scope": scope.name(), "expires_at": expires_ms.map(Clock::rfc3339) });
        Ok(Answer::created(&answer).noting("token.create", row.id, detail))
    }

    pub(super) async fn remove_token(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        only_admins(asked.operator)?;
        let id: TokenId = asked.id("token")?;
        self.store.revoke_token(id).await.map_err(|e| refused(&e))?;
        self.gate.forget().await?;
        Ok(Answer::gone().noting("token.revoke", id, json!({})))
    }
}

/// A token that may write must not give itself more, or take it from others.
fn only_admins(operator: &Operator) -> Result<(), Error> {
    if operator.scope == Scope::Admin {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Forbidden, "only a session or a token of scope admin may change tokens"))
}

fn shown(row: &TokenRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "name": row.name,
        "scope": row.scope.name(),
        "created_at": Clock::rfc3339(row.created_ms),
        "expires_at": row.expires_ms.map(Clock::rfc3339),
    })
}
