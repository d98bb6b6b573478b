//! Small messages on their way out: one publication a round for all that gathered.
//!
//! What can't be sent is lost, which is what its listeners are told as a gap once they hear again.

use super::call::{Answer, Call};
use super::codec::Names;
use super::wire::Writer;
use super::{Part, Round};
use crate::base::Now;
use crate::state::news::News;
use crate::state::outbox::Tells;

/// The part.
pub(super) struct NewsOut {
    names: Names,
    epoch: u64,
    told: Tells<News>,
}

impl NewsOut {
    pub(super) fn new(names: Names, epoch: u64, told: Tells<News>) -> Self {
        Self { names, epoch, told }
    }
}

impl Part for NewsOut {
    fn gather(&mut self, round: &mut Round<'_>) {
        let told = self.told.told();
        if told.is_empty() || !round.up {
            return;
        }
        let mut message = Writer::new(self.epoch);
        for news in told.iter().filter(|news| news.body.len() <= News::LONGEST) {
            message.entry(news.kind, &news.body);
        }
        // Each node passes on what is published to all others.
        round.push(Call::new("PUBLISH", b"").arg(self.names.news()).arg(message.bytes()));
    }

    fn settle(&mut self, _: &mut dyn Iterator<Item = Answer>, _: Now) {}

    fn close(&mut self, round: &mut Round<'_>) {
        self.gather(round);
    }
}
