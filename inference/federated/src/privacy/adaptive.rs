//! A norm that follows the updates: clients vote whether theirs was within it, with noise.
//!
//! Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping" (arXiv 1905.03871),
//! algorithm 1, in integers: every node computes the next norm from the same sum. Owns the vote's
//! size, what it adds to the sensitivity and the step; the noise is the update's own, since the
//! vote is one value more of it.

use serde::{Deserialize, Serialize};

use super::PrivacyError;
use crate::fixed::LEVEL_MAX;

/// How large a vote is, as a part of the norm. A quarter makes an update and its vote 3.1 % longer
/// than the update, so that much more noise; the share of votes then has a deviation of two times
/// the noise over the clients, which slow steps even out.
const VOTE_PART: u64 = 4;
/// Fractional bits of shares and exponents.
const BITS: u32 = 32;
/// One, with so many fractional bits.
const ONE: i128 = 1 << BITS;
/// Terms of the exponential series: up to an exponent of 1 what is left out is below 2^-32.
const TERMS: i128 = 13;

/// How a norm follows the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adaptive {
    /// Of a thousand updates so many shall be within the norm (the paper's gamma).
    pub quantile_permille: u32,
    /// The largest step of a round, as a part of the norm in thousandths (the paper's eta; 200
    /// there).
    pub rate_permille: u32,
}

impl Adaptive {
    /// Whether these numbers can be.
    ///
    /// # Errors
    /// [`PrivacyError::Adaptive`].
    pub fn check(self) -> Result<(), PrivacyError> {
        let Self { quantile_permille, rate_permille } = self;
        if !(1..1_000).contains(&quantile_permille) || !(1..=1_000).contains(&rate_permille) {
            return Err(PrivacyError::Adaptive { quantile_permille, rate_permille });
        }
        Ok(())
    }

    /// A vote in levels, for a norm of `bound` levels: so much for "within", as much below zero for
    /// "longer". At most the largest level, so that sums of votes cannot wrap around either: where
    /// the norm is more than four clips, votes are noisier.
    pub const fn vote(bound: u64) -> u64 {
        match bound / VOTE_PART {
            0 => 1,
            vote if vote > LEVEL_MAX as u64 => LEVEL_MAX as u64,
            vote => vote,
        }
    }

    /// The length of an update and its vote together, at most; rounded up.
    pub const fn joint(bound: u64) -> u64 {
        let vote = Self::vote(bound);
        let square = bound * bound + vote * vote;
        let root = square.isqrt();
        if root * root < square { root + 1 } else { root }
    }

    /// The norm after a round in which the votes of so many clients, with their noise, add up to
    /// `votes`; `bound` is `norm` in levels. At least 1.
    pub fn next(self, norm: u32, bound: u64, votes: i64, clients: u32) -> u32 {
        let most = i128::from(Self::vote(bound)) * i128::from(clients.max(1));
        // From minus one to one; noise may go beyond both.
        let balance = (i128::from(votes) * ONE / most).clamp(-ONE, ONE);
        let within = i128::midpoint(balance, ONE);
        let wanted = i128::from(self.quantile_permille) * ONE / 1_000;
        let exponent = (wanted - within) * i128::from(self.rate_permille) / 1_000;
        let next = i128::from(norm) * exponential(exponent) / ONE;
        u32::try_from(next.max(1)).unwrap_or(u32::MAX)
    }
}

/// e^x for x from -1 to 1, with [`BITS`] fractional bits.
fn exponential(x: i128) -> i128 {
    let (mut sum, mut term) = (ONE, ONE);
    for at in 1..=TERMS {
        term = term * x / ONE / at;
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDDLE: Adaptive = Adaptive { quantile_permille: 500, rate_permille: 200 };

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        assert_eq!(MIDDLE.check(), Ok(()));
        for (quantile_permille, rate_permille) in [(0, 200), (1_000, 200), (500, 0), (500, 1_001)] {
            let wrong = Adaptive { quantile_permille, rate_permille };
            let told = PrivacyError::Adaptive { quantile_permille, rate_permille };
            assert_eq!(wrong.check(), Err(told));
        }
    }

    #[test]
    fn all_within_shrinks_it_and_all_longer_widens_it() {
        let vote = Adaptive::vote(4_000) as i64;
        assert_eq!(vote, 1_000);
        // e^-0.1 and e^0.1.
        assert_eq!(MIDDLE.next(1 << 20, 4_000, 10 * vote, 10), 948_790);
        assert_eq!(MIDDLE.next(1 << 20, 4_000, -10 * vote, 10), 1_158_855);
        assert_eq!(MIDDLE.next(1 << 20, 4_000, 0, 10), 1 << 20, "as many as wanted");
        assert_eq!(MIDDLE.next(1, 4_000, 10 * vote, 10), 1);
        assert_eq!(MIDDLE.next(u32::MAX, 4_000, -10 * vote, 10), u32::MAX);
    }

    /// Clients whose lengths do not change: the norm comes to their quantile, from both sides.
    #[test]
    fn it_comes_to_the_quantile() {
        let lengths: Vec<u32> = (1..=100).map(|at| at << 14).collect();
        for first in [1 << 12, 1 << 26] {
            let mut norm = first;
            for _ in 0..200 {
                let bound = u64::from(norm) / 8;
                let vote = Adaptive::vote(bound) as i64;
                let votes = lengths.iter().map(|one| if *one <= norm { vote } else { -vote }).sum();
                norm = Adaptive { quantile_permille: 700, ..MIDDLE }.next(norm, bound, votes, 100);
            }
            assert!((69 << 14..=72 << 14).contains(&norm), "{} from {first}", norm >> 14);
        }
    }

    proptest! {
        #[test]
        fn the_exponential_is_that_of_floats(x in -1.0f64..1.0) {
            let whole = exponential((x * ONE as f64) as i128) as f64 / ONE as f64;
            prop_assert!((whole - x.exp()).abs() < 1e-8, "{whole}");
        }

        #[test]
        fn no_update_with_its_vote_is_longer_than_both(bound in 1u64..1 << 27) {
            let (vote, joint) = (Adaptive::vote(bound), Adaptive::joint(bound));
            prop_assert!(joint * joint >= bound * bound + vote * vote);
            prop_assert!((joint - 1) * (joint - 1) < bound * bound + vote * vote);
        }

        #[test]
        fn no_sum_moves_it_by_more_than_its_rate(
            norm in 1u32..=u32::MAX, bound in 1u64..1 << 27, votes: i32, clients: u32,
        ) {
            let next = MIDDLE.next(norm, bound, votes.into(), clients);
            let part = f64::from(next) / f64::from(norm);
            let is_near = (0.90..1.11).contains(&part);
            prop_assert!(next == 1 || next == u32::MAX || is_near || norm < 100);
        }
    }
}
