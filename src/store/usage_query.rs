//! Sums of usage by key, model, provider, account or day.
//!
//! An engine groups by what it keeps: key, account, model, day. Providers and names come from the tables of accounts and
//! keys, removed ones included, and from the catalogue for accounts of the environment: so a sum never loses its name.
//! Whole days come from totals by day; only the broken ends of a span are read by the minute, or what is missing of their
//! days is taken off, whichever are fewer minutes: never more than half a day's at either end. Minutes are kept for
//! [`MINUTE_DAYS`]; before that a span is of whole days.

use super::refresh::env_id;
use super::usage::{SUMMED, SUMS, Sums};
use super::validate::{DEMO, ENV_LABEL};
use super::{Result, Store, StoreError};
use crate::base::{AccountId, Clock, KeyId};
use crate::state::usage::Counts;
use std::collections::HashMap;

/// Rows an answer holds at most.
pub const MAX_GROUPS: usize = 10_000;
const DAY: i64 = 1_440;
/// Days back to which totals are kept by the minute, today not counted: the dashboard's month and some days.
const MINUTE_DAYS: i64 = 35;
/// Minutes that another instance's clock may be ahead.
const AHEAD: i64 = 5;

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
    /// The first minute of which nothing can be known yet.
    pub(super) present: i64,
}

/// A part of a table: minutes or days `[from, to)`, added or taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    by_day: bool,
    from: i64,
    to: i64,
    off: bool,
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

/// What is answered for `[since, until)` (Unix milliseconds): by the minute, and by whole days where totals are no longer
/// kept by the minute.
pub fn answered(since_ms: u64, until_ms: u64) -> (u64, u64) {
    let (minute, day) = (60_000, 86_400_000);
    let by_minute = (Clock::unix_ms() / day * day).saturating_sub(MINUTE_DAYS.cast_unsigned() * day);
    if since_ms >= until_ms {
        return (since_ms, since_ms);
    }
    let whole = |at: u64| if at < by_minute { at / day * day } else { at / minute * minute };
    let until = if until_ms < by_minute { until_ms.next_multiple_of(day) } else { whole(until_ms) };
    (whole(since_ms), until)
}

/// The first minute that is still kept. A day more than is asked for: clocks differ, and a question may be under way.
pub(super) fn kept_from() -> u32 {
    let day = i64::try_from(Clock::unix_ms() / 86_400_000).unwrap_or(0) - MINUTE_DAYS - 1;
    u32::try_from(day * DAY).unwrap_or(0)
}

impl Store {
    pub(super) async fn usage_grouped(&self, by: &[UsageBy], since_ms: u64, until_ms: u64) -> Result<Vec<UsageRow>> {
        let (since_ms, until_ms) = answered(since_ms, until_ms);
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
            present: minute(Clock::unix_ms()) + AHEAD,
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
        let off = format!("-{}", SUMMED.replace(", ", ", -"));
        let spans = self.spans();
        let taken_off = spans.iter().any(|span| span.off);
        // The last day's table that knows what is asked for is the smallest.
        let knows = |sums: &&Sums| (sums.by_key || !self.key) && (sums.by_target || !(self.account || self.model));
        let days = SUMS.iter().rfind(knows).unwrap_or(&SUMS[1]);
        let parts = spans.into_iter().map(|Span { by_day, from, to, off: minus }| {
            // Numbers of ours, no values of a caller's.
            let Sums { table, span, by_key, by_target } = if by_day { days } else { &SUMS[0] };
            let day = if by_day { "day" } else { "minute / 1440" };
            let key = if *by_key { "key_id" } else { "CAST(0 AS BIGINT) AS key_id" };
            let target = if *by_target { "account_id, model" } else { "CAST(0 AS BIGINT) AS account_id, '' AS model" };
            let sums = if minus { &*off } else { SUMMED };
            format!(
                "SELECT {key}, {target}, {day} AS day, {sums} FROM {table} WHERE {span} >= {from} AND {span} < {to}"
            )
        });
        // The first names the columns of all: it must be none that is taken off.
        let parts: Vec<_> = parts.collect();
        let totals: Vec<_> = SUMMED.split(", ").map(|sum| format!("CAST(SUM({sum}) AS BIGINT)")).collect();
        let groups: Vec<_> =
            [(self.key, "key_id"), (self.account, "account_id"), (self.model, "model"), (self.day, "day")]
                .into_iter()
                .filter_map(|(wanted, column)| wanted.then_some(column))
                .collect();
        let group = if groups.is_empty() { String::new() } else { format!("GROUP BY {}", groups.join(", ")) };
        // What was taken off whole is no row.
        let some = if taken_off { "SUM(requests) <> 0" } else { "COUNT(*) > 0" };
        format!(
            "SELECT {}, {}, {}, {}, {} FROM ({}) AS spans {group} HAVING {some} ORDER BY 12 DESC LIMIT {}",
            pick(self.key, "key_id", "CAST(0 AS BIGINT)"),
            pick(self.account, "account_id", "CAST(0 AS BIGINT)"),
            pick(self.model, "model", "CAST('' AS TEXT)"),
            pick(self.day, "day", "CAST(0 AS BIGINT)"),
            totals.join(", "),
            parts.join(" UNION ALL "),
            // Accounts fold into providers afterwards: no group may be cut off before that by much.
            MAX_GROUPS * 4,
        )
    }

    /// What to read, those that are added first.
    fn spans(&self) -> Vec<Span> {
        let mut out = Vec::new();
        let (first, last) = ((self.from + DAY - 1) / DAY, self.to / DAY);
        if first > last {
            self.piece(self.from, self.to, &mut out);
        } else {
            self.piece(self.from, first * DAY, &mut out);
            out.push(Span { by_day: true, from: first, to: last, off: false });
            self.piece(last * DAY, self.to, &mut out);
        }
        out.retain(|span| span.from < span.to);
        out.sort_by_key(|span| span.off);
        out
    }

    /// Minutes `[from, to)` of one day: those, or the day without the others, whichever are fewer to read.
    fn piece(&self, from: i64, to: i64, out: &mut Vec<Span>) {
        if from >= to {
            return;
        }
        let day = from / DAY;
        let (begin, end) = (day * DAY, (day + 1) * DAY);
        let known = |from: i64, to: i64| (to.min(self.present) - from).max(0);
        let minutes = |from, to, off| Span { by_day: false, from, to, off };
        if known(from, to) <= known(begin, from) + known(to, end) {
            out.push(minutes(from, to, false));
        } else {
            out.push(Span { by_day: true, from: day, to: day + 1, off: false });
            out.push(minutes(begin, from, true));
            // Nothing to take off where nothing can be yet.
            if known(to, end) > 0 {
                out.push(minutes(to, end, true));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_minutes_are_gone_the_answer_is_of_whole_days() {
        let day = 86_400_000;
        let today = Clock::unix_ms() / day * day;
        let (recent, old) = (today - 35 * day, today - 36 * day);
        assert_eq!(answered(recent + 90_001, today + 90_001), (recent + 60_000, today + 60_000));
        assert_eq!(answered(old + 90_001, old + 90_001), (old + 90_001, old + 90_001), "nothing stays nothing");
        assert_eq!(answered(recent, old + 1), (recent, recent));
        assert_eq!(answered(old + 90_001, recent - 90_001), (old, recent));
        assert_eq!(answered(0, u64::MAX), (0, u64::MAX / 60_000 * 60_000));
        assert!(u64::from(kept_from()) * 60_000 < recent);
    }

    #[test]
    fn spans_count_each_minute_once_and_read_half_a_day_at_an_end_at_most() {
        let days = 4;
        for present in [2 * DAY + 700, 10 * DAY] {
            for from in (0..days * DAY).step_by(97) {
                for to in (from + 1..=days * DAY).step_by(131).chain([days * DAY, present.min(days * DAY)]) {
                    if from >= to {
                        continue;
                    }
                    let select =
                        UsageSelect { key: false, account: false, model: false, day: false, from, to, present };
                    let spans = select.spans();
                    assert!(spans.first().is_some_and(|span| !span.off), "{select:?} {spans:?}");
                    let read: i64 =
                        spans.iter().filter(|span| !span.by_day).map(|s| (s.to.min(present) - s.from).max(0)).sum();
                    assert!(read <= DAY, "{read} minutes: {select:?} {spans:?}");
                    for minute in (0..days * DAY).step_by(53).chain([from, to - 1]).filter(|minute| *minute < present) {
                        let holds = |span: &&Span| {
                            let at = if span.by_day { minute / DAY } else { minute };
                            span.from <= at && at < span.to
                        };
                        let count: i32 = spans.iter().filter(holds).map(|span| if span.off { -1 } else { 1 }).sum();
                        assert_eq!(count, i32::from(from <= minute && minute < to), "{minute}: {select:?} {spans:?}");
                    }
                }
            }
        }
    }
}
