//! What a row says, whichever engine read it: the columns to ask for, and what is made of them. Each list of columns and
//! the function below it belong together, by position.
//!
//! A row that does not read is [`StoreErrorKind::Corrupt`](super::StoreErrorKind); engines add no meaning of their own.

use super::audit::{AuditEntry, AuditRow, Repeat};
use super::decode::{self, bad_row, models_of};
use super::error::Result;
use super::rows::{AccountInfo, CustomProvider, KeyInfo, KeySpec, LoggedRow, Scope, TokenRow, VirtualModelRow};
use crate::base::{AccountId, KeyId, RequestId, TokenId};
use crate::state::usage::{Counts, Tokens, Total};

/// A row, read by position.
pub(super) trait Columns {
    fn int(&self, at: usize) -> Result<i64>;
    fn some_int(&self, at: usize) -> Result<Option<i64>>;
    fn text(&self, at: usize) -> Result<String>;
    fn some_text(&self, at: usize) -> Result<Option<String>>;
    fn bytes(&self, at: usize) -> Result<Vec<u8>>;
    fn some_bytes(&self, at: usize) -> Result<Option<Vec<u8>>>;
    fn flag(&self, at: usize) -> Result<bool>;

    fn count(&self, at: usize) -> Result<u64> {
        self.int(at).map(i64::cast_unsigned)
    }

    fn some_count(&self, at: usize) -> Result<Option<u64>> {
        Ok(self.some_int(at)?.map(i64::cast_unsigned))
    }

    fn small(&self, at: usize) -> Result<u32> {
        self.int(at).map(|n| n as u32)
    }

    fn some_small(&self, at: usize) -> Result<Option<u32>> {
        Ok(self.some_int(at)?.map(|n| n as u32))
    }
}

pub(super) const KEY: &str = "id, name, rpm, burst, tpm, max_parallel, models, budget_nanos, expires_ms, created_ms";

pub(super) fn key(row: &impl Columns) -> Result<KeyInfo> {
    Ok(KeyInfo {
        id: KeyId(row.count(0)?),
        spec: KeySpec {
            name: row.text(1)?,
            rpm: row.some_small(2)?,
            burst: row.some_small(3)?,
            tpm: row.some_small(4)?,
            max_parallel: row.some_small(5)?,
            models: models_of(row.some_text(6)?)?,
            budget_nanos: row.some_int(7)?,
            expires_ms: row.some_count(8)?,
        },
        created_ms: row.count(9)?,
    })
}

pub(super) const ACCOUNT: &str = "id, provider, label, base_url, weight, created_ms";

pub(super) fn account(row: &impl Columns) -> Result<AccountInfo> {
    Ok(AccountInfo {
        id: AccountId(row.count(0)?),
        provider: row.text(1)?,
        label: row.text(2)?,
        base_url: row.some_text(3)?,
        weight: row.small(4)?,
        created_ms: row.count(5)?,
    })
}

pub(super) const PROVIDER: &str = "name, dialect, auth, http2, base_url";

pub(super) fn provider(row: &impl Columns) -> Result<CustomProvider> {
    decode::provider(row.text(0)?, &row.text(1)?, &row.text(2)?, row.flag(3)?, row.some_text(4)?)
}

pub(super) const MODEL: &str = "id, name, strategy, sticky, enabled, position, targets";

pub(super) fn model(row: &impl Columns) -> Result<VirtualModelRow> {
    let of = (row.text(1)?, row.text(2)?);
    decode::virtual_model(row.count(0)?, of, row.small(3)?, &row.text(6)?, row.flag(4)?, row.small(5)?)
}

pub(super) const TOKEN: &str = "id, name, scope, created_ms, expires_ms";

pub(super) fn token(row: &impl Columns) -> Result<TokenRow> {
    Ok(TokenRow {
        id: TokenId(row.count(0)?),
        name: row.text(1)?,
        scope: Scope::from_name(&row.text(2)?).ok_or_else(|| bad_row("a token of an unknown scope"))?,
        created_ms: row.count(3)?,
        expires_ms: row.some_count(4)?,
    })
}

pub(super) const AUDIT: &str = "seq, time_ms, actor, actor_id, actor_name, action, target, address, detail";

pub(super) fn audit(row: &impl Columns) -> Result<AuditRow> {
    Ok(AuditRow {
        seq: row.count(0)?,
        entry: AuditEntry {
            time_ms: row.count(1)?,
            actor: row.text(2)?,
            actor_id: row.some_text(3)?,
            actor_name: row.some_text(4)?,
            action: row.text(5)?,
            target: row.some_text(6)?,
            address: row.some_text(7)?,
            detail: row.text(8)?,
        },
    })
}

pub(super) const REPEAT: &str = "request, answer";

/// A repeated request, as the first left it.
pub(super) fn repeat(row: &impl Columns) -> Result<Repeat> {
    let request = row.bytes(0)?.try_into();
    let request = request.map_err(|_| bad_row("a repeatable request with a hash of another size"))?;
    Ok(match row.some_bytes(1)? {
        Some(answer) => Repeat::Answered { request, answer },
        None => Repeat::Pending { request },
    })
}

/// The sums as they are stored, in the order of [`SUMMED`](super::usage::SUMMED).
pub(super) fn summed(counts: &Counts) -> [i64; 8] {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let tokens = &counts.tokens;
    [
        whole(counts.requests),
        whole(counts.errors),
        whole(tokens.prompt),
        whole(tokens.completion),
        whole(tokens.cache_read),
        whole(tokens.cache_write),
        whole(tokens.reasoning),
        counts.cost_nanos,
    ]
}

/// The eight sums from column `at` on.
pub(super) fn counts(row: &impl Columns, at: usize) -> Result<Counts> {
    Ok(Counts {
        requests: row.count(at)?,
        errors: row.count(at + 1)?,
        tokens: tokens(row, at + 2)?,
        cost_nanos: row.int(at + 7)?,
    })
}

fn tokens(row: &impl Columns, at: usize) -> Result<Tokens> {
    Ok(Tokens {
        prompt: row.count(at)?,
        completion: row.count(at + 1)?,
        cache_read: row.count(at + 2)?,
        cache_write: row.count(at + 3)?,
        reasoning: row.count(at + 4)?,
    })
}

pub(super) const TOTAL: &str = "minute, key_id, account_id, model, requests, errors, prompt, completion, cache_read,
    cache_write, reasoning, cost_nanos";

pub(super) fn total(row: &impl Columns) -> Result<Total> {
    Ok(Total {
        minute: row.small(0)?,
        key: KeyId(row.count(1)?),
        account: AccountId(row.count(2)?),
        model: row.text(3)?.into(),
        counts: counts(row, 4)?,
    })
}

pub(super) const LOG: &str =
    "epoch, n, time_ms, client_request_id, key_id, key_name, dialect, endpoint, requested_model,
    provider, account_id, account, model, status, stream, cache, attempts, timeline, prompt, completion, cache_read,
    cache_write, reasoning, cost_nanos, latency_ms, first_byte_ms, overhead_us, error, estimated, sampled";
/// How many they are: what is asked for behind them begins here.
pub(super) const LOG_WIDTH: usize = 30;

pub(super) fn log(row: &impl Columns) -> Result<LoggedRow> {
    let key = row.some_text(5)?.map(|name| row.count(4).map(|id| (KeyId(id), name))).transpose()?;
    let account = row.some_text(11)?.map(|label| row.count(10).map(|id| (AccountId(id), label))).transpose()?;
    Ok(LoggedRow {
        id: RequestId { epoch: row.count(0)?, n: row.count(1)? },
        time_ms: row.count(2)?,
        client_request_id: row.some_text(3)?,
        key,
        dialect: row.text(6)?,
        endpoint: row.text(7)?,
        requested_model: row.text(8)?,
        provider: row.some_text(9)?,
        account,
        model: row.some_text(12)?,
        status: row.int(13)? as u16,
        stream: row.flag(14)?,
        cache: row.text(15)?,
        attempts: row.small(16)?,
        timeline: row.some_text(17)?,
        tokens: tokens(row, 18)?,
        cost_nanos: row.int(23)?,
        latency_ms: row.small(24)?,
        first_byte_ms: row.some_small(25)?,
        overhead_us: row.small(26)?,
        error: row.some_text(27)?,
        estimated: row.flag(28)?,
        sampled: row.small(29)?,
    })
}
