//! Hears of changes as they are committed: one connection of its own that listens and rings the bell.
//!
//! It proves itself: after each connect it is notified by way of another connection, and when that does not come through
//! (a pooler in transaction mode swallows it) it says so once, leaves, and tries again much later. Not by way of its own:
//! there even such a pooler passes it on. Whatever was missed meanwhile is found by the refresher's own looking, and
//! every reconnect rings the bell.

use super::Postgres;
use super::call::BULK;
use super::connect::Driven;
use crate::base::tasks::{self, Backoff};
use crate::store::error::{Result, StoreError};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

/// A silent connection is asked whether it lives.
const ALIVE: Duration = Duration::from_secs(10);
/// For an answer to that, and for our own notification to come back.
const ANSWER: Duration = Duration::from_secs(5);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Where listening does not work it will hardly begin to.
const DEAF: Duration = Duration::from_secs(600);

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why listening ended.
enum End {
    /// The connection broke.
    Broken(StoreError),
    /// It stands, but nothing comes through.
    Deaf,
}

impl Postgres {
    /// Rings `bell` at every change that anybody commits, until the guard is dropped.
    pub(crate) fn listen(&self, bell: Arc<Notify>) -> Listening {
        let engine = self.clone();
        let work = async move {
            let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1, 0x6c69_7374);
            let mut said = false;
            loop {
                let ended = match engine.inner.link.connect().await {
                    Ok(driven) => engine.hear(driven, &bell, &mut backoff, &mut said).await,
                    Err(error) => End::Broken(error),
                };
                match ended {
                    // The refresher says that the store is away; here it would be said twice.
                    End::Broken(error) => {
                        tracing::debug!(%error, "not listening for changes; looking for them instead");
                        tokio::time::sleep(backoff.wait()).await;
                    }
                    End::Deaf => {
                        tracing::warn!(
                            "the database's notifications do not come through (a pooler?): changes are looked for"
                        );
                        tokio::time::sleep(DEAF).await;
                    }
                }
            }
        };
        Listening(tasks::spawn_on(&self.inner.runtime, "store listener", work))
    }

    async fn hear(
        &self,
        (client, mut connection): Driven,
        bell: &Notify,
        backoff: &mut Backoff,
        said: &mut bool,
    ) -> End {
        let (send, mut heard) = mpsc::channel::<()>(1);
        let drive = async {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    // Full: one that nobody took yet says the same.
                    Some(Ok(AsyncMessage::Notification(_))) => drop(send.try_send(())),
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return StoreError::from(e),
                    None => return StoreError::unavailable("the database closed the connection"),
                }
            }
        };
        let talk = async {
            within(client.batch_execute("LISTEN merido_catalog")).await?;
            self.run(BULK, |tx| async move { tx.batch("NOTIFY merido_catalog").await }).await?;
            if tokio::time::timeout(ANSWER, heard.recv()).await.is_err() {
                return Ok(());
            }
            backoff.reset();
            if !std::mem::replace(said, true) {
                tracing::debug!("listening for changes");
            }
            bell.notify_one();
            loop {
                match tokio::time::timeout(ALIVE, heard.recv()).await {
                    Ok(_) => bell.notify_one(),
                    Err(_) => within(client.batch_execute("")).await?,
                }
            }
        };
        tokio::select! {
            error = drive => End::Broken(error),
            done = talk => match done {
                Ok(()) => End::Deaf,
                Err(error) => End::Broken(error),
            },
        }
    }
}

async fn within(asked: impl Future<Output = Result<(), tokio_postgres::Error>>) -> Result<()> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::unavailable("the database does not answer")),
    }
}
