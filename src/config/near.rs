//! "Did you mean": the known name nearest to a mistyped one, if one is near enough to be meant.

/// The nearest of `known`, at most a third of the name's letters away.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bound = (name.len() / 3).clamp(1, 4);
    known.map(|one| (distance(name, one), one)).filter(|(far, _)| *far <= bound).min().map(|(_, one)| one)
}

/// Letters inserted, dropped, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let other = usize::from(a[i - 1] != b[j - 1]);
                let best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + other);
                if swap { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_fetched() {
        let known = ["host", "port", "rate_limit_rpm", "rate_limit_tpm"];
        let near = |name| nearest(name, known.iter().copied());
        assert_eq!(near("prot"), Some("port"));
        assert_eq!(near("rate_limt_rpm"), Some("rate_limit_rpm"));
        assert_eq!(near("colour"), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
