//! Dollars a key may spend: reserved before the call, replaced by what it cost after.
//!
//! Never open: what is reserved counts as spent until it is settled, and what is dropped unsettled stays spent. The
//! store's total comes in by [`Budgets::seed`] before the first request is served; a key never seeded starts at 0.
//! Nanodollars; nothing here is ever negative.

use crate::base::KeyId;
use crate::base::stripes::Stripes;
use crate::base::sync::Mutex;
use crate::state::attempts::Attempts;
use crate::state::buckets::Which;
use crate::state::limiter::Refusal;
use std::sync::Arc;
use std::time::Duration;

/// What every key with a budget has spent.
#[derive(Debug)]
pub struct Budgets {
    ledgers: Stripes<KeyId, Arc<Mutex<Ledger>>>,
}

/// One key's books, in nanodollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ledger {
    spent: i64,
    reserved: i64,
}

/// Money set aside for one request; dropped unsettled, it counts as spent.
#[derive(Debug)]
#[must_use = "dropping it spends the estimate"]
pub struct BudgetHold {
    ledger: Arc<Mutex<Ledger>>,
    /// Not yet replaced by a real cost.
    reserved: i64,
    recorded: Attempts,
}

impl Budgets {
    /// Nobody has spent anything.
    pub fn new() -> Self {
        Self { ledgers: Stripes::new(64) }
    }

    /// The store says that `key` has spent `spent_nanos`. Never lowers what is known, so it may come at any time and
    /// again; what was spent here and is not in the store yet is covered by the greater of the two.
    pub fn seed(&self, key: KeyId, spent_nanos: i64) {
        let ledger = self.ledger(key);
        let mut ledger = ledger.lock();
        ledger.spent = ledger.spent.max(spent_nanos);
    }

    /// Sets `estimate_nanos` aside (negative: nothing). Refused (402) once spent and reserved have reached
    /// `budget_nanos`: the request that crosses the line is still let in, the next is not.
    pub fn reserve(&self, key: KeyId, budget_nanos: i64, estimate_nanos: i64) -> Result<BudgetHold, Refusal> {
        let ledger = self.ledger(key);
        let reserved = estimate_nanos.max(0);
        let admitted = {
            let mut books = ledger.lock();
            let room = books.has_room(budget_nanos);
            if room {
                books.reserve(reserved);
            }
            room
        };
        if admitted {
            Ok(BudgetHold { ledger, reserved, recorded: Attempts::default() })
        } else {
            Err(Refusal { which: Which::Budget, retry_after: Duration::ZERO })
        }
    }

    /// Nanodollars spent, without those only reserved.
    pub fn spent(&self, key: KeyId) -> i64 {
        self.ledgers.with_value(&key, |ledger| ledger.lock().spent).unwrap_or(0)
    }

    /// Nanodollars set aside for requests in flight.
    pub fn reserved(&self, key: KeyId) -> i64 {
        self.ledgers.with_value(&key, |ledger| ledger.lock().reserved).unwrap_or(0)
    }

    /// The key is gone. Requests in flight settle into books nobody reads.
    pub fn forget(&self, key: KeyId) {
        self.ledgers.remove(&key);
    }

    fn ledger(&self, key: KeyId) -> Arc<Mutex<Ledger>> {
        self.ledgers.upsert(&key, || (key, Arc::default()), |ledger| Arc::clone(ledger))
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    const fn has_room(&self, budget: i64) -> bool {
        self.spent.saturating_add(self.reserved) < budget
    }

    const fn reserve(&mut self, nanos: i64) {
        self.reserved = self.reserved.saturating_add(nanos);
    }

    fn settle(&mut self, reserved: i64, actual: i64) {
        self.reserved = self.reserved.saturating_sub(reserved).max(0);
        self.spent = self.spent.saturating_add(actual.max(0));
    }
}

impl BudgetHold {
    /// `attempt` cost `nanos` (negative: nothing). The first record replaces the estimate, others add to it; the same
    /// attempt again changes nothing and returns `false`.
    pub fn record(&mut self, attempt: u32, nanos: i64) -> bool {
        let first = self.recorded.first(attempt);
        if first {
            self.ledger.lock().settle(std::mem::take(&mut self.reserved), nanos);
        }
        first
    }

    /// [`record`](Self::record), and that was all. 0 for a request that never reached a provider.
    pub fn settle(mut self, attempt: u32, nanos: i64) {
        self.record(attempt, nanos);
    }
}

impl Drop for BudgetHold {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.ledger.lock().settle(self.reserved, self.reserved);
        }
    }
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
