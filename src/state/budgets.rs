//! Dollars a key may spend: reserved before the call, replaced by what it cost after.
//!
//! Never open: what is reserved counts as spent until it is settled, and what is dropped unsettled stays spent. The
//! store's total comes in by [`Budgets::seed`] before the first request is served; a key never seeded starts at 0.
//! Nanodollars; nothing here is ever negative. With others beside this instance ([`Budgets::shared`]) ledgers agree through
//! Redis (`ledger`); while it is away this instance decides by what it knows.

use crate::base::stripes::Stripes;
use crate::base::sync::Mutex;
use crate::base::{KeyId, Now};
use crate::state::attempts::Attempts;
use crate::state::buckets::Which;
use crate::state::ledger::{Book, Bought, Granted, Ledger, Till};
use crate::state::limiter::Refusal;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What every key with a budget has spent.
#[derive(Debug)]
pub struct Budgets {
    ledgers: Stripes<KeyId, Arc<Mutex<Ledger>>>,
    /// Where the cluster is asked; `None`: this instance is alone.
    till: Option<Arc<Till>>,
}

/// What [`Budgets::ask`] comes to.
#[derive(Debug)]
pub enum Sought {
    /// Decided here and now.
    Now(Result<BudgetHold, Refusal>),
    /// Only the cluster can tell.
    Later(Seeking),
}

/// A request that waits for the cluster's word on its budget.
#[derive(Debug)]
pub struct Seeking {
    ledger: Arc<Mutex<Ledger>>,
    budget: i64,
    nanos: i64,
    /// The word (`None`: the budget is spent), unless nobody is there to give it.
    pub answer: oneshot::Receiver<Option<Granted>>,
}

const SPENT: Refusal = Refusal { which: Which::Budget, retry_after: Duration::ZERO };

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
        Self { ledgers: Stripes::new(64), till: None }
    }

    /// Shared through `till`.
    pub fn shared(till: Arc<Till>) -> Self {
        Self { till: Some(till), ..Self::new() }
    }

    /// The store says that `key` has spent `spent_nanos`. Never lowers what is known, so it may come at any time and
    /// again; what was spent here and is not in the store yet is covered by the greater of the two.
    pub fn seed(&self, key: KeyId, spent_nanos: i64) {
        self.ledger(key).lock().seed(spent_nanos);
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
        if admitted { Ok(BudgetHold::of(ledger, reserved)) } else { Err(SPENT) }
    }

    /// The same where others may spend from it, too: from room in hand, by what is known while Redis is away, or else to
    /// be waited for.
    pub fn ask(&self, key: KeyId, budget_nanos: i64, estimate_nanos: i64, now: Now) -> Sought {
        if self.till.is_none() {
            return Sought::Now(self.reserve(key, budget_nanos, estimate_nanos));
        }
        let ledger = self.ledger(key);
        let nanos = estimate_nanos.max(0);
        let (bought, till) = ledger.lock().buy(budget_nanos, nanos, now);
        if let Some(till) = till {
            till.list(Book(Arc::clone(&ledger)), true);
        }
        match bought {
            Bought::Yes => Sought::Now(Ok(BudgetHold::of(ledger, nanos))),
            Bought::No => Sought::Now(Err(SPENT)),
            Bought::Wait(answer) => Sought::Later(Seeking { ledger, budget: budget_nanos, nanos, answer }),
        }
    }

    /// Nanodollars spent, without those only reserved.
    pub fn spent(&self, key: KeyId) -> i64 {
        self.ledgers.with_value(&key, |ledger| ledger.lock().spent()).unwrap_or(0)
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
        let make = || match &self.till {
            Some(till) => Arc::new(Mutex::new(Ledger::shared(till, key))),
            None => Arc::default(),
        };
        self.ledgers.upsert(&key, || (key, make()), |ledger| Arc::clone(ledger))
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self::new()
    }
}

impl Seeking {
    /// The cluster's word.
    pub fn told(granted: Option<Granted>) -> Result<BudgetHold, Refusal> {
        let (ledger, nanos) = granted.ok_or(SPENT)?.take();
        Ok(BudgetHold::of(ledger, nanos))
    }

    /// No word came, in time or at all: decided by what is known.
    pub fn alone(self) -> Result<BudgetHold, Refusal> {
        let mut books = self.ledger.lock();
        if !books.has_room(self.budget) {
            return Err(SPENT);
        }
        books.reserve(self.nanos);
        drop(books);
        Ok(BudgetHold::of(self.ledger, self.nanos))
    }
}

impl BudgetHold {
    fn of(ledger: Arc<Mutex<Ledger>>, reserved: i64) -> Self {
        Self { ledger, reserved, recorded: Attempts::default() }
    }

    fn replace(&mut self, actual: i64) {
        let reserved = std::mem::take(&mut self.reserved);
        let news = self.ledger.lock().settle(reserved, actual);
        if let Some(till) = news {
            till.list(Book(Arc::clone(&self.ledger)), false);
        }
    }

    /// `attempt` cost `nanos` (negative: nothing). The first record replaces the estimate, others add to it; the same
    /// attempt again changes nothing and returns `false`.
    pub fn record(&mut self, attempt: u32, nanos: i64) -> bool {
        let first = self.recorded.first(attempt);
        if first {
            self.replace(nanos);
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
            self.replace(self.reserved);
        }
    }
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
