//! How large the weights of a tensor are, and what would be lost if the smallest became nothing.
//!
//! Owns a histogram of magnitudes with a bound on its memory. Prunes nothing: magnitude pruning
//! (Han et al. 2015, arXiv 1506.02626) pays only where zeros are skipped, which no kernel here
//! does; the report says whether it would be worth trying elsewhere.

/// Shares of the weights, in percent, for which a loss is told.
pub const SHARES: [u8; 4] = [10, 30, 50, 70];

/// Bits of a magnitude that tell the bins apart: the exponent and four bits of the fraction, so
/// that all magnitudes of a bin are within a sixteenth of each other.
const BIN_BITS: u32 = 12;
/// The sign, and what is below the bin's bits.
const SHIFT: u32 = 31 - BIN_BITS;
/// Bins of non-negative floats.
const BINS: usize = 1 << BIN_BITS;

/// Magnitudes, counted.
#[derive(Clone, Debug)]
pub(crate) struct Magnitudes {
    counts: Vec<u64>,
    squares: Vec<f64>,
}

impl Default for Magnitudes {
    fn default() -> Self {
        Self { counts: vec![0; BINS], squares: vec![0.0; BINS] }
    }
}

impl Magnitudes {
    /// Counts some weights.
    pub(crate) fn add(&mut self, weights: &[f32]) {
        for weight in weights {
            let bin = (weight.abs().to_bits() >> SHIFT) as usize;
            if let (Some(count), Some(square)) =
                (self.counts.get_mut(bin), self.squares.get_mut(bin))
            {
                *count += 1;
                *square += f64::from(*weight) * f64::from(*weight);
            }
        }
    }

    /// What is lost when the smallest of the weights become nothing, for each of [`SHARES`]: the
    /// length of what goes in the length of all, 0 to 1. Within a bin all count as alike.
    pub(crate) fn losses(&self) -> [f64; SHARES.len()] {
        let (all, length): (u64, f64) = (self.counts.iter().sum(), self.squares.iter().sum());
        SHARES.map(|share| {
            let mut left = all as f64 * f64::from(share) / 100.0;
            let mut lost = 0.0;
            for (count, square) in self.counts.iter().zip(&self.squares) {
                let part = (left / (*count as f64).max(1.0)).min(1.0);
                lost += square * part;
                left -= *count as f64 * part;
                if left <= 0.0 {
                    break;
                }
            }
            if length > 0.0 { (lost / length).sqrt() } else { 0.0 }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sorting: the bins cost less than a hundredth.
    #[test]
    fn losses_are_those_of_sorted_weights() {
        let weights: Vec<f32> = (0..10_000_u32)
            .map(|at| ((at.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7 - 0.8).powi(3))
            .collect();
        let mut found = Magnitudes::default();
        found.add(&weights[..5_000]);
        found.add(&weights[5_000..]);
        let mut squares: Vec<f64> = weights.iter().map(|w| f64::from(*w).powi(2)).collect();
        squares.sort_by(f64::total_cmp);
        let all: f64 = squares.iter().sum();
        for (share, loss) in SHARES.iter().zip(found.losses()) {
            let gone: f64 = squares[..squares.len() * usize::from(*share) / 100].iter().sum();
            let exact = (gone / all).sqrt();
            assert!((loss - exact).abs() < 0.01, "{share} %: {loss} {exact}");
        }
    }

    #[test]
    fn zeros_are_lost_for_nothing() {
        let mut found = Magnitudes::default();
        assert_eq!(found.losses(), [0.0; SHARES.len()]);
        found.add(&[0.0; 50]);
        found.add(&[1.0; 50]);
        let [ten, thirty, fifty, seventy] = found.losses();
        assert_eq!((ten, thirty, fifty), (0.0, 0.0, 0.0));
        assert!((seventy - (0.4_f64).sqrt()).abs() < 1e-6, "{seventy}");
    }
}
