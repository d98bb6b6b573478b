//! How many tokens a request may cost, guessed before anyone has counted.
//!
//! Only for admission and for answers whose provider reported nothing; real usage replaces it at settlement.

/// The output part of an estimate when the request sets no limit.
pub const DEFAULT_OUTPUT: u64 = 1024;

/// The most that an output limit adds: clients ask for 128,000 and use 300, and a reservation of the whole would
/// refuse the caller's next request for nothing.
pub const MOST_OUTPUT: u64 = 4096;

/// Prompt tokens of a body of that many bytes: a quarter, rounded up. Too high for prose in English with much JSON
/// around it, too low for other scripts; never 0 for a body.
pub const fn prompt_tokens(body_bytes: usize) -> u64 {
    (body_bytes as u64).div_ceil(4)
}

/// What admission reserves: prompt + output limit, the latter between nothing and [`MOST_OUTPUT`].
pub fn reservation(body_bytes: usize, max_output: Option<u64>) -> u64 {
    prompt_tokens(body_bytes) + max_output.unwrap_or(DEFAULT_OUTPUT).min(MOST_OUTPUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_prompt_and_capped_output() {
        assert_eq!((prompt_tokens(0), prompt_tokens(1), prompt_tokens(400)), (0, 1, 100));
        assert_eq!(reservation(400, None), 100 + DEFAULT_OUTPUT);
        assert_eq!(reservation(400, Some(7)), 107);
        assert_eq!(reservation(400, Some(u64::MAX)), 100 + MOST_OUTPUT);
    }
}
