//! The store's usage and log: appended in batches, read back, pruned.

use super::Store;
use super::decode::{MAX_TEXT, cut};
use super::error::Result;
use super::rows::{LoggedRow, Pruned, UsageBatch};
use crate::base::KeyId;
use crate::state::usage::{Counts, Total};
use std::borrow::Cow;
use std::sync::Arc;

/// A table of totals: of which span, and by what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub(super) table: &'static str,
    /// The column of its span.
    pub(super) span: &'static str,
    /// By key, too.
    pub(super) by_key: bool,
    /// By account and model, too.
    pub(super) by_target: bool,
}

/// All of them: what each request is added to, in this order everywhere. The last is the one that most requests share.
pub(super) const SUMS: [Sums; 4] = [
    Sums { table: "usage", span: "minute", by_key: true, by_target: true },
    Sums { table: "usage_days", span: "day", by_key: true, by_target: true },
    Sums { table: "usage_key_days", span: "day", by_key: true, by_target: false },
    Sums { table: "usage_model_days", span: "day", by_key: false, by_target: true },
];

/// Where in a table of totals: span, key, account and model; zero and nothing for what it does not tell apart.
pub(super) type Place<'a> = (u32, i64, i64, Cow<'a, str>);

/// What is summed up, in the order of [`counts`](super::columns::counts).
pub(super) const SUMMED: &str = "requests, errors, prompt, completion, cache_read, cache_write, reasoning, cost_nanos";

impl Sums {
    /// Where in its span a minute lies.
    pub(super) fn at(&self, minute: u32) -> u32 {
        if self.span == "day" { minute / 1_440 } else { minute }
    }

    /// The columns that tell its rows apart.
    pub(super) fn columns(&self) -> String {
        let (key, target) =
            (if self.by_key { ", key_id" } else { "" }, if self.by_target { ", account_id, model" } else { "" });
        format!("{}{key}{target}", self.span)
    }

    /// What `totals` add to it: each place once, in the order of its rows on disk, so that a batch walks the tree and
    /// no two instances wait for each other in a circle. `fit` makes a model's name what the engine takes.
    pub(super) fn merged<'a>(
        &self,
        totals: &'a [Total],
        fit: impl Fn(&'a str) -> Cow<'a, str>,
    ) -> Vec<(Place<'a>, Counts)> {
        let place = |total: &'a Total| {
            let key = if self.by_key { total.key.0.cast_signed() } else { 0 };
            let at = self.at(total.minute);
            if !self.by_target {
                return (at, key, 0, Cow::default());
            }
            (at, key, total.account.0.cast_signed(), fit(cut(&total.model, MAX_TEXT)))
        };
        let mut all: Vec<_> = totals.iter().map(|total| (place(total), total.counts)).collect();
        // Stable: it takes what lies in order already in one go, as a batch's totals do.
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|(place, counts), (before, sum)| {
            let same = place == before;
            if same {
                sum.add(counts);
            }
            same
        });
        all
    }

    /// Adds `values`: [`Sums::columns`] and then [`SUMMED`], row by row.
    pub(super) fn upsert(&self, values: &str) -> String {
        let (table, columns) = (self.table, self.columns());
        let added: Vec<_> = SUMMED.split(", ").map(|sum| format!("{sum} = old.{sum} + excluded.{sum}")).collect();
        format!(
            "INSERT INTO {table} AS old ({columns}, {SUMMED}) {values} ON CONFLICT ({columns}) DO UPDATE SET {}",
            added.join(", ")
        )
    }
}

impl Store {
    /// Stores a batch in one transaction; how many log rows are new. Sending the same (writer, number) again does
    /// nothing, so a batch whose answer was lost may be sent once more.
    pub async fn append(&self, batch: Arc<UsageBatch>) -> Result<usize> {
        self.engine.append(batch).await
    }

    /// All totals by the minute that are still kept, the oldest first.
    pub async fn usage_totals(&self) -> Result<Vec<Total>> {
        self.engine.usage_totals().await
    }

    /// What each key has spent so far, in nanodollars.
    pub async fn spent(&self) -> Result<Vec<(KeyId, i64)>> {
        self.engine.spent(None).await
    }

    /// The same, of those keys only that have a budget and spent anything since that Unix minute, on any instance.
    pub async fn spent_since(&self, minute: u32) -> Result<Vec<(KeyId, i64)>> {
        self.engine.spent(Some(minute)).await
    }

    /// The newest `limit` log rows, newest first.
    pub async fn log_rows(&self, limit: u32) -> Result<Vec<LoggedRow>> {
        self.engine.log_rows(limit).await
    }

    /// Removes some of the log rows older than `before_ms` (Unix milliseconds), or the oldest while all of them cost
    /// more than `max_bytes`. Call again while it says there is more.
    pub async fn prune(&self, before_ms: u64, max_bytes: u64) -> Result<Pruned> {
        self.engine.prune(before_ms, max_bytes).await
    }

    /// Removes some of the totals by the minute that are no longer asked for; what they add to by the day stays. Call
    /// again while it says there is more.
    pub async fn prune_minutes(&self) -> Result<Pruned> {
        self.engine.prune_minutes(super::usage_query::kept_from()).await
    }

    /// Gives space that pruning freed back to the file system, a piece of it.
    pub async fn shrink(&self) -> Result<()> {
        self.engine.shrink(4_096).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::AccountId;

    #[test]
    fn totals_merge_to_each_place_once_in_the_order_of_the_table() {
        let total = |minute, key, account, model: &str| Total {
            key: KeyId(key),
            account: AccountId(account),
            model: model.into(),
            minute,
            counts: Counts { requests: 1, ..Counts::default() },
        };
        let totals = [
            total(1_441, 7, 2, "b"),
            total(3, 9, 1, "a\0"),
            total(2, 7, 1, "a"),
            total(1_440, 7, 2, "b"),
            total(3, 7, 1, "a"),
            total(2, 9, 1, "a"),
            total(2, 7, 1, "a"),
        ];
        let merged = |sums: &Sums| {
            let fit = |model: &str| Cow::from(model.replace('\0', ""));
            let all = sums.merged(&totals, fit).into_iter();
            all.map(|((at, key, account, model), counts)| format!("{at}/{key}/{account}/{model} {}", counts.requests))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            merged(&SUMS[0]),
            ["2/7/1/a 2", "2/9/1/a 1", "3/7/1/a 1", "3/9/1/a 1", "1440/7/2/b 1", "1441/7/2/b 1"]
        );
        assert_eq!(merged(&SUMS[1]), ["0/7/1/a 3", "0/9/1/a 2", "1/7/2/b 2"]);
        assert_eq!(merged(&SUMS[2]), ["0/7/0/ 3", "0/9/0/ 2", "1/7/0/ 2"]);
        assert_eq!(merged(&SUMS[3]), ["0/0/1/a 5", "1/0/2/b 2"]);
    }
}
