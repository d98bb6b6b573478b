//! How much of something was asked for lately: the last 100 ms, in requests and tokens.
//!
//! Two windows and a share of the older one: a request pays a division and two additions for it, no `exp`. It says what
//! a lease should hold, so being a window late costs a trip and never a wrong admission.

use crate::base::Now;

/// What a lease is meant to last for, and what "lately" means. CLUSTER.md: rate × 100 ms.
pub(crate) const HORIZON_NANOS: u64 = 100_000_000;

/// Requests and their tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

/// What was asked for, by windows of [`HORIZON_NANOS`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    window: u64,
    now: Flow,
    before: Flow,
}

impl Flow {
    /// Tokens a request, rounded up.
    pub(crate) const fn mean(self) -> u64 {
        if self.requests == 0 { 0 } else { self.tokens.div_ceil(self.requests) }
    }
}

impl Demand {
    /// One more request of `tokens`.
    pub(crate) const fn note(&mut self, tokens: u64, now: Now) {
        let window = now.as_nanos() / HORIZON_NANOS;
        // Another core's clock may have been read a window earlier: it counts into this one.
        if window > self.window {
            self.before = if window == self.window + 1 { self.now } else { Flow { requests: 0, tokens: 0 } };
            self.now = Flow { requests: 0, tokens: 0 };
            self.window = window;
        }
        self.now.requests += 1;
        self.now.tokens = self.now.tokens.saturating_add(tokens);
    }

    /// In the last [`HORIZON_NANOS`].
    pub(crate) fn recent(&self, now: Now) -> Flow {
        let nanos = now.as_nanos();
        let left = HORIZON_NANOS - nanos % HORIZON_NANOS;
        let share = |n: u64| n.saturating_mul(left) / HORIZON_NANOS;
        let part = |flow: Flow| Flow { requests: share(flow.requests), tokens: share(flow.tokens) };
        match (nanos / HORIZON_NANOS).saturating_sub(self.window) {
            0 => {
                let before = part(self.before);
                Flow {
                    requests: before.requests + self.now.requests,
                    tokens: before.tokens.saturating_add(self.now.tokens),
                }
            }
            1 => part(self.now),
            _ => Flow::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_steady_flow_is_its_rate_times_the_horizon_and_silence_forgets_it() {
        let mut demand = Demand::default();
        let mut now = Now::from_nanos(36_000 * HORIZON_NANOS);
        for _ in 0..1_000 {
            demand.note(7, now);
            now = now + Duration::from_millis(1);
        }
        for _ in 0..200 {
            demand.note(7, now);
            now = now + Duration::from_millis(1);
            let recent = demand.recent(now);
            assert!((99..=101).contains(&recent.requests), "{recent:?}");
            assert_eq!(recent.mean(), 7);
        }
        let half = demand.recent(now + Duration::from_millis(50));
        assert!((40..=60).contains(&half.requests), "{half:?}");
        assert_eq!(demand.recent(now + Duration::from_millis(200)), Flow::default());
    }
}
