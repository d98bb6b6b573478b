//! What can be asked of the log and of the totals, the same for every engine: filters, cursors, pages, groups.
//!
//! The conditions are spelled here once and handed to an engine as text with numbered places and the values for them;
//! no value ever stands in the text. Each page is bounded: a search for a text looks at [`SCAN`] rows a call at most (fewer where they lie apart) and
//! answers with the cursor to go on from, so that no question of a dashboard can hold a store up.

use super::rows::LoggedRow;
use super::usage_query::UsageRow;
use super::{Result, Store};
use crate::base::{KeyId, RequestId};
use std::fmt;
use std::str::FromStr;

/// Rows a page holds at most.
pub const MAX_PAGE: u32 = 1_000;
/// Rows a search for a text looks at in one call.
pub const SCAN: u32 = 50_000;
/// The same where a filter picks the rows: they lie apart, and each costs a page of its own.
const SCAN_APART: u32 = 10_000;

/// Which log rows. Empty: all. What is set must all hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogFilter {
    /// Who served.
    pub provider: Option<String>,
    /// The provider's model; `provider/model` asks for both.
    pub model: Option<String>,
    /// Who asked; `KeyId(0)`: anonymous callers.
    pub key_id: Option<KeyId>,
    /// Status, both ends included.
    pub status: Option<StatusRange>,
    /// Unix milliseconds, included.
    pub since_ms: Option<u64>,
    /// Unix milliseconds, not included.
    pub until_ms: Option<u64>,
    /// An internal or client request id, or a text within the model, the key's name, the account or the error,
    /// whatever its case.
    pub q: Option<String>,
}

/// A range of HTTP status codes, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusRange {
    /// The lowest.
    pub from: u16,
    /// The highest.
    pub to: u16,
}

/// Where a page ended: pass it to read on. Prints as a short text for clients to hand back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogCursor {
    pub(super) time_ms: u64,
    pub(super) seq: u64,
}

/// Not a cursor or a status that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadQuery;

/// One page of the log, newest first.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LogPage {
    /// The rows.
    pub rows: Vec<LoggedRow>,
    /// There may be more: ask again with this. A page may be short (even empty) and still have it.
    pub next: Option<LogCursor>,
}

/// A value for a numbered place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Int(i64),
    Text(String),
}

/// How an engine spells what differs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    /// Before a place's number.
    pub(super) mark: char,
    /// `LIKE` whatever the case.
    pub(super) like: &'static str,
}

/// A page as an engine is asked for it.
#[derive(Clone, Debug)]
pub(super) struct LogSelect {
    /// `WHERE …` that indexes serve, or nothing.
    pub(super) indexed: String,
    /// `WHERE …` for what those found, at most `scan` rows of it; or nothing.
    pub(super) search: String,
    pub(super) values: Vec<Value>,
    /// How many of `values` stand in `indexed`.
    pub(super) indexed_values: usize,
    /// Rows a search looks at.
    pub(super) scan: u32,
    /// Rows wanted, and one more to know whether there are more.
    pub(super) limit: u32,
}

/// A row and its place among those of the same millisecond.
pub(super) type Placed = (LoggedRow, u64);

impl Store {
    /// One page of the log, newest first; at most [`MAX_PAGE`] rows.
    pub async fn logs(&self, filter: &LogFilter, cursor: Option<LogCursor>, limit: u32) -> Result<LogPage> {
        let limit = limit.clamp(1, MAX_PAGE);
        let spelling = self.engine.spelling();
        if let Some(id) = filter.q.as_deref().and_then(|q| q.parse::<RequestId>().ok()) {
            let select = LogSelect::new(filter, &Search::Id(id), cursor, limit, spelling);
            return self.page(select, limit).await;
        }
        let Some(text) = filter.q.as_deref().filter(|q| !q.is_empty()) else {
            return self.page(LogSelect::new(filter, &Search::All, cursor, limit, spelling), limit).await;
        };
        if cursor.is_none() {
            // A client's own id is what people paste most: it has an index.
            let exact = LogSelect::new(filter, &Search::Client(text), None, limit, spelling);
            let page = self.page(exact, limit).await?;
            if !page.rows.is_empty() {
                return Ok(page);
            }
        }
        let select = LogSelect::new(filter, &Search::Text(text), cursor, limit, spelling);
        let scanned = select.clone();
        let mut page = self.page(select, limit).await?;
        if page.next.is_none() {
            page.next = self.engine.log_scan_end(scanned).await?;
        }
        Ok(page)
    }

    async fn page(&self, select: LogSelect, limit: u32) -> Result<LogPage> {
        let mut found = self.engine.logs(select).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let last = found.last().map(|(row, seq)| LogCursor { time_ms: row.time_ms, seq: *seq });
        Ok(LogPage { rows: found.into_iter().map(|(row, _)| row).collect(), next: last.filter(|_| more) })
    }

    /// The log row of one request, with its attempts' timeline.
    pub async fn log(&self, id: RequestId) -> Result<Option<LoggedRow>> {
        self.engine.log(id).await
    }

    /// Sums of usage from `since_ms` until before `until_ms` (Unix milliseconds, both cut to their minute), one row for
    /// each combination of what `by` names; by day in order, else the dearest first. At most
    /// [`MAX_GROUPS`](super::usage_query::MAX_GROUPS) rows.
    pub async fn usage(
        &self,
        by: &[super::usage_query::UsageBy],
        since_ms: u64,
        until_ms: u64,
    ) -> Result<Vec<UsageRow>> {
        self.usage_grouped(by, since_ms, until_ms).await
    }
}

enum Search<'a> {
    All,
    Id(RequestId),
    Client(&'a str),
    Text(&'a str),
}

impl LogSelect {
    fn new(filter: &LogFilter, search: &Search<'_>, cursor: Option<LogCursor>, limit: u32, spelling: Spelling) -> Self {
        let mut indexed = Conditions { spelling, text: String::new(), values: Vec::new() };
        // An id finds so few rows that nothing else may choose the index: all the rest is looked at in what it found.
        let exact = match search {
            Search::Id(id) => {
                indexed.int("epoch =", stored_epoch(*id));
                indexed.int("n =", id.n.cast_signed());
                Some((std::mem::take(&mut indexed.text), 2))
            }
            Search::Client(id) => {
                indexed.text("client_request_id =", id);
                Some((std::mem::take(&mut indexed.text), 1))
            }
            Search::All | Search::Text(_) => None,
        };
        let (provider, model) = match filter.model.as_deref().and_then(|model| model.split_once('/')) {
            Some((provider, model)) if filter.provider.is_none() => (Some(provider), Some(model)),
            _ => (filter.provider.as_deref(), filter.model.as_deref()),
        };
        if let Some(key) = filter.key_id {
            indexed.int("key_id =", key.0.cast_signed());
        }
        if let Some(model) = model {
            indexed.text("model =", model);
        }
        if let Some(provider) = provider {
            indexed.text("provider =", provider);
        }
        if let Some(StatusRange { from, to }) = filter.status {
            if from >= 400 {
                // In so many words: it is what the index of failures promises.
                indexed.and("status >= 400");
            }
            indexed.int("status >=", from.into());
            indexed.int("status <=", to.into());
        }
        if let Some(since) = filter.since_ms {
            indexed.int("time_ms >=", whole(since));
        }
        if let Some(until) = filter.until_ms {
            indexed.int("time_ms <", whole(until));
        }
        if let Some(cursor) = cursor {
            let (time, seq) = (whole(cursor.time_ms), whole(cursor.seq));
            indexed.int("time_ms <=", time);
            let (time, seq) = (indexed.place(Value::Int(time)), indexed.place(Value::Int(seq)));
            indexed.and(&format!("(time_ms, seq) < ({time}, {seq})"));
        }
        let limit = limit + 1;
        let apart = filter.key_id.is_some() || model.is_some() || provider.is_some() || filter.status.is_some();
        let scan = if apart && exact.is_none() { SCAN_APART } else { SCAN };
        if let Some((found, indexed_values)) = exact {
            return Self { indexed: found, search: indexed.text, values: indexed.values, indexed_values, scan, limit };
        }
        let indexed_values = indexed.values.len();
        let mut words = String::new();
        if let Search::Text(text) = search {
            let place = indexed.place(Value::Text(pattern(text)));
            let columns = ["requested_model", "model", "provider", "account", "key_name", "client_request_id", "error"];
            let like = spelling.like;
            let each: Vec<_> = columns.iter().map(|column| format!("{column} {like} {place} ESCAPE '\\'")).collect();
            words = format!("WHERE {}", each.join(" OR "));
        }
        Self { indexed: indexed.text, search: words, values: indexed.values, indexed_values, scan, limit }
    }

    /// As it is asked for a page: first, and going on.
    #[cfg(test)]
    pub(super) fn variants(filter: &LogFilter, cursor: Option<LogCursor>, spelling: Spelling) -> Vec<Self> {
        let select = |search: &Search<'_>, cursor| Self::new(filter, search, cursor, 50, spelling);
        match filter.q.as_deref() {
            Some(text) => vec![select(&Search::Client(text), None), select(&Search::Text(text), cursor)],
            None => vec![select(&Search::All, None), select(&Search::All, cursor)],
        }
    }

    /// The whole statement for `columns` of the log.
    pub(super) fn sql(&self, columns: &str) -> String {
        let order = "ORDER BY time_ms DESC, seq DESC";
        let Self { indexed, search, scan, limit, .. } = self;
        if search.is_empty() {
            format!("SELECT {columns}, seq FROM request_log {indexed} {order} LIMIT {limit}")
        } else {
            format!(
                "SELECT {columns}, seq FROM (SELECT * FROM request_log {indexed} {order} LIMIT {scan}) AS looked_at \
                 {search} {order} LIMIT {limit}"
            )
        }
    }

    /// Where the search stopped looking, if it did.
    pub(super) fn scan_end_sql(&self) -> String {
        format!(
            "SELECT time_ms, seq FROM request_log {} ORDER BY time_ms DESC, seq DESC LIMIT 1 OFFSET {}",
            self.indexed,
            self.scan - 1
        )
    }
}

struct Conditions {
    spelling: Spelling,
    text: String,
    values: Vec<Value>,
}

impl Conditions {
    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("{}{}", self.spelling.mark, self.values.len())
    }

    fn and(&mut self, condition: &str) {
        self.text.push_str(if self.text.is_empty() { "WHERE " } else { " AND " });
        self.text.push_str(condition);
    }

    fn int(&mut self, condition: &str, value: i64) {
        let place = self.place(Value::Int(value));
        self.and(&format!("{condition} {place}"));
    }

    fn text(&mut self, condition: &str, value: &str) {
        let place = self.place(Value::Text(value.to_owned()));
        self.and(&format!("{condition} {place}"));
    }
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// `text` anywhere, with nothing in it meaning more than itself.
fn pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('%');
    for c in text.chars().filter(|c| *c != '\0') {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('%');
    out
}

/// An id prints 48 bits of its epoch: what is stored must be found again by what was printed.
pub(super) fn stored_epoch(id: RequestId) -> i64 {
    (id.epoch & 0xffff_ffff_ffff).cast_signed()
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.time_ms, self.seq)
    }
}

impl FromStr for LogCursor {
    type Err = BadQuery;
    fn from_str(text: &str) -> Result<Self, BadQuery> {
        let (time, seq) = text.split_once('-').ok_or(BadQuery)?;
        let hex = |s: &str| i64::from_str_radix(s, 16).ok().filter(|n| *n >= 0).ok_or(BadQuery);
        Ok(Self { time_ms: hex(time)?.cast_unsigned(), seq: hex(seq)?.cast_unsigned() })
    }
}

/// `429`, `4xx`, `ok` (below 400), `error` (400 and above).
impl FromStr for StatusRange {
    type Err = BadQuery;
    fn from_str(text: &str) -> Result<Self, BadQuery> {
        match text.to_ascii_lowercase().as_str() {
            "ok" => Ok(Self { from: 0, to: 399 }),
            "error" => Ok(Self { from: 400, to: 999 }),
            text => {
                if let Some(class) = text.strip_suffix("xx").and_then(|c| c.parse::<u16>().ok()) {
                    let from = (1..=5).contains(&class).then_some(class * 100).ok_or(BadQuery)?;
                    return Ok(Self { from, to: from + 99 });
                }
                let code = text.parse().ok().filter(|code| (100..=999).contains(code)).ok_or(BadQuery)?;
                Ok(Self { from: code, to: code })
            }
        }
    }
}

impl fmt::Display for BadQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor of ours, or not a status like 429, 4xx, ok or error")
    }
}

impl std::error::Error for BadQuery {}

#[cfg(test)]
#[path = "query_tests.rs"]
pub(super) mod tests;
