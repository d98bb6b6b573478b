//! The only place that reads time.
//!
//! `state/`, `routing/` and `dialect/` take a [`Now`]; they never ask for it. A `Now` is monotonic and means nothing
//! outside this process; whatever leaves the process (rows, events, tokens) carries Unix time instead.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since this process first asked for the time. Never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Now(u64);

/// Hands out [`Now`] and Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

/// Wall milliseconds less monotonic ones; 0: not looked at yet.
static WALL: AtomicU64 = AtomicU64::new(0);

#[expect(clippy::disallowed_methods, reason = "the one clock")]
static ANCHOR: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// Monotonic time, about 25 ns a call.
    pub fn now() -> Now {
        // An hour's head start, so that tests and code may look back from the first instant without underflow.
        Now(u64::try_from(ANCHOR.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(Now::HEAD_START))
    }

    /// Wall time in milliseconds since 1970. May jump; use it for what leaves the process only.
    #[expect(clippy::disallowed_methods, reason = "the one clock")]
    pub fn unix_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    /// The wall time of `now`, which is about now, by the offset last taken ([`Self::look_at_wall`]): saves a look at the
    /// second clock. Late to notice a jump of the wall clock by as much as the offset is old.
    pub fn unix_ms_at(now: Now) -> u64 {
        match WALL.load(Ordering::Relaxed) {
            0 => Self::unix_ms(),
            offset => now.as_nanos() / 1_000_000 + offset,
        }
    }

    /// Takes the offset between the two clocks anew. For the cores' tickers, at every tick.
    pub fn look_at_wall(now: Now) {
        WALL.store(Self::unix_ms().saturating_sub(now.as_nanos() / 1_000_000), Ordering::Relaxed);
    }

    /// Wall time in whole seconds since 1970.
    pub fn unix_seconds() -> u64 {
        Self::unix_ms() / 1000
    }

    /// Unix milliseconds as RFC 3339, UTC, with milliseconds: `2026-02-28T23:59:59.999Z`.
    pub fn rfc3339(unix_ms: u64) -> String {
        let [year, month, day] = civil(unix_ms / 86_400_000);
        let (hour, minute, second) = (unix_ms / 3_600_000 % 24, unix_ms / 60_000 % 60, unix_ms / 1_000 % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", unix_ms % 1_000)
    }
}

/// Year, month and day of the month of so many days after 1970-01-01. Pure arithmetic (Howard Hinnant's algorithm):
/// an era is 400 years of 146,097 days, and years begin in March, so that a leap day is the last of its year.
pub const fn civil(days: u64) -> [u64; 3] {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    [year_of_era + era * 400 + (month <= 2) as u64, month, day]
}

impl Now {
    const HEAD_START: u64 = 3_600_000_000_000;

    /// From nanoseconds; for tests and for state that stores times in atomics.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the process' anchor (less an hour).
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time from here to `later`; zero when it has passed.
    pub const fn until(self, later: Self) -> Duration {
        later.since(self)
    }

    /// Whole microseconds since `earlier`.
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }
}

impl std::ops::Add<Duration> for Now {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Now {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_across_leap_days_and_centuries() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_600_001, "2025-01-01T00:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Clock::rfc3339(ms), text);
        }
    }

    #[test]
    fn time_moves_forward_and_differences_never_underflow() {
        let a = Clock::now();
        let b = Clock::now();
        assert!(b >= a);
        assert_eq!(a.since(a + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((a + Duration::from_millis(5)).micros_since(a), 5_000);
        assert!((a - Duration::from_secs(60)).as_nanos() > 0, "looking back a minute from the first instant");
    }
}
