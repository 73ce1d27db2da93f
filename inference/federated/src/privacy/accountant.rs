//! What noise is worth: Rényi differential privacy of Gaussian noise, and what it says in epsilon.
//!
//! Owns the arithmetic in floats, and lets none of it out: what it answers is an integer of a
//! millionth, rounded up. The functions are libm's, which are the same on every machine, so two
//! nodes that ask the same are told the same; nothing rests on that, since every node decides about
//! its own data only. Orders are whole: the reference figures are those of whole orders, and
//! fractions of one would lower epsilon by less than one percent.

use std::fmt::{self, Display, Formatter};

use libm::{exp, log, log1p};

/// Epsilon, in millionths.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct MicroEpsilon(pub u64);

/// In hundredths, rounded up: so much is enough.
impl Display for MicroEpsilon {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hundredths = self.0.div_ceil(10_000);
        write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

/// Delta, in units of 10^-12.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct PicoDelta(pub u64);

/// What was spent, in units of 2^-40 of zero-concentrated privacy (Bun and Steinke 2016): noise of
/// `sigma` times what one client can change costs 1 / (2 sigma^2). It adds up over rounds and jobs.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Rho(pub u64);

/// Steps of which each shows a noised sum of a part of all clients, drawn by lot and kept secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Of a million clients so many are drawn for a step, each by itself.
    pub rate_ppm: u32,
    /// The noise's standard deviation, in thousandths of what one client can change.
    pub noise_milli: u32,
    /// How many steps.
    pub steps: u64,
}

impl Rho {
    /// A millionth of a millionth: what rounding up costs in ten thousand rounds is not seen.
    const ONE: u128 = 1 << 40;

    /// The cost of being once in a sum with such noise, in thousandths; rounded up.
    pub const fn of_noise(noise_milli: u32) -> Self {
        let square = 2 * (noise_milli as u128) * (noise_milli as u128);
        if square == 0 {
            return Self(u64::MAX);
        }
        let cost = (Self::ONE * 1_000_000).div_ceil(square);
        Self(if cost > u64::MAX as u128 { u64::MAX } else { cost as u64 })
    }

    /// So many times.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// Both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What it says in epsilon, rounded up. The divergence at an order is the order times rho.
    pub fn epsilon(self, delta: PicoDelta) -> MicroEpsilon {
        let rho = self.0 as f64 / Self::ONE as f64;
        convert(|order| order as f64 * rho, delta)
    }

    /// How many times this may be spent while epsilon stays within a bound.
    pub fn fits(self, bound: MicroEpsilon, delta: PicoDelta) -> u64 {
        self.fits_beside(Self(0), bound, delta)
    }

    /// The same where so much is spent already.
    pub fn fits_beside(self, spent: Self, bound: MicroEpsilon, delta: PicoDelta) -> u64 {
        let (mut fits, mut exceeds) = (0, MOST_TIMES);
        while exceeds - fits > 1 {
            let middle = u64::midpoint(fits, exceeds);
            if spent.plus(self.times(middle)).epsilon(delta) <= bound {
                fits = middle;
            } else {
                exceeds = middle;
            }
        }
        fits
    }
}

/// No bound of epsilon allows more contributions than this, less one: a hundred times the rounds
/// that a job may have.
const MOST_TIMES: u64 = 1_000_000;

/// Epsilon of steps of all kinds together, rounded up.
///
/// Source: Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), section 3.3, for whole orders. The
/// secrecy of the lot is what sampling is worth; rounds here name who contributed, so they count
/// with a rate of a million.
pub fn epsilon(steps: &[Sampled], delta: PicoDelta) -> MicroEpsilon {
    let at = |order| steps.iter().map(|one| one.steps as f64 * one.divergence(order)).sum();
    convert(at, delta)
}

/// The orders that are tried: every whole one up to where small budgets lie, then doubles.
fn orders() -> impl Iterator<Item = u32> {
    (2..=64).chain([128, 256, 512])
}

/// From divergences to epsilon: Balle et al. 2020 (arXiv 1905.09982), theorem 21, as in
/// Canonne, Kamath and Steinke 2020, proposition 12. The best of all orders.
fn convert(divergence: impl Fn(u32) -> f64, delta: PicoDelta) -> MicroEpsilon {
    if delta.0 == 0 {
        return MicroEpsilon(u64::MAX);
    }
    let delta = delta.0 as f64 * 1e-12;
    let at = |order: u32| {
        let alpha = f64::from(order);
        divergence(order) + log1p(-1.0 / alpha) - log(delta * alpha) / (alpha - 1.0)
    };
    let least = orders().map(at).fold(f64::INFINITY, f64::min).max(0.0);
    // Rounding errors are some 1e-13 of the sum; a billionth covers them many times.
    let micro = libm::ceil(least * 1e6 * (1.0 + 1e-9));
    // A float beyond the range becomes the largest integer.
    MicroEpsilon(micro as u64)
}

impl Sampled {
    /// The divergence of one step at a whole order above 1:
    /// `log(sum of C(a, i) (1 - q)^(a - i) q^i exp((i^2 - i) / (2 sigma^2))) / (a - 1)`.
    fn divergence(self, order: u32) -> f64 {
        let sigma = f64::from(self.noise_milli) / 1_000.0;
        let alpha = f64::from(order);
        if self.rate_ppm == 0 {
            return 0.0;
        }
        if self.rate_ppm >= 1_000_000 {
            return alpha / (2.0 * sigma * sigma);
        }
        let rate = f64::from(self.rate_ppm) / 1e6;
        let (mut choose, mut total) = (0.0, f64::NEG_INFINITY);
        for i in 0..=order {
            let drawn = f64::from(i);
            if i > 0 {
                choose += log((alpha - drawn + 1.0) / drawn);
            }
            let lot = drawn * log(rate) + (alpha - drawn) * log1p(-rate);
            let moved = (drawn * drawn - drawn) / (2.0 * sigma * sigma);
            total = log_sum(total, choose + lot + moved);
        }
        total / (alpha - 1.0)
    }
}

/// log(e^a + e^b).
fn log_sum(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + log1p(exp(low - high)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIVE: PicoDelta = PicoDelta(10_000_000);

    /// Rounds to 4 decimals.
    fn ten_thousandths(epsilon: MicroEpsilon) -> u64 {
        (epsilon.0 + 50) / 100
    }

    #[test]
    fn the_reference_figures_come_out() {
        let of = |rate_ppm, noise_milli, steps, delta| {
            ten_thousandths(epsilon(&[Sampled { rate_ppm, noise_milli, steps }], delta))
        };
        assert_eq!(of(10_000, 4_000, 10_000, FIVE), 10_355);
        assert_eq!(of(10_000, 1_000, 1_000, FIVE), 21_078);
        assert_eq!(of(100_000, 1_000, 100, PicoDelta(1_000_000_000)), 56_703);
        assert_eq!(of(1_000_000, 5_000, 100, FIVE), 108_017);
    }

    #[test]
    fn rho_says_what_steps_of_all_clients_say() {
        let rho = Rho::of_noise(5_000).times(100);
        assert_eq!(ten_thousandths(rho.epsilon(FIVE)), 108_017);
        let steps = Sampled { rate_ppm: 1_000_000, noise_milli: 5_000, steps: 100 };
        assert!(rho.epsilon(FIVE) >= epsilon(&[steps], FIVE));
        assert_eq!(Rho::of_noise(0), Rho(u64::MAX));
        assert_eq!(Rho(u64::MAX).epsilon(PicoDelta(0)), MicroEpsilon(u64::MAX));
    }

    #[test]
    fn sampling_is_worth_something_and_a_lot_of_nobody_everything() {
        let of = |rate_ppm| epsilon(&[Sampled { rate_ppm, noise_milli: 1_000, steps: 10 }], FIVE);
        assert!(of(1_000) < of(100_000) && of(100_000) < of(1_000_000));
        // The sum near a rate of one comes to the closed form.
        let (near, whole) = (of(999_999).0, of(1_000_000).0);
        assert!(near <= whole && whole - near < 1_000, "{near} {whole}");
        assert_eq!(of(0), epsilon(&[], FIVE));
    }

    proptest! {
        #[test]
        fn what_fits_fits_and_one_more_does_not(
            milli in 300u32..20_000, bound in 1u64..20_000_000
        ) {
            let (one, bound) = (Rho::of_noise(milli), MicroEpsilon(bound));
            let fits = one.fits(bound, FIVE);
            prop_assert!(fits == 0 || one.times(fits).epsilon(FIVE) <= bound);
            prop_assert!(one.times(fits + 1).epsilon(FIVE) > bound);
        }

        #[test]
        fn more_costs_more(a in 0u64..1 << 45, b in 0u64..1 << 45) {
            let sum = Rho(a).plus(Rho(b));
            prop_assert!(sum.epsilon(FIVE) >= Rho(a).epsilon(FIVE));
        }
    }
}
