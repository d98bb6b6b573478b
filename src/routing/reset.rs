//! When a provider says that its limit ends: headers and bodies in each provider's own way of writing time.
//!
//! Everything here is somebody else's text: what cannot be read is ignored, what is absurd is clamped to [`LONGEST`].

use super::verdict::HeaderView;
use std::time::{Duration, UNIX_EPOCH};

/// No named rest is longer.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Limits as OpenAI, Groq and others name them: remaining, reset.
const FAMILIES: [(&str, &str); 8] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
    ("anthropic-ratelimit-unified-remaining", "anthropic-ratelimit-unified-reset"),
];

/// How long the headers ask us to stay away.
///
/// `retry-after-ms`, then `retry-after`; else the resets of the limits that are used up. When none says that it is:
/// those that do not tell, else the nearest. With `exhausted_only` (quota words: the ordinary limits' resets mean
/// nothing then) only a limit with nothing remaining counts.
pub fn named(headers: &dyn HeaderView, unix_ms: u64, exhausted_only: bool) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim);
    let millis = |text: &str| text.parse::<f64>().ok().and_then(|ms| span(ms / 1000.0));
    let direct =
        text("retry-after-ms").and_then(millis).or_else(|| text("retry-after").and_then(|t| moment(t, unix_ms)));
    if let Some(direct) = direct {
        return Some(direct);
    }
    let (mut used_up, mut unsaid, mut nearest) = (None, None, None);
    for (remaining, reset) in FAMILIES {
        let Some(reset) = text(reset).and_then(|t| moment(t, unix_ms)) else { continue };
        match text(remaining).and_then(|t| t.parse::<f64>().ok()) {
            Some(left) if left <= 0.0 => used_up = used_up.max(Some(reset)),
            Some(_) => nearest = Some(nearest.map_or(reset, |other: Duration| other.min(reset))),
            None => unsaid = unsaid.max(Some(reset)),
        }
    }
    if exhausted_only { used_up } else { used_up.or(unsaid).or(nearest) }
}

/// Time from now to what `text` names: seconds, a Go duration (`6m0s`), Unix time in seconds or milliseconds, an HTTP
/// date or an RFC 3339 one. `None` when it is none of them, or not in the future.
pub fn moment(text: &str, unix_ms: u64) -> Option<Duration> {
    let now = unix_ms as f64 / 1000.0;
    if let Ok(number) = text.parse::<f64>() {
        // Below 10⁹ (30 years of seconds, 2001 as a date) it can only be a span; from 10¹¹ on only milliseconds.
        return span(match number {
            n if n >= 1e11 => n / 1000.0 - now,
            n if n >= 1e9 => n - now,
            n => n,
        });
    }
    if let Some(seconds) = go_duration(text) {
        return span(seconds);
    }
    if let Some(at) = rfc3339(text) {
        return span(at - now);
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    span(date.as_secs_f64() - now)
}

/// `1h2m3.5s`, `20ms`, `59.7s`, `1d`: seconds.
pub fn go_duration(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() || rest.len() > 32 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "d" => 86_400.0,
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(total)
}

/// `2026-01-27T12:00:30.5Z` or with an offset: Unix seconds.
fn rfc3339(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 || bytes.len() > 40 {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = &text[from..to];
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let marks = bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't' | b' ');
    if !marks || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let zone = 19 + text[19..].find(['Z', 'z', '+', '-'])?;
    let fraction = if zone > 19 { format!("0{}", &text[19..zone]).parse::<f64>().ok()? } else { 0.0 };
    let offset = match bytes[zone] {
        b'Z' | b'z' if text.len() == zone + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == zone + 6 && bytes[zone + 3] == b':' => {
            let minutes = number(zone + 1, zone + 3)? * 60 + number(zone + 4, zone + 6)?;
            if sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // Days since 1970 of a Gregorian date; years start in March so that a leap day is the last of its year.
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + day_of_year - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - offset) as f64 + fraction)
}

/// A span worth waiting for: positive, finite, at most [`LONGEST`].
fn span(seconds: f64) -> Option<Duration> {
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-27T12:00:00Z.
    const NOW: u64 = 1_769_515_200_000;

    fn ms(headers: &[(&'static str, &'static str)], exhausted_only: bool) -> Option<u128> {
        named(&headers, NOW, exhausted_only).map(|d| d.as_millis())
    }

    #[test]
    fn every_way_of_writing_time() {
        for (text, want) in [
            ("2", 2_000),
            ("1.5", 1_500),
            ("6m0s", 360_000),
            ("1s", 1_000),
            ("20ms", 20),
            ("2m59.56s", 179_560),
            ("8h24m", 30_240_000),
            ("1d", 86_400_000),
            ("1769515260", 60_000),
            ("1769515260000", 60_000),
            ("Tue, 27 Jan 2026 12:00:30 GMT", 30_000),
            ("2026-01-27T12:00:30Z", 30_000),
            ("2026-01-27T12:00:30.250Z", 30_250),
            ("2026-01-27T14:00:30+02:00", 30_000),
            ("2026-01-27T07:00:30-05:00", 30_000),
            ("999999", 86_400_000),
            ("2031-01-01T00:00:00Z", 86_400_000),
        ] {
            assert_eq!(moment(text, NOW).map(|d| (d.as_secs_f64() * 1000.0).round() as u64), Some(want), "{text}");
        }
        assert_eq!(moment("2028-02-29T00:00:00Z", 1_835_308_800_000 - 86_400_000).map(|d| d.as_secs()), Some(86_400));
    }

    #[test]
    fn nonsense_and_the_past_are_ignored() {
        for text in [
            "",
            "-1",
            "0",
            "NaN",
            "inf",
            "soon",
            "1x",
            "s",
            "1.2.3s",
            "5m3",
            "1735689600",
            "2026-01-27T12:00:00Z",
            "2026-13-27T12:00:30Z",
            "2026-01-27T12:00:30",
            "2026-01-27T12:00:30+0200",
            "Tue, 27 Jan 1970",
            "\u{661}s",
            "2026-01-27T12:00:30é",
            "9999999999999999999999999999999999999s",
        ] {
            assert_eq!(moment(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn the_direct_word_goes_first_and_bad_ones_are_stepped_over() {
        assert_eq!(ms(&[("retry-after-ms", "1500"), ("retry-after", "9")], false), Some(1_500));
        assert_eq!(ms(&[("retry-after-ms", "x"), ("retry-after", "9")], false), Some(9_000));
        assert_eq!(ms(&[("retry-after", "bad"), ("x-ratelimit-reset-tokens", "7.5s")], false), Some(7_500));
        assert_eq!(ms(&[], false), None);
    }

    #[test]
    fn only_the_limit_that_is_used_up_counts() {
        let openai = [
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "8h24m0s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6s"),
        ];
        assert_eq!(ms(&openai, false), Some(6_000));
        assert_eq!(ms(&openai, true), Some(6_000));
        let anthropic = [
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-01-27T12:00:02Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-01-27T12:00:45Z"),
            ("anthropic-ratelimit-output-tokens-remaining", "8000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-01-27T12:05:00Z"),
        ];
        assert_eq!(ms(&anthropic, false), Some(45_000));
        // Nothing is used up (this request was too large for what is left): the nearest change.
        let left = [("x-ratelimit-remaining-tokens", "120"), ("x-ratelimit-reset-tokens", "6s")];
        assert_eq!((ms(&left, false), ms(&left, true)), (Some(6_000), None));
        let openrouter = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1769558400000")];
        assert_eq!(ms(&openrouter, true), Some(43_200_000));
    }
}
