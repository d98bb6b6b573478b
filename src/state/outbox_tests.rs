//! What goes in comes out merged, bounded, and once.

use super::*;
use crate::base::KeyId;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

#[derive(Debug, PartialEq, Eq)]
struct Rest {
    account: u32,
    generation: u32,
}

impl Tell for Rest {
    type Key = u32;
    fn key(&self) -> u32 {
        self.account
    }
    fn merge(&mut self, other: Self) {
        self.generation = self.generation.max(other.generation);
    }
}

const KEY: Subject = Subject::Key(KeyId(1));

/// What it is now, without a runtime.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn closed_takes_nothing_and_asks_nobody() {
    let outbox: Outbox<Rest> = Outbox::closed();
    outbox.tell(Rest { account: 1, generation: 1 });
    outbox.spend(KEY, Spend { tokens: 1, nanos: 1 });
    assert!(!outbox.is_open() && outbox.ask(KEY, 1).is_none());
    assert_eq!(outbox.dropped(), 0);
}

#[test]
fn tells_merge_by_key_and_spends_add_up_once() {
    let (outbox, mut tells, _asks) = Outbox::open(8, Arc::default());
    assert!(tells.take().tells.is_empty());
    for generation in [1, 3, 2] {
        outbox.tell(Rest { account: 1, generation });
    }
    outbox.clone().tell(Rest { account: 2, generation: 9 });
    outbox.spend(KEY, Spend { tokens: 10, nanos: 5 });
    outbox.spend(KEY, Spend { tokens: -3, nanos: 5 });
    let mut batch = tells.take();
    batch.tells.sort_by_key(|rest| rest.account);
    assert_eq!(batch.tells, [Rest { account: 1, generation: 3 }, Rest { account: 2, generation: 9 }]);
    assert_eq!(batch.spends, [(KEY, Spend { tokens: 7, nanos: 10 })]);
    let again = tells.take();
    assert!(again.tells.is_empty() && again.spends.is_empty(), "nothing comes out twice");
}

#[test]
fn a_full_hatch_drops_newcomers_and_counts_them() {
    let (outbox, mut tells, mut asks) = Outbox::open(2, Arc::default());
    for account in 0..5 {
        outbox.tell(Rest { account, generation: 1 });
        outbox.spend(Subject::Key(KeyId(account.into())), Spend { tokens: 1, nanos: 0 });
    }
    outbox.tell(Rest { account: 0, generation: 7 });
    let batch = tells.take();
    assert_eq!((batch.tells.len(), batch.spends.len(), outbox.dropped()), (2, 2, 6));
    assert!(batch.tells.contains(&Rest { account: 0, generation: 7 }), "what is there still merges");
    let answers: Vec<_> = (0..3).filter_map(|tokens| outbox.ask(KEY, tokens)).collect();
    assert_eq!((answers.len(), outbox.dropped()), (2, 7));
    asks.take().unwrap().reply.send(Ok(())).unwrap();
    drop(asks.take());
    let mut answers = answers.into_iter();
    assert_eq!(now(answers.next().unwrap()), Some(Ok(Ok(()))));
    assert!(now(answers.next().unwrap()).unwrap().is_err(), "dropped unanswered: decide alone");
    drop(outbox);
}
