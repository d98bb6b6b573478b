//! A TCP proxy that adds latency (not less bandwidth) to what comes back, as much as a test says at the moment.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running proxy. Ends with its handle; so do its connections.
pub struct SlowProxy {
    addr: SocketAddr,
    delay_ms: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl SlowProxy {
    /// In front of `to`, adding nothing yet.
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (delay_ms, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (delay, end) = (Arc::clone(&delay_ms), Arc::clone(&ended));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Acquire) {
                    return;
                }
                // A server that is away refuses; so does this one, a moment later.
                let Ok(server) = TcpStream::connect(to) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                pass(&client, &server, Arc::default(), &end);
                pass(&server, &client, Arc::clone(&delay), &end);
            }
        });
        Self { addr, delay_ms, ended }
    }

    /// A Redis URL by way of it.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// From now on every answer comes so much later.
    pub fn delay(&self, by: Duration) {
        self.delay_ms.store(by.as_millis() as u64, Ordering::Release);
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
    }
}

/// One direction: a thread that reads and stamps, and one that writes when it is time.
fn pass(from: &TcpStream, to: &TcpStream, delay_ms: Arc<AtomicU64>, ended: &Arc<AtomicBool>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    // An idle connection looks up now and then whether the proxy has ended.
    from.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (sender, stamped) = mpsc::channel::<(Instant, Vec<u8>)>();
    let ended = Arc::clone(ended);
    std::thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    let due = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Acquire));
                    if sender.send((due, piece[..read].to_vec())).is_err() {
                        return;
                    }
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in stamped {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
