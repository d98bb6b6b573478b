//! Small hatches between rooms that must not see each other: what one asks, another does, `app` wires.
//!
//! Nothing is done here; a hatch is a trait and the words of its answer.

use super::{AccountId, Error};
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Makes one real call with an account's credential.
pub trait TestAccount: Debug + Send + Sync {
    /// Asks `account` something: a completion of `model`, or, without one, what models it has (which costs nothing).
    /// An `Err`: no call could be made. How a call ended is in [`Tested`].
    fn test<'a>(
        &'a self,
        account: AccountId,
        model: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = Result<Tested, Error>> + Send + 'a>>;
}

/// How such a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tested {
    /// The credential works.
    pub ok: bool,
    /// What the provider answered with; `None`: it did not.
    pub status: Option<u16>,
    /// From the call to the answer's end.
    pub took: Duration,
    /// For people: what it means. Never holds the credential.
    pub message: String,
}
