//! W3C trace context: taken over from the client's `traceparent`, or begun here, and handed on to the provider.
//!
//! Whoever began a trace decides whether it is kept; the ratio is for traces begun here. One that cannot be read is
//! nobody's: a new one begins. Ids are mixed from the request's own number, so they cost no random source.

use crate::base::RequestId;
use http::header::{HeaderMap, HeaderName};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a request is in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) struct Trace {
    /// The trace; never 0.
    pub(super) id: u128,
    /// Our span in it; never 0.
    pub(super) span: u64,
    /// The client's span; 0: there is none.
    pub(super) parent: u64,
    /// It is kept.
    pub(in crate::proxy) sampled: bool,
}

/// Begins traces.
#[derive(Debug)]
pub(super) struct Chooser {
    seed: u64,
    /// Traces begun here are kept when their mixed number lies below.
    below: u64,
}

impl Chooser {
    pub(super) fn new(ratio: f32, seed: u64) -> Self {
        let below = if ratio >= 1.0 { u64::MAX } else { (f64::from(ratio.max(0.0)) * u64::MAX as f64) as u64 };
        Self { seed, below }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn begin(&self, headers: &HeaderMap, id: RequestId) -> Trace {
        // The seed is the process' own, the number the request's: no two requests anywhere mix the same.
        let number = id.n.wrapping_mul(4);
        let mixed = |n: u64| mix(self.seed.wrapping_add(number.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let span = mixed(1).max(1);
        if let Some((id, parent, sampled)) = headers.get(&TRACEPARENT).and_then(|value| parse(value.as_bytes())) {
            return Trace { id, span, parent, sampled };
        }
        let (high, low) = (mixed(2), mixed(3).max(1));
        let sampled = self.below == u64::MAX || high < self.below;
        Trace { id: u128::from(high) << 64 | u128::from(low), span, parent: 0, sampled }
    }
}

impl Trace {
    /// `traceparent` for the provider: our span is its parent.
    pub(in crate::proxy) fn header(self) -> [u8; 55] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&mut out[3..35], self.id);
        hex(&mut out[36..52], u128::from(self.span));
        out[54] = if self.sampled { b'1' } else { b'0' };
        out
    }
}

/// `version-trace-parent-flags`: trace, parent, and whether it is kept.
fn parse(text: &[u8]) -> Option<(u128, u64, bool)> {
    // Later versions may append; this one's form is fixed.
    let fits = match text.get(..2)? {
        b"ff" => false,
        b"00" => text.len() == 55,
        _ => text.len() == 55 || text.get(55) == Some(&b'-'),
    };
    if !fits || [2, 35, 52].iter().any(|at| text.get(*at) != Some(&b'-')) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        let text = digits.iter().all(lower).then(|| std::str::from_utf8(digits).ok()).flatten()?;
        u128::from_str_radix(text, 16).ok()
    };
    number(0, 2)?;
    let (id, parent, flags) = (number(3, 35)?, number(36, 52)? as u64, number(53, 55)?);
    (id != 0 && parent != 0).then_some((id, parent, flags & 1 == 1))
}

fn hex(out: &mut [u8], mut number: u128) {
    for place in out.iter_mut().rev() {
        *place = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// `SplitMix64`'s last step: neighbours come out far apart.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn begin(chooser: &Chooser, header: &str, n: u64) -> Trace {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(&TRACEPARENT, header.parse().unwrap());
        }
        chooser.begin(&headers, RequestId { epoch: 5, n })
    }

    #[test]
    fn a_clients_trace_goes_on_with_our_span_and_its_decision() {
        let never = Chooser::new(0.0, 1);
        let trace = begin(&never, PARENT, 1);
        assert_eq!(
            (trace.id, trace.parent, trace.sampled),
            (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, true)
        );
        let header = String::from_utf8(trace.header().to_vec()).unwrap();
        assert!(header.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && header.ends_with("-01"));
        assert!(!header.contains("b7ad6b7169203331"), "the provider's parent is our span");
        assert_eq!(parse(header.as_bytes()), Some((trace.id, trace.span, true)));
        assert!(!begin(&Chooser::new(1.0, 1), &PARENT.replace("-01", "-00"), 1).sampled);
    }

    #[test]
    fn what_cannot_be_read_begins_a_new_one() {
        let always = Chooser::new(1.0, 1);
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c+b7ad6b7169203331-01",
        ] {
            let trace = begin(&always, bad, 1);
            assert_eq!((trace.parent, trace.sampled), (0, true), "{bad}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_ne!(begin(&always, later, 1).parent, 0, "a later version may append");
    }

    #[test]
    fn ids_differ_and_the_ratio_holds() {
        let quarter = Chooser::new(0.25, 0xfeed);
        let all: Vec<_> = (1..=10_000).map(|n| begin(&quarter, "", n)).collect();
        let kept = all.iter().filter(|trace| trace.sampled).count();
        assert!((2_300..2_700).contains(&kept), "{kept}");
        let ids: HashSet<_> = all.iter().flat_map(|trace| [trace.id, u128::from(trace.span)]).collect();
        assert_eq!(ids.len(), 20_000);
    }
}
