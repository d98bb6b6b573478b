//! What goes in comes out merged, bounded, and once.

use super::*;

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

#[test]
fn closed_takes_nothing() {
    let outbox: Outbox<Rest> = Outbox::closed();
    outbox.tell(Rest { account: 1, generation: 1 });
    assert_eq!((outbox.is_open(), outbox.dropped()), (false, 0));
}

#[test]
fn tells_merge_by_key() {
    let (outbox, mut tells) = Outbox::open(8, Arc::default());
    assert!(tells.take().tells.is_empty());
    for generation in [1, 3, 2] {
        outbox.tell(Rest { account: 1, generation });
    }
    outbox.clone().tell(Rest { account: 2, generation: 9 });
    let mut batch = tells.take();
    batch.tells.sort_by_key(|rest| rest.account);
    assert_eq!(batch.tells, [Rest { account: 1, generation: 3 }, Rest { account: 2, generation: 9 }]);
    assert!(tells.take().tells.is_empty(), "nothing comes out twice");
}

#[test]
fn a_full_hatch_drops_newcomers_and_counts_them() {
    let (outbox, mut tells) = Outbox::open(2, Arc::default());
    for account in 0..5 {
        outbox.tell(Rest { account, generation: 1 });
    }
    outbox.tell(Rest { account: 0, generation: 7 });
    let batch = tells.take();
    assert_eq!((batch.tells.len(), outbox.dropped()), (2, 3));
    assert!(batch.tells.contains(&Rest { account: 0, generation: 7 }), "what is there still merges");
}
