//! Keeps budgets in step with the store: what other instances spent, and what a key had spent before it got a budget.
//!
//! Fails quietly: what is known stays, and spending never goes down.

use super::Store;
use crate::base::Clock;
use crate::base::tasks::{Drain, Phase};
use crate::state::budgets::Budgets;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(3);
/// Spending within so many minutes is looked at: a look that failed, or a batch that came late, is made up for.
const BACK: u32 = 10;

/// Looks until streams are cut.
pub async fn run(store: Store, budgets: Arc<Budgets>, drain: Drain) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = drain.reached(Phase::Cut) => return,
        }
        let since = ((Clock::unix_ms() / 60_000) as u32).saturating_sub(BACK);
        let Ok(spent) = store.spent_since(since).await else { continue };
        for (key, nanos) in spent {
            budgets.seed(key, nanos);
        }
    }
}
