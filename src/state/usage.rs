//! The way out of the hot path for what a request cost: exact totals and, up to a rate, one log row each.
//!
//! Each core adds into a part of its own (one uncontended lock for both), so counting shares no cache line between
//! cores; `store/writer` takes rows a few times a second and totals with them, or less often when many are distinct. Totals
//! are never lost while the process lives, however long the store is away: they merge, so they grow with what is distinct
//! and not with traffic. Rows are bounded: above the rate successes are sampled, marked with how many they stand for, and
//! counted; errors are kept while there is room; what finds none is dropped and counted.

use super::catalog::{Account, Key};
use crate::base::metrics::METRICS;
use crate::base::{AccountId, Endpoint, KeyId, RequestId};
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

const PARTS: usize = 16;
/// Distinct (key, model, account, minute) a part holds before unseen models are booked as [`OTHER`].
const MAX_SLOTS: usize = 65_536;
const OTHER: &str = "(other)";

/// Totals and rows on their way to the store.
#[derive(Debug)]
pub struct Usage {
    parts: Box<[CachePadded<Mutex<Part>>]>,
    queued: AtomicUsize,
    capacity: usize,
    rate: u32,
    /// Unix second and successes seen in it, packed.
    second: AtomicU64,
    /// One of so many successes becomes a row, by what the second before brought.
    stride: AtomicU32,
    half_full: Notify,
    /// A part holds half of the totals it can.
    wide: AtomicBool,
}

/// What a request used, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tokens {
    /// Prompt, the cached part included.
    pub prompt: u64,
    /// Completion, the reasoning part included.
    pub completion: u64,
    /// Prompt read from the provider's cache.
    pub cache_read: u64,
    /// Prompt written to the provider's cache.
    pub cache_write: u64,
    /// Completion spent on reasoning.
    pub reasoning: u64,
}

/// Sums of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Requests.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Their tokens.
    pub tokens: Tokens,
    /// Their cost in nanodollars.
    pub cost_nanos: i64,
}

/// One total: what `counts` is the sum of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Total {
    /// Who asked; 0 = anonymous.
    pub key: KeyId,
    /// Which account served; 0 = the demo's, or none.
    pub account: AccountId,
    /// The provider's model.
    pub model: Arc<str>,
    /// Unix minute.
    pub minute: u32,
    /// The sums.
    pub counts: Counts,
}

/// Where an answer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CacheState {
    /// The provider.
    #[default]
    Miss,
    /// An identical request's answer.
    Dedup,
    /// A similar question's answer.
    Semantic,
}

/// One request as the log keeps it. Cheap to build: shares the catalog's own `Arc`s.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// Internal id: the row's identity.
    pub id: RequestId,
    /// When it began, Unix milliseconds.
    pub time_ms: u64,
    /// The client's `x-request-id`, if it sent a sane one.
    pub client_request_id: Option<Arc<str>>,
    /// Who asked; `None` = anonymous.
    pub key: Option<Arc<Key>>,
    /// What was called, and with it the caller's dialect.
    pub endpoint: Endpoint,
    /// As the client wrote it.
    pub requested_model: Arc<str>,
    /// Who served (or failed last).
    pub account: Option<Arc<Account>>,
    /// The provider's model.
    pub model: Option<Arc<str>>,
    /// HTTP status the client got.
    pub status: u16,
    /// Streamed.
    pub stream: bool,
    /// Where the answer came from.
    pub cache: CacheState,
    /// Calls made to providers.
    pub attempts: u32,
    /// JSON array with one object an attempt; only worth its price when there was more than one.
    pub timeline: Option<Box<str>>,
    /// Tokens.
    pub tokens: Tokens,
    /// Nanodollars; `None`: no price is known.
    pub cost_nanos: Option<i64>,
    /// Head to last byte.
    pub latency_ms: u32,
    /// Head to the provider's first byte.
    pub first_byte_ms: Option<u32>,
    /// The gateway's own time.
    pub overhead_us: u32,
    /// What went wrong.
    pub error: Option<Box<str>>,
    /// Tokens are our estimate: the provider reported none.
    pub estimated: bool,
    /// How many requests this row stands for; set by [`Usage::log`].
    pub sampled: u32,
}

#[derive(Debug, Default)]
struct Part {
    totals: HashMap<Slot, Counts, ahash::RandomState>,
    rows: Vec<LogRow>,
}

impl Usage {
    /// Keeps `rate` rows of successes a second, and about four seconds of them before it drops.
    pub fn new(rate: u32) -> Self {
        let capacity = (rate as usize).saturating_mul(4).clamp(1_024, 65_536);
        Self {
            parts: (0..PARTS).map(|_| CachePadded::default()).collect(),
            queued: AtomicUsize::new(0),
            capacity,
            rate,
            second: AtomicU64::new(0),
            stride: AtomicU32::new(1),
            half_full: Notify::new(),
            wide: AtomicBool::new(false),
        }
    }

    /// Adds to the total of (key, account, model, minute). Allocates only for the first of its kind since a drain.
    pub fn add(&self, key: KeyId, account: AccountId, model: &Arc<str>, minute: u32, counts: &Counts) {
        let seen = Seen { key, account, minute, model };
        let mut part = self.part().lock();
        if let Some(sum) = part.totals.get_mut(&seen as &dyn Parts) {
            sum.add(counts);
            return;
        }
        let model = if part.totals.len() < MAX_SLOTS { Arc::clone(model) } else { Arc::from(OTHER) };
        part.totals.entry(Slot { key, account, minute, model }).or_default().add(counts);
        if part.totals.len() == MAX_SLOTS / 2 {
            self.wide.store(true, Ordering::Relaxed);
            self.half_full.notify_one();
        }
    }

    /// Puts one row in the queue, unless it is sampled away or finds no room: `build` is called only if it is kept.
    pub fn log(&self, failed: bool, unix_ms: u64, build: impl FnOnce() -> LogRow) {
        let sampled = if failed { Some(1) } else { self.admit((unix_ms / 1000) as u32) };
        let Some(sampled) = sampled else {
            METRICS.log_rows_sampled.inc();
            return;
        };
        // The last quarter is the errors': when the store is away they are what will be asked for.
        let room = if failed { self.capacity } else { self.capacity - self.capacity / 4 };
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        if before >= room {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            METRICS.log_rows_dropped.inc();
            return;
        }
        let mut row = build();
        row.sampled = sampled;
        self.part().lock().rows.push(row);
        if before + 1 == self.capacity / 2 {
            self.half_full.notify_one();
        }
    }

    /// What was gathered so far: the totals merged over all cores, if they are asked for, and the rows, in no particular
    /// order. With the totals, a row whose request is not yet in them is not among the rows.
    pub fn take(&self, with_totals: bool) -> (Vec<Total>, Vec<LogRow>) {
        let mut totals: HashMap<Slot, Counts, ahash::RandomState> = HashMap::default();
        let mut rows = Vec::new();
        if with_totals {
            self.wide.store(false, Ordering::Relaxed);
        }
        for part in &self.parts {
            let (counted, taken) = {
                let mut part = part.lock();
                let mut counted = HashMap::default();
                if with_totals && !part.totals.is_empty() {
                    // As much room as was needed: growing would hold up a request for all that is in it.
                    counted = HashMap::with_capacity_and_hasher(part.totals.len(), ahash::RandomState::default());
                    std::mem::swap(&mut counted, &mut part.totals);
                }
                (counted, std::mem::take(&mut part.rows))
            };
            rows.extend(taken);
            if totals.is_empty() {
                totals = counted;
                continue;
            }
            for (slot, counts) in counted {
                totals.entry(slot).or_default().add(&counts);
            }
        }
        self.queued.fetch_sub(rows.len(), Ordering::Relaxed);
        let total = |(s, counts): (Slot, Counts)| Total {
            key: s.key,
            account: s.account,
            model: s.model,
            minute: s.minute,
            counts,
        };
        (totals.into_iter().map(total).collect(), rows)
    }

    /// Nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.queued() == 0 && self.parts.iter().all(|part| part.lock().totals.is_empty())
    }

    /// Returns when the queue of rows, or a part's totals, has become half full since the last call.
    pub async fn half_full(&self) {
        self.half_full.notified().await;
    }

    /// A part's totals are half full, or more.
    pub fn wide(&self) -> bool {
        self.wide.load(Ordering::Relaxed)
    }

    /// The queue of rows is half full, or more.
    pub fn crowded(&self) -> bool {
        self.queued() >= self.capacity / 2
    }

    /// Rows now waiting.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether a success in that second becomes a row, and for how many it then stands.
    fn admit(&self, second: u32) -> Option<u32> {
        let mut state = self.second.load(Ordering::Relaxed);
        let count = loop {
            let (at, seen) = ((state >> 32) as u32, state as u32);
            // A clock that went back stays in the second it was in: the rate holds all the same.
            let (next, count) = if second > at {
                (u64::from(second) << 32 | 1, 0)
            } else {
                (u64::from(at) << 32 | u64::from(seen.saturating_add(1)), seen)
            };
            match self.second.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if second > at {
                        let busy = if second == at + 1 { seen } else { 0 };
                        self.stride.store(busy.div_ceil(self.rate.max(1)).max(1), Ordering::Relaxed);
                    }
                    break count;
                }
                Err(now) => state = now,
            }
        };
        let stride = self.stride.load(Ordering::Relaxed);
        (count % stride == 0 && count / stride < self.rate).then_some(stride)
    }

    fn part(&self) -> &Mutex<Part> {
        &self.parts[part_of_thread()]
    }
}

fn part_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static MINE: Cell<usize> = const { Cell::new(usize::MAX) }; }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % PARTS);
        }
        mine.get()
    })
}

impl Counts {
    /// One request's worth.
    pub fn one(tokens: Tokens, cost_nanos: i64, failed: bool) -> Self {
        Self { requests: 1, errors: u64::from(failed), tokens, cost_nanos }
    }

    /// Adds, saturating: a provider that reports nonsense must not wrap a total.
    pub fn add(&mut self, other: &Self) {
        let (mine, more) = (&mut self.tokens, &other.tokens);
        for (sum, n) in [
            (&mut self.requests, other.requests),
            (&mut self.errors, other.errors),
            (&mut mine.prompt, more.prompt),
            (&mut mine.completion, more.completion),
            (&mut mine.cache_read, more.cache_read),
            (&mut mine.cache_write, more.cache_write),
            (&mut mine.reasoning, more.reasoning),
        ] {
            *sum = sum.saturating_add(n);
        }
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
    }
}

impl CacheState {
    /// As `x-merido-cache` and the log say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Dedup => "dedup",
            Self::Semantic => "semantic",
        }
    }
}

/// A total's key; looked up by [`Seen`], so that a hit touches no reference count.
#[derive(Debug)]
struct Slot {
    key: KeyId,
    account: AccountId,
    minute: u32,
    model: Arc<str>,
}

struct Seen<'a> {
    key: KeyId,
    account: AccountId,
    minute: u32,
    model: &'a str,
}

trait Parts {
    fn parts(&self) -> (KeyId, AccountId, u32, &str);
}

impl Parts for Slot {
    fn parts(&self) -> (KeyId, AccountId, u32, &str) {
        (self.key, self.account, self.minute, &self.model)
    }
}

impl Parts for Seen<'_> {
    fn parts(&self) -> (KeyId, AccountId, u32, &str) {
        (self.key, self.account, self.minute, self.model)
    }
}

impl Hash for dyn Parts + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Parts + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Parts + '_ {}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Slot {}

impl<'a> Borrow<dyn Parts + 'a> for Slot {
    fn borrow(&self) -> &(dyn Parts + 'a) {
        self
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
