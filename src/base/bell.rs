//! The bell that wakes the one task which talks to Redis: at once for somebody who waits, or soon for what may gather.
//!
//! Ringing never blocks and rings that nobody has heard yet are one. At most one wake-up in [`SOON`] comes from
//! [`Bell::soon`], however many cores ring: a wake-up across threads costs a system call.

use super::{Clock, Now};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How long tells may gather when nobody asks.
pub const SOON: Duration = Duration::from_millis(5);

/// One bell; shared by all that ring it and the one that hears it.
#[derive(Debug, Default)]
pub struct Bell {
    urgent: Notify,
    soon: Notify,
    rung: AtomicBool,
    /// When somebody who waits rang first since it was last heard; 0: nobody did.
    since: AtomicU64,
}

impl Bell {
    /// Somebody waits for an answer.
    pub fn ring(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            let now = Clock::now().as_nanos();
            let _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.urgent.notify_one();
    }

    /// Since when somebody has been waiting; forgets it. For whoever heard the bell and now sees to it.
    pub fn waited(&self) -> Option<Now> {
        Some(self.since.swap(0, Ordering::Relaxed)).filter(|&since| since != 0).map(Now::from_nanos)
    }

    /// There is something to say within [`SOON`].
    pub fn soon(&self) {
        if !self.rung.load(Ordering::Relaxed) && !self.rung.swap(true, Ordering::AcqRel) {
            self.soon.notify_one();
        }
    }

    /// Waits until it rings. What is put down after this returned rings again. One listener only.
    pub async fn heard(&self) {
        tokio::select! {
            biased;
            () = self.urgent.notified() => {}
            () = self.soon.notified() => {
                let unheard = Unheard(&self.soon);
                tokio::select! {
                    biased;
                    () = self.urgent.notified() => {}
                    () = tokio::time::sleep(SOON) => {}
                }
                std::mem::forget(unheard);
            }
        }
        self.rung.store(false, Ordering::Release);
    }
}

/// Rings again when whoever had begun to listen went away: [`Bell::soon`] would never ring any more otherwise.
struct Unheard<'a>(&'a Notify);

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_urgent_is_not_held_back_by_what_may_wait() {
        let bell = Bell::default();
        bell.soon();
        bell.soon();
        bell.ring();
        let began = Clock::now();
        bell.heard().await;
        assert!(bell.waited().is_some_and(|since| since <= began) && bell.waited().is_none());
        assert!(Clock::now().since(began) < SOON, "it waited for more to gather");
        bell.soon();
        bell.heard().await;
        // Both were heard: nothing rings any more.
        assert!(tokio::time::timeout(SOON * 4, bell.heard()).await.is_err());
    }

    #[tokio::test]
    async fn who_stops_listening_half_way_leaves_the_bell_rung() {
        let bell = Bell::default();
        bell.soon();
        // Something else was due while more was to gather.
        assert!(tokio::time::timeout(Duration::ZERO, bell.heard()).await.is_err());
        bell.soon();
        tokio::time::timeout(Duration::from_secs(10), bell.heard()).await.expect("it never rings again");
    }
}
