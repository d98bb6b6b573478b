//! Fills a running merido's catalog through its management API: keys, accounts and virtual models by the thousand.
//!
//! Must never talk to anything but the loopback port it is given. Several connections at once, since each change is
//! answered only when the instance goes by it. Any answer but 2xx is an error with the answer's text.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

/// Enough that waiting for one change costs the others nothing.
const CONNECTIONS: usize = 32;

/// Sends `count` bodies to `POST path`; the answers, in no particular order.
pub(super) fn post_many(
    port: u16,
    path: &str,
    count: usize,
    body: impl Fn(usize) -> Value + Sync,
) -> Result<Vec<Value>, String> {
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    let one = || -> Result<(), String> {
        let failed = |error: std::io::Error| format!("POST {path}: {error}");
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).map_err(failed)?);
        stream.get_ref().set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
        stream.get_ref().set_nodelay(true).map_err(failed)?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            let answer = exchange(&mut stream, path, &body(index).to_string()).map_err(failed)??;
            answers.lock().push(answer);
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..CONNECTIONS.min(count)).map(|_| scope.spawn(one)).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("a thread died".to_owned())))
    })?;
    Ok(answers.into_inner())
}

fn exchange(stream: &mut BufReader<TcpStream>, path: &str, body: &str) -> std::io::Result<Result<Value, String>> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
    let (mut line, mut first, mut length) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    if !first.contains(" 20") {
        return Ok(Err(format!("POST {path}: {} {text}", first.trim())));
    }
    Ok(serde_json::from_str(&text).map_err(|error| format!("POST {path}: {error}: {text}")))
}
