//! Walks JSON where it lies: finds members and values without building a tree, without an allocation.
//!
//! The grammar is checked (structure, literals, numbers, terminated strings); what stands inside strings is not looked
//! at, so a body may still be refused by a provider. Depth is bounded and nothing recurses: hostile input costs one
//! pass and an error, never a stack. It never panics.

use std::ops::Range;

/// Nesting beyond this is refused. One more than `serde_json` takes, far more than any real request has.
pub(super) const MAX_DEPTH: u32 = 128;

/// What is wrong, and at which byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ScanError {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// A position within JSON text.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The members of one object, in order.
pub(super) struct Members<'a> {
    scan: Scanner<'a>,
    first: bool,
}

/// One member: the key's text between its quotes (escapes not resolved) and where the value stands.
pub(super) struct Member<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Range<usize>,
}

impl<'a> Members<'a> {
    /// The object that opens at or after `at` (white space may precede it).
    pub(super) fn open(bytes: &'a [u8], at: usize) -> Result<Self, ScanError> {
        let mut scan = Scanner { bytes, at };
        scan.space();
        scan.expect(b'{', "an object must open here")?;
        Ok(Self { scan, first: true })
    }

    /// The next member, or `None` when the object closed.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Member<'a>>, ScanError> {
        let scan = &mut self.scan;
        scan.space();
        match scan.byte() {
            Some(b'}') => {
                scan.at += 1;
                return Ok(None);
            }
            Some(b',') if !self.first => {
                scan.at += 1;
                scan.space();
            }
            Some(b'"') if self.first => {}
            _ => return Err(scan.error("a member, a comma or a closing brace must stand here")),
        }
        self.first = false;
        let key = scan.key()?;
        let start = scan.at;
        scan.value()?;
        Ok(Some(Member { key: scan.bytes.get(key).unwrap_or_default(), value: start..scan.at }))
    }

    /// Whether no member was met so far.
    pub(super) fn empty(&self) -> bool {
        self.first
    }

    /// Where the walk stands: right behind the closing brace once `next` gave `None`.
    pub(super) fn at(&self) -> usize {
        self.scan.at
    }
}

impl Scanner<'_> {
    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn error(&self, what: &'static str) -> ScanError {
        if self.at >= self.bytes.len() {
            return ScanError { what: "it ends too early", at: self.bytes.len() };
        }
        ScanError { what, at: self.at }
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), ScanError> {
        if self.byte() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.error(what))
    }

    /// A key with its colon and the white space around; gives the range between the quotes.
    #[inline]
    fn key(&mut self) -> Result<Range<usize>, ScanError> {
        let key = self.string()?;
        self.space();
        self.expect(b':', "a colon must follow the key")?;
        self.space();
        Ok(key)
    }

    /// A string; gives the range between the quotes.
    ///
    /// Looks for quotes only and counts the backslashes before each: prompts hold far more `\n` than `\"`. A run of
    /// backslashes is counted once, since it cannot reach across a quote; so the whole stays linear.
    #[inline]
    fn string(&mut self) -> Result<Range<usize>, ScanError> {
        self.expect(b'"', "a string must stand here")?;
        let start = self.at;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(quote) = memchr::memchr(b'"', rest).map(|n| self.at + n) else {
                return Err(ScanError { what: "a string is not closed", at: start.saturating_sub(1) });
            };
            self.at = quote + 1;
            let text = self.bytes.get(start..quote).unwrap_or_default();
            let backslashes = text.iter().rev().take_while(|b| **b == b'\\').count();
            if backslashes % 2 == 0 {
                return Ok(start..quote);
            }
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), ScanError> {
        if self.bytes.get(self.at..self.at + word.len()) == Some(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.error("no such literal"))
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("a digit must stand here")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), ScanError> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One whole value. The open containers are bits of one integer: 1 = object, 0 = array.
    fn value(&mut self) -> Result<(), ScanError> {
        let mut open: u128 = 0;
        let mut depth: u32 = 1; // the object the caller walks
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.space();
                    // `{` + 2 = `}` and `[` + 2 = `]`
                    if self.byte() == Some(bracket + 2) {
                        self.at += 1;
                    } else {
                        depth += 1;
                        if depth > MAX_DEPTH {
                            return Err(self.error("it is nested too deeply"));
                        }
                        open = open << 1 | u128::from(bracket == b'{');
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.error("a value must stand here")),
            }
            loop {
                if depth == 1 {
                    return Ok(());
                }
                self.space();
                let in_object = open & 1 == 1;
                match self.byte() {
                    Some(b',') => {
                        self.at += 1;
                        self.space();
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return Err(self.error("a comma or a closing bracket must stand here")),
                }
                self.at += 1;
                open >>= 1;
                depth -= 1;
            }
        }
    }
}

/// The number of closing brackets from `at` to the end that have no opening one, where `at` stands outside any
/// string; `None` when the text does not read so. Tells how deep a place near the end lies without a walk from the start.
pub(super) fn depth_to_end(bytes: &[u8], at: usize) -> Option<u32> {
    let mut scan = Scanner { bytes, at };
    let (mut open, mut closed) = (0_u32, 0_u32);
    while let Some(byte) = scan.byte() {
        match byte {
            b'"' => {
                scan.string().ok()?;
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' if open > 0 => open -= 1,
            b'}' | b']' => closed += 1,
            _ => {}
        }
        scan.at += 1;
    }
    (open == 0).then_some(closed)
}

/// Whether only white space stands from `at` on.
pub(super) fn only_space(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).unwrap_or_default().iter().all(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t'))
}

/// A whole, non-negative number: `128`, also `128.0` or `1e3` as some serializers write them.
pub(super) fn whole_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(n) = text.parse::<u64>() {
        return Some(n);
    }
    let n = text.parse::<f64>().ok()?;
    (n >= 0.0 && n.fract() == 0.0 && n.is_finite()).then_some(n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<(String, String)>, ScanError> {
        let mut members = Members::open(text.as_bytes(), 0)?;
        let mut found = Vec::new();
        while let Some(m) = members.next()? {
            found.push((String::from_utf8_lossy(m.key).into_owned(), text[m.value].to_owned()));
        }
        Ok(found)
    }

    #[test]
    fn members_come_with_their_values() {
        let found = keys(r#" { "a" : [1, {"b":"]}"}] ,"c\"":-1.5e+3 , "d":"\\", "e":{} } "#).unwrap();
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, [("a", r#"[1, {"b":"]}"}]"#), (r#"c\""#, "-1.5e+3"), ("d", r#""\\""#), ("e", "{}")]);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for bad in [
            "",
            "[",
            "{",
            r#"{"a""#,
            r#"{"a":"#,
            r#"{"a":1"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[}"#,
            r#"{"a":{]}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\"}"#,
            r#"{"a":nul"#,
            r"{a:1}",
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":{"b"}}"#,
        ] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nest = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n), "]".repeat(n));
        assert!(keys(&nest(127)).is_ok());
        assert!(keys(&nest(128)).is_err());
        assert!(keys(&nest(1_000_000)).is_err());
    }

    #[test]
    fn depth_is_told_from_the_end() {
        let text = br#"{"a":[{"u":1},"}]"],"z":{}}"#;
        let at = text.iter().position(|b| *b == b'1').unwrap();
        assert_eq!(depth_to_end(text, at), Some(3));
        assert_eq!(depth_to_end(br#"1,"unclosed"#, 0), None);
    }

    #[test]
    fn whole_numbers() {
        let cases: [(&[u8], Option<u64>); 7] = [
            (b"12", Some(12)),
            (b"12.0", Some(12)),
            (b"1e3", Some(1000)),
            (b"-1", None),
            (b"1.5", None),
            (b"", None),
            (b"99999999999999999999", Some(u64::MAX)),
        ];
        for (text, want) in cases {
            assert_eq!(whole_number(text), want);
        }
    }
}
