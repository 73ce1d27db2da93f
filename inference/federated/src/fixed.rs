//! From floats to integers and back: how an update is written so that sums are exact.
//!
//! A client's change of one weight, between `-clip` and `clip`, becomes one of 2^18 - 1 levels
//! around zero. A round adds levels times public weights. No sum can wrap around:
//!
//! ```text
//! |sum| <= LEVEL_MAX * MAX_TOTAL_WEIGHT = (2^17 - 1) * 2^13 < 2^30 < (p - 1) / 2
//! ```
//!
//! so the residue of a sum tells the sum ([`Fp::signed`]); with noise on the levels it does but for
//! a chance that `privacy` states. The bound on the weights of one round is checked by everyone who
//! accepts a closed set. The model itself is kept in integers of 2^-20. Floats occur here on the
//! client's side only; what several nodes compute is in integers. Owns the scales and the checks of
//! single values; without privacy an update is clipped by whoever made it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::field::Fp;

/// The largest level: 18 bits with their sign. Finer steps would cost clients per round, coarser
/// ones accuracy; rounding to 2^-17 of the clip is far below the noise of one batch.
pub const LEVEL_MAX: i32 = (1 << 17) - 1;
/// The most that the weights of one round may add up to: what keeps sums below (p - 1) / 2, with a
/// bit to spare.
pub const MAX_TOTAL_WEIGHT: u32 = 1 << 13;
/// Fractional bits of a model's weight: steps of a millionth, and room for weights up to 2,047.
pub const MODEL_BITS: u32 = 20;
/// Weights of one model that is trained together. Beyond a million, shares of whole vectors cost
/// more than masked vectors would; see `docs/federated.md`.
pub const MAX_DIM: usize = 1 << 20;

/// By how much one weight may change in one update, in units of 2^-20; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Clip(u32);

/// Why an update is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum UpdateError {
    /// It has another number of weights than the model.
    #[error("the update has {found} values and the model {wanted}")]
    Length {
        /// Values found.
        found: usize,
        /// Values the model has.
        wanted: usize,
    },
    /// A value is not a number or has no end.
    #[error("value {index} of the update is not a finite number")]
    NotFinite {
        /// Which.
        index: usize,
    },
    /// A value is beyond the clip.
    #[error("value {index} of the update is beyond the clip; clip before sharing")]
    OverClip {
        /// Which.
        index: usize,
    },
    /// It was trained on nothing.
    #[error("an update that was trained on no examples")]
    Empty,
    /// A level is beyond the largest one.
    #[error("level {index} of the update is out of range")]
    Level {
        /// Which.
        index: usize,
    },
}

/// A clip that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a clip must be more than 0 and at most 1,024, not {0} / 2^20")]
pub struct ClipError(pub u32);

impl Clip {
    /// The clip of so many units of 2^-20.
    ///
    /// # Errors
    /// [`ClipError`] for zero and for more than 1,024, half of what a weight may be.
    pub const fn new(units: u32) -> Result<Self, ClipError> {
        if units == 0 || units > 1 << 30 {
            return Err(ClipError(units));
        }
        Ok(Self(units))
    }

    /// In units of 2^-20.
    pub const fn units(self) -> u32 {
        self.0
    }

    fn value(self) -> f64 {
        f64::from(self.0) / f64::from(1u32 << MODEL_BITS)
    }

    /// The levels of an update of a model of `dim` weights.
    ///
    /// # Errors
    /// [`UpdateError`] for another length, for what is not a finite number or beyond the clip.
    pub fn encode(self, delta: &[f32], dim: usize) -> Result<Vec<i32>, UpdateError> {
        self.levels(delta, dim, false)
    }

    /// The same, where what is beyond the clip is brought to it: whether that happens tells
    /// something of the data, so that with privacy it must not keep a client away.
    ///
    /// # Errors
    /// [`UpdateError`] for another length and for what is not a finite number.
    pub fn encode_clipped(self, delta: &[f32], dim: usize) -> Result<Vec<i32>, UpdateError> {
        self.levels(delta, dim, true)
    }

    fn levels(self, delta: &[f32], dim: usize, clips: bool) -> Result<Vec<i32>, UpdateError> {
        if delta.len() != dim {
            return Err(UpdateError::Length { found: delta.len(), wanted: dim });
        }
        let clip = self.value();
        let level = |(index, value): (usize, &f32)| {
            if !value.is_finite() {
                return Err(UpdateError::NotFinite { index });
            }
            let value = f64::from(*value);
            if value.abs() > clip && !clips {
                return Err(UpdateError::OverClip { index });
            }
            Ok((value.clamp(-clip, clip) / clip * f64::from(LEVEL_MAX)).round() as i32)
        };
        delta.iter().enumerate().map(level).collect()
    }

    /// What a weighted sum of levels means as a change of one weight: its mean, in units of 2^-20,
    /// rounded to the nearest, halves upwards. A weight of nothing changes nothing.
    pub fn mean(self, sum: i64, weight: u32) -> i64 {
        let divisor = i64::from(weight) * i64::from(LEVEL_MAX);
        if divisor == 0 {
            return 0;
        }
        // All sums of levels are that small: twice the product is below 2^62, the divisor below
        // 2^49. Only noise goes beyond.
        if sum.unsigned_abs() <= 1 << 31 {
            return (2 * sum * i64::from(self.0) + divisor).div_euclid(2 * divisor);
        }
        let divisor = i128::from(divisor);
        let scaled = i128::from(sum) * i128::from(self.0);
        (2 * scaled + divisor).div_euclid(2 * divisor) as i64
    }
}

impl TryFrom<u32> for Clip {
    type Error = ClipError;

    fn try_from(units: u32) -> Result<Self, ClipError> {
        Self::new(units)
    }
}

impl From<Clip> for u32 {
    fn from(clip: Clip) -> Self {
        clip.0
    }
}

/// Levels as elements of the field; `most` is the job's largest one.
///
/// # Errors
/// [`UpdateError::Level`] for one beyond it.
pub fn to_field(levels: &[i32], most: i32) -> Result<Vec<Fp>, UpdateError> {
    let element = |(index, level): (usize, &i32)| {
        if level.unsigned_abs() > most.unsigned_abs() {
            return Err(UpdateError::Level { index });
        }
        Ok(Fp::of_signed(i64::from(*level)))
    };
    levels.iter().enumerate().map(element).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one() -> Clip {
        Clip::new(1 << MODEL_BITS).unwrap()
    }

    #[test]
    fn the_largest_sum_is_told_from_its_residue() {
        let most = i64::from(LEVEL_MAX) * i64::from(MAX_TOTAL_WEIGHT);
        assert!(most < 1 << 30);
        for sum in [most, -most] {
            assert_eq!(Fp::of_signed(sum).signed(), sum);
        }
    }

    #[test]
    fn bad_updates_are_refused_with_the_reason() {
        let clip = one();
        assert_eq!(clip.encode(&[0.0; 3], 4), Err(UpdateError::Length { found: 3, wanted: 4 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(clip.encode(&[0.0, bad], 2), Err(UpdateError::NotFinite { index: 1 }));
        }
        assert_eq!(clip.encode(&[1.001], 1), Err(UpdateError::OverClip { index: 0 }));
        assert_eq!(clip.encode(&[1.0, -1.0], 2), Ok(vec![LEVEL_MAX, -LEVEL_MAX]));
        let clipped = clip.encode_clipped(&[9.0, -9.0, 0.0], 3);
        assert_eq!(clipped, Ok(vec![LEVEL_MAX, -LEVEL_MAX, 0]));
        let bad = clip.encode_clipped(&[f32::NAN], 1);
        assert_eq!(bad, Err(UpdateError::NotFinite { index: 0 }));
        assert_eq!(to_field(&[0, LEVEL_MAX + 1], LEVEL_MAX), Err(UpdateError::Level { index: 1 }));
        assert_eq!(to_field(&[i32::MIN], LEVEL_MAX), Err(UpdateError::Level { index: 0 }));
        assert_eq!(Clip::new(0), Err(ClipError(0)));
        assert!(Clip::new(u32::MAX).is_err());
    }

    proptest! {
        /// Sums of any round within its bounds come out of the field as they are in the integers.
        #[test]
        fn no_round_overflows(
            parts in proptest::collection::vec((-LEVEL_MAX..=LEVEL_MAX, 1u32..=64), 1..128)
        ) {
            prop_assert!(parts.iter().map(|(_, weight)| weight).sum::<u32>() <= MAX_TOTAL_WEIGHT);
            let mut sum = Fp::ZERO;
            let mut exact = 0i64;
            for (level, weight) in &parts {
                let element = to_field(&[*level], LEVEL_MAX).unwrap()[0];
                sum = sum.plus(element.times(Fp::reduced(u64::from(*weight))));
                exact += i64::from(*level) * i64::from(*weight);
            }
            prop_assert_eq!(sum.signed(), exact);
        }

        #[test]
        fn small_sums_and_large_ones_are_divided_alike(
            sum in -(1i64 << 40)..1 << 40, near in -3i64..3, units in 1u32..=1 << 30, weight: u32
        ) {
            let clip = Clip::new(units).unwrap();
            for sum in [sum, sum >> 10, near, (1 << 31) + near, -(1 << 31) + near] {
                let divisor = i128::from(weight.max(1)) * i128::from(LEVEL_MAX);
                let scaled = 2 * i128::from(sum) * i128::from(units) + divisor;
                let wanted = scaled.div_euclid(2 * divisor);
                prop_assert_eq!(i128::from(clip.mean(sum, weight.max(1))), wanted);
            }
        }

        #[test]
        fn a_value_comes_back_within_half_a_step(
            value in -1.0f32..=1.0, units in 1u32..1 << 30, weight in 1u32..=MAX_TOTAL_WEIGHT
        ) {
            let clip = Clip::new(units).unwrap();
            let value = value * clip.value() as f32;
            let Ok(levels) = clip.encode(&[value], 1) else {
                // Rounding to f32 may lift the value over the clip.
                prop_assert!(f64::from(value.abs()) > clip.value());
                return Ok(());
            };
            let mean = clip.mean(i64::from(levels[0]) * i64::from(weight), weight);
            let wanted = f64::from(value) * f64::from(1u32 << MODEL_BITS);
            let step = f64::from(units) / f64::from(LEVEL_MAX);
            prop_assert!((mean as f64 - wanted).abs() <= step / 2.0 + 0.5 + 1e-6);
        }
    }
}
