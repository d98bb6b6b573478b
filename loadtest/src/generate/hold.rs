//! Many streams open at once: opens them step by step, keeps them open, and measures how late their events come.
//!
//! Must never count a stream that was lost as open: each step says how many are open and why others are not. One thread
//! serves them all; streams that are open when the last step is over are dropped, which is no failure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::reply::{Progress, Reply};
use super::tally::{Quantiles, histogram};
use super::{Requests, Stop};
use crate::clock;
use crate::wire::Fault;

/// What to hold.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) requests: Arc<Requests>,
    /// How many streams are open in each step, rising.
    pub(crate) steps: Vec<usize>,
    /// How long each step is watched once all its streams are open.
    pub(crate) watch: Duration,
    pub(crate) stop: Stop,
}

/// One step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    /// How many were to be open.
    pub(crate) wanted: usize,
    /// How many were at the end of the step.
    pub(crate) open: usize,
    /// Streams lost so far, by reason.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Events that came while it was watched.
    pub(crate) events: u64,
    /// Mock's write to generator's read, of those.
    pub(crate) event_delay: Quantiles,
}

/// Opened in a second, at most: a burst of connections would measure the listen queue.
const OPENED_PER_SECOND: u32 = 2000;
/// How long a step's streams may take to show their first event.
const PATIENCE: Duration = Duration::from_secs(30);

struct Shared {
    requests: Arc<Requests>,
    begun: AtomicU64,
    ended: AtomicU64,
    lost: Mutex<BTreeMap<String, u64>>,
    delays: Mutex<Histogram<u64>>,
}

impl Hold {
    /// Runs all steps; `look` is called at the end of each, while its streams are open. Refuses targets elsewhere.
    pub(crate) fn run(&self, mut look: impl FnMut(Held) -> Result<(), String>) -> Result<(), String> {
        if self.targets.is_empty() || self.targets.iter().any(|target| !target.ip().is_loopback()) {
            return Err("streams are held on loopback addresses only".to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| format!("generator: {error}"))?.block_on(self.all(&mut look))
    }

    async fn all(&self, look: &mut impl FnMut(Held) -> Result<(), String>) -> Result<(), String> {
        let shared = Arc::new(Shared {
            requests: Arc::clone(&self.requests),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            lost: Mutex::default(),
            delays: Mutex::new(histogram()),
        });
        let mut streams = JoinSet::new();
        for wanted in &self.steps {
            while streams.len() < *wanted {
                let index = streams.len();
                streams.spawn(stream(Arc::clone(&shared), self.targets[index % self.targets.len()], index));
                if index.is_multiple_of(20) {
                    tokio::time::sleep(Duration::from_secs(20) / OPENED_PER_SECOND).await;
                }
            }
            let asked_at = clock::now();
            while (shared.begun.load(Ordering::Relaxed) as usize) < *wanted && clock::now() - asked_at < PATIENCE {
                if self.stop.is_set() || shared.ended.load(Ordering::Relaxed) > 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            shared.delays.lock().reset();
            let until = clock::now() + self.watch;
            while clock::now() < until && !self.stop.is_set() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let delays = shared.delays.lock().clone();
            let open = shared.begun.load(Ordering::Relaxed).saturating_sub(shared.ended.load(Ordering::Relaxed));
            look(Held {
                wanted: *wanted,
                open: open as usize,
                lost: shared.lost.lock().clone(),
                events: delays.len(),
                event_delay: Quantiles::of(&delays),
            })?;
            if self.stop.is_set() {
                break;
            }
        }
        Ok(())
    }
}

async fn stream(shared: Arc<Shared>, target: SocketAddr, index: usize) {
    let mut open = false;
    let fault = read(&shared, target, index, &mut open).await.err().unwrap_or("ended by the server");
    *shared.lost.lock().entry(fault.to_owned()).or_default() += 1;
    if open {
        shared.ended.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read(shared: &Shared, target: SocketAddr, index: usize, open: &mut bool) -> Result<(), Fault> {
    let mut socket = TcpStream::connect(target).await.map_err(|_| "connection refused")?;
    socket.set_nodelay(true).map_err(|_| "connection reset")?;
    let mut patched = Vec::new();
    let (form, wire) = shared.requests.nth(index as u64, index, &mut patched);
    socket.write_all(wire).await.map_err(|_| "connection closed on write")?;
    let asked = shared.requests.form(form);
    let mut reply = Reply::new(asked.ending, asked.stamped);
    let mut buffer = vec![0; 4 << 10];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            return Err("reply head too long");
        }
        let read = socket.read(&mut buffer[filled..]).await.map_err(|_| "connection reset")?;
        if read == 0 {
            return Err("connection closed");
        }
        filled += read;
        let (_, progress) = reply.feed(&buffer[..filled])?;
        if !matches!(progress, Progress::Head) && !*open {
            *open = true;
            shared.begun.fetch_add(1, Ordering::Relaxed);
        }
        let wall = clock::wall_us();
        let mut delays = shared.delays.lock();
        reply.drain_stamps(|sent| delays.saturating_record(wall.saturating_sub(sent) * 1000 + 1));
        drop(delays);
        match progress {
            Progress::Done { status, .. } if (200..300).contains(&status) => return Ok(()),
            Progress::Done { .. } => return Err("refused"),
            Progress::Body => filled = 0,
            Progress::Head => {}
        }
    }
}
