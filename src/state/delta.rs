//! What one instance tells the others about rests.
//!
//! A delta repeats harmlessly and merges in any order (see `rest`), so it may be sent again after any doubt. Deadlines
//! are this process' own `Now`: whoever puts a delta on the wire writes the *remaining* time instead.

use super::outbox::Tell;
use super::rest::Rest;
use crate::base::{AccountId, ModelId};

/// One account's cooldown, or one model's lock on it, as it now stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delta {
    /// Whose.
    pub account: AccountId,
    /// Which model's lock; `None`: the account's cooldown.
    pub model: Option<ModelId>,
    /// What holds now.
    pub rest: Rest,
}

impl Tell for Delta {
    type Key = (AccountId, Option<ModelId>);

    fn key(&self) -> Self::Key {
        (self.account, self.model)
    }

    fn merge(&mut self, other: Self) {
        self.rest = self.rest.merge(other.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Now;
    use crate::state::outbox::Outbox;

    #[test]
    fn of_two_deltas_about_one_thing_the_greater_rest_goes_out() {
        let (outbox, mut tells, _asks) = Outbox::open(8, std::sync::Arc::default());
        let delta = |model, generation| {
            let rest = Rest { generation, until: Now::from_nanos(7), ..Rest::NONE };
            Delta { account: AccountId(1), model, rest }
        };
        for generation in [1, 3, 2] {
            outbox.tell(delta(None, generation));
        }
        outbox.tell(delta(Some(ModelId(9)), 1));
        let mut told = tells.take().tells;
        told.sort_by_key(|one| one.model);
        assert_eq!(told, [delta(None, 3), delta(Some(ModelId(9)), 1)], "an account and a model on it are two things");
    }
}
