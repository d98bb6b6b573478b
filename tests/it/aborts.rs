//! Half of 2,000 streams are left in the middle: no slot, no token and no memory may be lost with them.
//!
//! The debit is checked to the token although buckets refill all the while. The key's requests and tokens refill at one
//! rate from one moment on, so what has flowed into both is the same, whole parts and fractions: their *difference*
//! moves only by what was charged. That holds while neither is full. The key starts with a burst of 1 (full at one
//! request) and is then edited to a burst it never reaches; its tokens start with a debit larger than what flows in.

use crate::support::client::{self, Answer};
use crate::support::process::Process;
use crate::support::provider::{chat_events, dechunk};
use crate::support::{eventually, gateway};
use merido::base::Secret;
use merido::config::Settings;
use merido::store::rows::{KeySpec, LoggedRow, NewAccount};
use merido::store::{Store, StoreConfig};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

const STREAMS: u64 = 2_000;
const SEED: u64 = 20_260_731;
/// Requests and tokens per minute.
const RATE: u32 = 90_000;
/// More than flows in during 15 seconds.
const BALLAST: u64 = 25_000;
const WIDE_BURST: u32 = 1_000_000;
const PARALLEL: u32 = 32;
const BODY: &str = r#"{"model":"openai/gpt-4o-mini","stream":true,"max_tokens":9,"messages":[]}"#;
/// What the gateway takes this body's prompt for.
const PROMPT: u64 = (BODY.len() as u64).div_ceil(4);
const RESERVED: u64 = PROMPT + 9;

/// What the provider is to say, and where the client leaves.
#[derive(Clone, Copy, Debug)]
struct Plan {
    prompt: u64,
    words: u64,
    leave: Leave,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Leave {
    Never,
    /// Before the provider's head.
    Waiting,
    /// After so many words; so many bytes of the next one have come.
    After(u64, u64),
}

impl Plan {
    fn random(dice: &mut u64) -> Self {
        let words = 2 + roll(dice, 7);
        let leave = match roll(dice, 20) {
            0 => Leave::Waiting,
            1..10 => Leave::After(roll(dice, words), roll(dice, 100)),
            _ => Leave::Never,
        };
        Self { prompt: 5 + roll(dice, 20), words, leave }
    }

    fn header(&self) -> String {
        let (kind, after, bytes) = match self.leave {
            Leave::Never => (0, 0, 0),
            Leave::Waiting => (1, 0, 0),
            Leave::After(words, bytes) => (2, words, bytes),
        };
        format!("x-plan: {} {} {kind} {after} {bytes}\r\n", self.prompt, self.words)
    }

    fn read(head: &str) -> Self {
        let line = head.lines().find_map(|line| line.strip_prefix("x-plan: ")).unwrap();
        let n: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let leave = [Leave::Never, Leave::Waiting, Leave::After(n[3], n[4])][n[2] as usize];
        Self { prompt: n[0], words: n[1], leave }
    }

    /// The whole stream's events; usage as the last but one.
    fn events(&self) -> Vec<String> {
        let mut events = chat_events(&vec!["word "; self.words as usize], false);
        let usage = serde_json::json!({
            "object": "chat.completion.chunk", "choices": [],
            "usage": {
                "prompt_tokens": self.prompt, "completion_tokens": self.words,
                "total_tokens": self.prompt + self.words,
            },
        });
        events.insert(events.len() - 1, format!("data: {usage}\n\n"));
        events
    }
}

/// Tells clients that the provider has their request.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>);

impl Arrivals {
    fn watch(&self, name: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().insert(name.to_owned(), sender);
        receiver
    }

    fn tell(&self, head: &str) {
        let name = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        if let Some(sender) = self.0.lock().remove(name) {
            let _ = sender.send(());
        }
    }
}

/// Steele's split-and-mix.
fn roll(dice: &mut u64, sides: u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*dice ^ (*dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % sides
}

/// A request's head, body included, as far as this test sends any.
async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| Some(line.strip_prefix("content-length:")?.trim().parse::<usize>().unwrap()));
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        if socket.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
}

/// A provider that does what each request's plan says; after what a client is to leave at, it only waits.
async fn provide(listener: std::net::TcpListener, arrivals: Arrivals) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let arrivals = arrivals.clone();
        #[expect(clippy::disallowed_methods, reason = "a test's own provider")]
        tokio::spawn(async move {
            while let Some(head) = read_head(&mut socket).await {
                let plan = Plan::read(&head);
                arrivals.tell(&head);
                let mut wire = String::new();
                if plan.leave != Leave::Waiting {
                    wire.push_str(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
                    );
                }
                let mut events = plan.events();
                if let Leave::After(words, bytes) = plan.leave {
                    events.truncate(words as usize + 1);
                    events.last_mut().unwrap().truncate(bytes as usize);
                }
                if plan.leave != Leave::Waiting {
                    for event in events.iter().filter(|event| !event.is_empty()) {
                        wire.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
                    }
                }
                if plan.leave == Leave::Never {
                    wire.push_str("0\r\n\r\n");
                }
                let sent = socket.write_all(wire.as_bytes()).await;
                if plan.leave != Leave::Never || sent.is_err() {
                    let _ = socket.read_u8().await;
                    return;
                }
            }
        });
    }
}

/// One client: asks until it is let in, listens as long as its plan says, leaves.
async fn listen(gateway: SocketAddr, arrivals: Arrivals, key: Arc<str>, name: String, plan: Plan) {
    let head = format!("x-api-key: {key}\r\nx-request-id: {name}\r\n{}", plan.header());
    let request = client::post_bytes("/v1/chat/completions", &head, BODY.as_bytes());
    loop {
        let mut socket = TcpStream::connect(gateway).await.unwrap();
        let arrival = arrivals.watch(&name);
        socket.write_all(&request).await.unwrap();
        if plan.leave == Leave::Waiting {
            let mut byte = [0];
            tokio::select! {
                _ = arrival => return,
                _ = socket.read(&mut byte) => {} // a refusal
            }
        } else {
            let mut seen = Vec::new();
            let ended = |seen: &[u8]| {
                let text = String::from_utf8_lossy(seen);
                let (head, body) = text.split_once("\r\n\r\n")?;
                if !head.starts_with("HTTP/1.1 200") {
                    assert!(head.starts_with("HTTP/1.1 429"), "{text}");
                    return Some(false);
                }
                let over = match plan.leave {
                    Leave::After(words, _) => body.matches("\n\n").count() as u64 >= words,
                    _ => dechunk(body.as_bytes()).is_some(),
                };
                over.then_some(true)
            };
            let served = loop {
                if let Some(served) = ended(&seen) {
                    break served;
                }
                assert!(socket.read_buf(&mut seen).await.unwrap() > 0, "{name}: {}", String::from_utf8_lossy(&seen));
            };
            if served {
                return;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// One stream, heard to its end.
fn whole(process: &Process, key: &str, name: &str, body: &str, prompt: u64) -> Answer {
    let plan = Plan { prompt, words: 1, leave: Leave::Never };
    let head = format!("x-api-key: {key}\r\nx-request-id: {name}\r\n{}", plan.header());
    client::post(process.addr, "/v1/chat/completions", &head, body.as_bytes())
}

fn number(answer: &Answer, name: &str) -> i64 {
    answer.header(name).unwrap_or_else(|| panic!("{name} in {}", answer.head)).parse().unwrap()
}

/// Remaining tokens less remaining requests.
fn difference(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    number(answer, "x-ratelimit-remaining-tokens") - number(answer, "x-ratelimit-remaining-requests")
}

fn quiet(process: &Process) {
    eventually("nothing runs", || {
        client::get(process.addr, "/metrics", "").text().lines().any(|line| line == "merido_requests_running 0")
    });
}

#[test]
fn half_of_2000_streams_left_in_the_middle_lose_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (provider, arrivals) = (listener.local_addr().unwrap(), Arrivals::default());
    let told = arrivals.clone();
    std::thread::spawn(move || gateway::block_on(provide(listener, told)));

    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { data_dir: dir.path().to_owned(), ..Settings::default() };
    let store = Store::open(&StoreConfig::from(&settings)).unwrap();
    let account = NewAccount {
        provider: "openai".to_owned(),
        label: Some("a".to_owned()),
        base_url: Some(format!("http://{provider}/v1")),
        weight: 1,
        secret: Secret::new("sk"),
        define: None,
    };
    gateway::block_on(store.add_account(account)).unwrap();
    let limits = KeySpec {
        rpm: Some(RATE),
        tpm: Some(RATE),
        burst: Some(1),
        max_parallel: Some(PARALLEL),
        ..gateway::named("k")
    };
    let created = gateway::block_on(store.create_key(limits)).unwrap();
    let (id, key): (_, Arc<str>) = (created.info.id, created.plain.reveal().into());
    let data = dir.path().to_str().unwrap();
    let env = [
        ("MERIDO_DATA_DIR", data),
        ("MERIDO_WORKERS", "2"),
        ("MIMALLOC_PURGE_DELAY", "0"),
        ("MERIDO_LOG_ROWS_PER_SECOND", "100000"),
    ];
    let process = Process::start(dir.path(), &env);

    // From a burst of 1 to one that is never reached; the listing tells when the edit is known, and costs nothing.
    assert_eq!(whole(&process, &key, "before", BODY, 1).status, 200);
    let edit = |spec: &mut KeySpec| (spec.burst, spec.models) = (Some(WIDE_BURST), Some(vec!["openai/gpt-4o*".into()]));
    gateway::block_on(store.update_key(id, edit)).unwrap();
    let head = format!("x-api-key: {key}\r\n");
    eventually("the key has its new limits", || {
        let list = client::get(process.addr, "/v1/models", &head).json();
        list["data"].as_array().unwrap().iter().all(|model| model["id"].as_str().unwrap().starts_with("openai/gpt-4o"))
    });
    // The first request under the new burst was let in by the old one's balance: it is the beginning if both were full.
    // It reserves so much that the tokens can't be full again before it is settled.
    let large = BODY.replace("max_tokens\":9", "max_tokens\":4096");
    let begin = whole(&process, &key, "ballast", &large, BALLAST);
    assert_eq!(number(&begin, "x-ratelimit-remaining-requests"), 0, "{}", begin.head);
    assert_eq!(number(&begin, "x-ratelimit-remaining-tokens"), i64::from(RATE) - 4096 - large.len().div_ceil(4) as i64);

    // The storm, in two halves, so that memory can be compared.
    let mut dice = SEED;
    let plans: Vec<Plan> = (0..STREAMS).map(|_| Plan::random(&mut dice)).collect();
    let left = plans.iter().filter(|plan| plan.leave != Leave::Never).count() as u64;
    assert!(left.abs_diff(STREAMS / 2) < STREAMS / 20, "{left} of {STREAMS} leave");
    let mut resident = None;
    for half in plans.chunks(plans.len() / 2).enumerate() {
        let (round, plans) = half;
        gateway::block_on(async {
            let seats = Arc::new(Semaphore::new(PARALLEL as usize));
            let mut running = tokio::task::JoinSet::new();
            for (n, plan) in plans.iter().copied().enumerate() {
                let seat = Arc::clone(&seats).acquire_owned().await.unwrap();
                let (arrivals, key, addr) = (arrivals.clone(), Arc::clone(&key), process.addr);
                let name = format!("s-{}", round * plans.len() + n);
                running.spawn(async move {
                    listen(addr, arrivals, key, name, plan).await;
                    drop(seat);
                });
            }
            running.join_all().await;
        });
        quiet(&process);
        // Rows on their way to the store are memory, too.
        served(&store, (round + 1) * plans.len() + 2);
        resident.get_or_insert_with(|| process.resident_kb());
    }

    // Memory: allocators and the store breathe some megabytes, but what is lost never comes back: a read buffer for each
    // stream left would be 8 MB.
    let most = resident.unwrap() + (6 << 10);
    eventually("memory is what it was after the first half", || process.resident_kb() <= most);

    // Tokens: each row is right, and the bucket agrees with their sum.
    let end = whole(&process, &key, "end", BODY, 1);
    let rows = served(&store, STREAMS as usize + 3);
    for (n, plan) in plans.iter().enumerate() {
        let row = &rows[&format!("s-{n}")];
        let is = (row.tokens.prompt, row.tokens.completion, row.estimated, row.error.as_deref());
        let expected = match plan.leave {
            Leave::Never => (plan.prompt, plan.words, false, None),
            Leave::Waiting => (PROMPT, 0, true, Some("client_gone")),
            Leave::After(words, _) => (PROMPT, words, true, Some("client_gone")),
        };
        assert_eq!(is, expected, "stream {n}: {plan:?}");
    }
    let debit: u64 = rows
        .iter()
        .filter(|(name, _)| name.starts_with("s-") || *name == "ballast")
        .map(|(_, row)| row.tokens.prompt + row.tokens.completion)
        .sum();
    let (requests, tokens) = (STREAMS as i64 + 1, (debit + RESERVED) as i64);
    assert_eq!(difference(&end), i64::from(RATE) - tokens + requests, "ballast, streams and this one");
    assert!(number(&end, "x-ratelimit-remaining-tokens") < i64::from(RATE) - 1_000, "it never was full in between");

    // Slots: as many as ever may run at once, and not one more.
    quiet(&process);
    let stay = Plan { prompt: 1, words: 1, leave: Leave::After(0, 0) };
    let ask = || {
        let mut conn = client::Conn::open(process.addr);
        let head = format!("x-api-key: {key}\r\n{}", stay.header());
        conn.send(&client::post_bytes("/v1/chat/completions", &head, BODY.as_bytes()));
        let status = conn.read_until("\r\n\r\n")[9..12].to_owned();
        (conn, status)
    };
    let all: Vec<_> = (0..PARALLEL).map(|_| ask()).collect();
    assert!(all.iter().all(|(_, status)| status == "200"), "every slot is back");
    assert_eq!(ask().1, "429", "and there are no more of them");
    drop(all);
    quiet(&process);
}

/// The rows of requests that were let in, by the client's name for them.
fn served(store: &Store, count: usize) -> HashMap<String, LoggedRow> {
    let mut rows = HashMap::new();
    eventually("the rows", || {
        let all = gateway::block_on(store.log_rows(100_000)).unwrap();
        let named = |row: LoggedRow| Some((row.client_request_id.clone()?, row));
        rows = all.into_iter().filter(|row| row.status != 429).filter_map(named).collect();
        rows.len() >= count
    });
    rows
}
