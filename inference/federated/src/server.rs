//! What is made of the sum of a round: the next model, in integers.
//!
//! Every node computes it for itself and all must come to the same bytes, so there are no floats:
//! weights and moments are integers of 2^-20, squares of 2^-40, roots are integer roots, and each
//! division says how it rounds.

use selvedge_base::plant::{Plant, is_on};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::feed;
use crate::fixed::{Clip, MODEL_BITS};
use crate::robust::Aggregate;

/// The decay of FedAdam's first moment, in 1/1,024: 0.9 (Reddi et al. 2021, section 5).
const BETA_FIRST: i64 = 922;
/// The decay of its second moment, in 1/1,024: 0.99.
const BETA_SECOND: i64 = 1_014;
/// What the decays are fractions of.
const BETA_ONE: i64 = 1_024;

/// The largest mean of a round, in units of 2^-20: the largest clip there is.
const MEAN_MAX: i64 = 1 << 30;

/// What is made of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// The mean is added (McMahan et al. 2017). With a term that pulls clients towards the base it
    /// is FedProx (Li et al. 2020); the term is the client's, in its training.
    Average {
        /// FedProx's mu in thousandths; 0 is FedAvg.
        proximal_permille: u32,
    },
    /// The mean is a gradient for Adam (Reddi et al. 2021).
    Adam {
        /// The rate, in units of 2^-20.
        rate: u32,
        /// What is added to the root, in units of 2^-20; keeps the first steps small.
        tau: u32,
    },
    /// Control variates correct the clients' drift (Karimireddy et al. 2020). An update has the
    /// change of the client's control variate after that of its weights.
    Scaffold {
        /// Clients there are, of which those of a round are a part.
        clients: u32,
    },
}

/// What is wrong with a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StrategyError {
    /// FedProx's mu.
    #[error("pulls by more than 1,000: mu is {0} thousandths")]
    Proximal(u32),
    /// Adam's rate or tau.
    #[error("needs a rate and a tau of more than 0 and at most 1")]
    Rate,
    /// SCAFFOLD without clients.
    #[error("needs to know how many clients there are")]
    Clients,
}

/// A model and what its strategy remembers between rounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    strategy: Strategy,
    /// Weights, in units of 2^-20.
    model: Vec<i32>,
    /// Adam's first moment, or SCAFFOLD's control variate; empty for an average.
    first: Vec<i64>,
    /// Adam's second moment, in units of 2^-40; empty for the others.
    second: Vec<i64>,
}

impl Strategy {
    /// Whether its numbers can be.
    ///
    /// # Errors
    /// [`StrategyError`].
    pub const fn check(&self) -> Result<(), StrategyError> {
        const ONE: u32 = 1 << MODEL_BITS;
        match *self {
            Self::Average { proximal_permille } if proximal_permille > 1_000_000 => {
                Err(StrategyError::Proximal(proximal_permille))
            }
            Self::Adam { rate, tau } if rate == 0 || rate > ONE || tau == 0 || tau > ONE => {
                Err(StrategyError::Rate)
            }
            Self::Scaffold { clients: 0 } => Err(StrategyError::Clients),
            Self::Average { .. } | Self::Adam { .. } | Self::Scaffold { .. } => Ok(()),
        }
    }

    /// Values of an update of a model of `dim` weights.
    pub const fn payload_len(&self, dim: usize) -> usize {
        match self {
            Self::Average { .. } | Self::Adam { .. } => dim,
            Self::Scaffold { .. } => dim.saturating_mul(2),
        }
    }

    /// What tells it from all others.
    pub(crate) const fn numbers(&self) -> [u64; 3] {
        match *self {
            Self::Average { proximal_permille } => [0, proximal_permille as u64, 0],
            Self::Adam { rate, tau } => [1, rate as u64, tau as u64],
            Self::Scaffold { clients } => [2, clients as u64, 0],
        }
    }
}

impl Server {
    /// A model, in units of 2^-20, before its first round.
    pub(crate) fn new(strategy: Strategy, model: Vec<i32>) -> Self {
        let dim = model.len();
        let (first, second) = match strategy {
            Strategy::Average { .. } => (0, 0),
            Strategy::Adam { .. } => (dim, dim),
            Strategy::Scaffold { .. } => (dim, 0),
        };
        Self { strategy, model, first: vec![0; first], second: vec![0; second] }
    }

    /// The weights, in units of 2^-20.
    pub fn model(&self) -> &[i32] {
        &self.model
    }

    /// SCAFFOLD's control variate of all clients, in units of 2^-20; empty for other strategies.
    pub fn control(&self) -> &[i64] {
        match self.strategy {
            Strategy::Scaffold { .. } => &self.first,
            Strategy::Average { .. } | Strategy::Adam { .. } => &[],
        }
    }

    /// What all nodes of a round must have in common.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated model");
        for number in self.strategy.numbers() {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&(self.model.len() as u64).to_be_bytes());
        feed(&mut hasher, self.model.iter().map(|weight| weight.to_be_bytes()));
        for moments in [&self.first, &self.second] {
            hasher.update(&(moments.len() as u64).to_be_bytes());
            feed(&mut hasher, moments.iter().map(|moment| moment.to_be_bytes()));
        }
        *hasher.finalize().as_bytes()
    }

    /// Takes the sum of a round.
    pub(crate) fn apply(&mut self, clip: Clip, aggregate: &Aggregate) {
        let Aggregate { sum, weight, clients } = aggregate;
        let dim = self.model.len();
        for (at, sum) in sum.iter().enumerate() {
            // Only noise goes beyond the clip, which is at most this.
            let mean = clip.mean(*sum, *weight).clamp(-MEAN_MAX, MEAN_MAX);
            match self.strategy {
                Strategy::Average { .. } => self.add(at, mean),
                Strategy::Adam { rate, tau } => self.adam(at, mean, rate, tau),
                Strategy::Scaffold { .. } if at < dim => self.add(at, mean),
                Strategy::Scaffold { clients: all } => {
                    // c += |S| / N times the mean of the changes of c_i (line 17).
                    let took_part = if is_on(Plant::ControlOverdone) { all } else { *clients };
                    let part = mean * i64::from(took_part.min(all));
                    let moment = &mut self.first[at - dim];
                    *moment = moment.saturating_add(rounded(part, i64::from(all)));
                }
            }
        }
    }

    fn add(&mut self, at: usize, change: i64) {
        let moved = i64::from(self.model[at]).saturating_add(change);
        self.model[at] = moved.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    }

    /// A mean is at most 2^30, so its square is at most 2^60, and moments, which are
    /// means of means and of squares, stay within the same bounds.
    fn adam(&mut self, at: usize, mean: i64, rate: u32, tau: u32) {
        let decayed = |old: i64, new: i64, beta: i64| {
            let sum =
                i128::from(old) * i128::from(beta) + i128::from(new) * i128::from(BETA_ONE - beta);
            (2 * sum + i128::from(BETA_ONE)).div_euclid(2 * i128::from(BETA_ONE)) as i64
        };
        let before = if is_on(Plant::MomentForgotten) { 0 } else { self.first[at] };
        self.first[at] = decayed(before, mean, BETA_FIRST);
        self.second[at] = decayed(self.second[at], mean * mean, BETA_SECOND).max(0);
        let root = self.second[at].isqrt() + i64::from(tau);
        self.add(at, rounded(i64::from(rate) * self.first[at], root));
    }
}

/// A quotient, to the nearest, halves upwards. The divisor is more than zero.
fn rounded(value: i64, divisor: i64) -> i64 {
    let (value, divisor) = (i128::from(value), i128::from(divisor.max(1)));
    (2 * value + divisor).div_euclid(2 * divisor) as i64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::fixed::LEVEL_MAX;

    const ONE: i32 = 1 << MODEL_BITS;

    fn clip() -> Clip {
        Clip::new(ONE as u32).unwrap()
    }

    fn aggregate(values: &[f64], weight: u32, clients: u32) -> Aggregate {
        let level = |value: &f64| (value * f64::from(LEVEL_MAX) * f64::from(weight)) as i64;
        Aggregate { sum: values.iter().map(level).collect(), weight, clients }
    }

    #[test]
    fn an_average_is_added_and_stays_within_the_range() {
        let mut server = Server::new(Strategy::Average { proximal_permille: 0 }, vec![0, i32::MAX]);
        server.apply(clip(), &aggregate(&[-0.5, 1.0], 7, 3));
        assert!((server.model()[0] + ONE / 2).abs() <= 8);
        assert_eq!(server.model()[1], i32::MAX);
    }

    #[test]
    fn adam_is_that_of_floats_to_a_few_steps() {
        let (rate, tau) = (ONE as u32 / 10, ONE as u32 / 1_000);
        let mut server = Server::new(Strategy::Adam { rate, tau }, vec![0]);
        let (mut model, mut first, mut second) = (0.0f64, 0.0f64, 0.0f64);
        let (beta_first, beta_second) = (922.0 / 1_024.0, 1_014.0 / 1_024.0);
        for round in 0..50 {
            let delta = 0.25 - f64::from(round) * 0.01;
            server.apply(clip(), &aggregate(&[delta], 10, 3));
            first = beta_first * first + (1.0 - beta_first) * delta;
            second = beta_second * second + (1.0 - beta_second) * delta * delta;
            model += 0.1 * first / (second.sqrt() + 0.001);
        }
        let got = f64::from(server.model()[0]) / f64::from(ONE);
        assert!((got - model).abs() < 1e-3, "{got} {model}");
    }

    #[test]
    fn scaffold_moves_its_control_by_the_part_that_took_part() {
        let mut server = Server::new(Strategy::Scaffold { clients: 4 }, vec![0]);
        server.apply(clip(), &aggregate(&[0.5, 0.25], 8, 2));
        assert!((server.model()[0] - ONE / 2).abs() <= 8);
        assert!((server.control()[0] - i64::from(ONE) / 8).abs() <= 8);
        assert_eq!(Strategy::Scaffold { clients: 4 }.payload_len(10), 20);
    }

    #[test]
    fn strategies_that_cannot_be_are_refused() {
        let adam = |rate, tau| Strategy::Adam { rate, tau }.check();
        assert_eq!(adam(0, 1), Err(StrategyError::Rate));
        assert_eq!(adam(1, u32::MAX), Err(StrategyError::Rate));
        assert_eq!(Strategy::Scaffold { clients: 0 }.check(), Err(StrategyError::Clients));
        let pulled = Strategy::Average { proximal_permille: u32::MAX };
        assert_eq!(pulled.check(), Err(StrategyError::Proximal(u32::MAX)));
    }

    proptest! {
        /// Whatever the sums are: nothing overflows, and equal inputs give equal bytes.
        #[test]
        fn nothing_overflows(
            sums in proptest::collection::vec(-(1i64 << 30)..1 << 30, 2..8), units in 1u32..1 << 30
        ) {
            let clip = Clip::new(units).unwrap();
            for strategy in [
                Strategy::Average { proximal_permille: 10 },
                Strategy::Adam { rate: 1 << 20, tau: 1 },
                Strategy::Scaffold { clients: u32::MAX },
            ] {
                let dim = sums.len() / (strategy.payload_len(2) / 2);
                let sum = sums[..strategy.payload_len(dim)].to_vec();
                let aggregate = Aggregate { sum, weight: 8_192, clients: 128 };
                let mut servers = [(); 2].map(|()| Server::new(strategy, vec![i32::MAX; dim]));
                for server in &mut servers {
                    (0..4).for_each(|_| server.apply(clip, &aggregate));
                }
                prop_assert_eq!(servers[0].digest(), servers[1].digest());
            }
        }
    }
}
