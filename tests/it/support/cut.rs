//! A wire to a server that a test can cut and mend: for one client of several.

use parking_lot::Mutex;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Passes bytes both ways until it is cut; then everything on it is reset, and whoever connects is turned away.
pub struct Wire {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cut: AtomicBool,
    stop: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// To the server at `to`.
    pub fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let inner = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if inner.stop.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { continue };
                let mut sockets = inner.sockets.lock();
                if inner.cut.load(Ordering::Acquire) {
                    continue;
                }
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    from.set_nodelay(true).unwrap();
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                sockets.extend([client, server]);
            }
        });
        Self { addr, shared }
    }

    /// `redis://…`.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Nothing passes from now on.
    pub fn cut(&self) {
        let mut sockets = self.shared.sockets.lock();
        self.shared.cut.store(true, Ordering::Release);
        for socket in sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whoever connects now gets through.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::Release);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.cut();
        let _ = TcpStream::connect(self.addr);
    }
}
