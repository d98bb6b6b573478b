//! The ring of events, own and others', each numbered by its writer; and what is known of each writer.
//!
//! An entry says which number it follows, so that any reader sees by its own position whether something is missing
//! before it. Pure: the lock around it is held for one look or one batch; events are freed and readers woken after it.

use super::event::Item;
use super::position::Position;
use crate::base::Now;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Writers known at most; whoever was silent for longest is forgotten first.
const WRITERS: usize = 128;

/// A writer that said nothing for so long is left out of readers' positions once these name more than [`FEW`].
const SILENT: Duration = Duration::from_secs(600);
pub(super) const FEW: usize = 8;

/// Acknowledged batches of ours of which we know when the stream took them.
const ACKS: usize = 1024;

/// Events, the newest last.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// Index of `entries[0]`, or of the next entry while there is none.
    first: u64,
    most: usize,
    /// Ours is the first.
    writers: Vec<Writer>,
    /// (last number, the stream's milliseconds) of batches of ours.
    acks: VecDeque<(u64, u64)>,
    /// Up to this number of ours nobody watched.
    unwatched: u64,
    /// How far the stream was read; `None`: nobody reads it.
    pub(super) stream_ms: Option<u64>,
    pub(super) waiting: HashMap<u64, Waker, ahash::RandomState>,
    pub(super) readers: u64,
}

/// One event, or the knowledge that some are lost.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who numbered it.
    pub epoch: u64,
    /// The number it follows: what lies between was left out on purpose.
    pub prev: u64,
    /// Its number; of a loss: the last that is lost.
    pub seq: u64,
    /// When the stream took it, in Redis' milliseconds; 0: it is ours.
    pub ms: u64,
    /// What happened.
    pub what: What,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum What {
    /// This happened.
    Event(Item),
    /// At least so many events never left their writer.
    Lost(u64),
}

#[derive(Clone, Copy, Debug)]
struct Writer {
    epoch: u64,
    /// The last number that came.
    last: u64,
    /// Up to here the ring has nothing any more.
    floor: u64,
    heard: Now,
}

impl Ring {
    pub(super) fn new(epoch: u64, most: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 1,
            most,
            writers: vec![Writer { epoch, last: 0, floor: 0, heard: Now::default() }],
            acks: VecDeque::new(),
            unwatched: 0,
            stream_ms: None,
            waiting: HashMap::default(),
            readers: 0,
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(index.checked_sub(self.first)? as usize)
    }

    /// The last number of ours.
    pub(super) fn own_last(&self) -> u64 {
        self.writers[0].last
    }

    pub(super) fn own_floor(&self) -> u64 {
        self.writers[0].floor
    }

    /// Numbers and takes events of ours; what had to go is put into `freed`.
    pub(super) fn append_own(&mut self, batch: impl Iterator<Item = Item>, freed: &mut Vec<Entry>) {
        for item in batch {
            let own = &mut self.writers[0];
            own.last += 1;
            let (epoch, seq) = (own.epoch, own.last);
            self.entries.push_back(Entry { epoch, prev: seq - 1, seq, ms: 0, what: What::Event(item) });
        }
        self.trim(freed);
    }

    /// Takes what another instance wrote, in its order; what came before is skipped. `since`: of a writer that nobody
    /// here has heard of, what the stream took before that is old. How many were news, and how many are missing.
    pub(super) fn append_far(
        &mut self,
        batch: impl Iterator<Item = Entry>,
        since: u64,
        now: Now,
        freed: &mut Vec<Entry>,
    ) -> (u64, u64) {
        let (mut news, mut missing) = (0, 0);
        for entry in batch {
            let known = self.writers.iter().position(|writer| writer.epoch == entry.epoch);
            let at = match known {
                Some(0) => continue,
                Some(at) => at,
                None if entry.ms < since => continue,
                None => self.meet(entry.epoch, entry.prev, now),
            };
            let writer = &mut self.writers[at];
            if entry.seq <= writer.last {
                continue;
            }
            missing += entry.prev.saturating_sub(writer.last);
            if let What::Lost(lost) = entry.what {
                missing += lost;
            }
            writer.last = entry.seq;
            writer.heard = now;
            news += 1;
            self.entries.push_back(entry);
        }
        self.trim(freed);
        (news, missing)
    }

    fn meet(&mut self, epoch: u64, last: u64, now: Now) -> usize {
        if self.writers.len() >= WRITERS
            && let Some((at, _)) = self.writers.iter().enumerate().skip(1).min_by_key(|(_, writer)| writer.heard)
        {
            self.writers.swap_remove(at);
        }
        self.writers.push(Writer { epoch, last, floor: last, heard: now });
        self.writers.len() - 1
    }

    fn trim(&mut self, freed: &mut Vec<Entry>) {
        while self.entries.len() > self.most {
            self.drop_first(freed);
        }
    }

    fn drop_first(&mut self, freed: &mut Vec<Entry>) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first += 1;
        if let Some(writer) = self.writers.iter_mut().find(|writer| writer.epoch == entry.epoch) {
            writer.floor = writer.floor.max(entry.seq);
        }
        freed.push(entry);
    }

    /// Forgets the oldest events as long as they are ours and numbered up to `through`.
    pub(super) fn forget_own(&mut self, through: u64, freed: &mut Vec<Entry>) {
        let own = self.writers[0].epoch;
        while self.entries.front().is_some_and(|entry| entry.epoch == own && entry.seq <= through) {
            self.drop_first(freed);
        }
    }

    /// Nobody watched when our events up to `through` happened.
    pub(super) fn unwatched(&mut self, through: u64) {
        self.acks.clear();
        self.unwatched = through;
    }

    /// Forgets the others and all they wrote. There must be no reader.
    pub(super) fn forget_far(&mut self, freed: &mut Vec<Entry>) {
        let (own, end) = (self.writers[0].epoch, self.end());
        let all = std::mem::take(&mut self.entries);
        for entry in all {
            if entry.epoch == own { self.entries.push_back(entry) } else { freed.push(entry) }
        }
        self.first = end - self.entries.len() as u64;
        self.writers.truncate(1);
        self.stream_ms = None;
    }

    /// Empties it. One number is skipped, so that whoever resumes across this sees a gap.
    pub(super) fn sleep(&mut self) -> VecDeque<Entry> {
        self.first = self.end();
        self.writers.truncate(1);
        self.writers[0].last += 1;
        self.writers[0].floor = self.writers[0].last;
        std::mem::take(&mut self.entries)
    }

    /// The stream took our events up to `seq` at `ms`.
    pub(super) fn acked(&mut self, seq: u64, ms: u64) {
        if self.acks.len() == ACKS {
            self.acks.pop_front();
        }
        self.acks.push_back((seq, ms));
    }

    /// Our events from behind `after` on, at most `most`; and how many of these had gone already.
    pub(super) fn own_after(&self, after: u64, most: usize) -> (u64, Vec<(u64, Arc<super::Event>)>) {
        let own = &self.writers[0];
        let lost = own.floor.saturating_sub(after);
        let after = after.max(own.floor);
        // From the end: what is new is there.
        let waiting = (own.last - after) as usize;
        let mut back = self.entries.len();
        let mut left = waiting;
        while left > 0 && back > 0 {
            back -= 1;
            left -= usize::from(self.entries[back].epoch == own.epoch);
        }
        let ours = self.entries.range(back..).filter_map(|entry| match &entry.what {
            What::Event(Item::Own(event)) => Some((entry.seq, Arc::clone(event))),
            _ => None,
        });
        (lost, ours.take(most).collect())
    }

    /// Where somebody stands who wants the news only.
    pub(super) fn here(&self) -> Position {
        let mut position = Position::default();
        for writer in self.writers.iter().rev() {
            position.set(writer.epoch, writer.last);
        }
        if let Some(ms) = self.stream_ms {
            position.read_to(ms);
        }
        position
    }

    /// Somebody comes back. What `position` does not say of us is filled in as long as it still says when it was taken:
    /// what the stream took before that, or what happened when nobody watched, is older than it.
    pub(super) fn introduce(&self, position: &mut Position) {
        let own = &self.writers[0];
        match (position.of(own.epoch), position.stream_ms()) {
            // A number we have not reached yet is not ours: the news only.
            (Some(seen), _) if seen > own.last => position.set(own.epoch, own.last),
            (Some(_), _) => {}
            (None, None) => position.set(own.epoch, self.unwatched),
            (None, Some(ms)) => match self.acks.iter().take_while(|(_, acked)| *acked < ms).last() {
                Some((seq, _)) => position.set(own.epoch, *seq),
                None if self.acks.len() < ACKS => position.set(own.epoch, self.unwatched),
                // It is older than what we remember.
                None => {}
            },
        }
    }

    /// After that (and after what the stream had for it) it enters the ring; how much of what it has not seen is gone
    /// from here.
    pub(super) fn welcome(&self, position: &mut Position) -> u64 {
        let own = &self.writers[0];
        if position.of(own.epoch).is_none() {
            position.set(own.epoch, own.floor);
        }
        self.overtake(position)
    }

    /// Moves `position` to where the ring begins; how many numbers that skips.
    pub(super) fn overtake(&self, position: &mut Position) -> u64 {
        let mut missed = 0;
        for writer in &self.writers {
            if let Some(seen) = position.of(writer.epoch)
                && seen < writer.floor
            {
                missed += writer.floor - seen;
                position.set(writer.epoch, writer.floor);
            }
        }
        missed
    }

    /// Leaves out of `position` who fell silent long ago.
    pub(super) fn prune(&self, position: &mut Position, now: Now) {
        let own = self.writers[0].epoch;
        position.retain(|epoch| {
            epoch == own || self.writers.iter().any(|writer| writer.epoch == epoch && now.since(writer.heard) < SILENT)
        });
    }
}
