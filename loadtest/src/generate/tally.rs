//! What a run counted: answers, failures by reason, latencies.
//!
//! Must never lose a request: each begun one ends as answered, abandoned or failed. Latencies beyond a minute are
//! recorded as a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::wire::Fault;

const MINUTE_NS: u64 = 60_000_000_000;

/// One thread's counts.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    answered: u64,
    abandoned: u64,
    bytes: u64,
    failed: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    first_byte: Histogram<u64>,
    event_delay: Histogram<u64>,
    /// Latency of each form of a mix; empty slots cost nothing.
    forms: Vec<Option<Histogram<u64>>>,
}

pub(super) fn histogram() -> Histogram<u64> {
    // Three digits from 1 ns to a minute. The bounds are constants, so the fallback is never taken.
    Histogram::new_with_bounds(1, MINUTE_NS, 3).unwrap_or_else(|_| Histogram::new_from(&auto()))
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            answered: 0,
            abandoned: 0,
            bytes: 0,
            failed: BTreeMap::new(),
            latency: histogram(),
            first_byte: histogram(),
            event_delay: histogram(),
            forms: Vec::new(),
        }
    }
}

#[expect(clippy::expect_used, reason = "three digits are within what the crate accepts")]
fn auto() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

impl Tally {
    /// A complete 2xx reply to a request of that form, of so many body bytes.
    pub(crate) fn answered(&mut self, form: usize, latency: Duration, first_byte: Duration, bytes: u64) {
        self.answered += 1;
        self.bytes += bytes;
        self.latency.saturating_record(nanos(latency));
        self.first_byte.saturating_record(nanos(first_byte));
        // The first form's are what is left of all when the others are taken away: a load of one form pays nothing.
        if form > 0 {
            if self.forms.len() < form {
                self.forms.resize(form, None);
            }
            self.forms[form - 1].get_or_insert_with(histogram).saturating_record(nanos(latency));
        }
    }

    /// Latencies of one form.
    fn of_form(&self, form: usize) -> Quantiles {
        if form > 0 {
            return self.forms.get(form - 1).and_then(Option::as_ref).map_or_else(Quantiles::default, Quantiles::of);
        }
        let mut first = self.latency.clone();
        for other in self.forms.iter().flatten() {
            // A subset of what it is taken from.
            let _ = first.subtract(other);
        }
        Quantiles::of(&first)
    }

    /// A reply dropped on purpose.
    pub(crate) fn abandoned(&mut self) {
        self.abandoned += 1;
    }

    /// A reply with another status than 2xx.
    pub(crate) fn refused(&mut self, status: u16) {
        *self.failed.entry(format!("status {status}")).or_default() += 1;
    }

    pub(crate) fn failed(&mut self, fault: Fault) {
        if let Some(count) = self.failed.get_mut(fault) {
            *count += 1;
        } else {
            self.failed.insert(fault.to_owned(), 1);
        }
    }

    /// One event of a paced stream, `delay` µs after the mock wrote it.
    pub(crate) fn event(&mut self, delay_us: u64) {
        self.event_delay.saturating_record((delay_us * 1000).max(1));
    }
}

fn nanos(time: Duration) -> u64 {
    (time.as_nanos() as u64).clamp(1, MINUTE_NS)
}

/// A whole run, all threads together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Complete 2xx replies.
    pub(crate) answered: u64,
    /// Dropped on purpose (`--abort`).
    pub(crate) abandoned: u64,
    /// Everything else, by reason.
    pub(crate) failed: BTreeMap<String, u64>,
    /// From the first request to the last reply.
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Body bytes of all answers.
    pub(crate) bytes: u64,
    /// To the last byte; in an open loop from when the request was due.
    pub(crate) latency: Quantiles,
    /// To the first bytes of the reply, from the same start.
    pub(crate) first_byte: Quantiles,
    /// Mock's write to generator's read, per event; paced streams only.
    pub(crate) event_delay: Option<Quantiles>,
    /// Latency at many quantiles: `[quantile, µs]`, for a plot.
    pub(crate) curve: Vec<(f64, f64)>,
    /// Latency of each form of a mix, by name; empty for a load of one form.
    pub(crate) forms: BTreeMap<String, Quantiles>,
}

/// Where a latency curve is read: closer towards the end, as people look at it.
const CURVE: [f64; 24] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.9975, 0.999,
    0.9995, 0.9999, 0.999_99, 1.0,
];

/// A distribution in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Outcome {
    /// `names`: those of a mix's forms.
    pub(crate) fn new(tallies: Vec<Tally>, elapsed: Duration, names: Vec<String>) -> Self {
        let mut all = Tally::default();
        for tally in tallies {
            all.answered += tally.answered;
            all.abandoned += tally.abandoned;
            all.bytes += tally.bytes;
            for (reason, count) in tally.failed {
                *all.failed.entry(reason).or_default() += count;
            }
            all.latency += tally.latency;
            all.first_byte += tally.first_byte;
            all.event_delay += tally.event_delay;
            for (form, more) in tally.forms.into_iter().enumerate() {
                let Some(more) = more else { continue };
                if all.forms.len() <= form {
                    all.forms.resize(form + 1, None);
                }
                *all.forms[form].get_or_insert_with(histogram) += more;
            }
        }
        let forms = names.into_iter().enumerate().map(|(form, name)| (name, all.of_form(form))).collect();
        let curve = CURVE.iter().map(|at| (*at, all.latency.value_at_quantile(*at) as f64 / 1000.0)).collect();
        let seconds = elapsed.as_secs_f64();
        Self {
            answered: all.answered,
            abandoned: all.abandoned,
            failed: all.failed,
            seconds,
            per_second: all.answered as f64 / seconds.max(1e-9),
            bytes: all.bytes,
            latency: Quantiles::of(&all.latency),
            first_byte: Quantiles::of(&all.first_byte),
            event_delay: (!all.event_delay.is_empty()).then(|| Quantiles::of(&all.event_delay)),
            curve,
            forms,
        }
    }

    /// Requests that ended neither as an answer nor dropped on purpose.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Everything begun.
    pub(crate) fn requests(&self) -> u64 {
        self.answered + self.abandoned + self.failures()
    }
}

impl Quantiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut tally = Tally::default();
        for us in 1..=1000 {
            tally.answered(0, Duration::from_micros(us), Duration::from_micros(1), 10);
        }
        let outcome = Outcome::new(vec![tally], Duration::from_secs(2), Vec::new());
        let near = |got: f64, want: f64| assert!((got - want).abs() / want < 0.002, "{got} is not {want}");
        near(outcome.latency.p50_us, 500.0);
        near(outcome.latency.p99_us, 990.0);
        near(outcome.latency.max_us, 1000.0);
        near(outcome.per_second, 500.0);
        assert_eq!((outcome.answered, outcome.bytes, outcome.event_delay), (1000, 10_000, None));
    }

    #[test]
    fn forms_are_told_apart() {
        let mut tally = Tally::default();
        for us in [100, 200, 300] {
            tally.answered(0, Duration::from_micros(us), Duration::from_micros(1), 1);
            tally.answered(2, Duration::from_millis(us), Duration::from_micros(1), 1);
        }
        let names = ["fast", "none", "slow"].map(str::to_owned).to_vec();
        let outcome = Outcome::new(vec![tally], Duration::from_secs(1), names);
        let of = |name: &str| outcome.forms[name];
        assert_eq!((of("fast").count, of("none").count, of("slow").count), (3, 0, 3));
        assert!(of("fast").max_us < 301.0 && of("slow").p50_us > 199_000.0, "{outcome:?}");
        assert!(outcome.curve.windows(2).all(|two| two[0].1 <= two[1].1));
    }

    #[test]
    fn threads_add_up() {
        let mut first = Tally::default();
        first.answered(0, Duration::from_micros(5), Duration::from_micros(5), 1);
        first.failed("connection closed");
        let mut second = Tally::default();
        second.failed("connection closed");
        second.refused(429);
        second.abandoned();
        second.event(250);
        let outcome = Outcome::new(vec![first, second], Duration::from_secs(1), Vec::new());
        assert_eq!(outcome.failed["connection closed"], 2);
        assert_eq!(outcome.failed["status 429"], 1);
        assert_eq!(outcome.requests(), 5);
        assert_eq!(outcome.event_delay.map(|delay| delay.count), Some(1));
    }
}
