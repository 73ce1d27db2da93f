//! Whether a small model's answer is good enough, and what having tried it first has saved.
//!
//! Owns the rule only: how much of an answer is looked at, and what follows from it. Who holds an
//! answer back until it is judged is the shell's to arrange, what follows along a request's targets
//! [`crate::journey`]'s.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Counts, Price, Unpriced};

/// Below this many tokens a mean says little: "Yes." has two, and both may be unlikely and right.
const MIN_JUDGED_TOKENS: u32 = 4;

/// Tokens of an answer that are looked at, when it has as many: a few sentences, about a second of
/// a small model, for which a stream is held back. A model that is lost is so from the start.
pub const JUDGED_TOKENS: u32 = 64;
/// Pieces after which an answer is judged by what was told: four times as many as tokens are looked
/// at, since a piece has at least one.
const MOST_PIECES: u32 = 4 * JUDGED_TOKENS;
/// Events after which it is, of whatever kind: four for each piece, so that a provider that sends
/// others than text does not fill the memory with what is held back.
const MOST_EVENTS: u32 = 4 * MOST_PIECES;

/// An answer that comes and is not judged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    min_millinats: i32,
    seen: Confidence,
    pieces: u32,
    events: u32,
    calls: bool,
}

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
        /// Mean log-probability in thousandths, when there was enough to tell: of very short
        /// answers, and where no probabilities are told, there is not.
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

impl Doubt {
    /// Of an answer that shall have at least this mean log-probability, in thousandths.
    pub const fn new(min_millinats: i32) -> Self {
        let seen = Confidence { sum_micronats: 0, tokens: 0 };
        Self { min_millinats, seen, pieces: 0, events: 0, calls: false }
    }

    /// Something came, whatever it was.
    pub const fn event(&mut self) {
        self.events = self.events.saturating_add(1);
    }

    /// It calls a tool: of a call no probabilities are told, so it stands.
    pub const fn called(&mut self) {
        self.calls = true;
    }

    /// A piece of text came.
    pub const fn piece(&mut self) {
        self.pieces = self.pieces.saturating_add(1);
    }

    /// A token's log-probability was told. Only the first [`JUDGED_TOKENS`] count, so that an
    /// answer is judged alike whether it comes at once or in pieces.
    pub const fn token(&mut self, micronats: i64) {
        if self.seen.tokens < JUDGED_TOKENS {
            self.seen.add(micronats);
        }
    }

    /// Whether enough was seen to judge it before its end.
    pub const fn is_enough(&self) -> bool {
        let silent = self.seen.tokens == 0 && self.pieces >= JUDGED_TOKENS;
        let many = self.pieces >= MOST_PIECES || self.events >= MOST_EVENTS;
        self.seen.tokens >= JUDGED_TOKENS || silent || many || self.calls
    }

    /// What to do with it, by what was seen: once that is enough, or at its end.
    pub const fn judge(&self) -> Judgement {
        if self.calls {
            return Judgement::Keep { mean_millinats: None };
        }
        match (self.seen.tokens, self.pieces) {
            // There is text, and nobody says how sure it is.
            (0, 1..) => Judgement::Keep { mean_millinats: None },
            _ => self.seen.judge(self.min_millinats),
        }
    }
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

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep { mean_millinats: Some(mean) } => {
                write!(f, "confidence {mean} thousandths: good enough")
            }
            Self::Keep { mean_millinats: None } => {
                f.write_str("confidence unknown: taken as it is")
            }
            Self::Escalate { mean_millinats } => {
                write!(f, "confidence {mean_millinats} thousandths: too low")
            }
            Self::Empty => f.write_str("there was no answer"),
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(min: i32, tokens: &[i64]) -> Judgement {
        let mut doubt = Doubt::new(min);
        for token in tokens {
            doubt.piece();
            doubt.token(*token);
        }
        doubt.judge()
    }

    #[test]
    fn an_answer_is_judged_by_its_first_tokens_or_not_at_all() {
        let sure = vec![-100_000; 64];
        assert_eq!(judged(-200, &sure), Judgement::Keep { mean_millinats: Some(-100) });
        assert_eq!(judged(-50, &sure), Judgement::Escalate { mean_millinats: -100 });
        let later_lost: Vec<i64> = sure.iter().copied().chain([-9_000_000; 64]).collect();
        assert_eq!(judged(-200, &later_lost), judged(-200, &sure));
        assert_eq!(judged(-200, &[]), Judgement::Empty);
        let mut silent = Doubt::new(-200);
        assert!(!silent.is_enough());
        (0..JUDGED_TOKENS).for_each(|_| silent.piece());
        assert!(silent.is_enough());
        assert_eq!(silent.judge(), Judgement::Keep { mean_millinats: None });
    }

    #[test]
    fn a_call_stands_and_what_is_no_text_is_not_held_back_for_ever() {
        let mut calls = Doubt::new(-200);
        (0..MIN_JUDGED_TOKENS).for_each(|_| calls.token(-9_000_000));
        assert!(matches!(calls.judge(), Judgement::Escalate { .. }));
        calls.called();
        assert!(calls.is_enough());
        assert_eq!(calls.judge(), Judgement::Keep { mean_millinats: None });
        let mut odd = Doubt::new(-200);
        (1..MOST_EVENTS).for_each(|_| odd.event());
        assert!(!odd.is_enough());
        odd.event();
        assert!(odd.is_enough());
        assert_eq!(odd.judge(), Judgement::Empty);
    }

    proptest! {
        /// The model: the mean of the first tokens, in exact integers, rounded down.
        #[test]
        fn a_judgement_is_the_mean_of_the_first_tokens(
            tokens in prop::collection::vec(-20_000_000_i64..=0, 0..200),
            min in -5_000_i32..=0,
        ) {
            let first: Vec<i64> = tokens.iter().copied().take(JUDGED_TOKENS as usize).collect();
            let (sum, count) = (first.iter().sum::<i64>(), first.len() as i64);
            let wanted = match count {
                0 => Judgement::Empty,
                1..4 => Judgement::Keep { mean_millinats: None },
                _ => {
                    let mean_millinats = sum.div_euclid(count * 1_000);
                    match mean_millinats < i64::from(min) {
                        true => Judgement::Escalate { mean_millinats },
                        false => Judgement::Keep { mean_millinats: Some(mean_millinats) },
                    }
                }
            };
            prop_assert_eq!(judged(min, &tokens), wanted);
        }

        /// A stream is held back for a bounded number of pieces, whatever comes.
        #[test]
        fn nothing_is_held_back_for_long(
            tokens in prop::collection::vec((any::<bool>(), -5_000_000_i64..=0), 0..400),
        ) {
            let mut doubt = Doubt::new(-800);
            for (told, micronats) in tokens {
                if doubt.is_enough() {
                    break;
                }
                doubt.piece();
                if told {
                    doubt.token(micronats);
                }
                prop_assert!(doubt.pieces <= MOST_PIECES);
            }
        }
    }
}
