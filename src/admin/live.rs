//! `GET /api/events`: the bus as server-sent events, as bytes; the socket is the caller's.
//!
//! Every frame carries the reader's whole position as its `id:`, so that `Last-Event-ID` resumes on any instance. A reader
//! that is too slow gets a `gap` event and goes on; it never holds up anybody. Owns no timer: it is polled with `now`,
//! and says when it wants to be polled next.

use super::live_json;
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::bus::{Bus, Cursor, Next, Position};
use bytes::Bytes;
use std::io::Write as _;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Silence after which a comment is sent, so that proxies and clients know the stream lives.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// A poll's bytes at most, nearly: a reader that catches up gets its events in pieces.
const PIECE: usize = 64 << 10;

/// How long a stream may wait, before its first byte, until the other instances' events are on their way too.
const OPEN: Duration = Duration::from_secs(1);

/// One reader's stream.
#[derive(Debug)]
pub struct EventStream {
    cursor: Cursor,
    instance: Arc<str>,
    beat: Now,
    opened: bool,
}

impl EventStream {
    /// A stream of all instances' events. `last_event_id`: the header of that name; one that cannot be read is ignored.
    pub fn new(bus: &Arc<Bus>, instance: Arc<str>, last_event_id: Option<&str>, now: Now) -> Self {
        let after = last_event_id.and_then(|id| Position::parse(id.trim()));
        Self { cursor: bus.subscribe(after.as_ref()), instance, beat: now + OPEN, opened: false }
    }

    /// The next bytes; the stream never ends by itself. Pending: woken by news; also poll it at [`Self::beat_due`].
    ///
    /// Whoever has read the first bytes sees all that happens from then on, wherever it happens: they wait (a round trip
    /// to Redis; at most [`OPEN`]) until the others' events are on their way.
    pub fn poll_next(&mut self, cx: &Context<'_>, now: Now) -> Poll<Bytes> {
        let mut out = Vec::new();
        if !self.opened {
            if now < self.beat && !self.cursor.ready(cx) {
                return Poll::Pending;
            }
            self.opened = true;
            self.cursor.open();
            // An id without data is no event, but from here on a reconnect resumes.
            let _ = write!(out, ": open\nretry: 1000\nid: {}\n\n", self.cursor.position());
        }
        while out.len() < PIECE {
            let Poll::Ready(next) = self.cursor.poll_next(cx) else { break };
            match next {
                Next::Event(_, item) => {
                    let event = item.view(&self.instance);
                    let _ = write!(out, "id: {}\nevent: {}\ndata: ", self.cursor.position(), event.kind());
                    live_json::write(&mut out, &event);
                    out.extend_from_slice(b"\n\n");
                }
                Next::Gap(missed) => {
                    METRICS.events_gaps.inc();
                    let id = self.cursor.position();
                    let _ = write!(out, "id: {id}\nevent: gap\ndata: {{\"missed\":{missed}}}\n\n");
                }
                Next::Wait => break,
            }
        }
        if out.is_empty() {
            if now < self.beat {
                return Poll::Pending;
            }
            self.cursor.give_up();
            out.extend_from_slice(b": beat\n\n");
        }
        self.cursor.prune(now);
        self.beat = now + HEARTBEAT;
        Poll::Ready(out.into())
    }

    /// When to poll at the latest.
    pub fn beat_due(&self) -> Now {
        self.beat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::RequestId;
    use crate::dialect::Dialect;
    use crate::state::bus::Event;
    use std::task::Waker;

    const NOW: Now = Now::from_nanos(1_000);

    fn emit(bus: &Bus, n: u64) {
        bus.emit_with(0, || Event {
            request: RequestId { epoch: 1, n },
            unix_ms: 0,
            client_request_id: None,
            key: None,
            dialect: Dialect::OpenAi,
            stream: true,
            requested_model: "a\nb".into(),
            account: None,
            model: None,
            done: None,
        });
        bus.collect(NOW);
    }

    fn text(stream: &mut EventStream, now: Now) -> Option<String> {
        match stream.poll_next(&Context::from_waker(Waker::noop()), now) {
            Poll::Ready(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn frames_carry_the_position_and_a_reconnect_misses_nothing() {
        let bus = Bus::new(0xab, 1);
        let mut stream = EventStream::new(&bus, "i".into(), Some(" cd.9 "), NOW);
        assert_eq!(text(&mut stream, NOW).as_deref(), Some(": open\nretry: 1000\nid: cd.9-ab.0\n\n"));
        assert_eq!(text(&mut stream, NOW), None);
        emit(&bus, 1);
        let frame = text(&mut stream, NOW).unwrap();
        assert!(frame.starts_with("id: cd.9-ab.1\nevent: started\ndata: {\"request_id\":\"req_"), "{frame}");
        assert!(frame.ends_with("}\n\n") && frame.lines().count() == 4, "one line of data: {frame}");
        drop(stream);
        emit(&bus, 2);
        let mut again = EventStream::new(&bus, "i".into(), Some("cd.9-ab.1"), NOW);
        let frame = text(&mut again, NOW).unwrap();
        assert!(frame.contains("id: cd.9-ab.2\nevent: started") && !frame.contains("gap"), "{frame}");
    }

    #[test]
    fn silence_is_broken_by_a_heartbeat_and_events_put_it_off() {
        let bus = Bus::new(1, 1);
        let mut stream = EventStream::new(&bus, "i".into(), Some("nonsense"), NOW);
        text(&mut stream, NOW);
        assert_eq!(text(&mut stream, NOW + HEARTBEAT / 2), None);
        emit(&bus, 1);
        assert!(text(&mut stream, NOW + HEARTBEAT / 2).is_some());
        assert_eq!(text(&mut stream, NOW + HEARTBEAT), None);
        assert_eq!(stream.beat_due(), NOW + HEARTBEAT / 2 + HEARTBEAT);
        let due = stream.beat_due();
        assert_eq!(text(&mut stream, due).as_deref(), Some(": beat\n\n"));
    }

    #[test]
    fn an_overtaken_reader_is_told() {
        let bus = Bus::with_sizes(1, 1, 64, 4);
        let mut stream = EventStream::new(&bus, "i".into(), None, NOW);
        (1..=10).for_each(|n| emit(&bus, n));
        let frames = text(&mut stream, NOW).unwrap();
        assert!(frames.contains("id: 1.6\nevent: gap\ndata: {\"missed\":6}\n\nid: 1.7\n"), "{frames}");
    }
}
