//! The hatch through which logins are counted across instances.
//!
//! An attempt is asked for before its password is looked at, and taken back afterwards if it was right. Nothing here
//! waits: with a full queue or nobody on the other side each instance counts for itself, and none of them opens.

use super::subject::Net;
use crate::base::bell::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Attempts and their ends that may wait; logins are rare, and a flood of them must not fill Redis' rounds.
const MOST: usize = 256;

/// The way out.
#[derive(Debug, Default)]
pub struct Logins(Option<Hatch>);

/// One attempt, as the cluster knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// From where.
    pub net: Net,
    /// Its number in this process.
    pub number: u64,
}

/// What is said of it.
#[derive(Debug)]
pub enum Said {
    /// It is about to be made.
    Attempt(Counted, oneshot::Sender<Verdict>),
    /// Its password was right.
    Right(Counted),
    /// Nobody looked at its password.
    NotJudged(Counted),
}

/// What the cluster says to an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Counted, and let in.
    In {
        /// The address logged in within 30 days, somewhere: the count over all addresses spares it.
        known: bool,
    },
    /// Not counted, not let in.
    Wait(Duration),
}

/// The receiving end.
#[derive(Debug)]
pub struct Sayings(mpsc::Receiver<Said>);

#[derive(Debug)]
struct Hatch {
    out: mpsc::Sender<Said>,
    bell: Arc<Bell>,
    numbers: AtomicU64,
}

impl Logins {
    /// This instance counts alone.
    pub const fn closed() -> Self {
        Self(None)
    }

    /// A way out, and its receiving end; `bell` wakes whoever holds that.
    pub fn open(bell: Arc<Bell>) -> (Self, Sayings) {
        let (out, said) = mpsc::channel(MOST);
        (Self(Some(Hatch { out, bell, numbers: AtomicU64::new(1) })), Sayings(said))
    }

    /// Asks for an attempt from `net`. `None`: nobody to ask. Bound the wait; an error there means the same, but the
    /// attempt may have been counted: say how it ended in any case.
    pub fn attempt(&self, net: Net) -> Option<(Counted, oneshot::Receiver<Verdict>)> {
        let hatch = self.0.as_ref()?;
        let counted = Counted { net, number: hatch.numbers.fetch_add(1, Ordering::Relaxed) };
        let (reply, verdict) = oneshot::channel();
        hatch.out.try_send(Said::Attempt(counted, reply)).ok()?;
        hatch.bell.ring();
        Some((counted, verdict))
    }

    /// Says how an attempt ended other than by a wrong password.
    pub fn say(&self, said: Said) {
        let Some(hatch) = &self.0 else { return };
        // Without room it stays counted as a failure, for five minutes.
        if hatch.out.try_send(said).is_ok() {
            hatch.bell.soon();
        }
    }
}

impl Sayings {
    /// Of nobody.
    pub fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// The next that is there.
    pub fn take(&mut self) -> Option<Said> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_out_in_order_and_never_more_than_fits() {
        assert!(Logins::closed().attempt(Net::V4(1)).is_none());
        let (logins, mut said) = Logins::open(Arc::default());
        let (one, _verdict) = logins.attempt(Net::V4(1)).unwrap();
        logins.say(Said::Right(one));
        assert!(matches!(said.take(), Some(Said::Attempt(counted, _)) if counted == one));
        assert!(matches!(said.take(), Some(Said::Right(counted)) if counted == one));
        let waiting: Vec<_> = (0..MOST + 5).map_while(|_| logins.attempt(Net::V4(2))).collect();
        assert_eq!(waiting.len(), MOST);
    }
}
