//! The discrete Gaussian, exactly: whole numbers whose chances fall as e^(-x^2 / (2 sigma^2)).
//!
//! Source: Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), algorithms 1 to 3. Integers and
//! fractions of them only: no float is rounded, so no low bit tells what noise hides. The stream is
//! that of [`crate::mask`]: ChaCha20 under a seed that is handed in. How long a draw takes depends
//! on what is drawn.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::mask::Seed;

/// The largest variance: 2^44, a standard deviation of 2^22. Numbers of a draw then stay below
/// 2^120.
pub const MAX_VARIANCE: u64 = 1 << 44;
/// Whole scales that a Laplace number may be from zero. One of e^1024 is farther, and would be
/// drawn again with all but the same certainty.
const MAX_SCALES: u64 = 1 << 10;

/// A stream of discrete Gaussian numbers around zero. Whoever has its seed knows them all.
pub struct Gauss {
    stream: ChaCha20Rng,
    variance: u64,
    /// The scale of the Laplace numbers that are drawn from: the root, rounded down, and one.
    scale: u64,
}

impl Gauss {
    /// The stream of a seed; `variance` is sigma^2, brought between 1 and [`MAX_VARIANCE`].
    pub fn new(seed: &Seed, variance: u64) -> Self {
        let variance = variance.clamp(1, MAX_VARIANCE);
        let scale = variance.isqrt() + 1;
        Self { stream: ChaCha20Rng::from_seed(seed.0), variance, scale }
    }

    /// The next number. Draws again with a chance of less than two thirds, so it ends.
    pub fn number(&mut self) -> i64 {
        loop {
            let number = self.laplace();
            // (|y| - sigma^2 / t)^2 / (2 sigma^2), times t^2 above and below: |y| < 2^33 and
            // t, sigma <= 2^22 + 1, so above stays below 2^112 and below it below 2^90.
            let (scale, variance) = (u128::from(self.scale), u128::from(self.variance));
            let apart = (u128::from(number.unsigned_abs()) * scale).abs_diff(variance);
            if self.is_exp_below(apart * apart, 2 * variance * scale * scale) {
                return number;
            }
        }
    }

    /// A number whose chances fall as e^(-|y| / t) (algorithm 2, whole t).
    fn laplace(&mut self) -> i64 {
        loop {
            let part = self.below(u128::from(self.scale)) as u64;
            if !self.is_exp_of_part(u128::from(part), u128::from(self.scale)) {
                continue;
            }
            let mut scales = 0;
            while scales < MAX_SCALES && self.is_exp_of_part(1, 1) {
                scales += 1;
            }
            if scales == MAX_SCALES {
                continue;
            }
            let (is_below, size) = (self.below(2) == 1, (part + self.scale * scales) as i64);
            if !(is_below && size == 0) {
                return if is_below { -size } else { size };
            }
        }
    }

    /// True with a chance of e^(-above / below) (algorithm 1).
    fn is_exp_below(&mut self, above: u128, below: u128) -> bool {
        let (wholes, rest) = (above / below, above % below);
        for _ in 0..wholes {
            if !self.is_exp_of_part(1, 1) {
                return false;
            }
        }
        self.is_exp_of_part(rest, below)
    }

    /// The same for a fraction of at most one: how many draws of falling chances in a row hold is
    /// even with a chance of e^-fraction.
    fn is_exp_of_part(&mut self, above: u128, below: u128) -> bool {
        let mut draw = 1;
        // Of a chance of 1 / draw at most each, so it ends.
        while self.below(below * draw) < above {
            draw += 1;
        }
        draw % 2 == 1
    }

    /// A number below `limit`, all alike: bits of the stream, drawn again when too large.
    fn below(&mut self, limit: u128) -> u128 {
        let bits = u128::BITS - limit.saturating_sub(1).leading_zeros();
        loop {
            let drawn = match bits {
                0 => return 0,
                1..=32 => u128::from(self.stream.next_u32()) & ((1 << bits) - 1),
                33..=64 => u128::from(self.stream.next_u64()) & ((1 << bits) - 1),
                _ => {
                    let high = u128::from(self.stream.next_u64()) & ((1 << (bits - 64)) - 1);
                    high << 64 | u128::from(self.stream.next_u64())
                }
            };
            if drawn < limit {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drawn(seed: u8, variance: u64, count: usize) -> Vec<i64> {
        let mut gauss = Gauss::new(&Seed([seed; 32]), variance);
        (0..count).map(|_| gauss.number()).collect()
    }

    /// Chances in floats, straight from the definition.
    fn chances(variance: f64) -> BTreeMap<i64, f64> {
        let reach = (12.0 * variance.sqrt()).ceil() as i64;
        let weight = |x: i64| (-((x * x) as f64) / (2.0 * variance)).exp();
        let all: f64 = (-reach..=reach).map(weight).sum();
        (-reach..=reach).map(|x| (x, weight(x) / all)).collect()
    }

    #[test]
    fn small_ones_are_those_of_the_definition() {
        const DRAWS: usize = 60_000;
        for (variance, seed) in [(1, 1), (2, 2), (10, 3), (40, 4)] {
            let mut seen: BTreeMap<i64, f64> = BTreeMap::new();
            drawn(seed, variance, DRAWS).iter().for_each(|x| *seen.entry(*x).or_default() += 1.0);
            // Numbers that are expected less than ten times are one cell: the tail is judged too.
            let (mut chi, mut cells, mut rare) = (0.0, 0.0_f64, (0.0, 0.0));
            for (x, chance) in chances(variance as f64) {
                let (wanted, found) = (chance * DRAWS as f64, seen.remove(&x).unwrap_or_default());
                if wanted < 10.0 {
                    rare = (rare.0 + wanted, rare.1 + found);
                } else {
                    chi += (found - wanted) * (found - wanted) / wanted;
                    cells += 1.0;
                }
            }
            assert!(seen.is_empty(), "twelve deviations off: {seen:?}");
            chi += (rare.1 - rare.0) * (rare.1 - rare.0) / rare.0;
            // Mean of chi-square is its freedom, variance twice that: four deviations.
            assert!(chi < cells + 4.0 * (2.0 * cells).sqrt(), "{variance}: {chi} of {cells}");
        }
    }

    #[test]
    fn large_ones_have_the_mean_the_variance_and_the_tails() {
        const DRAWS: usize = 40_000;
        for variance in [1_000, 1 << 24, (1 << 40) + 12_345, MAX_VARIANCE] {
            let numbers = drawn(9, variance, DRAWS);
            let deviation = (variance as f64).sqrt();
            let scaled: Vec<f64> = numbers.iter().map(|x| *x as f64 / deviation).collect();
            let mean = scaled.iter().sum::<f64>() / DRAWS as f64;
            let spread = scaled.iter().map(|x| x * x).sum::<f64>() / DRAWS as f64;
            // Four deviations of each figure.
            assert!(mean.abs() < 0.02, "{variance}: {mean}");
            assert!((spread - 1.0).abs() < 0.0284, "{variance}: {spread}");
            let beyond = |limit: f64| {
                scaled.iter().filter(|x| x.abs() > limit).count() as f64 / DRAWS as f64
            };
            for (limit, wanted) in [(1.0, 0.317_31), (2.0, 0.045_50), (3.0, 0.002_70)] {
                // A discrete number lies on the limit now and then: half a step of the density.
                let margin = 4.0 * f64::sqrt(wanted / DRAWS as f64) + 0.5 / deviation;
                assert!((beyond(limit) - wanted).abs() < margin, "{variance} {limit}");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_and_another_one_others() {
        assert_eq!(drawn(5, 1 << 30, 20), drawn(5, 1 << 30, 20));
        assert_ne!(drawn(5, 1 << 30, 20), drawn(6, 1 << 30, 20));
        // Pinned: who changes the order of draws changes what a seed that is on disk stands for. An
        // implementation apart, with a ChaCha20 of its own, draws the same.
        assert_eq!(drawn(5, 100, 8), [-12, -17, -18, 16, -3, 19, -12, -14]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// The decider of e^(-a/b) agrees with the float on how often.
        #[test]
        fn chances_of_powers_of_e(above in 0u128..4_000, below in 1u128..1_000, seed: u8) {
            let mut gauss = Gauss::new(&Seed([seed; 32]), 1);
            let wanted = (-(above as f64) / below as f64).exp();
            let draws = 4_000;
            let held = (0..draws).filter(|_| gauss.is_exp_below(above, below)).count();
            let off = (held as f64 / f64::from(draws) - wanted).abs();
            prop_assert!(off < 5.0 * (wanted * (1.0 - wanted) / f64::from(draws)).sqrt() + 0.001);
        }

        #[test]
        fn numbers_below_a_limit_are(limit in 1u128..1 << 100, seed: u8) {
            let mut gauss = Gauss::new(&Seed([seed; 32]), 1);
            prop_assert!((0..50).all(|_| gauss.below(limit) < limit));
        }
    }
}
