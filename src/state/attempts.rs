//! Which attempts of one request have been accounted for.

/// A bit an attempt. Attempts past the 63rd share one: they count once together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Attempts(u64);

impl Attempts {
    /// Whether `attempt` is seen for the first time.
    pub(crate) const fn first(&mut self, attempt: u32) -> bool {
        let bit = 1 << if attempt < 63 { attempt } else { 63 };
        let first = self.0 & bit == 0;
        self.0 |= bit;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once() {
        let mut attempts = Attempts::default();
        assert!(attempts.first(1) && attempts.first(2) && !attempts.first(1) && attempts.first(62));
        assert!(attempts.first(200) && !attempts.first(63) && !attempts.first(u32::MAX));
    }
}
