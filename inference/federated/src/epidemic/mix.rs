//! The arithmetic of personal models: which may be mixed, what comes out, in whole numbers.
//!
//! A mix is a weighted mean over a set, with one rounding at its end: it does not depend on the
//! order in which models came.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Base, Told};
use crate::fixed::Clip;
use crate::round::Job;

/// The greatest age that is told: a step a second for twelve days. Older models stay at it.
pub const MAX_AGE: u32 = 1 << 20;
/// The age from which a model counts no more for being older: by then it has heard of everybody in
/// a mesh of thousands, and what counts is on how many examples a node trains. A lie about one's
/// age weighs no more than that; it also lets a model be further from its base, see [`most`].
const FULL_AGE: u32 = 16;
/// Steps that a model may be behind. Who hears nobody for so long learns alone, and would pull back
/// what others have in common; the first model it hears brings it up.
const MAX_BEHIND: u32 = 32;
/// Clips that a personal model may drift from the common one: what bounds the harm of a peer that
/// lies, and the size of a model on its way.
const MAX_CLIPS: u32 = 64;

/// Why a peer's model is not mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error, Serialize, Deserialize)]
pub enum Unmixed {
    /// The sender is not the client.
    #[error("the model is another node's")]
    Sender,
    /// It is a drift from an older common model.
    #[error("the model is of round {0}, which is over")]
    Stale(u64),
    /// It is a drift from a newer one.
    #[error("the model is of round {0}, which is not known here yet")]
    Ahead(u64),
    /// It is a drift from the model of another chain.
    #[error("the model is of another chain of records")]
    Record,
    /// It was mixed before, or a newer one of its node was.
    #[error("the model was mixed before, or a newer one was")]
    Replayed,
    /// Its age cannot be.
    #[error("an age of {0}, which cannot be")]
    Age(u32),
    /// It is too far behind.
    #[error("an age of {0}, which is too far behind")]
    Behind(u32),
    /// It was trained on nothing.
    #[error("a model that was trained on no examples")]
    Empty,
    /// It has another number of weights.
    #[error("the model has {0} weights, which is not what the job says")]
    Length(usize),
    /// A weight is further from the common model than its age allows.
    #[error("weight {0} is out of range")]
    Range(usize),
    /// There is no room.
    #[error("there is no room for another model")]
    Full,
}

impl Unmixed {
    /// The reason in a word, to count by.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Stale(_) => "stale",
            Self::Ahead(_) => "ahead",
            Self::Record => "record",
            Self::Replayed => "replayed",
            Self::Age(_) => "age",
            Self::Behind(_) => "behind",
            Self::Empty => "empty",
            Self::Length(_) => "length",
            Self::Range(_) => "range",
            Self::Full => "full",
        }
    }

    /// Whether only a wrong or lying program sends such a model.
    pub const fn is_misdeed(&self) -> bool {
        match self {
            Self::Sender
            | Self::Record
            | Self::Age(_)
            | Self::Empty
            | Self::Length(_)
            | Self::Range(_) => true,
            Self::Stale(_) | Self::Ahead(_) | Self::Replayed | Self::Behind(_) | Self::Full => {
                false
            }
        }
    }
}

/// Whether a drift is from the common model that is known here.
pub(super) fn check_base(theirs: Base, ours: Base) -> Result<(), Unmixed> {
    if theirs.round < ours.round {
        return Err(Unmixed::Stale(theirs.round));
    }
    if theirs.round > ours.round {
        return Err(Unmixed::Ahead(theirs.round));
    }
    if theirs.record != ours.record {
        return Err(Unmixed::Record);
    }
    Ok(())
}

/// Whether a model can be what an honest peer made, and is worth mixing at this own age.
pub(super) fn check(told: &Told, job: &Job, own_age: u32) -> Result<(), Unmixed> {
    if !(1..=MAX_AGE).contains(&told.age) {
        return Err(Unmixed::Age(told.age));
    }
    if told.age.saturating_add(MAX_BEHIND) < own_age {
        return Err(Unmixed::Behind(told.age));
    }
    if told.examples == 0 {
        return Err(Unmixed::Empty);
    }
    if told.drift.len() != job.dim {
        return Err(Unmixed::Length(told.drift.len()));
    }
    let most = most(job.clip, told.age);
    match told.drift.iter().position(|weight| i64::from(*weight).abs() > most) {
        Some(index) => Err(Unmixed::Range(index)),
        None => Ok(()),
    }
}

/// How far a weight may drift until an age, in units of 2^-20: a clip a step, up to a bound. A mean
/// of drifts within their bounds is within that of the oldest.
fn most(clip: Clip, age: u32) -> i64 {
    let most = i64::from(clip.units()) * i64::from(age.min(MAX_CLIPS));
    most.min(i64::from(i32::MAX))
}

/// What a model counts in a mix: by its examples up to the job's cap, and by its age while it is
/// young.
fn weight(told: &Told, max_examples: u32) -> i128 {
    i128::from(told.age.min(FULL_AGE)) * i128::from(told.examples.min(max_examples))
}

/// The weighted mean of drifts, rounded to the nearest, halves upwards; nothing of none. All have
/// `dim` weights.
pub(super) fn mean(all: &[&Told], max_examples: u32, dim: usize) -> Vec<i32> {
    let total: i128 = all.iter().map(|told| weight(told, max_examples)).sum();
    if total == 0 {
        return vec![0; dim];
    }
    // A weight is below 2^36 and a drift below 2^31.
    let mut sums = vec![0i128; dim];
    for told in all {
        let weight = weight(told, max_examples);
        for (sum, drift) in sums.iter_mut().zip(&told.drift) {
            *sum += weight * i128::from(*drift);
        }
    }
    sums.into_iter().map(|sum| (2 * sum + total).div_euclid(2 * total) as i32).collect()
}

/// Adds what was learned in a step, within what the age allows.
pub(super) fn learn(drift: &mut [i32], levels: &[i32], clip: Clip, age: u32) {
    let most = most(clip, age);
    for (weight, level) in drift.iter_mut().zip(levels) {
        let moved = i64::from(*weight) + clip.mean(i64::from(*level), 1);
        *weight = moved.clamp(-most, most) as i32;
    }
}
