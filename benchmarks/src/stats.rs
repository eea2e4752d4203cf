//! Medians and ratios.

use serde::{Deserialize, Serialize};

/// Rounds from which on ranges mean something: of equal systems, five rounds each leave one in 126
/// with ranges that do not overlap, three leave one in ten.
pub(crate) const ENOUGH_ROUNDS: usize = 5;

/// The middle of some values and their extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The smallest.
    pub(crate) min: f64,
    /// The middle one, or the mean of the middle two.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// `None` for no values at all.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { min, median, max })
    }
}

/// The ratio of each round's value to the reference of the same round.
///
/// What disturbs a round disturbs all of its systems, so ratios within a round are steadier than
/// the ratio of two medians. A round without a value or a positive reference has no ratio.
pub(crate) fn ratios<'a>(
    values: &'a [Option<f64>],
    references: &'a [Option<f64>],
) -> impl Iterator<Item = f64> + 'a {
    values
        .iter()
        .zip(references)
        .filter_map(|(value, reference)| Some(((*value)?, (*reference)?)))
        .filter(|&(_, reference)| reference > 0.0)
        .map(|(value, reference)| value / reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(values: &[f64]) -> Option<f64> {
        Spread::of(values.iter().copied()).map(|spread| spread.median)
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0]), Some(5.0));
        assert_eq!(median(&[30.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[8.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn a_spread_has_its_extremes() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(
            spread,
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
    }

    #[test]
    fn ratios_pair_the_rounds() {
        // The ratio of the medians would be 1.5.
        let paired: Vec<f64> = ratios(
            &[Some(2.0), Some(30.0), Some(3.0)],
            &[Some(1.0), Some(10.0), Some(2.0)],
        )
        .collect();
        assert_eq!(paired, [2.0, 3.0, 1.5]);
        assert_eq!(Spread::of(paired).map(|spread| spread.median), Some(2.0));
    }

    #[test]
    fn a_round_without_a_value_or_a_reference_has_no_ratio() {
        let paired: Vec<f64> = ratios(
            &[Some(2.0), Some(3.0), None, Some(5.0), Some(4.0)],
            &[Some(0.0), Some(2.0), Some(1.0), None],
        )
        .collect();
        assert_eq!(paired, [1.5]);
    }
}
