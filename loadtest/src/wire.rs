//! HTTP/1.1 framing shared by the mock and the generator: chunked bodies and header lookups.
//!
//! Must never touch a socket: bytes in, facts out, so that every split of a stream can be tested.
//! Malformed framing is an `Err(Fault)`; the caller closes the connection and counts it.

/// Why a message could not be read to its end. The text is a counter's label, so it names a kind, never a value.
pub(crate) type Fault = &'static str;

/// Incremental reader of a chunked body. Feed it any split of the bytes; it hands the payload on in place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chunked {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Inside the size line: the value so far, how many digits, and whether an extension has begun.
    Size {
        value: u64,
        digits: u8,
        extension: bool,
    },
    /// Bytes of payload still to come in this chunk.
    Data(u64),
    /// The CR LF after a chunk's payload.
    AfterData,
    /// Trailer lines after the last chunk; `empty` until a byte other than CR was seen on this line.
    Trailer {
        empty: bool,
    },
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0, extension: false }
    }
}

impl Chunked {
    /// Reads `bytes`; calls `payload` for each piece of body. Answers how many bytes belong to this body and whether
    /// it ended there.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<(usize, bool), Fault> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Size { value, digits, extension } => {
                    let byte = bytes[at];
                    at += 1;
                    if byte == b'\n' {
                        if *digits == 0 {
                            return Err("chunk without a size");
                        }
                        self.state = if *value == 0 { State::Trailer { empty: true } } else { State::Data(*value) };
                    } else if *extension || byte == b'\r' {
                        *extension |= byte != b'\r';
                    } else if let Some(digit) = (byte as char).to_digit(16) {
                        *digits += 1;
                        if *digits > 15 {
                            return Err("chunk size too long");
                        }
                        *value = *value << 4 | u64::from(digit);
                    } else if matches!(byte, b';' | b' ' | b'\t') {
                        *extension = true;
                    } else {
                        return Err("bad chunk size");
                    }
                }
                State::Data(left) => {
                    let take = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    payload(&bytes[at..at + take]);
                    at += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::AfterData;
                    }
                }
                State::AfterData => {
                    let byte = bytes[at];
                    at += 1;
                    match byte {
                        b'\r' => {}
                        b'\n' => self.state = State::default(),
                        _ => return Err("chunk longer than its size"),
                    }
                }
                State::Trailer { empty } => {
                    let byte = bytes[at];
                    at += 1;
                    match byte {
                        b'\n' if *empty => {
                            self.state = State::Done;
                            return Ok((at, true));
                        }
                        b'\n' => *empty = true,
                        b'\r' => {}
                        _ => *empty = false,
                    }
                }
                State::Done => break,
            }
        }
        Ok((at, matches!(self.state, State::Done)))
    }
}

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// Neither given: no body on a request, "until close" on a reply.
    Unsaid,
}

/// Body framing and whether the connection may be kept, from parsed headers.
pub(crate) fn framing(headers: &[httparse::Header<'_>]) -> Result<(Framing, bool), Fault> {
    let mut framing = Framing::Unsaid;
    let mut keep = true;
    for header in headers {
        // Lengths first: most headers are told apart without comparing text.
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
                framing = Framing::Length(length.ok_or("bad content-length")?);
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                if header.value.eq_ignore_ascii_case(b"chunked") {
                    framing = Framing::Chunked;
                } else {
                    return Err("unknown transfer-encoding");
                }
            }
            10 if header.name.eq_ignore_ascii_case("connection") => {
                keep = !header.value.eq_ignore_ascii_case(b"close");
            }
            _ => {}
        }
    }
    Ok((framing, keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &[u8] = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\nNEXT";

    #[test]
    fn chunked_reads_the_same_at_every_split() {
        for cut in 0..WIRE.len() {
            let mut reader = Chunked::default();
            let mut body = Vec::new();
            let (first, done) = reader.feed(&WIRE[..cut], |piece| body.extend_from_slice(piece)).unwrap();
            let used = if done {
                first
            } else {
                let (second, done) = reader.feed(&WIRE[first..], |piece| body.extend_from_slice(piece)).unwrap();
                assert!(done, "cut {cut}");
                first + second
            };
            assert_eq!(body, b"hello world", "cut {cut}");
            assert_eq!(&WIRE[used..], b"NEXT", "cut {cut}");
        }
    }

    #[test]
    fn chunked_refuses_nonsense() {
        for bad in [&b"zz\r\n"[..], b"\r\n", b"1\r\nab", b"fffffffffffffffff\r\n"] {
            assert!(Chunked::default().feed(bad, |_| ()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        let (_, done) = Chunked::default().feed(b"5\r\nhello\r\n0\r\n", |_| ()).unwrap();
        assert!(!done);
    }

    #[test]
    fn framing_comes_from_headers() {
        let header = |name, value: &'static str| httparse::Header { name, value: value.as_bytes() };
        assert_eq!(framing(&[header("Content-Length", "12")]), Ok((Framing::Length(12), true)));
        let both = [header("transfer-encoding", "chunked"), header("CONNECTION", "Close")];
        assert_eq!(framing(&both), Ok((Framing::Chunked, false)));
        assert!(framing(&[header("content-length", "-1")]).is_err());
    }
}
