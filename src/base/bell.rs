//! The bell that wakes the one task which talks to Redis: at once for somebody who waits, or soon for what may gather.
//!
//! Ringing never blocks and rings that nobody has heard yet are one. At most one wake-up in [`SOON`] comes from
//! [`Bell::soon`], however many cores ring: a wake-up across threads costs a system call.

use std::sync::atomic::{AtomicBool, Ordering};
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
}

impl Bell {
    /// Somebody waits for an answer.
    pub fn ring(&self) {
        self.urgent.notify_one();
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
                tokio::select! {
                    biased;
                    () = self.urgent.notified() => {}
                    () = tokio::time::sleep(SOON) => {}
                }
            }
        }
        self.rung.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    #[tokio::test]
    async fn what_is_urgent_is_not_held_back_by_what_may_wait() {
        let bell = Bell::default();
        bell.soon();
        bell.soon();
        bell.ring();
        let began = Clock::now();
        bell.heard().await;
        assert!(Clock::now().since(began) < SOON, "it waited for more to gather");
        bell.soon();
        bell.heard().await;
        // Both were heard: nothing rings any more.
        assert!(tokio::time::timeout(SOON * 4, bell.heard()).await.is_err());
    }
}
