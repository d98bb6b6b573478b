//! One connection of the mock: read a call whole, look its reply up, write it.
//!
//! Must never format a reply on the plain path or hold a body beyond its call. Malformed calls end the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::book::{Book, Route, Stream};
use super::counters::{self, Counters};
use crate::clock;
use crate::wire::{Chunked, Fault, Framing, framing};

/// What one core's connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: usize,
    pub(crate) counters: Arc<[Counters]>,
    pub(crate) book: Arc<Book>,
    pub(crate) latency: Duration,
    pub(crate) pace: Duration,
    /// The reply of `--status`, and every how many calls it is given.
    pub(crate) failure: Option<(Vec<u8>, u64)>,
}

/// Calls so far, over all cores: counted only while `--status` is on.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The largest call accepted, bytes.
const MOST: usize = 64 << 20;

/// Serves one connection until it closes.
pub(crate) async fn run(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let counters = &shared.counters[shared.core];
    counters.connection();
    let mut inbox = Inbox { bytes: vec![0; 16 << 10], filled: 0 };
    while let Some(call) = inbox.call(&mut stream).await {
        let Some(()) = answer(&mut stream, &shared, counters, &mut inbox, &call).await else { return };
        if !call.keep {
            return;
        }
        inbox.consume(call.end);
    }
}

/// One call, found whole in the inbox.
#[derive(Debug)]
struct Call {
    route: Route,
    streamed: bool,
    usage: bool,
    keep: bool,
    /// Where the next call begins in the inbox.
    end: usize,
}

/// Writes the reply. `None` when the connection is of no further use.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    shared: &Shared,
    counters: &Counters,
    inbox: &mut Inbox,
    call: &Call,
) -> Option<()> {
    if call.route == Route::Stats {
        let body = serde_json::to_string(&counters::sum(&shared.counters)).ok()?;
        let reply = super::book::json(200, &body, super::book::Tokens::default());
        return write(stream, &reply.wire).await;
    }
    counters.call();
    if !shared.latency.is_zero() && !inbox.sleep(stream, shared.latency).await {
        counters.aborted();
        return None;
    }
    if let Some((wire, every)) = &shared.failure
        && CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(*every)
    {
        counters.refused();
        return write(stream, wire).await;
    }
    if call.streamed
        && let Some(events) = shared.book.stream(call.route, call.usage)
    {
        counters.stream();
        counters.reported(events.tokens);
        let written = if shared.pace.is_zero() {
            write(stream, &events.burst).await
        } else {
            paced(stream, shared.pace, inbox, events).await
        };
        if written.is_none() {
            counters.aborted();
            counters.unreported(events.tokens);
        }
        return written;
    }
    let reply = shared.book.plain(call.route);
    if call.route == Route::Unknown {
        counters.refused();
    }
    // Counted first: who has read the reply must find it in the counters.
    counters.reported(reply.tokens);
    let written = write(stream, &reply.wire).await;
    if written.is_none() {
        counters.aborted();
        counters.unreported(reply.tokens);
    }
    written
}

/// One event per `pace`, each with its send time; head and first event leave together.
async fn paced(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    pace: Duration,
    inbox: &mut Inbox,
    events: &Stream,
) -> Option<()> {
    let mut frame = events.head.clone();
    let mut due = clock::now();
    for (index, event) in events.events.iter().enumerate() {
        if index > 0 {
            due += pace;
            if !inbox.sleep(stream, due.saturating_duration_since(clock::now())).await {
                return None;
            }
        }
        let start = frame.len();
        frame.extend_from_slice(&event.wire);
        if let Some(at) = event.stamp_at {
            stamp(&mut frame[start + at..], clock::wall_us());
        }
        write(stream, &frame).await?;
        frame.clear();
    }
    Some(())
}

/// Writes `time` as fixed-width digits.
fn stamp(place: &mut [u8], time: u64) {
    let mut left = time;
    for digit in place[..crate::generate::STAMP_DIGITS].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), wire: &[u8]) -> Option<()> {
    stream.write_all(wire).await.ok()?;
    // Nothing on a socket; on TLS this is what sends the last record.
    stream.flush().await.ok()
}

/// Bytes read and not yet used.
struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
}

impl Inbox {
    /// The next call, read whole. `None` at the end of the connection or when the call makes no sense.
    async fn call(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Option<Call> {
        loop {
            if self.filled > 0
                && let Some((mut call, head, length)) = self.head().ok()?
            {
                call.end = match length {
                    Framing::Chunked => self.chunked(stream, head).await?,
                    Framing::Length(length) => self.counted(stream, head, usize::try_from(length).ok()?).await?,
                    Framing::Unsaid => head,
                };
                let body = &self.bytes[head..call.end];
                call.streamed = call.route == Route::GeminiStream || says_true(body, b"\"stream\"");
                call.usage = call.streamed && says_true(body, b"\"include_usage\"");
                return Some(call);
            }
            self.more(stream).await?;
        }
    }

    /// The head, once it is whole: the call as far as it is known, where the body begins, how it is framed.
    fn head(&self) -> Result<Option<(Call, usize, Framing)>, Fault> {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; 64];
        let mut request = httparse::Request::new(&mut []);
        let parsed =
            request.parse_with_uninit_headers(&self.bytes[..self.filled], &mut headers).map_err(|_| "bad call head")?;
        let httparse::Status::Complete(head) = parsed else { return Ok(None) };
        let (framed, keep) = framing(request.headers)?;
        let route = route(request.path.unwrap_or_default());
        Ok(Some((Call { route, streamed: false, usage: false, keep, end: head }, head, framed)))
    }

    async fn counted(&mut self, stream: &mut (impl AsyncRead + Unpin), head: usize, length: usize) -> Option<usize> {
        let end = head.checked_add(length).filter(|end| *end <= MOST)?;
        while self.filled < end {
            self.more(stream).await?;
        }
        Some(end)
    }

    async fn chunked(&mut self, stream: &mut (impl AsyncRead + Unpin), head: usize) -> Option<usize> {
        let (mut reader, mut at) = (Chunked::default(), head);
        loop {
            let (used, done) = reader.feed(&self.bytes[at..self.filled], |_| ()).ok()?;
            at += used;
            if done {
                return Some(at);
            }
            self.more(stream).await?;
        }
    }

    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Option<()> {
        if self.filled == self.bytes.len() {
            let grown = (self.bytes.len() * 2).min(MOST);
            (grown > self.bytes.len()).then_some(())?;
            self.bytes.resize(grown, 0);
        }
        let read = stream.read(&mut self.bytes[self.filled..]).await.ok()?;
        self.filled += read;
        (read > 0).then_some(())
    }

    /// Sleeps, watching the client. False when it left.
    async fn sleep(&mut self, stream: &mut (impl AsyncRead + Unpin), time: Duration) -> bool {
        let sleep = tokio::time::sleep(time);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return true,
                more = self.more(stream) => if more.is_none() { return false },
            }
        }
    }

    fn consume(&mut self, end: usize) {
        self.bytes.copy_within(end..self.filled, 0);
        self.filled -= end;
    }
}

/// Whether `body` has this quoted name followed by `: true`. A text that quotes the same bytes fools it; load bodies
/// do not.
fn says_true(body: &[u8], name: &[u8]) -> bool {
    memmem::find(body, name).is_some_and(|at| {
        let rest = body[at + name.len()..].trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"true"))
    })
}

fn route(path: &str) -> Route {
    let path = path.split('?').next().unwrap_or_default();
    match path {
        "/v1/chat/completions" => Route::Chat,
        "/v1/completions" => Route::Completions,
        "/v1/responses" => Route::Responses,
        "/v1/embeddings" => Route::Embeddings,
        "/v1/models" => Route::Models,
        "/v1/messages" => Route::Messages,
        "/v1/messages/count_tokens" => Route::CountTokens,
        "/__mock/stats" => Route::Stats,
        _ if path.ends_with(":generateContent") => Route::Gemini,
        _ if path.ends_with(":streamGenerateContent") => Route::GeminiStream,
        _ if path.ends_with(":countTokens") => Route::CountTokens,
        _ => Route::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_flag_is_read_from_the_body() {
        assert!(says_true(br#"{"stream":true}"#, b"\"stream\""));
        assert!(says_true(b"{\"stream\" :\n true}", b"\"stream\""));
        assert!(!says_true(br#"{"stream":false}"#, b"\"stream\""));
        assert!(!says_true(br#"{"stream_options":{"include_usage":true}}"#, b"\"stream\""));
        assert!(says_true(br#"{"stream_options":{"include_usage": true}}"#, b"\"include_usage\""));
    }

    #[test]
    fn paths_name_their_dialect() {
        assert_eq!(route("/v1/chat/completions?x=1"), Route::Chat);
        assert_eq!(route("/v1beta/models/gemini-pro:streamGenerateContent?alt=sse"), Route::GeminiStream);
        assert_eq!(route("/v1/nothing"), Route::Unknown);
    }

    #[test]
    fn a_stamp_is_fixed_width() {
        let mut place = *b"xxxxxxxxxxxxxxxx!";
        stamp(&mut place, 1_700_000_000_000_042);
        assert_eq!(&place, b"1700000000000042!");
    }
}
