//! What the others publish, on a connection of its own.
//!
//! Messages are lost while it is broken; so each time it stands, everything is read again (`resync`) and every listener
//! is told of a gap. A PING a second finds a connection that is dead without saying so. What can't be understood (a later
//! version, a kind nobody here listens to) is counted and skipped; own messages, too.

use super::codec::Names;
use super::resync::Progress;
use super::wire::{self, Reader};
use crate::base::Clock;
use crate::base::bell::Bell;
use crate::base::metrics::METRICS;
use crate::base::tasks::{Backoff, Drain, Phase};
use crate::state::catalog::Directory;
use crate::state::news::{Heard, Kind, Listener};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, PushKind, RedisResult, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bound on connecting and subscribing.
const CONNECT: Duration = Duration::from_secs(1);
/// How often the connection is asked whether it lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(1);
/// Messages that may wait here; more, and the connection counts as broken.
const WAITING: usize = 8192;

/// The subscription.
pub(super) struct Subscription {
    url: String,
    channel: Vec<u8>,
    epoch: u64,
    directory: Arc<Directory>,
    listeners: Vec<Listener>,
    progress: Arc<Progress>,
    /// Wakes the task that makes the rounds.
    bell: Arc<Bell>,
}

impl Subscription {
    pub(super) fn new(
        url: &str,
        names: &Names,
        epoch: u64,
        directory: Arc<Directory>,
        listeners: Vec<Listener>,
        progress: Arc<Progress>,
        bell: Arc<Bell>,
    ) -> Self {
        Self { url: url.to_owned(), channel: names.news(), epoch, directory, listeners, progress, bell }
    }

    /// Listens until shutdown's last phase.
    pub(super) async fn run(mut self, drain: Drain) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), self.epoch);
        let mut away = false;
        let end = drain.reached(Phase::Cut);
        tokio::pin!(end);
        loop {
            let standing = tokio::select! {
                standing = self.subscribe() => standing,
                () = &mut end => return,
            };
            if let Some((connection, mut pushed)) = standing {
                if std::mem::take(&mut away) {
                    tracing::info!("other instances are heard again");
                }
                backoff.reset();
                self.progress.subscribed();
                self.bell.ring();
                self.listeners.iter_mut().for_each(|listener| listener.hear(Heard::Gap));
                let alive = ping(connection);
                tokio::pin!(alive);
                loop {
                    let push = tokio::select! {
                        push = pushed.recv() => push,
                        () = &mut alive => break,
                        () = &mut end => return,
                    };
                    match push {
                        Some(PushInfo { kind: PushKind::Message, data }) => self.hear(&data),
                        Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => break,
                        Some(_) => {}
                    }
                }
            }
            self.progress.unsubscribed();
            if !std::mem::replace(&mut away, true) {
                tracing::warn!("other instances cannot be heard; their rests are read when they can");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.wait()) => {}
                () = &mut end => return,
            }
        }
    }

    async fn subscribe(&mut self) -> Option<(MultiplexedConnection, mpsc::Receiver<PushInfo>)> {
        let connecting = async {
            let (sender, pushed) = mpsc::channel(WAITING);
            let mut info = redis::IntoConnectionInfo::into_connection_info(self.url.as_str())?;
            info.redis.protocol = ProtocolVersion::RESP3;
            let config = AsyncConnectionConfig::new().set_push_sender(move |info| sender.try_send(info));
            let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
            connection.subscribe(&self.channel[..]).await?;
            RedisResult::Ok((connection, pushed))
        };
        tokio::time::timeout(CONNECT, connecting).await.ok()?.ok()
    }

    fn hear(&mut self, data: &[Value]) {
        let [_, Value::BulkString(message)] = data else { return };
        let now = Clock::now();
        let Some(reader) = Reader::new(message) else {
            METRICS.cluster_skipped.inc();
            return;
        };
        if reader.epoch == self.epoch {
            METRICS.cluster_own.inc();
            return;
        }
        METRICS.cluster_heard.inc();
        for entry in reader {
            let understood = entry.is_some_and(|(kind, body)| match kind {
                Kind::RESTS => wire::delta(body, now).map(|delta| self.directory.live().apply(&delta, now)).is_some(),
                _ => {
                    let mut listeners = self.listeners.iter_mut().filter(|listener| listener.kind == kind);
                    listeners.by_ref().map(|listener| listener.hear(Heard::News(body))).count() > 0
                }
            });
            if !understood {
                METRICS.cluster_skipped.inc();
            }
        }
    }
}

/// Returns when the connection is dead.
async fn ping(mut connection: MultiplexedConnection) {
    loop {
        tokio::time::sleep(PING).await;
        let ping = redis::cmd("PING");
        match tokio::time::timeout(PING, ping.query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
