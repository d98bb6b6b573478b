//! What a large store costs: the log and the totals read back (`logs`), a key among a million (`keys`), and a change's way
//! from one instance to another (`news`). Starts PostgreSQL and Redis of its own; everything is gone when it ends.
//!
//! ```text
//! cargo bench --bench store -- logs [--engine postgres|embedded] [--rows 10000000] [--wait]
//! cargo bench --bench store -- keys [--engine postgres|embedded] [--keys 1000000]
//! cargo bench --bench store -- news [--trips 50]
//! ```
//!
//! `logs` needs about 0.7 kB of disk a row, below the directory for temporary files. With `--wait` it waits for a line on
//! stdin once the rows are there, so that the machine can be made quiet first. Without a name it does each, small.

#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench")]
#![allow(clippy::disallowed_methods, reason = "measures from outside, by the wall clock")]

mod keys;
mod logs;
mod news;
mod rows;
#[allow(dead_code, unused_imports, clippy::pedantic, reason = "the tests' helpers, of which this uses some")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::client::Conn;
use support::process::Process;

const MASTER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// What was asked for.
struct Asked {
    what: Option<String>,
    engine: Option<String>,
    rows: Option<u64>,
    keys: Option<u64>,
    trips: usize,
    wait: bool,
}

fn main() {
    let asked = asked();
    let engines: Vec<&str> = match asked.engine.as_deref() {
        Some(engine @ ("postgres" | "embedded")) => vec![engine],
        None => vec!["postgres", "embedded"],
        Some(other) => panic!("no engine `{other}`: postgres or embedded"),
    };
    let small = asked.what.is_none();
    let does = |name| small || asked.what.as_deref() == Some(name);
    assert!(["logs", "keys", "news"].into_iter().any(does), "logs, keys or news");
    for engine in &engines {
        if does("logs") {
            logs::run(engine, asked.rows.unwrap_or(if small { 100_000 } else { 10_000_000 }), asked.wait);
        }
        if does("keys") {
            keys::run(engine, asked.keys.unwrap_or(if small { 10_000 } else { 1_000_000 }));
        }
    }
    if does("news") {
        news::run(if small { 5 } else { asked.trips });
    }
}

fn asked() -> Asked {
    let mut asked = Asked { what: None, engine: None, rows: None, keys: None, trips: 50, wait: false };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match &*word {
            "--engine" => asked.engine = Some(value()),
            "--rows" => asked.rows = Some(value().parse().unwrap()),
            "--keys" => asked.keys = Some(value().parse().unwrap()),
            "--trips" => asked.trips = value().parse().unwrap(),
            "--wait" => asked.wait = true,
            name => asked.what = Some(name.to_owned()),
        }
    }
    asked
}

/// Times taken, told as a line.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn tell(mut self, what: &str) {
        self.0.sort_unstable();
        let ms = |at: f64| self.0[((self.0.len() - 1) as f64 * at) as usize].as_secs_f64() * 1e3;
        println!("{what:<46} p50 {:>8.2} ms   p99 {:>8.2} ms   worst {:>8.2} ms", ms(0.5), ms(0.99), ms(1.0));
    }
}

/// `GET`s, one after another on one connection: the body of the last.
fn get(conn: &mut Conn, path: &str, head: &str) -> (u16, Duration, Vec<u8>) {
    let start = Instant::now();
    conn.send(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{head}\r\n").as_bytes());
    let answer = conn.answer();
    (answer.status, start.elapsed(), answer.body)
}

/// Waits until a key's holder is answered so on `gateway`: how long that took.
fn until(gateway: &Process, head: &str, status: u16) -> Duration {
    let (start, mut conn) = (Instant::now(), Conn::open(gateway.addr));
    while get(&mut conn, "/v1/models", head).0 != status {
        assert!(start.elapsed() < Duration::from_secs(30), "never {status}");
        std::thread::sleep(Duration::from_micros(200));
    }
    start.elapsed()
}

/// Makes a key by the API: its id, what its holder sends, and how long the making took.
fn make_key(gateway: &Process) -> (String, String, Duration) {
    let start = Instant::now();
    let made = support::client::request(gateway.addr, "POST", "/api/keys", "", &serde_json::json!({"name": "bench"}));
    assert_eq!(made.status, 201, "{}", made.text());
    let (took, made) = (start.elapsed(), made.json());
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    (text("id"), format!("authorization: Bearer {}\r\n", text("key")), took)
}

/// Revokes one by the API.
fn revoke(gateway: &Process, id: &str) {
    let path = format!("/api/keys/{id}");
    let gone = support::client::request(gateway.addr, "DELETE", &path, "", &serde_json::Value::Null);
    assert!(gone.status < 300, "{}", gone.text());
}
