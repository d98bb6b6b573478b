//! Brings the other instances' events into our bus, while somebody here watches.
//!
//! A watcher that comes back from another instance gets what the stream holds of the time it was away ([`history`]); both
//! may bring the same event, and neither needs to know: the position of whoever reads decides.

use super::batch::{self, Skip};
use super::{Ends, PACE, StreamId, TRIP, WATCH, bytes, number};
use crate::base::metrics::METRICS;
use crate::base::tasks::{self, Phase};
use crate::base::{Clock, Now};
use crate::cluster::call::Call;
use crate::cluster::dial::Held;
use crate::state::bus::{Bus, Entry, HistoryAsk};
use redis::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long the mark that somebody watches outlives its last renewal, and how often it is renewed.
const MARK_MS: u64 = 10_000;
const RENEW: Duration = Duration::from_secs(1);
/// How long a read waits there for news.
const BLOCK_MS: u64 = 1_000;
/// Without a connection for so long, whoever waits for the others' events is told that nobody knows when they come.
const PATIENCE: Duration = Duration::from_millis(300);
/// Batches in one read.
const BATCHES: usize = 64;
/// Batches in one page of history, pages being read at once, and how long a page may wait for its reader.
const PAGE: usize = 16;
const PAGES: usize = 4;
const PAGE_WAIT: Duration = Duration::from_secs(30);

struct Reader {
    ends: Ends,
    key: Vec<u8>,
    watch_key: Vec<u8>,
    /// Read up to here; `None`: not begun.
    at: Option<StreamId>,
    /// The last id that the stream was known to have.
    last: StreamId,
    /// Of writers not heard of so far, what is older is not news.
    since: u64,
    /// Redis' time at one of ours.
    clock: (Now, u64),
    /// How late batches were at most since that was last published.
    lag: Duration,
    histories: Arc<Semaphore>,
}

/// Runs until it is dropped.
pub(super) async fn run(ends: Ends) {
    let mut reader = Reader {
        key: ends.names.events(),
        watch_key: ends.names.events_watch(),
        at: None,
        last: StreamId::default(),
        since: 0,
        clock: (Clock::now(), 0),
        lag: Duration::ZERO,
        histories: Arc::new(Semaphore::new(PAGES)),
        ends,
    };
    loop {
        let bus = Arc::clone(&reader.ends.bus);
        while bus.unfollow() {
            reader.at = None;
            bus.called().await;
        }
        reader.follow(Clock::now()).await;
        reader.publish(None);
    }
}

impl Reader {
    /// Until nobody here watches any more. `wanted`: since when somebody does, if reading has not begun.
    async fn follow(&mut self, wanted: Now) {
        let bus = Arc::clone(&self.ends.bus);
        let mut way = self.ends.connector.way("events in");
        loop {
            let key = self.key.clone();
            let found = way.connection(&key);
            tokio::pin!(found);
            let mut held = loop {
                tokio::select! {
                    held = &mut found => break held,
                    () = tokio::time::sleep(PATIENCE) => bus.lose(),
                }
                if bus.cold() {
                    return;
                }
            };
            if self.read(&mut held, wanted).await {
                return;
            }
            self.publish(None);
            bus.lose();
        }
    }

    /// Reads until the connection breaks (false) or nobody watches (true).
    async fn read(&mut self, held: &mut Held, wanted: Now) -> bool {
        let bus = Arc::clone(&self.ends.bus);
        if self.renew(held, wanted).await.is_none() {
            return false;
        }
        bus.follow(self.since);
        let mut renewed = Clock::now();
        loop {
            self.answer_asks(&bus);
            if bus.cold() {
                return true;
            }
            let now = Clock::now();
            if now.since(renewed) >= RENEW {
                renewed = now;
                if self.ends.alone() || self.renew(held, wanted).await.is_none() {
                    return false;
                }
            }
            let at = self.at.unwrap_or_default();
            let got = {
                let reading = read_after(held, &self.key, at, BATCHES, Some(BLOCK_MS));
                tokio::pin!(reading);
                loop {
                    tokio::select! {
                        got = &mut reading => break got,
                        () = bus.called() => self.answer_asks(&bus),
                    }
                }
            };
            let Some(batches) = got else { return false };
            for (id, bytes) in &batches {
                self.take(&bus, *id, bytes);
            }
            if !batches.is_empty() && batches.len() < BATCHES {
                self.pause(&bus).await;
            }
        }
    }

    /// Lets news gather there.
    async fn pause(&self, bus: &Bus) {
        let over = tokio::time::sleep(PACE);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = bus.called() => self.answer_asks(bus),
            }
        }
    }

    fn take(&mut self, bus: &Bus, id: StreamId, bytes: &[u8]) {
        let now = Clock::now();
        (self.at, self.last) = (Some(id), id.max(self.last));
        let entries = unpack(bytes, id.ms);
        if entries.first().is_some_and(|first| first.epoch != bus.epoch() && first.ms == id.ms) {
            let there = self.clock.1 + now.since(self.clock.0).as_millis() as u64;
            let late = there.saturating_sub(id.ms);
            METRICS.events_lag_seconds.observe_micros(late * 1_000);
            self.lag = self.lag.max(Duration::from_millis(late));
        }
        let (news, missing) = bus.far(entries.into_iter(), self.since, id.ms, now);
        METRICS.events_received.add(news);
        METRICS.events_missing.add(missing);
    }

    /// Renews the mark, and sees where the stream stands.
    async fn renew(&mut self, held: &mut Held, wanted: Now) -> Option<()> {
        let sent = Clock::now();
        let (there, last) = watch(held, &self.watch_key, &self.key).await?;
        self.clock = (sent, there);
        match self.at {
            None => {
                // Whatever happened since somebody wanted it: the mark was set later than that.
                self.since = there.saturating_sub(Clock::now().since(wanted).as_millis() as u64);
                self.at = Some(StreamId::before(self.since));
            }
            Some(_) if last < self.last => {
                // Emptied, or somebody who had not heard of its end took over. What comes again is told by its numbers.
                self.at = Some(StreamId::default());
                if there < self.since {
                    self.since = 0;
                }
            }
            Some(_) => {}
        }
        self.last = last;
        // What lies there unread counts from our position on.
        let unread = last.ms.saturating_sub(self.at.unwrap_or_default().ms);
        let unread = if self.at < Some(last) { Duration::from_millis(unread) } else { Duration::ZERO };
        let lag = std::mem::take(&mut self.lag).max(unread);
        self.publish(Some(lag));
        Some(())
    }

    /// How far behind the others' events this instance is; `None`: it does not read them.
    fn publish(&self, lag: Option<Duration>) {
        self.ends.peers.change(|view| view.event_lag = lag);
    }

    fn answer_asks(&self, bus: &Bus) {
        while let Some(ask) = bus.next_ask() {
            let (ends, permits) = (self.ends.clone(), Arc::clone(&self.histories));
            // It ends with its pages, with the thread's runtime, or when nobody takes them.
            drop(tasks::spawn("events history", async move {
                let end = ends.drain.clone();
                tokio::select! {
                    _ = history(ends, permits, ask) => {}
                    () = end.reached(Phase::Cut) => {}
                }
            }));
        }
    }
}

/// Answers one question with what the stream holds up to its end. Whatever befalls Redis, it goes on until nobody waits.
async fn history(ends: Ends, permits: Arc<Semaphore>, ask: HistoryAsk) -> Option<()> {
    let _permit = permits.acquire().await.ok()?;
    let key = ends.names.events();
    let mut way = ends.connector.way("events history");
    let mut at = StreamId::before(ask.from_ms);
    loop {
        let mut held = tokio::select! {
            held = way.connection(&key) => held,
            () = ask.pages.closed() => return None,
        };
        let Some((there, last)) = watch(&mut held, &ends.names.events_watch(), &key).await else { continue };
        if there < at.ms {
            // Its clock went back: all there is.
            at = StreamId::default();
        }
        while at < last {
            let Some(batches) = read_after(&mut held, &key, at, PAGE, None).await else { break };
            // Emptied meanwhile: what is sent again comes to the ring.
            let Some((end, _)) = batches.last() else { return Some(()) };
            at = *end;
            let page = batches.iter().flat_map(|(id, bytes)| unpack(bytes, id.ms)).collect();
            tokio::time::timeout(PAGE_WAIT, ask.pages.send(page)).await.ok()?.ok()?;
        }
        if at >= last {
            return Some(());
        }
    }
}

/// Marks that somebody watches; Redis' time in ms, and the last id of the stream.
async fn watch(held: &mut Held, watch_key: &[u8], key: &[u8]) -> Option<(u64, StreamId)> {
    let answer = held.command(WATCH.call(&[watch_key, key]).arg(MARK_MS), TRIP).await.ok()?.ok()?;
    let Value::Array(answer) = answer else { return None };
    let [there, last] = answer.as_slice() else { return None };
    Some((number(there)?, bytes(last).and_then(StreamId::parse).unwrap_or_default()))
}

/// Batches behind `at`, perhaps none. `None`: the connection broke.
async fn read_after(
    held: &mut Held,
    key: &[u8],
    at: StreamId,
    most: usize,
    block: Option<u64>,
) -> Option<Vec<(StreamId, Vec<u8>)>> {
    let mut call = Call::new("XREAD", key).arg("COUNT").arg(most);
    if let Some(ms) = block {
        call = call.arg("BLOCK").arg(ms);
    }
    let call = call.arg("STREAMS").arg(key).arg(at.text());
    let answer = held.command(call, TRIP + Duration::from_millis(block.unwrap_or(0))).await.ok()?.ok()?;
    Some(batches(answer))
}

/// `[[key, [[id, [field, value]], …]]]`, or nothing.
fn batches(answer: Value) -> Vec<(StreamId, Vec<u8>)> {
    let mut all = Vec::new();
    let Value::Array(streams) = answer else { return all };
    for stream in streams {
        let Value::Array(mut stream) = stream else { continue };
        let Some(Value::Array(entries)) = stream.pop() else { continue };
        for entry in entries {
            let Value::Array(mut entry) = entry else { continue };
            let Some(Value::Array(mut fields)) = entry.pop() else { continue };
            let id = entry.pop().as_ref().and_then(bytes).and_then(StreamId::parse);
            if let (Some(id), Some(Value::BulkString(batch))) = (id, fields.pop()) {
                all.push((id, batch));
            }
        }
    }
    all
}

fn unpack(bytes: &[u8], ms: u64) -> Vec<Entry> {
    batch::read(bytes, ms).unwrap_or_else(|why| {
        match why {
            Skip::Version => METRICS.events_unknown.inc(),
            Skip::Broken => METRICS.events_broken.inc(),
        }
        Vec::new()
    })
}
