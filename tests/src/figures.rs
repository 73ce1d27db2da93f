//! Quantiles of measured times, for benches and for tests that state a bound.

use std::time::Duration;

/// Measured times, to be summed up.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Notes one measurement.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds the measurements of another series.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `permille` of the measurements do not exceed (nearest rank); zero if there
    /// are none.
    pub fn quantile(&self, permille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut figures = Figures::default();
        assert_eq!(figures.quantile(500), Duration::ZERO);
        for ms in (1..=200).rev() {
            figures.push(Duration::from_millis(ms));
        }
        assert_eq!(figures.quantile(500), Duration::from_millis(100));
        assert_eq!(figures.quantile(990), Duration::from_millis(198));
        assert_eq!(figures.quantile(1_000), Duration::from_millis(200));
    }
}
