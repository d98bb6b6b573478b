//! Reads one HTTP/1.1 reply to its end and judges whether it is whole.
//!
//! Must never read a socket or a clock. A reply that is cut short, badly framed or without its dialect's end mark is a
//! fault with a short label: counted as a failure, never as an answer.

use crate::wire::{Chunked, Fault, Framing, framing};

/// What must be true of the body for the reply to count as complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The framing's own end suffices.
    Framed,
    /// An event stream whose last event is `data: [DONE]`.
    Done,
    /// An event stream whose last event is `message_stop`.
    MessageStop,
}

/// One reply being read.
#[derive(Debug)]
pub(crate) struct Reply {
    phase: Phase,
    ending: Ending,
    status: u16,
    keep: bool,
    /// Body bytes seen.
    pub(crate) body: u64,
    tail: Tail,
    stamps: Option<Stamps>,
}

#[derive(Debug)]
enum Phase {
    Head,
    Length(u64),
    Chunked(Chunked),
    Done,
}

/// How far a reply has come after feeding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Not even the head is whole: nothing was consumed.
    Head,
    /// The head is whole, the body is not.
    Body,
    /// Complete.
    Done { status: u16, keep: bool },
}

impl Reply {
    /// A reply not yet begun; `stamped` collects the send times that a paced mock writes into its events.
    pub(crate) fn new(ending: Ending, stamped: bool) -> Self {
        Self {
            phase: Phase::Head,
            ending,
            status: 0,
            keep: true,
            body: 0,
            tail: Tail::default(),
            stamps: stamped.then(Stamps::default),
        }
    }

    /// Reads what `bytes` hold of this reply. Answers how many bytes it took and how far it came. Bytes of an
    /// incomplete head are left to the caller, who offers them again with more behind.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Progress), Fault> {
        let mut at = 0;
        if matches!(self.phase, Phase::Head) {
            let Some(head) = self.head(bytes)? else { return Ok((0, Progress::Head)) };
            at = head;
        }
        let (tail, stamps) = (&mut self.tail, &mut self.stamps);
        let watched = self.ending != Ending::Framed;
        let mut seen = 0;
        let mut payload = |piece: &[u8]| {
            seen += piece.len() as u64;
            if watched {
                tail.push(piece);
            }
            if let Some(stamps) = stamps {
                stamps.push(piece);
            }
        };
        let done = match &mut self.phase {
            Phase::Length(left) => {
                let take = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                payload(&bytes[at..at + take]);
                at += take;
                *left -= take as u64;
                *left == 0
            }
            Phase::Chunked(chunked) => {
                let (used, done) = chunked.feed(&bytes[at..], &mut payload)?;
                at += used;
                done
            }
            Phase::Head | Phase::Done => true,
        };
        self.body += seen;
        if !done {
            return Ok((at, Progress::Body));
        }
        self.phase = Phase::Done;
        // An error reply is judged by its status alone; the end mark belongs to streams that began.
        if (200..300).contains(&self.status) && !self.tail.ends(self.ending) {
            return Err("stream without its end mark");
        }
        Ok((at, Progress::Done { status: self.status, keep: self.keep }))
    }

    /// Send times (wall µs) that arrived since the last call.
    pub(crate) fn drain_stamps(&mut self, each: impl FnMut(u64)) {
        if let Some(stamps) = &mut self.stamps {
            stamps.found.drain(..).for_each(each);
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; 64];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, bytes, &mut headers)
            .map_err(|_| "bad reply head")?;
        let httparse::Status::Complete(used) = parsed else { return Ok(None) };
        self.status = response.code.unwrap_or(0);
        let (said, keep) = framing(response.headers)?;
        self.keep = keep;
        self.phase = match said {
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunked::default()),
            Framing::Unsaid => return Err("reply without framing"),
        };
        Ok(Some(used))
    }
}

/// The last bytes of a body, enough to recognise how a stream ended.
#[derive(Debug)]
struct Tail {
    bytes: [u8; Tail::SIZE],
    filled: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { bytes: [0; Self::SIZE], filled: 0 }
    }
}

impl Tail {
    const SIZE: usize = 64;

    fn push(&mut self, piece: &[u8]) {
        let piece = &piece[piece.len().saturating_sub(Self::SIZE)..];
        let keep = self.filled.min(Self::SIZE - piece.len());
        self.bytes.copy_within(self.filled - keep..self.filled, 0);
        self.bytes[keep..keep + piece.len()].copy_from_slice(piece);
        self.filled = keep + piece.len();
    }

    fn ends(&self, ending: Ending) -> bool {
        let tail = self.bytes[..self.filled].trim_ascii_end();
        match ending {
            Ending::Framed => true,
            Ending::Done => tail.ends_with(b"data: [DONE]") || tail.ends_with(b"data:[DONE]"),
            Ending::MessageStop => memchr::memmem::find(tail, b"message_stop").is_some() && tail.ends_with(b"}"),
        }
    }
}

/// Finds `"ts_<16 digits>` in a body cut anywhere.
#[derive(Debug, Default)]
struct Stamps {
    rest: Vec<u8>,
    found: Vec<u64>,
}

/// What the paced mock writes before the wall time of each event.
pub(crate) const STAMP: &[u8] = b"\"ts_";
/// Digits of that time: µs since 1970, good until the year 2286.
pub(crate) const STAMP_DIGITS: usize = 16;

impl Stamps {
    fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        let whole = STAMP.len() + STAMP_DIGITS;
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&self.rest[from..], STAMP).map(|at| at + from) {
            let Some(digits) = self.rest.get(at + STAMP.len()..at + whole) else {
                self.rest.drain(..at);
                return;
            };
            if let Some(stamp) = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) {
                self.found.push(stamp);
            }
            from = at + whole;
        }
        // Keep just enough to recognise a mark cut by this read.
        let keep = (self.rest.len() - from).min(STAMP.len() - 1);
        self.rest.drain(..self.rest.len() - keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], ending: Ending, cut: usize) -> Result<Progress, Fault> {
        let mut reply = Reply::new(ending, false);
        let (used, first) = reply.feed(&wire[..cut])?;
        if matches!(first, Progress::Done { .. }) { Ok(first) } else { Ok(reply.feed(&wire[used..])?.1) }
    }

    #[test]
    fn a_stream_ends_with_done_at_every_split() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            f\r\ndata: {\"a\":1}\n\n\r\n8\r\ndata: [D\r\n6\r\nONE]\n\n\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            let got = read(wire, Ending::Done, cut);
            assert_eq!(got, Ok(Progress::Done { status: 200, keep: true }), "cut {cut}");
        }
    }

    #[test]
    fn a_stream_cut_before_done_is_a_fault() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\ndata: {\"a\":1}\n\n\r\n0\r\n\r\n";
        assert_eq!(read(wire, Ending::Done, 3), Err("stream without its end mark"));
        assert!(read(wire, Ending::Framed, 3).is_ok());
    }

    #[test]
    fn done_inside_the_text_is_not_the_end() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\ndata: [DONE]\n\ndata: {\"more\":true}\n\n";
        assert_eq!(read(wire, Ending::Done, 0), Err("stream without its end mark"));
    }

    #[test]
    fn anthropic_ends_with_message_stop() {
        let body = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(read(wire.as_bytes(), Ending::MessageStop, 10).is_ok());
        assert!(read(wire.as_bytes(), Ending::Done, 10).is_err());
    }

    #[test]
    fn an_error_status_needs_no_end_mark() {
        let wire = b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        assert_eq!(read(wire, Ending::Done, 9), Ok(Progress::Done { status: 429, keep: false }));
    }

    #[test]
    fn a_reply_without_framing_is_refused() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\nhello", Ending::Framed, 0), Err("reply without framing"));
    }

    #[test]
    fn bytes_after_the_reply_are_left() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200";
        let (used, _) = Reply::new(Ending::Framed, false).feed(wire).unwrap();
        assert_eq!(&wire[used..], b"HTTP/1.1 200");
    }

    #[test]
    fn stamps_are_found_at_every_split() {
        let body = b"data: {\"f\":\"ts_1700000000000001\"}\n\ndata: {\"f\":\"ts_1700000000000002\"}\n\n";
        for cut in 0..body.len() {
            let mut stamps = Stamps::default();
            stamps.push(&body[..cut]);
            stamps.push(&body[cut..]);
            assert_eq!(stamps.found, [1_700_000_000_000_001, 1_700_000_000_000_002], "cut {cut}");
        }
    }
}
