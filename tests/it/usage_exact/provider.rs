//! A provider in three dialects whose every answer counts differently, and who writes down what it reported.

use crate::support::provider::Seen;
use merido::state::usage::Tokens;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In every answer.
pub const WORD: &str = "lantern";
/// A prompt that holds this is streamed a few words and then nothing more.
pub const STAY_SILENT: &str = "Go on for ever";

/// Tokens as they were said, in one way of counting: prompts with their cached parts, completions with their reasoning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reported {
    pub requests: u64,
    pub prompt: u64,
    pub completion: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub reasoning: u64,
}

impl Reported {
    pub fn of(tokens: &Tokens) -> Self {
        let &Tokens { prompt, completion, cache_read, cache_write, reasoning } = tokens;
        Self { requests: 1, prompt, completion, cache_read, cache_write, reasoning }
    }

    pub fn plus(self, other: &Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            prompt: self.prompt + other.prompt,
            completion: self.completion + other.completion,
            cache_read: self.cache_read + other.cache_read,
            cache_write: self.cache_write + other.cache_write,
            reasoning: self.reasoning + other.reasoning,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    calls: u64,
    pub hung_up: u64,
    /// By provider, of answers that were written whole.
    whole: BTreeMap<&'static str, Reported>,
}

pub struct Meter {
    addr: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
}

impl Meter {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (ledger, stop) = (Arc::<Mutex<Ledger>>::default(), Arc::<AtomicBool>::default());
        let (book, end) = (Arc::clone(&ledger), Arc::clone(&stop));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let book = Arc::clone(&book);
                std::thread::spawn(move || serve(socket, &book));
            }
        });
        Self { addr, ledger, stop }
    }

    pub fn url(&self, base: &str) -> String {
        format!("http://{}{base}", self.addr)
    }

    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().clone()
    }

    pub fn calls(&self) -> u64 {
        self.ledger.lock().calls
    }

    /// What was reported in answers written whole, by one provider or all.
    pub fn whole(&self, provider: Option<&str>) -> Reported {
        let ledger = self.ledger.lock();
        let those = ledger.whole.iter().filter(|(name, _)| provider.is_none_or(|wanted| wanted == **name));
        those.fold(Reported::default(), |sum, (_, one)| sum.plus(one))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut socket: TcpStream, book: &Mutex<Ledger>) {
    socket.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some((path, body)) = request(&mut socket, &mut buffer) {
        let n = {
            let mut book = book.lock();
            book.calls += 1;
            book.calls
        };
        let (name, said, events) = answer(&path, &body, n);
        let silent = body.contains(STAY_SILENT);
        if write(&mut socket, &events, silent).is_err() || silent {
            wait_for_end(&mut socket);
            book.lock().hung_up += 1;
            return;
        }
        let mut book = book.lock();
        let sum = book.whole.entry(name).or_default();
        *sum = sum.plus(&said);
    }
}

/// Path and body of the next request.
fn request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, String)> {
    let mut piece = [0; 16 << 10];
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end + 4]).into_owned();
            let seen = Seen { head, body: Vec::new() };
            let length: usize = seen.header("content-length").map_or(0, |v| v.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                return Some((seen.line().split(' ').nth(1)?.to_owned(), body));
            }
        }
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    }
}

fn wait_for_end(socket: &mut TcpStream) {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(60)));
    let mut byte = [0];
    while matches!(socket.read(&mut byte), Ok(1..)) {}
}

/// One piece is a whole answer; several are events, of which a silent provider sends the first half.
fn write(socket: &mut TcpStream, pieces: &[String], silent: bool) -> std::io::Result<()> {
    if let [body] = pieces {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        return socket.write_all(format!("{head}{body}").as_bytes());
    }
    let mut wire =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let sent = if silent { pieces.len() / 2 } else { pieces.len() };
    for event in &pieces[..sent] {
        wire += &format!("{:x}\r\n{event}\r\n", event.len());
    }
    if !silent {
        wire += "0\r\n\r\n";
    }
    socket.write_all(wire.as_bytes())
}

/// Whose answer it is, what it reports, and the answer. The `n`-th call's numbers are its own.
fn answer(path: &str, body: &str, n: u64) -> (&'static str, Reported, Vec<String>) {
    let (prompt, completion) = (40 + n % 977, 10 + n % 311);
    let (cache_read, cache_write, reasoning) = (n % 17, n % 13, n % 7);
    let said = Reported { requests: 1, prompt, completion, cache_read, cache_write: 0, reasoning };
    let asked: Value = serde_json::from_str(body).unwrap();
    let stream = asked["stream"] == true;
    let text = format!("{WORD} {n} ");
    let usage = |names: [&str; 4]| {
        json!({
            names[0]: prompt, names[1]: completion, "total_tokens": prompt + completion,
            names[2]: {"cached_tokens": cache_read}, names[3]: {"reasoning_tokens": reasoning},
        })
    };
    if path.ends_with("/embeddings") {
        let said = Reported { requests: 1, prompt, ..Reported::default() };
        let whole = json!({
            "object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.25]}],
            "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
        });
        return ("openai", said, vec![whole.to_string()]);
    }
    if path.ends_with("/chat/completions") {
        let used = usage(["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"]);
        if !stream {
            let choice =
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
            let whole = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": used});
            return ("openai", said, vec![whole.to_string()]);
        }
        let chunk = |choices: Value, used: &Value| {
            let event = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, "usage": used});
            format!("data: {event}\n\n")
        };
        let delta = |delta: Value, end: Value| json!([{"index": 0, "delta": delta, "finish_reason": end}]);
        let mut events = vec![chunk(delta(json!({"role": "assistant", "content": ""}), Value::Null), &Value::Null)];
        events.extend((0..5).map(|_| chunk(delta(json!({"content": text}), Value::Null), &Value::Null)));
        events.push(chunk(delta(json!({}), json!("stop")), &Value::Null));
        assert_eq!(asked["stream_options"]["include_usage"], true, "the gateway asks for it where the client did not");
        events.push(chunk(json!([]), &used));
        events.push("data: [DONE]\n\n".to_owned());
        return ("openai", said, events);
    }
    if path.ends_with("/responses") {
        let used = usage(["input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"]);
        let part = json!({"type": "output_text", "text": text, "annotations": []});
        let item =
            json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]});
        let whole = json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [item], "usage": used});
        if !stream {
            return ("openai", said, vec![whole.to_string()]);
        }
        let event = |kind: &str, mut rest: Value| {
            rest["type"] = kind.into();
            format!("event: {kind}\ndata: {rest}\n\n")
        };
        let begun = json!({"id": "resp_1", "object": "response", "status": "in_progress", "model": "m", "output": []});
        let mut events = vec![event("response.created", json!({"response": begun}))];
        let delta = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": text});
        events.extend((0..5).map(|_| event("response.output_text.delta", delta.clone())));
        events.push(event("response.completed", json!({"response": whole})));
        return ("openai", said, events);
    }
    if path.ends_with("/messages") {
        let said = Reported { cache_write, reasoning: 0, ..said };
        let input = prompt - cache_read - cache_write;
        let used = |output: u64| json!({"input_tokens": input, "cache_read_input_tokens": cache_read, "cache_creation_input_tokens": cache_write, "output_tokens": output});
        let message = |content: Value, output: u64, stop: Value| json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": stop, "stop_sequence": null, "usage": used(output)});
        if !stream {
            let whole = message(json!([{"type": "text", "text": text}]), completion, json!("end_turn"));
            return ("anthropic", said, vec![whole.to_string()]);
        }
        let event = |kind: &str, mut rest: Value| {
            rest["type"] = kind.into();
            format!("event: {kind}\ndata: {rest}\n\n")
        };
        let mut events = vec![event("message_start", json!({"message": message(json!([]), 1, Value::Null)}))];
        events.push(event("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})));
        let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": text}});
        events.extend((0..5).map(|_| event("content_block_delta", delta.clone())));
        events.push(event("content_block_stop", json!({"index": 0})));
        let end = json!({"delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": completion}});
        events.push(event("message_delta", end));
        events.push(event("message_stop", json!({})));
        return ("anthropic", said, events);
    }
    assert!(path.contains("enerateContent"), "{path}");
    let used = json!({
        "promptTokenCount": prompt, "cachedContentTokenCount": cache_read, "candidatesTokenCount": completion - reasoning,
        "thoughtsTokenCount": reasoning, "totalTokenCount": prompt + completion,
    });
    let whole = |last: bool| {
        let mut candidate = json!({"content": {"role": "model", "parts": [{"text": text}]}, "index": 0});
        let mut one = json!({"modelVersion": "m"});
        if last {
            candidate["finishReason"] = "STOP".into();
            one["usageMetadata"] = used.clone();
        }
        one["candidates"] = json!([candidate]);
        one
    };
    if !path.contains(":stream") {
        return ("gemini", said, vec![whole(true).to_string()]);
    }
    let events = (0..6).map(|n| format!("data: {}\r\n\r\n", whole(n == 5))).collect();
    ("gemini", said, events)
}
