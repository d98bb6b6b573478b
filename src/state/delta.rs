//! What one instance tells the others about rests.
//!
//! A delta repeats harmlessly and merges in any order (see `rest`), so it may be sent again after any doubt. Deadlines
//! are this process' own `Now`: whoever puts a delta on the wire writes the *remaining* time instead.

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
