//! Small messages on their way out: one publication a round for all that gathered.
//!
//! Of a Redis Cluster any node will do, for each hands on to all: where one is down the next is tried. What was not
//! acknowledged is said again, perhaps twice, which does no harm to hints; what waits is bounded, and equal messages are
//! one. Whoever was cut off meanwhile is told of a gap when it hears again.

use super::call::{Answer, Call, Fault};
use super::codec::{Names, SHARDS};
use super::wire::{Voice, Writer};
use super::{Part, Round};
use crate::base::Now;
use crate::state::news::News;
use crate::state::outbox::Tells;
use std::time::Duration;

/// Messages kept for a Redis that does not take them.
const MOST: usize = 64;
/// Before the next try.
const AGAIN: Duration = Duration::from_millis(50);

/// The part.
pub(super) struct NewsOut {
    names: Names,
    voice: Voice,
    told: Tells<News>,
    waiting: Vec<News>,
    /// Not before, when the last try failed.
    again: Now,
    /// Tries that failed in a row.
    failed: u64,
    up: bool,
}

impl NewsOut {
    pub(super) fn new(names: Names, voice: Voice, told: Tells<News>) -> Self {
        Self { names, voice, told, waiting: Vec::new(), again: Now::default(), failed: 0, up: false }
    }
}

impl Part for NewsOut {
    fn gather(&mut self, round: &mut Round<'_>) {
        for news in self.told.told() {
            if news.body.len() <= News::LONGEST && self.waiting.len() < MOST && !self.waiting.contains(&news) {
                self.waiting.push(news);
            }
        }
        self.up = round.up;
        if self.waiting.is_empty() || !round.up || round.now < self.again {
            return;
        }
        let mut message = Writer::new(self.voice);
        for news in &self.waiting {
            message.entry(news.kind, &news.body);
        }
        let channel = self.names.news();
        // Each of these keys is another node's, perhaps.
        let node = if self.failed == 0 { channel.clone() } else { self.names.resting(self.failed % SHARDS) };
        round.push(Call::new("PUBLISH", &node).arg(channel).arg(message.bytes()));
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        if matches!(answers.next(), Some(Err(Fault::Down)) | None) {
            (self.failed, self.again) = (self.failed.wrapping_add(1), now + AGAIN);
        } else {
            (self.failed, self.again) = (0, now);
            self.waiting.clear();
        }
    }

    fn due(&self) -> Option<Now> {
        (self.up && !self.waiting.is_empty()).then_some(self.again)
    }

    fn close(&mut self, round: &mut Round<'_>) {
        self.again = round.now;
        self.gather(round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::base::bell::Bell;
    use crate::cluster::connector::Connector;
    use crate::cluster::link::Link;
    use crate::cluster::testing::RedisCluster;
    use crate::cluster::wire::Reader;
    use crate::state::news::Kind;
    use crate::state::outbox::Outbox;
    use std::sync::Arc;

    const VOICE: Voice = Voice { epoch: 1, secret: [4; 32] };

    async fn round(part: &mut NewsOut, link: &mut Link) {
        let mut calls = Vec::new();
        part.gather(&mut Round::new(&mut calls, Clock::now(), link.is_up()));
        if !calls.is_empty() {
            let answers = link.round(&calls).await;
            part.settle(&mut answers.into_iter(), Clock::now());
        }
    }

    #[tokio::test]
    async fn every_node_of_a_redis_cluster_hands_on_and_one_that_is_down_is_passed_by() {
        let mut cluster = RedisCluster::start();
        let names = Names::new("t");
        let (herald, told) = Outbox::open(8, Arc::<Bell>::default());
        let mut part = NewsOut::new(names.clone(), VOICE, told);
        let connector = Connector::new(&cluster.url(), None).unwrap();
        let patience = Duration::from_secs(2);
        let mut link = Link::new(connector, "test", names.probe(), patience, Arc::default());
        let owner = cluster.owner("t:news");
        let mut ears = Vec::new();
        for node in &cluster.nodes {
            let mut way = Connector::new(&node.url(), None).unwrap().way("test");
            ears.push(way.subscription(&[&names.news()]).await);
        }
        for down in [false, true] {
            if down {
                // Nobody has noticed yet: the first try goes there.
                ears.remove(owner);
                cluster.nodes[owner].kill();
            }
            herald.tell(News::new(Kind::CATALOG, if down { &b"second"[..] } else { b"first" }));
            let told = async {
                loop {
                    tokio::select! {
                        _ = link.changed() => {}
                        () = tokio::time::sleep(Duration::from_millis(20)) => {}
                    }
                    round(&mut part, &mut link).await;
                    if part.waiting.is_empty() && part.up {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), told).await.expect("never published");
            for ear in &mut ears {
                let heard = tokio::time::timeout(Duration::from_secs(20), ear.next()).await;
                let message = heard.expect("one did not hear it").expect("it broke").payload;
                let said: Vec<_> = Reader::new(&message, &VOICE.secret).unwrap().flatten().collect();
                assert_eq!(said, [(Kind::CATALOG, if down { &b"second"[..] } else { b"first" })]);
            }
        }
    }
}
