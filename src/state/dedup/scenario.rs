//! One client's life against the table, by chance, with the invariants checked. Compiled twice: against the real locks
//! (`stress.rs`) and against a model checker's (`model.rs`).
//!
//! Invariants: at most one leader a fingerprint at any time · a follower sees one leader's bytes whole and in order, or
//! takes the lead, or is broken after the first byte · nobody waits for ever · in the end nothing is in flight.

use super::rt;
use super::{Claim, Dedup, Follower, Leader, Limits, Name, Seat, Step};
use crate::base::Now;
use crate::state::answer::Head;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

pub(super) const CHUNKS: usize = 3;
const TTL: Duration = Duration::from_secs(60);
const NOW: Now = Now::from_nanos(1_000_000_000);

pub(super) struct World {
    pub(super) table: Arc<Dedup>,
    claim: Claim,
    /// Leaders alive.
    leading: AtomicUsize,
    /// Calls made, numbered from 1.
    calls: AtomicUsize,
    pub(super) completed: AtomicUsize,
    pub(super) broken: AtomicUsize,
    pub(super) taken_over: AtomicUsize,
}

impl World {
    pub(super) fn new() -> Self {
        let limits = Limits { ttl: TTL, kept: 1 << 20, answer: 1 << 16, flying: 1 << 20 };
        Self {
            table: Dedup::new(limits),
            claim: Claim { fingerprint: [3; 32], name: Some(Name { name: [1; 32], content: [2; 32] }) },
            leading: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            completed: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            taken_over: AtomicUsize::new(0),
        }
    }

    /// Asks once; leads, follows or is served.
    pub(super) fn client(&self) {
        match self.table.seat(&self.claim, NOW) {
            Seat::Hit(answer) => {
                let call = number(&answer.head);
                let whole: Vec<u8> = (0..CHUNKS).flat_map(|n| chunk(call, n).to_vec()).collect();
                assert_eq!(&answer.body[..], whole, "a kept answer is one call's, whole");
                self.completed.fetch_add(1, SeqCst);
            }
            Seat::Leader(leader) => self.lead(leader),
            Seat::Follower(follower) => self.follow(follower, false),
            Seat::Conflict => panic!("the same content is no conflict"),
        }
    }

    /// A leader that fails before its first byte, or after it, or finishes; now and then with a client of its own.
    fn lead(&self, mut leader: Leader) {
        assert_eq!(self.leading.fetch_add(1, SeqCst), 0, "two lead at once");
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let tail = (rt::random(3) == 0).then(|| leader.tail()).flatten();
        let fails_after = rt::random(CHUNKS + 6);
        let mut whole = false;
        rt::pause();
        if fails_after > 0 {
            leader.head(head(call));
            for n in 0..CHUNKS {
                if fails_after == n + 1 {
                    break;
                }
                leader.push(chunk(call, n));
                rt::pause();
                whole = n + 1 == CHUNKS;
            }
        }
        assert_eq!(self.leading.fetch_sub(1, SeqCst), 1);
        if whole {
            leader.finish(NOW);
        } else {
            leader.fail();
        }
        if let Some(tail) = tail {
            self.follow(tail, true);
        }
    }

    fn follow(&self, mut follower: Follower, own: bool) {
        let patience = rt::random(CHUNKS * 3);
        let mut call = None;
        let mut chunks = 0;
        for polls in 0.. {
            if polls == patience && rt::random(2) == 0 {
                return; // This client leaves.
            }
            // A client that leaves may do so while the lead is being offered to it: one look without waiting.
            let step = if polls + 1 == patience && rt::random(4) == 0 {
                match rt::look(|cx| follower.poll_next(cx)) {
                    Poll::Ready(step) => step,
                    Poll::Pending => return,
                }
            } else {
                rt::wait(|cx| follower.poll_next(cx))
            };
            match step {
                Some(Step::Head(head)) => {
                    assert!(call.replace(number(&head)).is_none(), "one head only");
                }
                Some(Step::Data(data)) => {
                    assert_eq!(data, chunk(call.unwrap(), chunks), "the leader's bytes, in order");
                    chunks += 1;
                }
                Some(Step::LeaderGone(leader)) => {
                    assert!(call.is_none(), "nobody leads after the first byte");
                    self.taken_over.fetch_add(1, SeqCst);
                    drop(follower);
                    return self.lead(leader);
                }
                Some(Step::Broken) => {
                    assert!(own || call.is_some(), "before the first byte a follower leads, it never breaks");
                    self.broken.fetch_add(1, SeqCst);
                    assert!(rt::wait(|cx| follower.poll_next(cx)).is_none());
                    return;
                }
                None => {
                    assert_eq!(chunks, CHUNKS, "the end comes after the whole answer");
                    self.completed.fetch_add(1, SeqCst);
                    return;
                }
            }
        }
    }

    /// Nothing leaks.
    pub(super) fn over(&self) {
        assert_eq!(self.leading.load(SeqCst), 0);
        assert_eq!(self.table.flying_bytes(), 0, "bytes of ended flights are given back");
        let (names, kept) = self.table.counts();
        assert_eq!(self.table.len(), kept, "nothing in flight is left behind");
        assert!(kept <= 1 && names == 1);
        for _ in 0..64 {
            self.table.sweep(NOW + TTL);
        }
        assert_eq!((self.table.len(), self.table.counts(), self.table.kept_bytes()), (0, (0, 0), 0));
    }
}

fn head(call: usize) -> Head {
    let mut headers = HeaderMap::new();
    headers.insert("x-call", call.into());
    Head { status: StatusCode::OK, headers }
}

fn number(head: &Head) -> usize {
    head.headers["x-call"].to_str().unwrap().parse().unwrap()
}

fn chunk(call: usize, n: usize) -> Bytes {
    Bytes::from(vec![(call * CHUNKS + n) as u8; 1 + (call + n) % 3])
}
