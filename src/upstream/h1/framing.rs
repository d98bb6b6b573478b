//! Where an answer's body ends: pure, bytes in, payload out.
//!
//! [`Framing::decode`] gets whatever one read brought and takes the framing out in place: the payload of all chunks
//! moves together, so that 33 events in one read leave as one piece. It keeps no byte and reads none beyond the body's
//! end. Strict on purpose: whoever reads a length otherwise than the sender meant it would take one answer's tail for
//! the next answer. Anything doubtful is an error, and the connection is not used again.

/// How many bytes of chunk extensions and of trailers are read over at most, each counted over a whole body.
pub const MAX_OVERHEAD: u32 = 16 * 1024;

/// Hex digits of one chunk's size; 2⁶⁴ − 1 has 16.
const MAX_DIGITS: u8 = 16;

/// How far a body has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(Chunked),
    /// Until the connection ends.
    UntilClose,
}

/// The state between two reads of a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunked {
    at: At,
    extensions: u32,
    trailers: u32,
}

/// What one call found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decoded {
    /// The payload now lies at `raw[start..end]`.
    pub start: usize,
    /// See `start`.
    pub end: usize,
    /// So many bytes of `raw` belong to the body and are done with. All of them unless the body ended.
    pub used: usize,
    /// The body ended within `used`.
    pub done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Size { value: u64, digits: u8 },
    SizeSpace { value: u64 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Framing {
    /// A chunked body before its first byte.
    pub const CHUNKED: Self = Self::Chunked(Chunked { at: At::NEXT, extensions: 0, trailers: 0 });

    /// No body.
    pub const EMPTY: Self = Self::Length(0);

    /// Whether the body has ended: nothing more belongs to it.
    pub const fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => matches!(chunked.at, At::Done),
            Self::UntilClose => false,
        }
    }

    /// Takes the framing out of `raw` and moves the payload together. What broke the rules otherwise; the state is of
    /// no use then.
    pub fn decode(&mut self, raw: &mut [u8]) -> Result<Decoded, &'static str> {
        match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(raw.len());
                *left -= used as u64;
                Ok(Decoded { start: 0, end: used, used, done: *left == 0 })
            }
            Self::UntilClose => Ok(Decoded { start: 0, end: raw.len(), used: raw.len(), done: false }),
            Self::Chunked(chunked) => chunked.decode(raw),
        }
    }
}

impl Chunked {
    fn decode(&mut self, raw: &mut [u8]) -> Result<Decoded, &'static str> {
        let (mut start, mut end) = (0, 0);
        let mut pos = 0;
        while pos < raw.len() && self.at != At::Done {
            if let At::Data { left } = self.at {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(raw.len() - pos);
                if start == end {
                    (start, end) = (pos, pos + take);
                } else {
                    raw.copy_within(pos..pos + take, end);
                    end += take;
                }
                pos += take;
                let left = left - take as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
            } else if let Some((value, used)) = plain(self.at, &raw[pos..]) {
                self.at = At::Data { left: value };
                pos += used;
            } else {
                self.at = self.step(raw[pos])?;
                pos += 1;
            }
        }
        Ok(Decoded { start, end, used: pos, done: self.at == At::Done })
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<At, &'static str> {
        Ok(match (self.at, byte) {
            (At::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return Err("chunk size too long");
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return Err("chunk size missing"),
            (At::Size { value, .. } | At::SizeSpace { value } | At::Extension { value }, b'\r') => At::SizeLf { value },
            (At::Size { value, .. } | At::SizeSpace { value }, b';') => At::Extension { value },
            (At::Size { value, .. } | At::SizeSpace { value }, b' ' | b'\t') => {
                Self::count(&mut self.extensions, "chunk extensions too long")?;
                At::SizeSpace { value }
            }
            (At::Size { .. } | At::SizeSpace { .. }, _) => return Err("bad chunk size"),
            (At::Extension { value }, _) if is_text(byte) => {
                Self::count(&mut self.extensions, "chunk extensions too long")?;
                At::Extension { value }
            }
            (At::Extension { .. }, _) => return Err("bad chunk extension"),
            (At::SizeLf { value: 0 } | At::TrailerLf, b'\n') => At::TrailerStart,
            (At::SizeLf { value }, b'\n') => At::Data { left: value },
            (At::SizeLf { .. }, _) => return Err("chunk size line without LF"),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::NEXT,
            (At::DataCr | At::DataLf, _) => return Err("chunk without CRLF at its end"),
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerStart | At::TrailerName, _) if is_token(byte) => {
                Self::count(&mut self.trailers, "trailers too long")?;
                At::TrailerName
            }
            (At::TrailerStart | At::TrailerName, _) => return Err("bad trailer name"),
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, _) if is_text(byte) => {
                Self::count(&mut self.trailers, "trailers too long")?;
                At::TrailerValue
            }
            (At::TrailerValue, _) => return Err("bad trailer value"),
            (At::TrailerLf, _) => return Err("trailer without LF"),
            (At::EndLf, b'\n') => At::Done,
            (At::EndLf, _) => return Err("last chunk without CRLF"),
            // Both are handled before; a body that is over takes no byte.
            (At::Data { .. } | At::Done, _) => return Err("byte after the body"),
        })
    }

    fn count(so_far: &mut u32, what: &'static str) -> Result<(), &'static str> {
        *so_far += 1;
        if *so_far > MAX_OVERHEAD { Err(what) } else { Ok(()) }
    }
}

impl At {
    const NEXT: Self = Self::Size { value: 0, digits: 0 };
}

/// What nearly all framing between two chunks is, read at a glance: the last one's CRLF, a size of at most seven digits
/// that is not 0, CRLF. `None` for everything else, errors too: [`Chunked::step`] knows.
fn plain(at: At, raw: &[u8]) -> Option<(u64, usize)> {
    let from = match at {
        At::NEXT => 0,
        At::DataCr if raw.starts_with(b"\r\n") => 2,
        _ => return None,
    };
    let mut value = 0;
    for (at, byte) in raw[from..].iter().enumerate().take(8) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if value > 0 && raw.get(from + at + 1) == Some(&b'\n') => return Some((value, from + at + 2)),
            _ => return None,
        };
        value = value << 4 | u64::from(digit);
    }
    None
}

/// A byte that may stand in a header's value: no control character but tab.
pub(super) const fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// A byte that may stand in a header's name.
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-'
        | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}
