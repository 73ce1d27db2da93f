//! From updates that are seen to one sum, also when some of them are poison.
//!
//! The mean weighs by examples; the other rules count every client alike, since a weight is what a
//! client says of itself. All work on integer levels, and ties go by the order of the updates, so
//! that every node comes to the same bytes. Nothing here works on shares: these rules look at
//! single updates, or at the means of groups where only those are seen.

use std::fmt::{self, Display, Formatter};

use selvedge_base::plant::{Plant, is_on};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::feed;
use crate::fixed::MAX_TOTAL_WEIGHT;
use crate::round::Job;

/// How seen updates become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// The weighted mean: one liar moves it as far as its clip and weight go.
    Mean,
    /// Of every value the middle one (Yin et al. 2018).
    Median,
    /// Of every value the mean without the `cut` least and greatest (Yin et al. 2018).
    Trimmed {
        /// How many are left out at each end.
        cut: u32,
    },
    /// The mean of the `keep` updates that lie closest to most others (Blanchard et al. 2017).
    /// Never of one alone: that follows a single client, which on skewed data is worse than
    /// no defence.
    MultiKrum {
        /// How many clients may lie.
        byzantine: u32,
        /// How many updates are kept.
        keep: u32,
    },
}

/// What is wrong with a rule for so many clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Nothing would be left.
    #[error("leaves out all of {found}: it needs {least} at least, twice `cut` and 1")]
    Trimmed {
        /// How many there are.
        found: usize,
        /// How many it takes.
        least: usize,
    },
    /// Krum needs more than twice the liars and two.
    #[error(
        "needs {least} at least, twice `byzantine` and 3, to tell that many liars from the others, \
         not {found}"
    )]
    Krum {
        /// How many there are.
        found: usize,
        /// How many it takes.
        least: usize,
    },
    /// One update, or more than honest ones.
    #[error("must keep at least 2 updates and no more than there are honest clients")]
    Keep,
}

/// A sum of levels and the weight it is divided by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Of every value the weighted sum of levels.
    pub sum: Vec<i64>,
    /// All weights together.
    pub weight: u32,
    /// How many contributed.
    pub clients: u32,
}

impl Rule {
    /// Whether the rule can do with that few clients.
    ///
    /// # Errors
    /// [`RuleError`].
    pub const fn check(self, clients: usize) -> Result<(), RuleError> {
        let (found, least) = (clients, self.least());
        match self {
            Self::Trimmed { .. } if found < least => Err(RuleError::Trimmed { found, least }),
            Self::MultiKrum { .. } if found < least => Err(RuleError::Krum { found, least }),
            Self::MultiKrum { byzantine, keep }
                if keep < 2 || (keep as usize) > clients - byzantine as usize =>
            {
                Err(RuleError::Keep)
            }
            Self::Mean | Self::Median | Self::Trimmed { .. } | Self::MultiKrum { .. } => Ok(()),
        }
    }

    /// The fewest clients that it can do with.
    const fn least(self) -> usize {
        match self {
            Self::Mean | Self::Median => 1,
            Self::Trimmed { cut } => (cut as usize).saturating_mul(2).saturating_add(1),
            Self::MultiKrum { byzantine, .. } => {
                (byzantine as usize).saturating_mul(2).saturating_add(3)
            }
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::Trimmed { .. } => "trimmed",
            Self::MultiKrum { .. } => "multi-krum",
        }
    }

    /// The rule for what is left when so many were left out already, each of them a liar or beside
    /// one: as many liars fewer are among the others.
    pub(crate) const fn without(self, liars: u32) -> Self {
        match self {
            Self::Mean | Self::Median => self,
            Self::Trimmed { cut } => Self::Trimmed { cut: cut.saturating_sub(liars) },
            Self::MultiKrum { byzantine, keep } => {
                Self::MultiKrum { byzantine: byzantine.saturating_sub(liars), keep }
            }
        }
    }

    /// What tells it from all others.
    pub(crate) const fn numbers(self) -> [u64; 3] {
        match self {
            Self::Mean => [0, 0, 0],
            Self::Median => [1, 0, 0],
            Self::Trimmed { cut } => [2, cut as u64, 0],
            Self::MultiKrum { byzantine, keep } => [3, byzantine as u64, keep as u64],
        }
    }

    /// One sum of updates of `len` levels, each with its weight. A rule that passed [`Rule::check`]
    /// for so many updates or fewer leaves something to sum.
    pub fn aggregate(self, updates: &[(u32, &[i32])], len: usize) -> Aggregate {
        let clients = updates.len() as u32;
        match self {
            Self::Mean => {
                let weight = updates.iter().fold(0u32, |sum, (one, _)| sum.saturating_add(*one));
                Aggregate { sum: added(updates.iter().copied(), len), weight, clients }
            }
            Self::Median => {
                let sum = columns(updates, len, |levels| {
                    let middle = |at: usize| levels.get(at).copied().unwrap_or(0);
                    middle(levels.len().saturating_sub(1) / 2) + middle(levels.len() / 2)
                });
                Aggregate { sum, weight: 2, clients }
            }
            Self::Trimmed { cut } => {
                let cut = (cut as usize).min(updates.len().saturating_sub(1) / 2);
                let kept = updates.len() - 2 * cut;
                let sum = columns(updates, len, |levels| levels.iter().skip(cut).take(kept).sum());
                Aggregate { sum, weight: kept as u32, clients }
            }
            Self::MultiKrum { byzantine, keep } => {
                let kept = closest(updates, byzantine as usize, keep as usize);
                let own = |at: &usize| if is_on(Plant::RobustWeighed) { updates[*at].0 } else { 1 };
                let alike = kept.iter().map(|at| (own(at), updates[*at].1));
                let weight = kept.iter().map(own).sum();
                Aggregate { sum: added(alike, len), weight, clients }
            }
        }
    }
}

/// With its numbers, by the names that a job file gives them.
impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => f.write_str("mean"),
            Self::Median => f.write_str("median"),
            Self::Trimmed { cut } => write!(f, "trimmed mean (cut {cut})"),
            Self::MultiKrum { byzantine, keep } => {
                write!(f, "multi-Krum (byzantine {byzantine}, keep {keep})")
            }
        }
    }
}

impl Aggregate {
    /// Whether it can be the sum of updates of a job.
    pub fn is_within(&self, job: &Job) -> bool {
        let most = i64::from(self.weight) * i64::from(job.level_max());
        self.sum.len() == job.payload_len()
            && (1..=MAX_TOTAL_WEIGHT).contains(&self.weight)
            && self.sum.iter().all(|sum| (-most..=most).contains(sum))
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated sum");
        hasher.update(&self.weight.to_be_bytes());
        hasher.update(&self.clients.to_be_bytes());
        hasher.update(&(self.sum.len() as u64).to_be_bytes());
        feed(&mut hasher, self.sum.iter().map(|sum| sum.to_be_bytes()));
        *hasher.finalize().as_bytes()
    }
}

/// Of every value the sum of levels, each times its update's weight.
fn added<'a>(updates: impl Iterator<Item = (u32, &'a [i32])>, len: usize) -> Vec<i64> {
    let mut sum = vec![0; len];
    for (weight, levels) in updates {
        for (sum, level) in sum.iter_mut().zip(levels) {
            *sum += i64::from(weight) * i64::from(*level);
        }
    }
    sum
}

/// Of every value what `each` makes of the updates' levels, least first.
fn columns(updates: &[(u32, &[i32])], len: usize, each: impl Fn(&[i64]) -> i64) -> Vec<i64> {
    let mut column = Vec::with_capacity(updates.len());
    let value = |at: usize| {
        column.clear();
        let levels = updates.iter().map(|(_, levels)| levels.get(at).copied().unwrap_or(0));
        column.extend(levels.map(i64::from));
        column.sort_unstable();
        each(&column)
    };
    (0..len).map(value).collect()
}

/// The updates with the least sums of squared distances to their n - f - 2 nearest others, in order
/// of place. A difference is below 2^18, its square below 2^36, 2^20 of them below 2^56; sums of
/// all clients' are taken in 128 bits.
fn closest(updates: &[(u32, &[i32])], byzantine: usize, keep: usize) -> Vec<usize> {
    let near = updates.len().saturating_sub(byzantine + 2).max(1);
    let distance = |one: &[i32], other: &[i32]| -> u64 {
        one.iter().zip(other).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum()
    };
    let mut distances: Vec<Vec<u64>> = vec![Vec::with_capacity(updates.len()); updates.len()];
    for (at, (_, levels)) in updates.iter().enumerate() {
        for (other, (_, others)) in updates.iter().enumerate().skip(at + 1) {
            let apart = distance(levels, others);
            distances[at].push(apart);
            distances[other].push(apart);
        }
    }
    let score = |(at, mut distances): (usize, Vec<u64>)| -> (u128, usize) {
        distances.sort_unstable();
        (distances.iter().take(near).map(|one| u128::from(*one)).sum(), at)
    };
    let mut scores: Vec<(u128, usize)> = distances.into_iter().enumerate().map(score).collect();
    scores.sort_unstable();
    let mut kept: Vec<usize> = scores.into_iter().take(keep.max(1)).map(|(_, at)| at).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixed::LEVEL_MAX;

    fn with_weights<'a>(levels: &'a [Vec<i32>], weights: &[u32]) -> Vec<(u32, &'a [i32])> {
        weights.iter().copied().zip(levels.iter().map(Vec::as_slice)).collect()
    }

    #[test]
    fn each_rule_is_what_its_name_says() {
        let levels = [vec![1], vec![2], vec![3], vec![10], vec![1_000]];
        let updates = with_weights(&levels, &[1, 1, 1, 2, 1]);
        let of = |rule: Rule| {
            let Aggregate { sum, weight, .. } = rule.aggregate(&updates, 1);
            (sum[0], weight)
        };
        assert_eq!(of(Rule::Mean), (1 + 2 + 3 + 20 + 1_000, 6));
        assert_eq!(of(Rule::Median), (6, 2));
        assert_eq!(of(Rule::Trimmed { cut: 1 }), (15, 3));
        assert_eq!(of(Rule::MultiKrum { byzantine: 1, keep: 3 }), (6, 3));
        let even = Rule::Median.aggregate(&updates[..4], 1);
        assert_eq!((even.sum[0], even.weight), (5, 2));
    }

    #[test]
    fn rules_for_too_few_clients_are_refused() {
        let few = |least| Err(RuleError::Trimmed { found: 8, least });
        assert_eq!(Rule::Trimmed { cut: 4 }.check(8), few(9));
        assert_eq!(Rule::Trimmed { cut: u32::MAX }.check(8), few(2 * (u32::MAX as usize) + 1));
        assert_eq!(Rule::Trimmed { cut: 4 }.check(9), Ok(()));
        let few = Err(RuleError::Krum { found: 8, least: 9 });
        assert_eq!(Rule::MultiKrum { byzantine: 3, keep: 2 }.check(8), few);
        assert_eq!(Rule::MultiKrum { byzantine: 3, keep: 2 }.check(9), Ok(()));
        assert_eq!(Rule::MultiKrum { byzantine: 2, keep: 1 }.check(8), Err(RuleError::Keep));
        assert_eq!(Rule::MultiKrum { byzantine: 2, keep: 7 }.check(8), Err(RuleError::Keep));
        assert_eq!(Rule::MultiKrum { byzantine: 2, keep: 6 }.check(8), Ok(()));
    }

    proptest! {
        /// Two of ten say whatever they like: what the robust rules make stays among the honest.
        #[test]
        fn liars_do_not_move_the_robust_rules_out_of_the_honest(
            honest in proptest::collection::vec(-1_000i32..1_000, 8),
            lies in proptest::collection::vec(-LEVEL_MAX..=LEVEL_MAX, 2),
        ) {
            let levels: Vec<Vec<i32>> = honest.iter().chain(&lies).map(|one| vec![*one]).collect();
            let updates = with_weights(&levels, &[1; 10]);
            let least = f64::from(honest.iter().copied().min().unwrap_or(0));
            let most = f64::from(honest.iter().copied().max().unwrap_or(0));
            for rule in [Rule::Median, Rule::Trimmed { cut: 2 }] {
                let Aggregate { sum, weight, .. } = rule.aggregate(&updates, 1);
                let mean = sum[0] as f64 / f64::from(weight);
                prop_assert!(least <= mean && mean <= most, "{:?} {}", rule, mean);
            }
            // Multi-Krum keeps honest ones only, once the lies are farther off than the honest
            // are from each other.
            if lies.iter().all(|lie| lie.abs() > 100_000) && lies[0].abs_diff(lies[1]) > 100_000 {
                let rule = Rule::MultiKrum { byzantine: 2, keep: 6 };
                let Aggregate { sum, weight, .. } = rule.aggregate(&updates, 1);
                let mean = sum[0] as f64 / f64::from(weight);
                prop_assert!(least <= mean && mean <= most, "{}", mean);
            }
        }
    }
}
