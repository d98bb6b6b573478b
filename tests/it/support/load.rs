//! Requests at a steady pace over connections that are kept, until told to stop or the other end goes away.

use super::client::{Conn, post_bytes};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections, and as many requests at once at most.
pub const CONNECTIONS: u64 = 8;

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    began: Instant,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Answered with 200.
    pub done: u64,
    /// Answered otherwise.
    pub failed: u64,
    /// 200s a second.
    pub rate: u64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { done, failed, rate } = self;
        write!(f, "{done} answered, {failed} not, {rate} a second")
    }
}

impl Load {
    /// Chats with `addr`, no two alike, `rate` a second at most: what is late is not made up for.
    pub fn start(addr: SocketAddr, head: &str, rate: u64) -> Self {
        let shared = Arc::<Shared>::default();
        let threads = (0..CONNECTIONS).map(|thread| {
            let (shared, head) = (Arc::clone(&shared), head.to_owned());
            std::thread::spawn(move || run(&shared, Conn::open(addr), &head, thread, rate))
        });
        Self { threads: threads.collect(), shared, began: Instant::now() }
    }

    /// Answered with 200 so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits for so many more.
    #[track_caller]
    pub fn more(&self, count: u64) {
        let (start, goal) = (Instant::now(), self.done() + count);
        while self.done() < goal {
            assert!(start.elapsed() < Duration::from_secs(120), "{} of {goal} requests", self.done());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it: each request that was begun has ended.
    pub fn stop(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let (done, failed) = (&self.shared.done, &self.shared.failed);
        let (done, failed) = (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        Outcome { done, failed, rate: (done as f64 / self.began.elapsed().as_secs_f64()) as u64 }
    }
}

fn run(shared: &Shared, mut conn: Conn, head: &str, thread: u64, rate: u64) {
    let pause = Duration::from_secs(1) * CONNECTIONS as u32 / rate as u32;
    let mut next = Instant::now();
    for n in 0u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = Instant::now().max(next + pause);
        let content = format!("{thread} {n}");
        let body =
            serde_json::json!({"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": content}]});
        if !conn.try_send(&post_bytes("/v1/chat/completions", head, body.to_string().as_bytes())) {
            return;
        }
        let Some(answer) = conn.try_answer() else { return };
        let counter = if answer.status == 200 { &shared.done } else { &shared.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
