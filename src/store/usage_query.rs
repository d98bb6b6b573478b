//! Sums of usage by key, model, provider, account or day.
//!
//! An engine groups by what it keeps: key, account, model, day. Providers and names come from the tables of accounts and
//! keys, removed ones included, and from the catalogue for accounts of the environment: so a sum never loses its name.
//! Whole days come from totals by day; only the broken ends of a span are read by the minute.

use super::refresh::env_id;
use super::validate::{DEMO, ENV_LABEL};
use super::{Result, Store, StoreError};
use crate::base::{AccountId, KeyId};
use crate::state::usage::Counts;
use std::collections::HashMap;

/// Rows an answer holds at most.
pub const MAX_GROUPS: usize = 10_000;
const DAY: i64 = 1_440;

/// What to group by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsageBy {
    /// Who asked.
    Key,
    /// The provider's model.
    Model,
    /// Who served.
    Provider,
    /// With which account.
    Account,
    /// The day (UTC).
    Day,
}

/// One group's sums. What was not asked for is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UsageRow {
    /// Who asked; `KeyId(0)` = anonymous.
    pub key: Option<KeyId>,
    /// Its name, if it was ever kept.
    pub key_name: Option<String>,
    /// The provider's model; `-` = none served.
    pub model: Option<String>,
    /// Who served; `-` = nobody.
    pub provider: Option<String>,
    /// With which account; `AccountId(0)` = the demo's, or none.
    pub account: Option<AccountId>,
    /// Its label.
    pub account_label: Option<String>,
    /// Days since 1970-01-01 (UTC).
    pub day: Option<u32>,
    /// The sums.
    pub counts: Counts,
}

/// What an engine groups by, and the span in minutes: `[from, to)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one a column: which of them to group by")]
pub(super) struct UsageSelect {
    pub(super) key: bool,
    pub(super) account: bool,
    pub(super) model: bool,
    pub(super) day: bool,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Names by id, removed ones included.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) keys: HashMap<u64, String>,
    /// Provider and label.
    pub(super) accounts: HashMap<u64, (String, String)>,
}

impl UsageBy {
    /// As the control plane names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Account => "account",
            Self::Day => "day",
        }
    }

    /// The grouping of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Key, Self::Model, Self::Provider, Self::Account, Self::Day].into_iter().find(|by| by.name() == name)
    }
}

impl Store {
    pub(super) async fn usage_grouped(&self, by: &[UsageBy], since_ms: u64, until_ms: u64) -> Result<Vec<UsageRow>> {
        let has = |wanted| by.contains(&wanted);
        let minute = |ms: u64| i64::try_from(ms / 60_000).unwrap_or(i64::MAX).min(i64::from(u32::MAX));
        let by_provider = has(UsageBy::Provider);
        let select = UsageSelect {
            key: has(UsageBy::Key),
            account: has(UsageBy::Account) || by_provider,
            model: has(UsageBy::Model),
            day: has(UsageBy::Day),
            from: minute(since_ms),
            to: minute(until_ms),
        };
        if select.from >= select.to {
            return Ok(Vec::new());
        }
        let mut rows = self.engine.usage(select).await?;
        if select.key || select.account {
            let names = self.engine.names(rows.iter().filter_map(|row| row.key).collect()).await?;
            self.name(&mut rows, &names);
        }
        if by_provider && !has(UsageBy::Account) {
            rows = fold(rows);
        }
        rows.sort_by(|a, b| {
            let dear = |row: &UsageRow| (row.counts.cost_nanos, row.counts.requests);
            a.day.cmp(&b.day).then_with(|| dear(b).cmp(&dear(a))).then_with(|| a.model.cmp(&b.model))
        });
        rows.truncate(MAX_GROUPS);
        Ok(rows)
    }

    fn name(&self, rows: &mut [UsageRow], names: &Names) {
        let env: HashMap<_, _> = self.seals.builtin.iter().map(|name| (env_id(name), &**name)).collect();
        for row in rows {
            row.key_name = row.key.and_then(|key| names.keys.get(&key.0).cloned());
            let Some(account) = row.account else { continue };
            let (provider, label) = match names.accounts.get(&account.0) {
                Some((provider, label)) => (&**provider, Some(&**label)),
                None if account == AccountId(0) => match row.model.as_deref() {
                    Some("echo") => (DEMO, Some(DEMO)),
                    _ => ("-", None),
                },
                None => env.get(&account).map_or(("-", None), |provider| (*provider, Some(ENV_LABEL))),
            };
            row.provider = Some(provider.to_owned());
            row.account_label = label.map(str::to_owned);
        }
    }
}

/// Accounts of one provider become one row.
fn fold(rows: Vec<UsageRow>) -> Vec<UsageRow> {
    let mut out: HashMap<(Option<KeyId>, Option<String>, Option<String>, Option<u32>), UsageRow> = HashMap::new();
    for row in rows {
        let slot = (row.key, row.model.clone(), row.provider.clone(), row.day);
        let whole = UsageRow { account: None, account_label: None, ..row };
        out.entry(slot).and_modify(|sum| sum.counts.add(&whole.counts)).or_insert(whole);
    }
    out.into_values().collect()
}

impl UsageSelect {
    /// The columns to group by, in the order key, account, model, day; 0 or '' for those not asked for.
    pub(super) fn sql(&self) -> String {
        let pick = |wanted: bool, column: &'static str, none: &'static str| if wanted { column } else { none };
        let sums = "requests, errors, prompt, completion, cache_read, cache_write, reasoning, cost_nanos";
        let mut spans = Vec::new();
        let mut span = |table: &str, column: &str, day: &str, from: i64, to: i64| {
            if from < to {
                // Numbers of ours, no values of a caller's.
                spans.push(format!(
                    "SELECT key_id, account_id, model, {day} AS day, {sums} FROM {table} \
                     WHERE {column} >= {from} AND {column} < {to}"
                ));
            }
        };
        let (first, last) = ((self.from + DAY - 1) / DAY, self.to / DAY);
        if first < last {
            span("usage", "minute", "minute / 1440", self.from, first * DAY);
            span("usage_days", "day", "day", first, last);
            span("usage", "minute", "minute / 1440", last * DAY, self.to);
        } else {
            span("usage", "minute", "minute / 1440", self.from, self.to);
        }
        let totals: Vec<_> = sums.split(", ").map(|sum| format!("CAST(SUM({sum}) AS BIGINT)")).collect();
        let groups: Vec<_> =
            [(self.key, "key_id"), (self.account, "account_id"), (self.model, "model"), (self.day, "day")]
                .into_iter()
                .filter_map(|(wanted, column)| wanted.then_some(column))
                .collect();
        let group = if groups.is_empty() {
            "HAVING COUNT(*) > 0".to_owned()
        } else {
            format!("GROUP BY {}", groups.join(", "))
        };
        format!(
            "SELECT {}, {}, {}, {}, {} FROM ({}) AS spans {group} ORDER BY 12 DESC LIMIT {}",
            pick(self.key, "key_id", "CAST(0 AS BIGINT)"),
            pick(self.account, "account_id", "CAST(0 AS BIGINT)"),
            pick(self.model, "model", "CAST('' AS TEXT)"),
            pick(self.day, "day", "CAST(0 AS BIGINT)"),
            totals.join(", "),
            spans.join(" UNION ALL "),
            // Accounts fold into providers afterwards: no group may be cut off before that by much.
            MAX_GROUPS * 4,
        )
    }

    /// A row of what [`UsageSelect::sql`] answers.
    pub(super) fn row(&self, key: i64, account: i64, model: String, day: i64, counts: Counts) -> Result<UsageRow> {
        let day = u32::try_from(day).map_err(|_| StoreError::corrupt("the store holds a day out of range"))?;
        Ok(UsageRow {
            key: self.key.then_some(KeyId(key.cast_unsigned())),
            account: self.account.then_some(AccountId(account.cast_unsigned())),
            model: self.model.then_some(model),
            day: self.day.then_some(day),
            counts,
            ..UsageRow::default()
        })
    }
}
