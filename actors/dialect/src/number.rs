//! The one place of this crate that holds floats: numbers that pass through to or from a model.
//!
//! Owns [`Number`], which remembers nothing but its value, and how it is written as JSON. Nothing
//! here is merged, hashed or compared between nodes.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Whole numbers below this are written without a fraction; all of them are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A component of an embedding vector, in the precision that models compute in.
pub type Component = f32;

/// A parameter in double precision, as protocol buffers hold it, before it is judged.
pub type Double = f64;

/// A number in the precision that models compute in, if it is finite there.
pub(crate) fn component(value: Double) -> Option<Component> {
    let value = value as Component;
    value.is_finite().then_some(value)
}

/// A finite number of a request or an answer, such as a temperature or a log probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Number(f64);

impl Number {
    /// The number, if it is finite (JSON has no other numbers).
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// `numerator / denominator`, exact where a float is; 0 when the denominator is 0.
    pub fn ratio(numerator: i64, denominator: i64) -> Self {
        if denominator == 0 { Self(0.0) } else { Self(numerator as f64 / denominator as f64) }
    }

    /// The value in double precision.
    pub const fn value(self) -> f64 {
        self.0
    }

    /// The value in the precision that local engines take.
    pub const fn single(self) -> f32 {
        self.0 as f32
    }

    /// The value as a share above zero: the smallest numbers of 64 bits are zero in 32.
    pub const fn share(self) -> f32 {
        self.single().max(f32::MIN_POSITIVE)
    }

    /// The value without its fraction, if it is a count or a date in seconds.
    pub fn whole(self) -> Option<u64> {
        (0.0..EXACT).contains(&self.0).then_some(self.0 as u64)
    }

    /// The value in whole millionths, rounded; the nearest there is when it is too large.
    pub fn millionths(self) -> i64 {
        (self.0 * 1e6).round() as i64
    }

    /// Whether the value lies between two whole numbers, both included.
    pub fn is_within(self, from: i32, to: i32) -> bool {
        (f64::from(from)..=f64::from(to)).contains(&self.0)
    }
}

impl From<f32> for Number {
    /// What is not finite becomes the lowest number, which is how log probabilities of the
    /// impossible are written.
    fn from(value: f32) -> Self {
        Self::new(f64::from(value)).unwrap_or(Self(-9999.0))
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Self {
        Self(f64::from(value))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.fract() == 0.0 && self.0.abs() < EXACT {
            true => serializer.serialize_i64(self.0 as i64),
            false => serializer.serialize_f64(self.0),
        }
    }
}
