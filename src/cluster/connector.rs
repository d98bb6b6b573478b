//! Where connections come from: the servers with their pools, and [`Way`]s for what needs a connection of its own (the
//! event stream's blocking reads, the subscription). A way waits with jittered backoff until it has one, and logs only
//! that it was lost or found again.

use super::call::Call;
use super::conn::Conn;
use super::dial::{Held, Pushed, Server, tls_config};
use super::node::{BACKOFF, WELL};
use super::reply::Broken;
use super::slots::SlotMap;
use super::url::{Address, Target};
use crate::base::sync::Mutex;
use crate::base::tasks::Backoff;
use crate::base::{Clock, Now};
use redis::{PushKind, Value};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between PINGs of a subscription, and their bound.
const PING: Duration = Duration::from_secs(1);

/// Between two looks at whether a way is open again.
const LOOK: Duration = Duration::from_millis(20);

/// All servers of one Redis; cheap to clone.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    target: Arc<Target>,
    tls: Option<Arc<rustls::ClientConfig>>,
    servers: Mutex<Vec<Server>>,
}

/// The way to a connection of one's own, again and again.
pub(super) struct Way {
    connector: Connector,
    role: &'static str,
    known: Vec<Address>,
    next: usize,
    backoff: Backoff,
    not_before: Now,
    found: Option<Now>,
    told: Option<bool>,
}

/// A subscription: its connection does nothing else.
pub(super) struct Subscription {
    conn: Conn,
    pushed: Pushed,
    ping: Pin<Box<dyn Future<Output = bool> + Send>>,
}

/// Something published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) channel: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Connector {
    /// To the Redis at `url`. Connects to nothing yet. Errors do not quote the URL.
    pub(super) fn new(url: &str, extra_roots: Option<&Path>) -> Result<Self, String> {
        Self::of(Target::parse(url)?, extra_roots)
    }

    /// The same, whose connections can't be had and break while `alone` is set.
    pub(super) fn guarded(url: &str, extra_roots: Option<&Path>, alone: &Arc<AtomicBool>) -> Result<Self, String> {
        let mut target = Target::parse(url)?;
        target.alone = Arc::clone(alone);
        Self::of(target, extra_roots)
    }

    /// Whether this instance must keep away, whoever answers there.
    pub(super) fn alone(&self) -> &AtomicBool {
        &self.target().alone
    }

    fn of(target: Target, extra_roots: Option<&Path>) -> Result<Self, String> {
        let tls = if target.tls { Some(tls_config(extra_roots)?) } else { None };
        Ok(Self(Arc::new(Inner { target: Arc::new(target), tls, servers: Mutex::default() })))
    }

    /// The way to connections of their own for `role` (a word for the log).
    pub(super) fn way(&self, role: &'static str) -> Way {
        let now = Clock::now();
        Way {
            connector: self.clone(),
            role,
            known: self.target().seeds.clone(),
            next: 0,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1, now.as_nanos()),
            not_before: now,
            found: None,
            told: None,
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.0.target
    }

    /// The server there. All roles share its pool.
    pub(super) fn server(&self, address: Address) -> Server {
        let mut servers = self.0.servers.lock();
        if let Some(known) = servers.iter().find(|known| *known.address() == address) {
            return known.clone();
        }
        let server = Server::new(&self.0.target, self.0.tls.as_ref(), address);
        servers.push(server.clone());
        server
    }

    /// The map of slots, as that server has it.
    pub(super) async fn slots(server: &Server) -> Result<SlotMap, Broken> {
        let mut held = server.connection().await?;
        let asked = held.command(Call::new("CLUSTER", b"").arg("SLOTS"), super::dial::CONNECT).await?;
        let map = asked.ok().and_then(|reply| SlotMap::read(&reply, server.address()));
        map.ok_or_else(|| Broken::Unfit("it has no map of slots".to_owned()))
    }
}

impl Way {
    /// A connection to whoever has `key`; waits until there is one. Ask again when it broke. May be dropped meanwhile.
    pub(super) async fn connection(&mut self, key: &[u8]) -> Held {
        loop {
            self.pause().await;
            let found = self.find(key).await;
            if let Some(held) = self.noted(found) {
                return held;
            }
        }
    }

    /// A subscription to `channels`, confirmed; waits until there is one.
    #[cfg(test)]
    pub(super) async fn subscription(&mut self, channels: &[&[u8]]) -> Subscription {
        loop {
            if let Some(subscription) = self.try_subscription(channels).await {
                return subscription;
            }
        }
    }

    /// One try at a subscription to `channels`, in its time; confirmed. Ask again when it ended.
    pub(super) async fn try_subscription(&mut self, channels: &[&[u8]]) -> Option<Subscription> {
        self.pause().await;
        let found = self.subscribe(channels).await;
        self.noted(found)
    }

    async fn pause(&mut self) {
        let now = Clock::now();
        if let Some(found) = self.found.take() {
            // The last one broke.
            if self.told != Some(false) {
                tracing::warn!(role = self.role, "a connection to redis was lost");
                self.told = Some(false);
            }
            if now.since(found) >= WELL {
                self.backoff.reset();
            } else {
                self.not_before = now + self.backoff.wait();
            }
        }
        tokio::time::sleep(now.until(self.not_before)).await;
        while self.connector.target().alone.load(Ordering::Acquire) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn noted<T>(&mut self, found: Result<T, Broken>) -> Option<T> {
        let now = Clock::now();
        match found {
            Ok(found) => {
                if self.told == Some(false) {
                    tracing::info!(role = self.role, "connected to redis again");
                }
                (self.told, self.found) = (Some(true), Some(now));
                Some(found)
            }
            Err(why) => {
                if self.told.is_none() {
                    tracing::warn!(role = self.role, %why, "redis cannot be reached");
                    self.told = Some(false);
                }
                self.not_before = now + self.backoff.wait();
                None
            }
        }
    }

    async fn find(&mut self, key: &[u8]) -> Result<Held, Broken> {
        let server = self.next_server();
        if !self.connector.target().is_cluster() {
            return server.connection().await;
        }
        let map = Connector::slots(&server).await?;
        let owner = map.owner(key).map(|index| map.owners[index].clone());
        self.known = map.owners;
        let owner = owner.ok_or_else(|| Broken::Unfit("no node has the key's slot".to_owned()))?;
        self.connector.server(owner).connection().await
    }

    async fn subscribe(&mut self, channels: &[&[u8]]) -> Result<Subscription, Broken> {
        let server = self.next_server();
        let (mut conn, pushed) = server.listening().await?;
        if self.connector.target().is_cluster()
            && let Ok(map) = Connector::slots(&server).await
        {
            // Those named at the start may all go one day.
            self.known = map.owners;
        }
        for &channel in channels {
            // The confirmation is pushed, too; here only that there was one counts.
            let confirmed = conn.command(Call::new("SUBSCRIBE", b"").arg(channel), super::dial::CONNECT).await?;
            confirmed.map_err(|fault| Broken::Unfit(format!("{fault:?}")))?;
        }
        let ping = Box::pin(ping(&conn));
        Ok(Subscription { conn, pushed, ping })
    }

    /// One after the other, so that one that hangs does not keep us.
    fn next_server(&mut self) -> Server {
        let address = self.known[self.next % self.known.len()].clone();
        self.next = self.next.wrapping_add(1);
        self.connector.server(address)
    }
}

impl Subscription {
    /// The next message; `None`: it broke (noticed within 2 s by PING), or messages came faster than they were taken.
    /// Whatever was published since may be lost then: subscribe again and read everything anew. May be dropped.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if self.pushed.lost.load(Ordering::Acquire) {
                return None;
            }
            tokio::select! {
                biased;
                info = self.pushed.receiver.recv() => {
                    let info = info?;
                    match (info.kind, <[Value; 2]>::try_from(info.data)) {
                        (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(payload)])) => {
                            return Some(Message { channel, payload });
                        }
                        (PushKind::Disconnection, _) => return None,
                        _ => {}
                    }
                }
                alive = &mut self.ping => {
                    if !alive {
                        return None;
                    }
                    self.ping = Box::pin(ping(&self.conn));
                }
            }
        }
    }
}

fn ping(conn: &Conn) -> impl Future<Output = bool> + Send + use<> {
    let asking = conn.ping(PING);
    async move {
        tokio::time::sleep(PING).await;
        asking.await
    }
}
