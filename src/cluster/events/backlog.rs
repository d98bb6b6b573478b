//! Batches on their way: those that wait for the stream, and the last ones that it took. Pure, bounded.
//!
//! What the stream took is kept for a while, because it may lose it again (emptied, failed over to a replica that had not
//! heard of it): then we go back to where it stands and send from there. While Redis is away the oldest that wait are
//! dropped first, and the one after them says how many.

use super::batch::Batch;
use std::collections::VecDeque;

/// Events kept after the stream took them, and their bytes.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 8 << 20;
/// Events that wait for the stream, and their bytes: at 4,000 a second 16 s and more.
const WAITING: usize = 65_536;
const WAITING_BYTES: usize = 16 << 20;

/// Bytes of the stream, about, however large the batches are.
const STREAM_BYTES: usize = 64 << 20;
/// Batches of the stream at most, and at least.
const STREAM_MOST: usize = 20_000;
const STREAM_LEAST: usize = 512;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    all: VecDeque<Batch>,
    /// How many of them the stream took.
    taken: usize,
    events: Sum,
    /// Whatever the stream has of ours, what comes next is not to be checked against it.
    anyway: bool,
    /// A batch's mean size, in sixteenths of a byte.
    mean: usize,
}

/// Of those taken and those that wait.
#[derive(Debug, Default)]
struct Sum {
    taken: usize,
    taken_bytes: usize,
    waiting: usize,
    waiting_bytes: usize,
}

/// What goes out in one call.
#[derive(Debug, PartialEq)]
pub(super) struct Parcel<'a> {
    /// The number that the stream must have of us; `None`: whatever it has.
    pub(super) prev: Option<u64>,
    pub(super) last: u64,
    pub(super) batches: Vec<&'a Batch>,
}

impl Backlog {
    /// One batch more; how many events were lost to make room.
    pub(super) fn push(&mut self, batch: Batch) -> u64 {
        self.mean = self.mean - self.mean / 16 + batch.weight();
        self.events.waiting += batch.count;
        self.events.waiting_bytes += batch.weight();
        self.all.push_back(batch);
        let mut lost = 0;
        while (self.events.waiting > WAITING || self.events.waiting_bytes > WAITING_BYTES)
            && self.all.len() > self.taken + 1
        {
            let Some(gone) = self.all.remove(self.taken) else { break };
            self.events.waiting -= gone.count;
            self.events.waiting_bytes -= gone.weight();
            let next = &mut self.all[self.taken];
            // It goes on from where the dropped one did.
            (next.prev, next.fresh) = (gone.prev, gone.fresh);
            next.lost += gone.lost + gone.count as u64;
            lost += gone.count as u64;
        }
        lost
    }

    /// What to send next: at most `most` batches of about `bytes`.
    pub(super) fn next(&self, most: usize, bytes: usize) -> Option<Parcel<'_>> {
        let mut weight = 0;
        let waiting = self.all.range(self.taken..).take(most);
        let batches: Vec<&Batch> = waiting
            .take_while(|batch| {
                let fits = weight < bytes;
                weight += batch.weight();
                fits
            })
            .collect();
        let (first, last) = (batches.first()?, batches.last()?);
        let prev = (!self.anyway && !first.fresh).then_some(first.prev);
        Some(Parcel { prev, last: last.last, batches })
    }

    /// The stream took all up to number `last` at `ms` (Redis' time).
    pub(super) fn took(&mut self, last: u64, ms: u64) {
        self.anyway = false;
        while let Some(batch) = self.all.get_mut(self.taken)
            && batch.last <= last
        {
            if batch.born == 0 {
                batch.born = ms;
            }
            self.taken += 1;
            self.events.waiting -= batch.count;
            self.events.waiting_bytes -= batch.weight();
            self.events.taken += batch.count;
            self.events.taken_bytes += batch.weight();
        }
        while self.taken > 1 && (self.events.taken > KEPT || self.events.taken_bytes > KEPT_BYTES) {
            let Some(gone) = self.all.pop_front() else { break };
            self.taken -= 1;
            self.events.taken -= gone.count;
            self.events.taken_bytes -= gone.weight();
        }
    }

    /// The stream has of us all up to `have` and no more (`None`: nothing), though it took more: goes back to there.
    /// How many batches are sent again.
    pub(super) fn back_to(&mut self, have: Option<u64>) -> usize {
        let place = have.and_then(|have| {
            let at = self.all.range(..self.taken).position(|batch| batch.last > have).unwrap_or(self.taken);
            self.all.get(at).filter(|batch| batch.prev == have).map(|_| at)
        });
        let at = place.unwrap_or(0);
        self.anyway = place.is_none();
        let again = self.taken.saturating_sub(at);
        for batch in self.all.range(at..self.taken) {
            self.events.taken -= batch.count;
            self.events.taken_bytes -= batch.weight();
            self.events.waiting += batch.count;
            self.events.waiting_bytes += batch.weight();
        }
        self.taken = at.min(self.taken);
        again
    }

    /// The last number that the stream took.
    pub(super) fn last_taken(&self) -> Option<u64> {
        self.taken.checked_sub(1).and_then(|at| self.all.get(at)).map(|batch| batch.last)
    }

    /// Whether anything waits.
    pub(super) fn waits(&self) -> bool {
        self.all.len() > self.taken
    }

    /// How many batches the stream should hold.
    pub(super) fn stream_length(&self) -> usize {
        (STREAM_BYTES / (self.mean / 16).max(1)).clamp(STREAM_LEAST, STREAM_MOST)
    }

    /// Bytes held.
    #[cfg(test)]
    fn weight(&self) -> usize {
        self.all.iter().map(Batch::weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::bus::View;

    fn batch(prev: u64, last: u64) -> Batch {
        let view = View {
            instance: "i",
            request: crate::base::RequestId { epoch: 7, n: 1 },
            unix_ms: 1,
            client_request_id: Some("0123456789abcdef0123456789"),
            key: None,
            dialect: "openai",
            stream: false,
            requested_model: "m",
            account: None,
            model: None,
            done: None,
        };
        Batch::pack(7, prev, (prev + 1..=last).map(|seq| (seq, view))).unwrap()
    }

    fn numbers(backlog: &Backlog) -> Vec<(u64, u64)> {
        let all = backlog.next(usize::MAX, usize::MAX);
        all.map_or_else(Vec::new, |parcel| parcel.batches.iter().map(|batch| (batch.prev, batch.last)).collect())
    }

    #[test]
    fn what_the_stream_lost_is_sent_again_from_where_it_stands() {
        let mut backlog = Backlog::default();
        for n in 0..5 {
            backlog.push(batch(n * 10, n * 10 + 10));
        }
        assert_eq!(backlog.next(2, usize::MAX).map(|parcel| (parcel.prev, parcel.last)), Some((Some(0), 20)));
        backlog.took(40, 99);
        assert_eq!((numbers(&backlog), backlog.last_taken()), (vec![(40, 50)], Some(40)));
        assert_eq!(backlog.back_to(Some(40)), 0, "it has just what it took");
        assert_eq!(backlog.back_to(Some(20)), 2);
        assert_eq!(numbers(&backlog), [(20, 30), (30, 40), (40, 50)]);
        assert_eq!(backlog.next(9, usize::MAX).unwrap().batches[0].born, 99, "its first time counts");
        assert_eq!(backlog.back_to(None), 2);
        let parcel = backlog.next(9, usize::MAX).unwrap();
        assert_eq!((parcel.prev, parcel.last), (None, 50), "an empty stream takes the oldest we have");
        backlog.took(50, 100);
        assert!(!backlog.waits());
        backlog.push(batch(50, 60));
        assert_eq!(backlog.next(9, usize::MAX).unwrap().prev, Some(50));
    }

    #[test]
    fn a_number_that_is_not_ours_or_too_old_means_everything() {
        let mut backlog = Backlog::default();
        for n in 0..200 {
            backlog.push(batch(n * 100, n * 100 + 100));
        }
        backlog.took(20_000, 1);
        assert!(backlog.all.len() <= KEPT / 100, "bounded");
        assert_eq!(backlog.back_to(Some(300)), backlog.all.len());
        assert_eq!(backlog.next(1, usize::MAX).unwrap().prev, None);
    }

    #[test]
    fn the_oldest_that_wait_give_way_and_the_next_says_so() {
        let mut backlog = Backlog::default();
        backlog.push(batch(0, 10));
        backlog.took(10, 1);
        let mut lost = 0;
        for n in 0..400 {
            lost += backlog.push(batch(10 + n * 256, 10 + (n + 1) * 256));
        }
        assert!(backlog.events.waiting <= WAITING && backlog.weight() < WAITING_BYTES + (1 << 20));
        let parcel = backlog.next(1, usize::MAX).unwrap();
        assert_eq!((parcel.prev, parcel.batches[0].lost), (Some(10), lost));
        assert_eq!(lost as usize + backlog.events.waiting, 400 * 256);
    }

    #[test]
    fn the_stream_is_bounded_in_bytes() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.stream_length(), STREAM_MOST);
        for n in 0..100 {
            backlog.push(batch(n * 256, n * 256 + 256));
        }
        let length = backlog.stream_length();
        assert!(length < STREAM_MOST && length * batch(0, 256).weight() <= STREAM_BYTES * 5 / 4, "{length}");
    }
}
