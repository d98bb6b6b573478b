//! What the others publish, on a connection of its own.
//!
//! Messages are lost while it is broken; so each time it stands, everything is read again (`resync`) and every listener
//! is told of a gap. What can't be understood (a later version, a kind nobody here listens to) is counted and skipped,
//! what none of us said (its MAC is wrong) is counted and refused; own messages are skipped, too.

use super::connector::Way;
use super::resync::Progress;
use super::wire::{self, Reader, Unread, Voice};
use crate::base::Clock;
use crate::base::bell::Bell;
use crate::base::metrics::METRICS;
use crate::base::tasks::{Drain, Phase};
use crate::state::catalog::Directory;
use crate::state::news::{Heard, Kind, Listener};
use std::sync::Arc;

/// The task that listens.
pub(super) struct Listening {
    pub(super) way: Way,
    pub(super) channel: Vec<u8>,
    pub(super) ear: Ear,
    pub(super) progress: Arc<Progress>,
    /// Wakes the task that makes the rounds.
    pub(super) bell: Arc<Bell>,
}

/// Understands messages and hands on what they say.
pub(super) struct Ear {
    pub(super) voice: Voice,
    pub(super) directory: Arc<Directory>,
    pub(super) listeners: Vec<Listener>,
}

impl Listening {
    /// Listens until shutdown's last phase.
    pub(super) async fn run(mut self, drain: Drain) {
        tokio::select! {
            () = self.listen() => {}
            () = drain.reached(Phase::Cut) => {}
        }
    }

    async fn listen(&mut self) {
        loop {
            let Some(mut subscription) = self.way.try_subscription(&[&self.channel]).await else {
                self.progress.unsubscribed();
                continue;
            };
            self.progress.subscribed();
            self.bell.ring();
            self.ear.listeners.iter_mut().for_each(|listener| listener.hear(Heard::Gap));
            while let Some(message) = subscription.next().await {
                self.ear.hear(&message.payload);
            }
            self.progress.unsubscribed();
        }
    }
}

impl Ear {
    fn hear(&mut self, message: &[u8]) {
        let now = Clock::now();
        let reader = match Reader::new(message, &self.voice.secret) {
            Ok(reader) => reader,
            Err(Unread::Version) => return METRICS.cluster_skipped.inc(),
            Err(Unread::Forged) => return METRICS.cluster_refused.inc(),
        };
        if reader.epoch == self.voice.epoch {
            METRICS.cluster_own.inc();
            return;
        }
        METRICS.cluster_heard.inc();
        for entry in reader {
            let understood = match entry {
                None => false,
                Some((Kind::RESTS, body)) => match wire::delta(body, now) {
                    Some(delta) => {
                        self.directory.live().apply(&delta, now);
                        true
                    }
                    None => false,
                },
                Some((kind, body)) => {
                    let listeners = self.listeners.iter_mut().filter(|listener| listener.kind == kind);
                    listeners.map(|listener| listener.hear(Heard::News(body))).count() > 0
                }
            };
            if !understood {
                METRICS.cluster_skipped.inc();
            }
        }
    }
}
