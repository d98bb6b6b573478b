//! Identical requests become one call: followers tail the one in flight, and its finished answer serves the next.
//!
//! One request leads, the others follow it: they get the bytes so far and then the live rest, by reference, never
//! copied. A leader that fails before its first byte hands the lead to the oldest follower; one that fails after it
//! breaks them all, because what was sent cannot be taken back. Only complete 2xx answers are kept, under a byte cap
//! and a time to live. Never shared between callers: the caller is part of the [`Fingerprint`].
//!
//! Locks: a table's stripe, then a flight's lock inside it; never the other way round, never two stripes. Wakers run
//! with no lock held. When memory for calls in flight runs out, an answer stops being shared with *new* followers and
//! is not kept; nothing fails.

mod elsewhere;
mod fingerprint;
mod flight;
mod seats;
mod table;

mod sync {
    //! The real locks. `model.rs` compiles `flight` and `table` against a model checker's instead.
    pub(super) use crate::base::stripes::Stripes;
    pub(super) use parking_lot::Mutex;
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;

pub use elsewhere::{Elsewhere, Ends, Found, LARGEST, Led, Look, Put};
pub use fingerprint::{Asked, Caller, Claim, Fingerprint, Fingerprints, Name};
pub use flight::Limits;
pub use seats::{Follower, Leader, Seat, Step};
pub use table::Dedup;
