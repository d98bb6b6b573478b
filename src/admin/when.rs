//! Unix time as people and programs read and write it. Pure arithmetic.

use crate::base::Clock;

/// Unix milliseconds of a moment as a caller wrote it: RFC 3339 (`2026-01-02T03:04:05Z`, with an offset, or a date
/// alone), Unix milliseconds, or how long ago (`90s`, `15m`, `24h`, `7d`). `None`: none of these.
pub(super) fn parse(text: &str, now_ms: u64) -> Option<u64> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    if let Some(ms) = number(text) {
        return (ms < 1 << 50).then_some(ms);
    }
    for (unit, ms) in [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000u64)] {
        if let Some(count) = text.strip_suffix(unit).and_then(number) {
            return Some(now_ms.saturating_sub(count.saturating_mul(ms)));
        }
    }
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let day_ms = days(date)?.checked_mul(86_400_000)?;
    let Some(time) = time else { return Some(day_ms) };
    let (clock, offset_minutes) = if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        (clock, 0)
    } else {
        let (clock, offset) = time.split_at_checked(time.rfind(['+', '-'])?)?;
        let (hours, minutes) = offset.get(1..)?.split_once(':')?;
        let minutes = (two(hours, 23)? * 60 + two(minutes, 59)?).cast_signed();
        (clock, if offset.starts_with('-') { -minutes } else { minutes })
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let seconds = two(parts.next()?, 23)? * 3_600 + two(parts.next()?, 59)? * 60 + two(parts.next()?, 60)?;
    if parts.next().is_some() || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    (day_ms + seconds * 1_000 + millis).checked_add_signed(-offset_minutes * 60_000)
}

/// Exactly two digits, at most `most`.
fn two(text: &str, most: u64) -> Option<u64> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|n| *n <= most)
}

/// Days since 1970 of `YYYY-MM-DD`; `None` before that, and for a day that no calendar has.
fn days(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let year = parts.next().filter(|y| y.len() == 4 && y.bytes().all(|b| b.is_ascii_digit()))?.parse::<u64>().ok()?;
    let (month, day) = (two(parts.next()?, 12)?, two(parts.next()?, 31)?);
    if parts.next().is_some() || year < 1970 || month == 0 || day == 0 {
        return None;
    }
    // Years begin in March: then a leap day is the last of its year.
    let (year, march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let since = 365 * year + year / 4 - year / 100 + year / 400 + (153 * march + 2) / 5 + day - 1;
    let days = since.checked_sub(719_468)?;
    // Back again: the 30th of February would have become a day of March.
    Clock::rfc3339(days * 86_400_000).starts_with(date).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nonsense_is_not() {
        for ms in [0, 951_782_400_000, 1_709_251_199_999, 1_735_689_600_001, 4_107_542_400_000] {
            assert_eq!(parse(&Clock::rfc3339(ms), 0), Some(ms));
        }
        let now = 10 * 86_400_000;
        for (text, ms) in [
            ("2025-01-01", Some(1_735_689_600_000)),
            ("2025-01-01T02:00:00.5+02:00", Some(1_735_689_600_500)),
            ("2024-12-31T22:30:00-01:30", Some(1_735_689_600_000)),
            ("1735689600000", Some(1_735_689_600_000)),
            ("2d", Some(8 * 86_400_000)),
            ("90s", Some(now - 90_000)),
            ("999d", Some(0)),
        ] {
            assert_eq!(parse(text, now), ms, "{text}");
        }
        for text in [
            "",
            "d",
            "-1d",
            "2025-02-30",
            "2025-13-01",
            "2025-1-1",
            "2025-01-01T",
            "2025-01-01T00:00Z",
            "1969-12-31",
            "2025-01-01T00:00:00",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:00.Z",
            "é",
            "99999999999999999999",
            "2025-01-01T00:00:00+é1:00",
        ] {
            assert_eq!(parse(text, now), None, "{text}");
        }
    }
}
