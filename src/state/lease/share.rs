//! Policy `local`: this instance's share of the limits, for as long as nobody can be asked.
//!
//! Limit ÷ instances last known, from what the buckets were last heard to hold; gone as soon as Redis speaks again.

use crate::base::Now;
use crate::state::buckets::{Bucket, Purse, Which};
use std::time::Duration;

/// This instance's part of the limits when it is alone.
#[derive(Debug)]
pub(super) struct Share {
    requests: Bucket,
    tokens: Bucket,
    refilled: Now,
}

impl Share {
    fn new((requests, tokens): (Bucket, Bucket), heard: bool, instances: u32, now: Now) -> Self {
        let part = |bucket: Bucket| if heard { bucket.part_of(instances) } else { bucket.full().part_of(instances) };
        Self { requests: part(requests), tokens: part(tokens), refilled: now }
    }

    /// A share of what `known` holds and refills by now: limits and instances may have changed.
    fn refill(&mut self, known: (Bucket, Bucket), instances: u32, now: Now) {
        let passed = now.since(self.refilled).as_micros() as i64;
        if passed >= i64::from(instances) {
            // A share's inflow is 1/instances: counted in whole microseconds of it, the rest waits.
            let micros = passed / i64::from(instances);
            self.refilled = self.refilled + Duration::from_micros((micros * i64::from(instances)) as u64);
            self.requests = self.requests.like(&known.0.part_of(instances));
            self.tokens = self.tokens.like(&known.1.part_of(instances));
            self.requests.refill(micros);
            self.tokens.refill(micros);
        }
    }
}

impl Purse {
    /// The decision of one who can ask nobody: this instance's share of the limits.
    pub(crate) fn take_share(&mut self, estimate: u64, instances: u32, now: Now) -> Result<Option<u64>, Which> {
        let (limits, known, heard) =
            (self.limits, (self.requests, self.tokens), self.lease.as_ref().and_then(|l| l.heard));
        let Some(lease) = self.lease.as_deref_mut() else { return Err(Which::Away) };
        let share = lease.share.get_or_insert_with(|| Box::new(Share::new(known, heard.is_some(), instances, now)));
        share.refill(known, instances, now);
        let short = (limits.rpm > 0 && !share.requests.covers(1), limits.tpm > 0 && !share.tokens.covers(estimate));
        // Of two, the one that says no for longer.
        let longer = share.tokens.time_to_cover(estimate) > share.requests.time_to_cover(1);
        match short {
            (false, false) => {}
            (requests, true) if !requests || longer => return Err(Which::Tokens),
            _ => return Err(Which::Requests),
        }
        if limits.rpm > 0 {
            share.requests.charge(1);
        }
        self.running += 1;
        Ok((limits.tpm > 0).then(|| share.tokens.charge(estimate)))
    }

    /// The share's buckets, for headers; the known ones when there is none.
    pub(crate) fn share(&self) -> (Bucket, Bucket) {
        let share = self.lease.as_deref().and_then(|lease| lease.share.as_deref());
        share.map_or((self.requests, self.tokens), |share| (share.requests, share.tokens))
    }

    /// `actual` tokens in the place of `reserved`, of the share.
    pub(crate) fn settle_share(&mut self, reserved: u64, actual: u64) {
        if let Some(share) = self.lease.as_deref_mut().and_then(|lease| lease.share.as_deref_mut()) {
            share.tokens.adjust(reserved, actual);
        }
    }
}
