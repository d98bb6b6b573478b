//! What one instance tells the others about rests.
//!
//! A delta repeats harmlessly and merges in any order (see `rest`), so it may be sent again after any doubt. Deadlines
//! are this process' own `Now`: whoever puts a delta on the wire writes the *remaining* time instead.

use super::outbox::Tell;
use super::rest::Rest;
use crate::base::{AccountId, ModelId, Now};
use std::time::Duration;

/// One account's cooldown, or one model's lock on it, as it now stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delta {
    /// Whose.
    pub account: AccountId,
    /// Which model's lock; `None`: the account's cooldown.
    pub model: Option<ModelId>,
    /// What holds now.
    pub rest: Rest,
    /// When the attempt began whose end made it so, or when it was cleared. [`Delta::LONG_AGO`]: not known.
    pub since: Now,
}

impl Delta {
    /// Older than anything: what is merely remembered never outlasts somebody's clearing.
    pub const LONG_AGO: Now = Now::from_nanos(0);

    /// A trip that lost to `winner` by the generation alone, as it is told once more: nobody here knew of the clearing
    /// when it happened. `None` when it did not, or when the winner, which came about `ago`, is the later of the two.
    pub fn retold(&self, winner: Rest, ago: Duration, now: Now) -> Option<Self> {
        let outvoted = self.rest.is_live() && winner.generation > self.rest.generation;
        let again = Self { rest: Rest { generation: winner.generation, ..self.rest }, ..*self };
        (outvoted && now.since(self.since) < ago).then_some(again)
    }
}

impl Tell for Delta {
    type Key = (AccountId, Option<ModelId>);

    fn key(&self) -> Self::Key {
        (self.account, self.model)
    }

    fn merge(&mut self, other: Self) {
        if other.rest > self.rest {
            *self = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::outbox::Outbox;
    use crate::state::rest::Reason;

    #[test]
    fn of_two_deltas_about_one_thing_the_greater_rest_goes_out() {
        let (outbox, mut tells) = Outbox::open(8, std::sync::Arc::default());
        let delta = |model, generation| {
            let rest = Rest { generation, until: Now::from_nanos(7), ..Rest::NONE };
            Delta { account: AccountId(1), model, rest, since: Delta::LONG_AGO }
        };
        for generation in [1, 3, 2] {
            outbox.tell(delta(None, generation));
        }
        outbox.tell(delta(Some(ModelId(9)), 1));
        let mut told = tells.take().tells;
        told.sort_by_key(|one| one.model);
        assert_eq!(told, [delta(None, 3), delta(Some(ModelId(9)), 1)], "an account and a model on it are two things");
    }

    #[test]
    fn only_a_trip_younger_than_the_clearing_is_told_again() {
        const S: Duration = Duration::from_secs(1);
        let now = Now::from_nanos(3_600_000_000_000);
        let live = Rest { until: now + 60 * S, reason: Reason::RateLimited, keep: now + 60 * S, ..Rest::NONE };
        let trip = Delta { account: AccountId(1), model: None, rest: live, since: now - S };
        let cleared = Rest { generation: 3, keep: now + 1800 * S, ..Rest::NONE };
        let again = trip.retold(cleared, 2 * S, now).unwrap();
        assert_eq!((again.rest.generation, again.rest.until), (3, live.until));
        assert_eq!(trip.retold(cleared, S / 2, now), None, "it was cleared after that");
        assert_eq!(again.retold(cleared, 2 * S, now), None, "once");
        assert_eq!(Delta { since: Delta::LONG_AGO, ..trip }.retold(cleared, 1800 * S, now), None, "a memory");
        assert_eq!(Delta { rest: Rest { generation: 1, ..Rest::NONE }, ..trip }.retold(cleared, 2 * S, now), None);
    }
}
