//! What forgets: the tables of one instance's memory, one stripe of each a second, so that no sweep is ever noticed.
//!
//! A sweep that is late costs memory for a while, never a wrong answer: every table judges by time when it is asked.

use crate::base::Clock;
use crate::base::tasks::{Drain, Phase};
use crate::state::catalog::Directory;
use crate::state::dedup::Dedup;
use crate::state::limiter::Limiter;
use crate::state::throttle::Throttle;
use crate::state::unknown_keys::UnknownKeys;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);
/// Ticks in which every stripe of every table was swept (they have 64 at most).
const ROUND: usize = 64;

/// What is swept.
pub(super) struct Swept {
    pub(super) directory: Arc<Directory>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) unknown: Arc<UnknownKeys>,
    pub(super) dedup: Arc<Dedup>,
}

/// Sweeps until shutdown's *finish* phase.
pub(super) async fn run(swept: Swept, drain: Drain) {
    let finish = drain.reached(Phase::Finish);
    tokio::pin!(finish);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tick = 0usize;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut finish => return,
        }
        swept.sweep(tick);
        tick = tick.wrapping_add(1);
    }
}

impl Swept {
    fn sweep(&self, tick: usize) {
        let now = Clock::now();
        self.limiter.sweep(tick, now);
        self.directory.live().sweep(tick, now);
        self.unknown.sweep(tick, now);
        self.dedup.sweep(now);
        if tick % ROUND == ROUND - 1 {
            self.throttle.sweep(now);
            let catalog = self.directory.catalog();
            let known: HashSet<_> = catalog.accounts.iter().map(|account| account.id).collect();
            self.directory.live().retain(|account| known.contains(&account), now);
        }
    }
}
