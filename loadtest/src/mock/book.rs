//! Every reply the mock can give, built once as bytes ready for the wire.
//!
//! Must never be built per request: a reply is looked up, not formatted. Token numbers are fixed per book (the prompt
//! counts 210, a stream's completion one per content event), so a run's totals can be checked by multiplication.

use super::shapes;
use crate::generate::STAMP;

/// What a call asks for, from its path and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Models,
    Messages,
    CountTokens,
    Gemini,
    GeminiStream,
    Stats,
    Unknown,
}

/// Usage a reply reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
}

/// A plain reply: head and body in one piece.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) wire: Vec<u8>,
    pub(crate) tokens: Tokens,
}

/// An event stream: the head, each event framed as one HTTP chunk, and all of it in one piece for a burst.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) head: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) burst: Vec<u8>,
    pub(crate) tokens: Tokens,
}

/// One framed event and where the send time's digits go, if it has such a place.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) wire: Vec<u8>,
    pub(crate) stamp_at: Option<usize>,
}

/// All replies of one mock.
#[derive(Debug)]
pub(crate) struct Book {
    plain: Vec<(Route, Plain)>,
    streams: Vec<(Route, bool, Stream)>,
    unknown: Plain,
}

pub(crate) const PROMPT: u64 = 210;
pub(crate) const MODEL: &str = "gpt-4o-mini";
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    transfer-encoding: chunked\r\n\r\n";

impl Book {
    /// `stamped` leaves room for the send time in chat events; a burst does without.
    pub(crate) fn new(chunks: usize, reply_bytes: usize, stamped: bool) -> Self {
        let reply_tokens = (reply_bytes / 6).max(1) as u64;
        let used = Tokens { prompt: PROMPT, completion: reply_tokens };
        let filled = |shape: fn(&str, Tokens) -> String, tokens| {
            let envelope = shape("", tokens).len();
            json(200, &shape(&text(reply_bytes.saturating_sub(envelope)), tokens), tokens)
        };
        let prompt_only = Tokens { prompt: PROMPT, completion: 0 };
        let models = r#"{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1700000000,"owned_by":"mock"}]}"#;
        let plain = vec![
            (Route::Chat, filled(shapes::chat, used)),
            (Route::Completions, filled(shapes::completion, used)),
            (Route::Responses, filled(shapes::response, used)),
            (Route::Embeddings, json(200, &shapes::embedding(reply_bytes), prompt_only)),
            (Route::Models, json(200, models, Tokens::default())),
            (Route::Messages, filled(shapes::message, used)),
            (Route::CountTokens, json(200, &format!(r#"{{"input_tokens":{PROMPT}}}"#), Tokens::default())),
            (Route::Gemini, filled(shapes::gemini, used)),
        ];
        let streamed = Tokens { prompt: PROMPT, completion: chunks.saturating_sub(2).max(1) as u64 };
        let streams = vec![
            (Route::Chat, false, stream(shapes::chat_stream(chunks, stamped, None), Tokens::default())),
            (Route::Chat, true, stream(shapes::chat_stream(chunks, stamped, Some(streamed)), streamed)),
            (Route::Completions, false, stream(shapes::completion_stream(chunks, None), Tokens::default())),
            (Route::Completions, true, stream(shapes::completion_stream(chunks, Some(streamed)), streamed)),
            (Route::Responses, true, stream(shapes::response_stream(chunks, streamed), streamed)),
            (Route::Messages, true, stream(shapes::message_stream(chunks, streamed), streamed)),
            (Route::GeminiStream, true, stream(shapes::gemini_stream(chunks, streamed), streamed)),
        ];
        let unknown = json(404, r#"{"error":{"message":"no such path","type":"not_found"}}"#, Tokens::default());
        Self { plain, streams, unknown }
    }

    /// The plain reply for a route; 404 for one without.
    pub(crate) fn plain(&self, route: Route) -> &Plain {
        self.plain.iter().find(|(of, _)| *of == route).map_or(&self.unknown, |(_, reply)| reply)
    }

    /// The stream for a route, if it has one. `usage` chooses between the two forms where there are two.
    pub(crate) fn stream(&self, route: Route, usage: bool) -> Option<&Stream> {
        let fits = |of: Route, reports: bool| of == route && (reports == usage || !has_two_forms(of));
        self.streams.iter().find(|(of, reports, _)| fits(*of, *reports)).map(|(_, _, stream)| stream)
    }
}

fn has_two_forms(route: Route) -> bool {
    matches!(route, Route::Chat | Route::Completions)
}

/// The whole reply for `--status`.
pub(crate) fn failure(status: u16) -> Vec<u8> {
    let body =
        format!(r#"{{"type":"error","error":{{"message":"mock says {status}","type":"mock","code":{status}}}}}"#);
    json(status, &body, Tokens::default()).wire
}

pub(crate) fn json(status: u16, body: &str, tokens: Tokens) -> Plain {
    let retry = if status == 429 { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} Mock\r\ncontent-type: application/json\r\n{retry}content-length: {}\r\n\r\n",
        body.len()
    );
    Plain { wire: [head.as_bytes(), body.as_bytes()].concat(), tokens }
}

fn stream(events: Vec<String>, tokens: Tokens) -> Stream {
    let mut framed: Vec<Event> = events
        .into_iter()
        .map(|event| {
            let wire = format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
            let stamp_at = memchr::memmem::find(&wire, STAMP).map(|at| at + STAMP.len());
            Event { wire, stamp_at }
        })
        .collect();
    // The end of the body rides with the last event: a stream's last write is complete.
    if let Some(last) = framed.last_mut() {
        last.wire.extend_from_slice(b"0\r\n\r\n");
    }
    let mut burst = STREAM_HEAD.to_vec();
    for event in &framed {
        burst.extend_from_slice(&event.wire);
    }
    Stream { head: STREAM_HEAD.to_vec(), events: framed, burst, tokens }
}

pub(crate) fn text(length: usize) -> String {
    "lorem ipsum dolor sit amet ".chars().cycle().take(length).collect()
}
