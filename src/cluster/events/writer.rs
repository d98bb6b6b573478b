//! Carries our own events into the stream, in order, while somebody watches anywhere.
//!
//! Packs on its own thread, never on a request's. One call is in flight at a time, and one in [`PACE`]: what gathers
//! meanwhile is the next.

use super::backlog::Backlog;
use super::batch::{Batch, MOST};
use super::{ADD, Ends, PACE, StreamId, TRIP, bytes, number};
use crate::base::metrics::METRICS;
use crate::base::tasks::Phase;
use crate::base::{Clock, Now};
use crate::cluster::call::{Answer, Call};
use crate::cluster::dial::Held;
use crate::state::bus::Event;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

/// How often to look whether somebody watches, and whether the stream has what it took.
const LOOK: Duration = Duration::from_millis(500);
/// Looks without a mark after which nobody watches: 15 s. More than what a watcher that lost Redis needs to mark again.
const UNMARKED: u32 = 30;
/// In one call.
const BATCHES: usize = 64;
const BYTES: usize = 256 << 10;
/// `started` events are left out beyond so many events in a second.
const SHED: u32 = 4_000;
/// What a writer leaves behind lives so long after its last word.
const TTL_MS: u64 = 24 * 3600 * 1000;
/// The last words' time at the end.
const CLOSE: Duration = Duration::from_secs(1);

struct Writer {
    ends: Ends,
    key: Vec<u8>,
    own_key: Vec<u8>,
    watch_key: Vec<u8>,
    epoch: u64,
    backlog: Backlog,
    /// Our events up to here were taken from the bus, or nobody wants them.
    seen: u64,
    /// The last number packed.
    packed: u64,
    /// What comes next does not go on from there.
    fresh: bool,
    publishing: bool,
    unmarked: u32,
    second: (Now, u32),
}

/// Runs until shutdown's last phase, then sends what is left.
pub(super) async fn run(ends: Ends) {
    let epoch = ends.bus.epoch();
    let mut writer = Writer {
        key: ends.names.events(),
        own_key: ends.names.events_writer(epoch),
        watch_key: ends.names.events_watch(),
        epoch,
        backlog: Backlog::default(),
        seen: 0,
        packed: 0,
        fresh: true,
        // Who watches is not known yet: as if somebody did.
        publishing: true,
        unmarked: 0,
        second: (Clock::now(), 0),
        ends,
    };
    writer.ends.bus.publish(true);
    let drain = writer.ends.drain.clone();
    let end = drain.reached(Phase::Cut);
    let mut held = None;
    tokio::select! {
        () = writer.serve(&mut held) => {}
        () = end => {}
    }
    let _ = tokio::time::timeout(CLOSE, writer.close(held)).await;
}

impl Writer {
    async fn serve(&mut self, held: &mut Option<Held>) {
        let mut way = self.ends.connector.way("events out");
        loop {
            *held = None;
            let key = self.key.clone();
            let bus = Arc::clone(&self.ends.bus);
            {
                let found = way.connection(&key);
                tokio::pin!(found);
                // What happens meanwhile must not wait in the ring, which is others' too.
                *held = Some(loop {
                    tokio::select! {
                        found = &mut found => break found,
                        () = bus.news() => self.gather(),
                    }
                });
            }
            if let Some(held) = held {
                self.carry(held).await;
            }
        }
    }

    /// Until the connection breaks.
    async fn carry(&mut self, held: &mut Held) {
        let bus = Arc::clone(&self.ends.bus);
        let mut look = Clock::now();
        let mut next = look;
        loop {
            let now = Clock::now();
            if now >= look {
                look = now + LOOK;
                if self.ends.alone() || self.look(held).await.is_none() {
                    return;
                }
            }
            if now < next {
                tokio::time::sleep(now.until(next.min(look))).await;
                continue;
            }
            self.gather();
            if self.backlog.waits() {
                if self.send(held).await.is_none() {
                    return;
                }
                if !self.backlog.waits() {
                    next = now + PACE;
                }
                continue;
            }
            tokio::select! {
                () = bus.news() => {}
                () = tokio::time::sleep(Clock::now().until(look)) => {}
            }
        }
    }

    async fn close(&mut self, held: Option<Held>) {
        self.ends.bus.collect(Clock::now());
        self.gather();
        if self.ends.alone() {
            return;
        }
        // The switch may have come while a call was under way: then its connection is of no use.
        let mut held = match held.filter(|held| held.is_alive()) {
            Some(held) => held,
            None if self.backlog.waits() => self.ends.connector.way("events out").connection(&self.key).await,
            None => return,
        };
        if !self.publishing {
            self.look(&mut held).await;
            self.gather();
        }
        while self.backlog.waits() && self.send(&mut held).await.is_some() {}
    }

    /// Packs what is new.
    fn gather(&mut self) {
        if !self.publishing {
            return;
        }
        let now = Clock::now();
        loop {
            let (lost, events) = self.ends.bus.own_after(self.seen, MOST);
            let Some((last, _)) = events.last() else { break };
            let before = self.seen;
            self.seen = *last;
            let (total, events) = (events.len(), self.shed(events, now));
            METRICS.events_shed.add((total - events.len()) as u64);
            let prev = if self.fresh { before } else { self.packed };
            let views = events.iter().map(|(seq, event)| (*seq, event.view(&self.ends.instance)));
            if let Some(mut batch) = Batch::pack(self.epoch, prev, views) {
                (batch.lost, batch.fresh) = (lost, self.fresh);
                self.packed = batch.last;
                self.fresh = false;
                METRICS.events_lost.add(lost + self.backlog.push(batch));
            }
        }
    }

    fn shed(&mut self, mut events: Vec<(u64, Arc<Event>)>, now: Now) -> Vec<(u64, Arc<Event>)> {
        if now.since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        let count = &mut self.second.1;
        events.retain(|(_, event)| {
            let stays = event.done.is_some() || *count < SHED;
            *count += u32::from(stays);
            stays
        });
        events
    }

    /// Whether somebody watches, and whether the stream has what it took. `None`: the connection broke.
    async fn look(&mut self, held: &mut Held) -> Option<()> {
        let before = self.ends.bus.own_last();
        let calls = [("EXISTS", &self.watch_key), ("EXISTS", &self.key), ("GET", &self.own_key)]
            .map(|(name, key)| Call::new(name, &self.key).arg(&**key));
        let answers = held.round(&calls, TRIP).await.ok()?;
        let [marked, there, have] = <[Answer; 3]>::try_from(answers).ok()?;
        let marked = marked.ok()? != Value::Int(0);
        let have = if there.ok()? == Value::Int(0) { None } else { number(&have.ok()?) };
        self.unmarked = if marked { 0 } else { self.unmarked.saturating_add(1) };
        let publishing = marked || (self.publishing && self.unmarked < UNMARKED);
        if publishing != self.publishing {
            self.publishing = publishing;
            self.fresh = true;
            self.ends.bus.publish(publishing);
        }
        if let Some(taken) = self.backlog.last_taken()
            && publishing
            && have != Some(taken)
            && !self.backlog.waits()
        {
            METRICS.events_resent.add(self.backlog.back_to(have) as u64);
        }
        if !publishing {
            // Whoever comes to watch from now on wants nothing of what had happened by then.
            self.seen = self.seen.max(before);
            self.ends.bus.unwatched(self.seen);
        }
        Some(())
    }

    /// Sends the next batches. `None`: the connection broke, or Redis would not have them.
    async fn send(&mut self, held: &mut Held) -> Option<()> {
        let parcel = self.backlog.next(BATCHES, BYTES)?;
        let (last, count) = (parcel.last, parcel.batches.len() as u64);
        let fresh = parcel.batches.iter().filter(|batch| batch.born == 0).map(|batch| batch.count as u64).sum();
        let prev = parcel.prev.map_or_else(String::new, |prev| prev.to_string());
        let mut call = ADD.call(&[&self.key, &self.own_key]);
        call = call.arg(prev).arg(last).arg(self.backlog.stream_length()).arg(TTL_MS);
        for batch in &parcel.batches {
            call = call.arg(batch.bytes(self.epoch, &self.ends.instance));
        }
        let Ok(Value::Array(answer)) = held.command(call, TRIP).await.ok()? else {
            // Not ours to understand (a key of another type, say): try again later, on another connection.
            held.spoil();
            return None;
        };
        match (answer.first().and_then(number)?, answer.get(1)) {
            (0, Some(id)) => {
                let id = bytes(id).and_then(StreamId::parse)?;
                self.took(last, id.ms);
                METRICS.events_batches.add(count);
                METRICS.events_sent.add(fresh);
            }
            (1, Some(ms)) => self.took(last, number(ms)?),
            (2, have) => METRICS.events_resent.add(self.backlog.back_to(have.and_then(number)) as u64),
            _ => return None,
        }
        Some(())
    }

    fn took(&mut self, last: u64, ms: u64) {
        self.backlog.took(last, ms);
        self.ends.bus.acked(last, ms);
        // Not before: whoever comes back finds each of ours in the stream or in the ring.
        self.ends.bus.forget_own(last);
    }
}
