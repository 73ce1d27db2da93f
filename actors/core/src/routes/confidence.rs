//! Whether a small model's answer is good enough, and what having tried it first has saved.
//!
//! Owns the rule only; who buffers an answer until it is judged is the shell's to arrange.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Counts, Price, Unpriced};

/// Below this many tokens a mean says little: "Yes." has two, and both may be unlikely and right.
const MIN_JUDGED_TOKENS: u32 = 4;

/// How sure a model was of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confidence {
    /// The sum of its tokens' log-probabilities, in millionths of a natural logarithm (0 or less).
    pub sum_micronats: i64,
    /// Tokens in the sum.
    pub tokens: u32,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// It stands.
    Keep {
        /// Mean log-probability in thousandths, when there was enough to tell.
        mean_millinats: Option<i64>,
    },
    /// A larger model is asked.
    Escalate {
        /// Mean log-probability in thousandths.
        mean_millinats: i64,
    },
    /// There is no answer at all: a larger model is asked.
    Empty,
}

/// What a request cost, and what it would have cost without the small model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saving {
    /// Micro-dollars spent, on all models that were asked.
    pub paid: u64,
    /// Micro-dollars the largest model alone would have cost for the same tokens. Models count
    /// tokens differently, so this is an estimate.
    pub instead: u64,
}

impl Confidence {
    /// Adds a token's log-probability.
    pub const fn add(&mut self, micronats: i64) {
        self.sum_micronats = self.sum_micronats.saturating_add(micronats);
        self.tokens = self.tokens.saturating_add(1);
    }

    /// Whether an answer stands, with `min_millinats` as the least mean log-probability.
    pub const fn judge(self, min_millinats: i32) -> Judgement {
        if self.tokens == 0 {
            return Judgement::Empty;
        }
        // Rounded down, so that an answer just below the threshold does not pass.
        let mean_millinats = self.sum_micronats.div_euclid(self.tokens as i64 * 1_000);
        if self.tokens < MIN_JUDGED_TOKENS {
            Judgement::Keep { mean_millinats: None }
        } else if mean_millinats < min_millinats as i64 {
            Judgement::Escalate { mean_millinats }
        } else {
            Judgement::Keep { mean_millinats: Some(mean_millinats) }
        }
    }
}

impl Judgement {
    /// Whether a larger model is to be asked.
    pub const fn escalates(self) -> bool {
        matches!(self, Self::Escalate { .. } | Self::Empty)
    }
}

impl Saving {
    /// What was saved by asking others than the largest model, or before it.
    ///
    /// # Errors
    /// [`Unpriced`] when the largest model has no known price: nothing is claimed then.
    pub fn of(paid: u64, largest: &Price, answer: &Counts) -> Result<Self, Unpriced> {
        Ok(Self { paid, instead: largest.cost(answer)? })
    }

    /// Micro-dollars saved; less than 0 when asking the small model first cost more.
    pub fn saved(self) -> i128 {
        i128::from(self.instead) - i128::from(self.paid)
    }
}

impl fmt::Display for Saving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { paid, instead } = self;
        match self.saved() {
            saved if saved >= 0 => {
                write!(f, "saved {saved} micro-dollars ({paid} instead of {instead})")
            }
            more => {
                write!(f, "cost {} micro-dollars more ({paid} instead of {instead})", -more)
            }
        }
    }
}
