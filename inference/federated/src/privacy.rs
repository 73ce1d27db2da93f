//! Differential privacy of what a client sends: a bound on its length, noise, and what both cost.
//!
//! Every contribution is shortened to an L2 norm and carries discrete Gaussian noise before it is
//! written down; the sum of a round then has the noise of all who contributed, and nobody has to be
//! trusted with adding it. What is protected is a client, with all it was ever trained on: a sum
//! tells little about whether a client's update was in it or nothing but its noise. That somebody
//! contributed is public. Owns a job's numbers, the bound and the noise; `accountant` owns what
//! they are worth, `ledger` what a node has spent.

pub mod accountant;
pub mod adaptive;
pub mod gauss;
pub mod ledger;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::accountant::{MicroEpsilon, PicoDelta, Rho};
use self::adaptive::Adaptive;
use self::gauss::{Gauss, MAX_VARIANCE};
use self::ledger::Cap;
use crate::fixed::{Clip, LEVEL_MAX, MAX_DIM, UpdateError};
use crate::mask::Seed;

/// The largest level with its noise: the largest one, and 14 deviations of the most noise there may
/// be. More has a chance below 2^-140, as in [`MAX_VARIANCE`]'s sums, and is not sent.
pub const NOISY_MAX: i32 = 1 << 26;
/// The least variance of one client's noise, in levels. Sums of discrete Gaussians are not quite
/// one; from 16 on what is missing is below 10^-58 (Kairouz, Liu and Steinke 2021, theorem 1).
const MIN_VARIANCE: u64 = 16;
/// The least noise, in thousandths: with less, one contribution costs an epsilon of some hundred.
const MIN_NOISE: u32 = 100;
/// The most noise, in thousandths: a thousand clients' worth of it.
const MAX_NOISE: u32 = 1_000_000;
/// The largest delta, 10^-3, in units of 10^-12: a greater one lets updates be shown as they are.
pub const MAX_DELTA: PicoDelta = PicoDelta(1_000_000_000);
/// No update is longer than this, in levels: 2^10 times the largest level.
const MAX_BOUND: u64 = (MAX_DIM as u64).isqrt() << 17;

/// What a job promises to its clients; the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privacy {
    /// The standard deviation of the noise of `honest` contributions together, in thousandths of
    /// `norm`.
    pub noise_milli: u32,
    /// The L2 norm that no update exceeds, in units of 2^-20; in the first round, where it follows
    /// the updates.
    pub norm: u32,
    /// Contributions of a sum whose noise nobody else knows. At most the job's floor; the floor
    /// itself trusts every client to add its noise, and 1 trusts nobody.
    pub honest: u32,
    /// The chance that the promise does not hold.
    pub delta: PicoDelta,
    /// What a client may spend on this job; of data without a bound of their own, with all that
    /// they gave to others before.
    pub epsilon: MicroEpsilon,
    /// How the norm follows the updates, if it does. Not in this form's bytes, which were there
    /// before: whoever tells a job tells it beside them.
    #[serde(skip)]
    pub adaptive: Option<Adaptive>,
}

/// Why a job's numbers of privacy cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PrivacyError {
    /// Too little noise or too much.
    #[error("needs noise of {MIN_NOISE} to {MAX_NOISE} thousandths, not {0}")]
    Noise(u32),
    /// The norm is nothing, or no bound.
    #[error("needs a norm of 1 to {MAX_BOUND} levels, not {0}: choose another norm or clip")]
    Norm(u64),
    /// In levels the noise is too coarse, or sums could wrap.
    #[error(
        "needs a variance of {MIN_VARIANCE} to {MAX_VARIANCE} levels for one client, not {0}: \
         choose another norm, noise or clip"
    )]
    Variance(u128),
    /// More are to be honest than there must be.
    #[error("needs 1 to {floor} honest contributions, as the floor is, not {found}")]
    Honest {
        /// How many are trusted.
        found: u32,
        /// How many there are at least.
        floor: usize,
    },
    /// Delta is nothing or too much.
    #[error("needs a delta of 1 to {} parts of 10^12, not {}", MAX_DELTA.0, .0.0)]
    Delta(PicoDelta),
    /// Not even one contribution is within epsilon.
    #[error("allows no contribution: one costs an epsilon of {0}")]
    Epsilon(MicroEpsilon),
    /// The norm cannot follow so.
    #[error(
        "needs a quantile of 1 to 999 thousandths and a rate of 1 to 1,000, not \
         {quantile_permille} and {rate_permille}"
    )]
    Adaptive {
        /// Updates within the norm.
        quantile_permille: u32,
        /// The largest step.
        rate_permille: u32,
    },
    /// Votes are of use as a sum only.
    #[error("with a norm that follows the updates goes with secure mode and with the rule mean")]
    Votes,
    /// Updates are seen, and one's own noise is not enough.
    #[error("in plain mode, where every update is seen, needs the noise for one: set honest to 1")]
    Plain,
    /// Distances between noise.
    #[error("does not go with multi-Krum, which would measure the noise")]
    Krum,
}

impl Privacy {
    /// Whether these numbers can be, in a job with such a clip and floor of clients.
    ///
    /// # Errors
    /// [`PrivacyError`], the first thing that is wrong.
    pub fn check(&self, clip: Clip, floor: usize) -> Result<(), PrivacyError> {
        if !(MIN_NOISE..=MAX_NOISE).contains(&self.noise_milli) {
            return Err(PrivacyError::Noise(self.noise_milli));
        }
        if self.honest == 0 || self.honest as usize > floor {
            return Err(PrivacyError::Honest { found: self.honest, floor });
        }
        let bound = self.bound(clip);
        if bound == 0 || bound > MAX_BOUND {
            return Err(PrivacyError::Norm(bound));
        }
        let variance = self.exact_variance(clip);
        if !(u128::from(MIN_VARIANCE)..=u128::from(MAX_VARIANCE)).contains(&variance) {
            return Err(PrivacyError::Variance(variance));
        }
        self.adaptive.map_or(Ok(()), Adaptive::check)?;
        if self.delta.0 == 0 || self.delta > MAX_DELTA {
            return Err(PrivacyError::Delta(self.delta));
        }
        if self.contributions() == 0 {
            return Err(PrivacyError::Epsilon(self.spent(1)));
        }
        Ok(())
    }

    /// What one contribution costs.
    pub const fn cost(&self) -> Rho {
        Rho::of_noise(self.noise_milli)
    }

    /// What it promises to a client, as a bound.
    pub const fn promised(&self) -> Cap {
        Cap { epsilon: self.epsilon, delta: self.delta }
    }

    /// What so many contributions of one node cost.
    pub fn spent(&self, contributions: u64) -> MicroEpsilon {
        if contributions == 0 {
            return MicroEpsilon(0);
        }
        self.cost().times(contributions).epsilon(self.delta)
    }

    /// How many contributions of one node epsilon allows.
    pub fn contributions(&self) -> u64 {
        self.cost().fits(self.epsilon, self.delta)
    }

    /// The same with the norm of a round.
    #[must_use]
    pub const fn at(self, norm: u32) -> Self {
        Self { norm, ..self }
    }

    /// Values of an update beside those of the model and the strategy.
    pub const fn more_values(&self) -> usize {
        if self.adaptive.is_some() { 1 } else { 0 }
    }

    /// The norm after a round with such a sum of votes; as it was where the next one could not be.
    pub fn next_norm(&self, clip: Clip, votes: i64, clients: u32) -> u32 {
        let Some(adaptive) = self.adaptive else { return self.norm };
        let next = adaptive.next(self.norm, self.bound(clip), votes, clients);
        // The floor and what is trusted were looked at when the job began.
        if self.at(next).check(clip, usize::MAX).is_ok() { next } else { self.norm }
    }

    /// How long the noise of a round is beside the longest update, in tenths, rounded down. The
    /// mean of so many contributions has noise of `noise / sqrt(honest * clients)` of the norm on
    /// each of its values.
    pub fn noise_tenths(&self, values: usize, clients: usize) -> u64 {
        let noise = u128::from(self.noise_milli);
        let others = u128::from(self.honest.max(1)) * clients.max(1) as u128;
        let millionths = noise * noise * values as u128 / others;
        u64::try_from(millionths.isqrt() / 100).unwrap_or(u64::MAX)
    }

    /// The norm in levels, rounded down: how long an update is at most.
    pub const fn bound(&self, clip: Clip) -> u64 {
        self.norm as u64 * LEVEL_MAX as u64 / clip.units() as u64
    }

    /// What one client can change in a sum, in levels: its update, and its vote.
    const fn sensitivity(&self, clip: Clip) -> u64 {
        let bound = self.bound(clip);
        if self.adaptive.is_some() { Adaptive::joint(bound) } else { bound }
    }

    /// The variance of one client's noise, in levels, rounded up. The bound was checked.
    fn exact_variance(&self, clip: Clip) -> u128 {
        let deviation = u128::from(self.noise_milli) * u128::from(self.sensitivity(clip));
        (deviation * deviation).div_ceil(1_000_000 * u128::from(self.honest.max(1)))
    }

    /// What no value of a sum of so many updates with their noise exceeds, in levels: the largest
    /// levels and 14 deviations, beyond which an honest one is with a chance below 2^-140.
    pub(crate) fn sum_bound(&self, clip: Clip, clients: u32) -> i64 {
        let clients = u64::from(clients);
        let variance = self.exact_variance(clip).min(u128::from(MAX_VARIANCE)) as u64;
        let deviation = (variance * clients).isqrt() + 1;
        (clients * u64::from(LEVEL_MAX.unsigned_abs()) + 14 * deviation) as i64
    }

    /// Shortens an update, adds its vote where the norm follows, and puts noise on all of it.
    ///
    /// # Errors
    /// [`UpdateError::Level`] where the noise is beyond all that is likely.
    pub fn conceal(
        &self,
        levels: &mut Vec<i32>,
        clip: Clip,
        seed: &Seed,
    ) -> Result<(), UpdateError> {
        let bound = self.bound(clip);
        let is_within = shorten(levels, bound);
        if self.adaptive.is_some() {
            // It is no more than the largest level.
            let vote = Adaptive::vote(bound) as i32;
            levels.push(if is_within { vote } else { -vote });
        }
        self.add_noise(levels, clip, seed)
    }

    /// Puts noise on what is bounded.
    ///
    /// # Errors
    /// [`UpdateError::Level`] where it is beyond all that is likely.
    pub(crate) fn add_noise(
        &self,
        levels: &mut [i32],
        clip: Clip,
        seed: &Seed,
    ) -> Result<(), UpdateError> {
        let variance = u64::try_from(self.exact_variance(clip)).unwrap_or(MAX_VARIANCE);
        let mut noise = Gauss::new(&seed.derive("noise", 0), variance);
        for (index, level) in levels.iter_mut().enumerate() {
            let noisy = i64::from(*level) + noise.number();
            let is_likely = noisy.unsigned_abs() <= u64::from(NOISY_MAX.unsigned_abs());
            *level =
                if is_likely { noisy as i32 } else { return Err(UpdateError::Level { index }) };
        }
        Ok(())
    }

    /// What tells it from all others.
    pub(crate) const fn numbers(&self) -> [u64; 5] {
        let Self { noise_milli, norm, honest, delta, epsilon, adaptive: _ } = self;
        [*noise_milli as u64, *norm as u64, *honest as u64, delta.0, epsilon.0]
    }
}

/// Brings the L2 norm to at most `bound`, in whole numbers: each level is multiplied by what is
/// allowed over what is there, that one rounded up, and rounded towards zero. A norm within the
/// bound stays as it is. Whether it was within.
fn shorten(levels: &mut [i32], bound: u64) -> bool {
    // 2^20 squares below 2^34 each.
    let square: u64 = levels.iter().map(|level| u64::from(level.unsigned_abs()).pow(2)).sum();
    let root = square.isqrt();
    let length = root + u64::from(root * root < square);
    if u128::from(square) <= u128::from(bound) * u128::from(bound) {
        return true;
    }
    for level in levels {
        *level = (i64::from(*level) * bound as i64 / length as i64) as i32;
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clip() -> Clip {
        Clip::new(1 << 20).unwrap()
    }

    fn good() -> Privacy {
        Privacy {
            noise_milli: 1_000,
            norm: 1 << 20,
            honest: 4,
            delta: PicoDelta(10_000_000),
            epsilon: MicroEpsilon(20_000_000),
            adaptive: None,
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        assert_eq!(good().check(clip(), 4), Ok(()));
        let spoilt = |spoil: &dyn Fn(&mut Privacy)| {
            let mut privacy = good();
            spoil(&mut privacy);
            privacy.check(clip(), 4).unwrap_err()
        };
        assert_eq!(spoilt(&|one| one.noise_milli = 0), PrivacyError::Noise(0));
        assert_eq!(spoilt(&|one| one.norm = 0), PrivacyError::Norm(0));
        assert!(matches!(spoilt(&|one| one.norm = u32::MAX), PrivacyError::Norm(_)));
        // 7 levels, and 7^2 / 4.
        assert_eq!(spoilt(&|one| one.norm = 64), PrivacyError::Variance(13));
        assert!(matches!(
            spoilt(&|one| (one.norm, one.noise_milli) = (1 << 28, 100_000)),
            PrivacyError::Variance(_)
        ));
        assert!(matches!(spoilt(&|one| one.honest = 0), PrivacyError::Honest { .. }));
        assert!(matches!(spoilt(&|one| one.honest = 5), PrivacyError::Honest { .. }));
        assert!(matches!(spoilt(&|one| one.delta = PicoDelta(0)), PrivacyError::Delta(_)));
        assert!(matches!(
            spoilt(&|one| one.delta = PicoDelta(MAX_DELTA.0 + 1)),
            PrivacyError::Delta(_)
        ));
        let least = good().spent(1);
        assert_eq!(spoilt(&|one| one.epsilon.0 = least.0 - 1), PrivacyError::Epsilon(least));
        assert_eq!(Privacy { epsilon: least, ..good() }.contributions(), 1);
    }

    #[test]
    fn how_long_the_noise_of_a_round_is_grows_with_weights_and_falls_with_clients() {
        let privacy = good();
        // One of the norm, of four together; eight values: sqrt(8 / (4 * 8)).
        assert_eq!(privacy.noise_tenths(8, 8), 5);
        assert_eq!(privacy.noise_tenths(800, 8), 50);
        assert_eq!(privacy.noise_tenths(800, 32), 25);
        // What the manual told people once: as good as only noise.
        let manual = Privacy { noise_milli: 4_000, honest: 7, ..privacy };
        assert_eq!(manual.noise_tenths(79_510, 8), 1_507);
        let most = Privacy { noise_milli: MAX_NOISE, honest: 0, ..privacy };
        assert_eq!(most.noise_tenths(MAX_DIM, 0), 10_240_000);
    }

    /// The most noise of the most clients does not wrap around with 14 deviations.
    #[test]
    fn sums_with_noise_stay_within_the_field() {
        let clients = crate::round::MAX_ENTRIES as u64;
        let deviation = (MAX_VARIANCE * clients).isqrt();
        let most = clients * LEVEL_MAX.unsigned_abs() as u64 + 14 * deviation;
        assert!(most < u64::from(crate::field::P / 2), "{most}");
        assert!(
            LEVEL_MAX.unsigned_abs() as u64 + 14 * MAX_VARIANCE.isqrt()
                <= u64::from(NOISY_MAX.unsigned_abs())
        );
    }

    #[test]
    fn noise_is_of_the_variance_that_was_promised_and_follows_from_the_seed() {
        let privacy = good();
        // 1.0 is LEVEL_MAX levels; four together make one deviation of the norm.
        let wanted = f64::from(LEVEL_MAX) / 2.0;
        let noise = |seed: u8| {
            let mut levels = vec![0; 20_000];
            privacy.conceal(&mut levels, clip(), &Seed([seed; 32])).unwrap();
            levels
        };
        let levels = noise(1);
        let square: f64 = levels.iter().map(|level| f64::from(*level).powi(2)).sum();
        let deviation = (square / levels.len() as f64).sqrt();
        assert!((deviation / wanted - 1.0).abs() < 0.02, "{deviation} {wanted}");
        assert_eq!(levels, noise(1));
        assert_ne!(levels, noise(2));
    }

    proptest! {
        #[test]
        fn no_update_is_longer_than_the_bound(
            mut levels in proptest::collection::vec(-LEVEL_MAX..=LEVEL_MAX, 1..200),
            bound in 1u64..1 << 19,
        ) {
            let before = levels.clone();
            shorten(&mut levels, bound);
            let square = |of: &[i32]| of.iter().map(|one| i64::from(*one).pow(2)).sum::<i64>();
            prop_assert!(square(&levels) as u64 <= bound * bound);
            if square(&before) as u64 <= bound * bound {
                prop_assert_eq!(&levels, &before);
            } else {
                // Nothing is shortened more than by rounding: one level of each value.
                let length = (square(&before) as f64).sqrt();
                for (new, old) in levels.iter().zip(&before) {
                    let exact = f64::from(*old) * bound as f64 / length;
                    prop_assert!((exact - f64::from(*new)).abs() < 2.0, "{} {}", exact, new);
                }
            }
        }
    }
}
