//! The only spawner. Every task has a name, a stop signal and somebody who waits for it.
//!
//! Shutdown has phases ([`Phase`]): *finish* lets model streams run on while idle connections and dashboards end;
//! *cut* ends the rest. A task learns of them from [`Drain`]; whoever started it waits on [`Tasks::wait`].
//! A task that panics is logged and counted; it takes no other with it.

use super::metrics::{GaugeGuard, METRICS};
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How far shutdown has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Serving.
    Run = 0,
    /// `/readyz` says 503, everything else goes on: load balancers look away first.
    LameDuck = 1,
    /// No new connections; idle ones close; streams of models run on.
    Finish = 2,
    /// Streams end now, with their dialect's own error event.
    Cut = 3,
}

/// Where shutdown stands: cheap to ask on the hot path, awaitable elsewhere.
#[derive(Clone, Debug)]
pub struct Drain {
    fast: Arc<AtomicU8>,
    slow: watch::Receiver<Phase>,
}

/// Moves the phase forward. Held by `app`.
#[derive(Debug)]
pub struct DrainSwitch {
    fast: Arc<AtomicU8>,
    slow: watch::Sender<Phase>,
}

impl DrainSwitch {
    /// A switch at [`Phase::Run`].
    pub fn new() -> Self {
        Self { fast: Arc::new(AtomicU8::new(0)), slow: watch::channel(Phase::Run).0 }
    }

    /// A view of it.
    pub fn drain(&self) -> Drain {
        Drain { fast: Arc::clone(&self.fast), slow: self.slow.subscribe() }
    }

    /// Moves forward to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.slow.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
                self.fast.store(phase as u8, Ordering::Release);
            }
            forward
        });
    }
}

impl Default for DrainSwitch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// One relaxed load.
    pub fn phase(&self) -> Phase {
        match self.fast.load(Ordering::Relaxed) {
            0 => Phase::Run,
            1 => Phase::LameDuck,
            2 => Phase::Finish,
            _ => Phase::Cut,
        }
    }

    /// Returns once `phase` (or a later one) is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut slow = self.slow.clone();
        // An error means that the switch is gone: the process is ending, which is every phase at once.
        let _ = slow.wait_for(|now| *now >= phase).await;
    }
}

/// Names, spawns and waits.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    running: Arc<Mutex<Vec<(&'static str, JoinHandle<()>)>>>,
}

impl Tasks {
    /// Spawns a named background task on `on`; [`Tasks::wait`] waits for it.
    pub fn spawn(&self, on: &Handle, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let task = spawn_on(on, name, work);
        let mut running = self.running.lock();
        running.retain(|(_, task)| !task.is_finished());
        running.push((name, task));
    }

    /// Waits for all of them, at most `patience` altogether; names of those that were still running then.
    pub async fn wait(&self, patience: Duration) -> Vec<&'static str> {
        let tasks = std::mem::take(&mut *self.running.lock());
        let mut late = Vec::new();
        let deadline = tokio::time::Instant::now() + patience;
        for (name, mut task) in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                late.push(name);
            }
        }
        late
    }

    /// How many still run.
    pub fn len(&self) -> usize {
        self.running.lock().iter().filter(|(_, task)| !task.is_finished()).count()
    }

    /// None runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Spawns one task whose owner keeps the handle (a connection, a leader of dedup). Panics are logged by name.
#[expect(clippy::disallowed_methods, reason = "the one spawner")]
pub fn spawn_on<T: Send + 'static>(
    on: &Handle,
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    on.spawn(Named { name, work: Box::pin(work), done: false, _counted: METRICS.tasks.guard() })
}

/// Spawns on the runtime this is called from.
pub fn spawn<T: Send + 'static>(name: &'static str, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    spawn_on(&Handle::current(), name, work)
}

/// Runs `work`, which computes for long or blocks, on a thread the runtime keeps for such. `None`: it panicked (logged).
/// Whoever calls it bounds how many run at once; it goes on when its caller is dropped.
#[expect(clippy::disallowed_methods, reason = "the one spawner")]
pub async fn blocking<T: Send + 'static>(name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    if done.is_err() {
        super::metrics::METRICS.task_panics.inc();
        tracing::error!(task = name, "a blocking task panicked or was not run; it ended alone");
    }
    done.ok()
}

/// A named OS thread: data cores, the store.
#[expect(clippy::disallowed_methods, reason = "the one spawner")]
pub fn thread(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(work)
}

/// Jittered exponential backoff: `base · 2ⁿ`, at most `cap`, each step between half and whole.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    step: u32,
    seed: u64,
}

impl Backoff {
    /// Starts at `base`.
    pub fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, step: 0, seed: seed | 1 }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let whole = self.base.saturating_mul(1u32.checked_shl(self.step.min(20)).unwrap_or(u32::MAX)).min(self.cap);
        self.step = self.step.saturating_add(1);
        // xorshift: jitter needs no better.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        whole / 2 + whole.mul_f64((self.seed >> 11) as f64 / (1u64 << 53) as f64) / 2
    }

    /// It went well: start over next time.
    pub fn reset(&mut self) {
        self.step = 0;
    }
}

struct Named<F> {
    name: &'static str,
    work: std::pin::Pin<Box<F>>,
    done: bool,
    _counted: GaugeGuard,
}

impl<F: Future> Future for Named<F> {
    type Output = F::Output;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<F::Output> {
        let polled = self.work.as_mut().poll(cx);
        self.done = polled.is_ready();
        polled
    }
}

impl<F> Drop for Named<F> {
    fn drop(&mut self) {
        if !self.done && std::thread::panicking() {
            METRICS.task_panics.inc();
            tracing::error!(task = self.name, "a task panicked; it ended alone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), 42);
        for n in 0..12u32 {
            let wait = backoff.wait();
            let whole = Duration::from_millis(100 << n.min(6)).min(Duration::from_secs(2));
            assert!(wait >= whole / 2 && wait <= whole, "step {n}: {wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }

    #[test]
    fn phases_only_move_forward() {
        let switch = DrainSwitch::new();
        let drain = switch.drain();
        switch.advance(Phase::Finish);
        switch.advance(Phase::LameDuck);
        assert_eq!(drain.phase(), Phase::Finish);
    }
}
