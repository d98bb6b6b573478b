//! Whether this instance does the work that a whole deployment needs done once.
//!
//! A lease says so for a while; it lapses here before it does in Redis. Without Redis, or while it is away, everybody
//! does the work: what is led this way must be harmless when done twice. Holds no clock.

use crate::base::Now;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// One instance's view of who leads.
#[derive(Debug)]
pub struct Lead {
    standing: AtomicU8,
    until: AtomicU64,
    fence: AtomicU64,
}

/// There is nobody to ask: every instance leads.
const ALONE: u8 = 0;
/// Others can be asked: only the lease counts.
const SHARED: u8 = 1;

impl Lead {
    /// Always leads: there is no Redis.
    pub const fn alone() -> Self {
        Self { standing: AtomicU8::new(ALONE), until: AtomicU64::new(0), fence: AtomicU64::new(0) }
    }

    /// Leads once told so.
    pub const fn shared() -> Self {
        Self { standing: AtomicU8::new(SHARED), until: AtomicU64::new(0), fence: AtomicU64::new(0) }
    }

    /// Whether this instance does the work now.
    pub fn leads(&self, now: Now) -> bool {
        self.standing.load(Ordering::Acquire) == ALONE || now.as_nanos() < self.until.load(Ordering::Acquire)
    }

    /// The number of the lease held last; rises with each change of leader. 0: none was ever held.
    pub fn fence(&self) -> u64 {
        self.fence.load(Ordering::Acquire)
    }

    /// Leads until then, under this number.
    pub fn hold(&self, until: Now, fence: u64) {
        self.fence.store(fence, Ordering::Release);
        self.until.store(until.as_nanos(), Ordering::Release);
        self.standing.store(SHARED, Ordering::Release);
    }

    /// Another leads.
    pub fn follow(&self) {
        self.until.store(0, Ordering::Release);
        self.standing.store(SHARED, Ordering::Release);
    }

    /// Nobody can be asked.
    pub fn cut_off(&self) {
        self.standing.store(ALONE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_while_all_can_ask_and_everybody_when_nobody_can() {
        let (now, later) = (Now::from_nanos(10), Now::from_nanos(20));
        assert!(Lead::alone().leads(now));
        let lead = Lead::shared();
        assert!(!lead.leads(now), "nobody said so yet");
        lead.hold(later, 7);
        assert!(lead.leads(now) && !lead.leads(later));
        assert_eq!(lead.fence(), 7);
        lead.cut_off();
        assert!(lead.leads(later));
        lead.follow();
        assert!(!lead.leads(now), "the lease of before is not ours any more");
    }
}
