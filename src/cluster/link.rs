//! The rounds' way to Redis: one pipeline a server and round, all servers at once, and the knowledge who is there.
//!
//! A single server, or the nodes of a Redis Cluster: then each call goes to the node that has its key's slot, calls that
//! are sent elsewhere (MOVED, ASK) follow, and the map of slots is fetched anew. What is for a node that is down is
//! answered [`Fault::Down`] at once. Probing and fetching the map go on in [`Link::changed`], never before an answer.

use super::call::{Answer, Call, Fault};
use super::connector::Connector;
use super::node::{BACKOFF, Node, Patience, Probed};
use super::reply::Reply;
use super::slots::SlotMap;
use super::url::Address;
use crate::base::metrics::METRICS;
use crate::base::tasks::Backoff;
use crate::base::{Clock, Now};
use crate::state::reach::Reach;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How often a call is sent on to another node before it counts as unanswered. A slot that is moving to a node that does
/// not know the script takes four.
const HOPS: usize = 5;

/// The way to one Redis or one Redis Cluster.
pub(super) struct Link {
    connector: Connector,
    role: &'static str,
    /// In front of the probes' keys.
    probe: Vec<u8>,
    patience: Patience,
    /// Of a cluster in the order of the map's owners; others that calls were sent to come after them.
    nodes: Vec<Node>,
    map: Option<SlotMap>,
    fetch: Option<Fetch>,
    stale: bool,
    next_seed: usize,
    backoff: Backoff,
    reach: Arc<Reach>,
    barred: Option<Box<str>>,
}

type Fetch = Pin<Box<dyn Future<Output = Option<SlotMap>> + Send>>;

/// Something about the servers is different now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed {
    /// One came back, or was reached for the first time.
    pub(super) returned: bool,
}

impl Link {
    /// Connects when driven by [`Link::changed`]. `probe`: the key that probes write to; `patience`: bounds each round
    /// trip; `reach`: where it is published.
    pub(super) fn new(
        connector: Connector,
        role: &'static str,
        probe: Vec<u8>,
        patience: impl Into<Patience>,
        reach: Arc<Reach>,
    ) -> Self {
        let backoff = Backoff::new(BACKOFF.0, BACKOFF.1, Clock::now().as_nanos());
        let mut link = Self {
            connector,
            role,
            probe,
            patience: patience.into(),
            nodes: Vec::new(),
            map: None,
            fetch: None,
            stale: false,
            next_seed: 0,
            backoff,
            reach,
            barred: None,
        };
        if link.connector.target().is_cluster() {
            link.stale = true;
        } else {
            let address = link.connector.target().seeds[0].clone();
            link.add(address);
        }
        link
    }

    /// Whether calls go out to anybody.
    pub(super) fn is_up(&self) -> bool {
        self.nodes.iter().any(Node::is_up)
    }

    /// Whether every node there is takes calls, and who has what is known.
    #[cfg(test)]
    pub(super) fn is_whole(&self) -> bool {
        let known = self.map.is_some() || !self.connector.target().is_cluster();
        known && self.is_up() && self.nodes.iter().all(Node::is_up)
    }

    /// Says that nobody may use it, and why, although calls go out; or that all may again.
    pub(super) fn bar(&mut self, why: Option<Box<str>>) {
        if self.barred != why {
            self.barred = why;
            self.publish(Clock::now());
        }
    }

    /// Sends all of them; an answer for each, in order.
    pub(super) async fn round(&mut self, calls: &[Call]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = vec![Err(Fault::Down); calls.len()];
        // (call, node, asking)
        let mut todo: Vec<(usize, usize, bool)> = Vec::with_capacity(calls.len());
        todo.extend((0..calls.len()).filter_map(|n| Some((n, self.owner(&calls[n].key)?, false))));
        let began = Clock::now();
        for _ in 0..HOPS {
            if todo.is_empty() {
                break;
            }
            todo = self.hop(calls, &todo, &mut answers).await;
        }
        let now = Clock::now();
        let unanswered = answers.iter().filter(|&answer| *answer == Err(Fault::Down)).count();
        METRICS.redis_unanswered.add(unanswered as u64);
        if unanswered == 0 {
            self.reach.took(now.since(began));
        } else {
            self.publish(now);
        }
        answers
    }

    /// Asks those for a sign of life that gave none for a while.
    pub(super) async fn beat(&mut self) {
        let now = Clock::now();
        let beats: Vec<Option<Call>> =
            self.nodes.iter().map(|node| node.beat_due().is_some_and(|due| due <= now).then(|| node.beat())).collect();
        let asked = self.nodes.iter_mut().zip(&beats).filter_map(|(node, beat)| {
            let beat = beat.as_ref()?;
            Some(async move { node.trip(&[beat]).await })
        });
        all(asked.collect()).await;
        if beats.iter().any(Option::is_some) {
            self.publish(Clock::now());
        }
    }

    /// When the next sign of life is due.
    pub(super) fn beat_due(&self) -> Option<Now> {
        self.nodes.iter().filter_map(Node::beat_due).min()
    }

    /// Drives probes and the map's fetching; returns when something changed. May be dropped and called again.
    pub(super) async fn changed(&mut self) -> Changed {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Changed> {
        let mut changed = None;
        for node in &mut self.nodes {
            while let Poll::Ready(probed) = node.poll(cx) {
                let returned = probed == Probed::Returned;
                // It may be gone for good, and another have its slots.
                self.stale |= !returned && self.map.is_some();
                changed =
                    Some(Changed { returned: returned || changed.is_some_and(|so_far: Changed| so_far.returned) });
            }
        }
        if self.stale && self.fetch.is_none() {
            self.fetch = Some(self.fetch_map());
        }
        if let Some(fetch) = &mut self.fetch
            && let Poll::Ready(map) = fetch.as_mut().poll(cx)
        {
            self.fetch = None;
            self.stale = map.is_none();
            if let Some(map) = map {
                self.backoff.reset();
                self.adopt(map);
            }
            changed = changed.or(Some(Changed { returned: false }));
        }
        let Some(changed) = changed else { return Poll::Pending };
        self.publish(Clock::now());
        Poll::Ready(changed)
    }

    async fn hop(
        &mut self,
        calls: &[Call],
        todo: &[(usize, usize, bool)],
        answers: &mut [Answer],
    ) -> Vec<(usize, usize, bool)> {
        let asking = Call::new("ASKING", b"");
        let trips = self.nodes.iter_mut().enumerate().filter_map(|(index, node)| {
            let mine: Vec<_> = todo.iter().filter(|one| one.1 == index).collect();
            (!mine.is_empty()).then(|| {
                let mut sent = Vec::with_capacity(mine.len());
                for &&(n, _, ask) in &mine {
                    sent.extend(ask.then_some(&asking));
                    sent.push(&calls[n]);
                }
                async move { (mine, node.trip(&sent).await) }
            })
        });
        let mut on = Vec::new();
        for (mine, replies) in all(trips.collect()).await {
            let Some(replies) = replies else {
                self.stale |= self.map.is_some();
                continue;
            };
            let mut replies = replies.into_iter();
            for &(n, _, ask) in mine {
                if ask {
                    replies.next();
                }
                match replies.next() {
                    Some(Reply::Is(answer)) => answers[n] = answer,
                    Some(Reply::Elsewhere { at, asking }) => {
                        METRICS.redis_redirects.inc();
                        self.stale |= !asking;
                        on.extend(at.map(|at| (n, self.index(at), asking)));
                    }
                    Some(Reply::NoScript | Reply::Down(_)) | None => {}
                }
            }
        }
        on
    }

    fn owner(&self, key: &[u8]) -> Option<usize> {
        if key.is_empty() {
            return self.nodes.iter().position(Node::is_up);
        }
        match &self.map {
            Some(map) => map.owner(key),
            None => (!self.nodes.is_empty()).then_some(0),
        }
    }

    /// The node there, added when it is not known yet.
    fn index(&mut self, at: Address) -> usize {
        let known = self.nodes.iter().position(|node| *node.server().address() == at);
        known.unwrap_or_else(|| {
            self.add(at);
            self.nodes.len() - 1
        })
    }

    fn add(&mut self, address: Address) {
        let node = self.node(address, self.probe.clone());
        self.nodes.push(node);
    }

    fn node(&self, address: Address, probe: Vec<u8>) -> Node {
        Node::new(self.connector.server(address), self.role, probe, self.patience)
    }

    /// Nodes as the map has them; those known already stay as they are.
    fn adopt(&mut self, map: SlotMap) {
        if self.map.as_ref() == Some(&map) {
            // Others that calls were sent to stand after the owners: one that is gone would be missed for ever.
            let mut index = 0;
            self.nodes.retain(|node| {
                index += 1;
                index <= map.owners.len() || node.is_up()
            });
            return;
        }
        let mut known = std::mem::take(&mut self.nodes);
        for (index, address) in map.owners.iter().enumerate() {
            let there = known.iter().position(|node| node.server().address() == address);
            // In a slot of its own, or it would send its probes away unread.
            let probe = map.tag(index).map_or_else(Vec::new, |tag| format!(":{{{tag}}}").into_bytes());
            let probe = [&self.probe[..], &probe].concat();
            self.nodes.push(match there {
                Some(there) => known.swap_remove(there).probed_with(probe),
                None => self.node(address.clone(), probe),
            });
        }
        self.map = Some(map);
    }

    fn fetch_map(&mut self) -> Fetch {
        let mut known: Vec<Address> = self.nodes.iter().map(|node| node.server().address().clone()).collect();
        known.extend(self.connector.target().seeds.iter().cloned());
        let server = self.connector.server(known.swap_remove(self.next_seed % known.len()));
        self.next_seed = self.next_seed.wrapping_add(1);
        let wait = self.backoff.wait();
        let wait = if self.map.is_none() && self.next_seed == 1 { Duration::ZERO } else { wait };
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            Connector::slots(&server).await.ok()
        })
    }

    fn publish(&self, now: Now) {
        let lacking = if self.nodes.is_empty() {
            Some("no node of the Redis Cluster has been reached yet".to_owned())
        } else {
            self.nodes.iter().find_map(Node::lacking)
        };
        let usable = self.is_up() && self.barred.is_none();
        self.reach.set(usable, lacking.as_deref().or(self.barred.as_deref()), now);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Whoever drove it has ended, perhaps by a panic: nobody must wait for an answer any more.
        self.reach.set(false, Some("nobody serves it any more"), Clock::now());
    }
}

/// Waits for all of them at once.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|one| (Some(Box::pin(one)), None)).collect();
    std::future::poll_fn(|cx| {
        let mut ready = true;
        for (future, output) in &mut waiting {
            if let Some(running) = future {
                match running.as_mut().poll(cx) {
                    Poll::Ready(done) => (*future, *output) = (None, Some(done)),
                    Poll::Pending => ready = false,
                }
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "link_cluster_tests.rs"]
mod cluster_tests;
