//! A way to a PostgreSQL server on which everything passes but notifications: as behind a pooler, only surer.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A running proxy; takes no new connection once its handle is dropped.
pub struct DeafWire {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl DeafWire {
    /// To the server behind that socket.
    pub fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, ended) = (listener.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let end = Arc::clone(&ended);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let _ = client.set_nodelay(true);
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                std::thread::spawn(move || {
                    let _ = answers(server, &client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { addr, ended }
    }

    /// The URL of a database by way of it.
    pub fn url(&self, database: &str) -> String {
        // Encrypted, it could not tell one message from another.
        format!("postgres://merido@{}/{database}?sslmode=disable", self.addr)
    }
}

impl Drop for DeafWire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
    }
}

/// Passes messages on (one byte of kind, four of length, itself included), but none of kind `A`.
fn answers(mut server: impl Read, mut client: &TcpStream) -> std::io::Result<()> {
    let mut waiting = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = server.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        waiting.extend_from_slice(&piece[..read]);
        let (mut at, mut passed) = (0, Vec::new());
        while let Some(length) = waiting.get(at + 1..at + 5) {
            let end = at + 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(message) = waiting.get(at..end) else { break };
            if message[0] != b'A' {
                passed.extend_from_slice(message);
            }
            at = end;
        }
        waiting.drain(..at);
        client.write_all(&passed)?;
    }
}
