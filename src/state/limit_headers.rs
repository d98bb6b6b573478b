//! Rate-limit headers: OpenAI's family and Anthropic's, from one decision's [`LimitHeaders`]. Pure text.

use crate::base::civil;
use crate::state::limiter::{LimitHeaders, Quota};
use std::time::Duration;

/// Whose headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; reset is a duration (`250ms`, `1s`, `6m0s`).
    OpenAi,
    /// `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`; reset is a UTC time (RFC 3339).
    Anthropic,
}

/// Names (lower case) of [`Family::OpenAi`], in the order of [`for_each`].
pub const OPENAI: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

/// Names of [`Family::Anthropic`], in the same order.
pub const ANTHROPIC: [&str; 6] = [
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
];

/// Hands each header of `family` that exists to `put`: the place of its name in that family's list, and its value.
/// Resets are rounded up, so that who waits that long is not refused. Allocates nothing. `unix_ms` is the wall time of
/// the decision.
pub fn for_each(headers: &LimitHeaders, family: Family, unix_ms: u64, mut put: impl FnMut(usize, &str)) {
    for (quota, first) in [(headers.requests, 0), (headers.tokens, 3)] {
        let Some(quota) = quota else { continue };
        let mut number = itoa::Buffer::new();
        put(first, number.format(quota.limit));
        put(first + 1, number.format(quota.remaining));
        put(first + 2, reset_text(&quota, family, unix_ms).as_str());
    }
}

/// `retry_after` as the value of `Retry-After`: whole seconds, rounded up, at least 1.
pub fn retry_after_seconds(retry_after: Duration) -> u64 {
    (retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1)
}

/// A short text on the stack, built by hand: `write!` costs five times as much. What does not fit is left out; 32
/// bytes hold the longest of either form.
#[derive(Default)]
struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    fn push(&mut self, ascii: &str) -> &mut Self {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + ascii.len()) {
            room.copy_from_slice(ascii.as_bytes());
            self.len += ascii.len();
        }
        self
    }

    fn number(&mut self, n: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(n))
    }

    /// The last two digits of `n`, then `after`.
    fn two(&mut self, n: u64, after: &str) -> &mut Self {
        let digits = [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
        self.push(std::str::from_utf8(&digits).unwrap_or_default()).push(after)
    }
}

fn reset_text(quota: &Quota, family: Family, unix_ms: u64) -> Text {
    let mut text = Text::default();
    match family {
        Family::OpenAi => duration(&mut text, quota.reset),
        Family::Anthropic => {
            let reset_ms = u64::try_from(quota.reset.as_millis()).unwrap_or(u64::MAX);
            rfc3339(&mut text, unix_ms.saturating_add(reset_ms).div_ceil(1_000));
        }
    }
    text
}

fn duration(text: &mut Text, reset: Duration) {
    let seconds = reset.as_secs();
    if seconds == 0 && reset.subsec_nanos() <= 999_000_000 {
        match reset.subsec_nanos().div_ceil(1_000_000) {
            0 => text.push("0s"),
            millis => text.number(millis.into()).push("ms"),
        };
        return;
    }
    let seconds = seconds.saturating_add(u64::from(reset.subsec_nanos() > 0));
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    if hours > 0 {
        text.number(hours).push("h");
    }
    if hours + minutes > 0 {
        text.number(minutes).push("m");
    }
    text.number(seconds % 60).push("s");
}

fn rfc3339(text: &mut Text, unix_seconds: u64) {
    // 9999-12-31T23:59:59Z: later years have no such text.
    let seconds = unix_seconds.min(253_402_300_799);
    let [year, month, day] = civil(seconds / 86_400);
    let (h, m, s) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    text.two(year / 100, "").two(year, "-").two(month, "-").two(day, "T").two(h, ":").two(m, ":").two(s, "Z");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(headers: &LimitHeaders, family: Family, unix_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let names = if family == Family::OpenAi { OPENAI } else { ANTHROPIC };
        for_each(headers, family, unix_ms, |which, value| lines.push(format!("{}: {value}", names[which])));
        lines
    }

    #[test]
    fn both_families_say_the_same_and_only_what_exists() {
        let requests = Quota { limit: 60, remaining: 59, reset: Duration::from_micros(999_001) };
        let tokens = Quota { limit: 10_000, remaining: 0, reset: Duration::from_secs(360) };
        let both = LimitHeaders { requests: Some(requests), tokens: Some(tokens) };
        assert_eq!(
            lines(&both, Family::OpenAi, 0),
            [
                "x-ratelimit-limit-requests: 60",
                "x-ratelimit-remaining-requests: 59",
                "x-ratelimit-reset-requests: 1s",
                "x-ratelimit-limit-tokens: 10000",
                "x-ratelimit-remaining-tokens: 0",
                "x-ratelimit-reset-tokens: 6m0s",
            ]
        );
        let only = LimitHeaders { requests: None, tokens: Some(tokens) };
        assert_eq!(
            lines(&only, Family::Anthropic, 1_709_164_799_500),
            [
                "anthropic-ratelimit-tokens-limit: 10000",
                "anthropic-ratelimit-tokens-remaining: 0",
                "anthropic-ratelimit-tokens-reset: 2024-02-29T00:06:00Z",
            ]
        );
        assert!(lines(&LimitHeaders::default(), Family::OpenAi, 0).is_empty());
    }

    #[test]
    fn times_are_written_as_people_write_them() {
        let spell = |seconds| {
            let mut text = Text::default();
            rfc3339(&mut text, seconds);
            text.as_str().to_owned()
        };
        assert_eq!(spell(0), "1970-01-01T00:00:00Z");
        assert_eq!(spell(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(spell(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(spell(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(spell(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(spell(u64::MAX), "9999-12-31T23:59:59Z");
        for (millis, expected) in
            [(0, "0s"), (20, "20ms"), (1_000, "1s"), (1_001, "2s"), (86_400, "1m27s"), (3_600_000, "1h0m0s")]
        {
            let mut text = Text::default();
            duration(&mut text, Duration::from_millis(millis));
            assert_eq!(text.as_str(), expected);
        }
        let mut text = Text::default();
        duration(&mut text, Duration::MAX);
        assert_eq!(text.as_str(), "5124095576030431h0m15s");
        assert_eq!(retry_after_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(retry_after_seconds(Duration::ZERO), 1);
    }
}
