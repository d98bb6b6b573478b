//! Login failures: 5 within 5 minutes per address, 20 over all addresses, then nobody of them for a while.
//!
//! An attempt is counted *before* the password is looked at and refunded when it was right, so that a hundred parallel
//! guesses are not a hundred free ones. A refusal lasts 5 minutes, then 10, then 15: each as long as the window at
//! least, so no 5 minutes ever see a sixth guess. The count over all addresses spares loopback and addresses that
//! logged in within 30 days: a botnet must not lock the operator out.
//!
//! In a cluster the same is counted once more over all instances; what that count refused is remembered here, so that
//! whoever makes the cluster fall silent gains nothing: the wait it named holds until it says otherwise.
//!
//! One lock for all: logins are rare and a refusal is two look-ups. Memory is bounded by the count over all addresses
//! itself: only attempts that were let in are remembered.

use crate::base::Now;
use crate::base::sync::Mutex;
use crate::state::subject::Net;
use rules::{FORGIVEN, KNOWN_AT_MOST, KNOWN_FOR, LONGEST, OVERALL, PER_ADDRESS, WINDOW};
use std::collections::HashMap;
use std::time::Duration;

/// The door before every password check.
#[derive(Debug, Default)]
pub struct Throttle {
    book: Mutex<Book>,
}

/// One attempt let in, already counted as failed. Hand it back by [`Throttle::succeeded`] or [`Throttle::not_judged`];
/// dropping it leaves it counted.
#[derive(Debug)]
#[must_use = "a right password must be refunded"]
pub struct Attempt {
    net: Net,
    at: Now,
    counted_overall: bool,
}

/// Too many failures: nothing was counted and the password must not be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Throttled {
    /// When the next attempt is let in; 1 s to 15 min.
    pub retry_after: Duration,
    /// Only the count over all addresses refuses: it would not, were this address known.
    pub overall_only: bool,
}

#[derive(Debug, Default)]
struct Book {
    addrs: HashMap<Net, Strikes<PER_ADDRESS>, ahash::RandomState>,
    overall: Strikes<OVERALL>,
    /// When each address last logged in.
    known: HashMap<Net, Now, ahash::RandomState>,
    /// Until when the cluster refuses each address.
    heard: HashMap<Net, Now, ahash::RandomState>,
}

/// The failures of the last window, oldest first, and the refusal they led to.
#[derive(Clone, Copy, Debug)]
struct Strikes<const N: usize> {
    times: [Now; N],
    len: usize,
    level: u32,
    /// When the last refusal began, and its end.
    since: Now,
    until: Now,
}

/// What is counted and what it leads to; the cluster's count follows the same.
pub mod rules {
    use std::time::Duration;

    /// Failures of one address within [`WINDOW`] that begin a refusal.
    pub const PER_ADDRESS: usize = 5;
    /// Failures of all addresses together.
    pub const OVERALL: usize = 20;
    /// How long a failure counts; also the first refusal.
    pub const WINDOW: Duration = Duration::from_secs(5 * 60);
    /// A refusal doubles up to this.
    pub const LONGEST: Duration = Duration::from_secs(15 * 60);
    /// After this long without a refusal the next one is a first one again.
    pub const FORGIVEN: Duration = Duration::from_secs(60 * 60);
    /// An address that logged in is spared by the count over all for so long.
    pub const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// Addresses remembered for having logged in; beyond, the one unseen for longest goes.
    pub const KNOWN_AT_MOST: usize = 1_024;
}

impl Throttle {
    /// No failure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// May a password from `net` be looked at? Counts the attempt as failed at once.
    pub fn attempt(&self, net: Net, now: Now) -> Result<Attempt, Throttled> {
        let mut book = self.book.lock();
        let spared = net.is_loopback() || book.known.get(&net).is_some_and(|last| now.since(*last) < KNOWN_FOR);
        let overall = if spared { None } else { book.overall.refuses(now) };
        let own = book.addrs.get_mut(&net).and_then(|strikes| strikes.refuses(now));
        if let Some(wait) = overall.max(own) {
            return Err(Throttled { retry_after: wait.max(Duration::from_secs(1)), overall_only: own.is_none() });
        }
        book.addrs.entry(net).or_default().add(now);
        if !spared {
            book.overall.add(now);
        }
        Ok(Attempt { net, at: now, counted_overall: !spared })
    }

    /// The password was right: the address starts afresh, is spared by the count over all for 30 days, and this
    /// attempt never was.
    #[expect(clippy::needless_pass_by_value, reason = "taken away, so that it is refunded once")]
    pub fn succeeded(&self, attempt: Attempt, now: Now) {
        let mut book = self.book.lock();
        book.addrs.remove(&attempt.net);
        book.refund_overall(&attempt);
        book.remember(attempt.net, now);
    }

    /// Nobody looked at the password after all (we were overloaded): this attempt never was.
    #[expect(clippy::needless_pass_by_value, reason = "taken away, so that it is refunded once")]
    pub fn not_judged(&self, attempt: Attempt) {
        let mut book = self.book.lock();
        if let Some(strikes) = book.addrs.get_mut(&attempt.net) {
            strikes.refund(attempt.at);
        }
        book.refund_overall(&attempt);
    }

    /// The cluster refuses `net` for so long; or lets it in.
    pub fn heard(&self, net: Net, wait: Option<Duration>, now: Now) {
        let mut book = self.book.lock();
        match wait {
            None => drop(book.heard.remove(&net)),
            // Full of addresses that wait: the cluster is under attack and counts for itself.
            Some(_) if book.heard.len() >= KNOWN_AT_MOST && !book.heard.contains_key(&net) => {}
            Some(wait) => drop(book.heard.insert(net, now + wait.min(LONGEST))),
        }
    }

    /// How much longer the cluster would refuse `net`, by its last word: for when it can't be asked.
    pub fn last_heard(&self, net: Net, now: Now) -> Option<Throttled> {
        let until = *self.book.lock().heard.get(&net).filter(|until| now < **until)?;
        Some(Throttled { retry_after: now.until(until).max(Duration::from_secs(1)), overall_only: false })
    }

    /// `net` logged in at `at`: for what a store remembers from before the start.
    pub fn remember(&self, net: Net, at: Now) {
        self.book.lock().remember(net, at);
    }

    /// Forgets what is over; call it every minute or so. How many addresses are still watched.
    pub fn sweep(&self, now: Now) -> usize {
        let mut book = self.book.lock();
        book.addrs.retain(|_, strikes| !strikes.is_over(now));
        book.known.retain(|_, last| now.since(*last) < KNOWN_FOR);
        book.heard.retain(|_, until| now < *until);
        book.addrs.len()
    }
}

impl Book {
    fn refund_overall(&mut self, attempt: &Attempt) {
        if attempt.counted_overall {
            self.overall.refund(attempt.at);
        }
    }

    fn remember(&mut self, net: Net, at: Now) {
        if self.known.len() >= KNOWN_AT_MOST && !self.known.contains_key(&net) {
            // Rare and a thousand entries: only right passwords lead here.
            if let Some(oldest) = self.known.iter().min_by_key(|(_, last)| **last).map(|(net, _)| *net) {
                self.known.remove(&oldest);
            }
        }
        let last = self.known.entry(net).or_insert(at);
        *last = at.max(*last);
    }
}

impl<const N: usize> Strikes<N> {
    /// How much longer nobody is let in.
    fn refuses(&mut self, now: Now) -> Option<Duration> {
        if now < self.until {
            return Some(now.until(self.until));
        }
        self.prune(now);
        None
    }

    fn prune(&mut self, now: Now) {
        let mut kept = 0;
        for i in 0..self.len {
            if now.since(self.times[i]) < WINDOW {
                self.times[kept] = self.times[i];
                kept += 1;
            }
        }
        self.len = kept;
        if now.since(self.until) >= FORGIVEN {
            self.level = 0;
        }
    }

    /// One more; the `N`-th begins a refusal. Only called when [`refuses`](Self::refuses) did not.
    fn add(&mut self, now: Now) {
        // A clock read earlier on another core can leave the window full for a moment: the oldest makes room.
        if self.len == N {
            self.times.copy_within(1.., 0);
            self.len -= 1;
        }
        self.times[self.len] = now;
        self.len += 1;
        if self.len == N {
            self.since = now;
            self.until = now + (WINDOW * 2u32.saturating_pow(self.level)).min(LONGEST);
            self.level = (self.level + 1).min(8);
        }
    }

    /// Takes the failure of `at` out again, and the refusal it began.
    fn refund(&mut self, at: Now) {
        let Some(place) = self.times[..self.len].iter().rposition(|time| *time == at) else { return };
        if self.len == N && self.until > self.since {
            // The window is no longer full, whoever filled it.
            self.until = self.since;
            self.level = self.level.saturating_sub(1);
        }
        self.times.copy_within(place + 1..self.len, place);
        self.len -= 1;
    }

    /// Forgetting it would change no answer.
    fn is_over(&mut self, now: Now) -> bool {
        self.prune(now);
        self.len == 0 && self.level == 0 && now >= self.until
    }
}

impl<const N: usize> Default for Strikes<N> {
    fn default() -> Self {
        Self { times: [Now::default(); N], len: 0, level: 0, since: Now::default(), until: Now::default() }
    }
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
