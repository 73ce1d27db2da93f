//! Labelled examples in memory, and what a job says of them.
//!
//! Owns the layout (row after row, f32) and its bounds. Reading files is in `source`.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Values of all examples together that a node holds: 1 GiB of f32, which leaves room on the
/// smallest machines that train at all.
pub(crate) const MAX_VALUES: usize = 1 << 28;

/// How far from zero a value may be. Weights of a round are whole multiples of 2^-20, so beyond
/// 2^20 the smallest step of one weight moves what a model says by more than one: what is joined
/// would be another model than was trained. Below it, what a first step multiplies and adds up
/// over as many weights as a model may have is far from the end of an f32.
pub const MAX_VALUE: f32 = 1_048_576.0;

/// Whether a value is one that can be learned from; what is not a number is none.
pub fn is_learnable(value: f32) -> bool {
    value.abs() <= MAX_VALUE
}

/// Classes a job may tell apart: labels are compared one by one, and ImageNet's 1,000 fit.
pub(crate) const MAX_CLASSES: usize = 4_096;

/// How the values of one example are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// So many numbers without neighbourhood: a row of a table, the values of sensors.
    Flat(usize),
    /// An image, channel by channel, row by row.
    Image {
        /// 1 for grey, 3 for colours.
        channels: usize,
        /// Pixels from top to bottom.
        height: usize,
        /// Pixels from left to right.
        width: usize,
    },
}

impl Shape {
    /// Numbers in one example; none when it has none or too many to count.
    pub fn values(self) -> Option<usize> {
        let values = match self {
            Self::Flat(values) => Some(values),
            Self::Image { channels, height, width } => {
                channels.checked_mul(height).and_then(|plane| plane.checked_mul(width))
            }
        };
        values.filter(|&values| values > 0 && values <= MAX_VALUES)
    }
}

/// What every client's examples must be, as the job says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The values of one example.
    pub shape: Shape,
    /// Labels run from 0 to this, exclusive.
    pub classes: usize,
}

impl Schema {
    /// Refuses what no model could be built for.
    pub fn check(&self) -> Result<usize, TrainError> {
        if self.classes < 2 || self.classes > MAX_CLASSES {
            return Err(TrainError::Schema(format!(
                "{} classes; a job tells 2 to {MAX_CLASSES} apart",
                self.classes
            )));
        }
        self.shape.values().ok_or_else(|| {
            TrainError::Schema(format!("{:?} has no values, or more than {MAX_VALUES}", self.shape))
        })
    }
}

/// Examples with their labels, all of one shape.
#[derive(Clone, Debug)]
pub struct Examples {
    schema: Schema,
    /// Numbers in one example.
    width: usize,
    /// Example after example.
    values: Vec<f32>,
    labels: Vec<u32>,
}

impl Examples {
    /// Takes values (example after example) and labels, refusing what does not fit the schema:
    /// lengths, labels out of range, numbers that are not finite or too large to learn from.
    pub fn new(schema: Schema, values: Vec<f32>, labels: Vec<u32>) -> Result<Self, TrainError> {
        let width = schema.check()?;
        if values.len() > MAX_VALUES {
            let what = format!("{} values", values.len());
            return Err(TrainError::TooLarge { what, limit: MAX_VALUES });
        }
        if labels.len().checked_mul(width) != Some(values.len()) {
            return Err(TrainError::Schema(format!(
                "{} labels need {width} values each, and there are {} values",
                labels.len(),
                values.len()
            )));
        }
        let beyond = |&label: &u32| usize::try_from(label).map_or(true, |l| l >= schema.classes);
        if let Some(at) = labels.iter().position(beyond) {
            return Err(TrainError::Schema(format!(
                "example {at} has the label {}, and the job has {} classes, counted from 0",
                labels[at], schema.classes
            )));
        }
        if let Some(at) = values.iter().position(|value| !is_learnable(*value)) {
            return Err(TrainError::Schema(format!(
                "example {} has {} for value {}; only numbers up to {MAX_VALUE} either way can be \
                 learned from",
                at / width,
                values[at],
                at % width
            )));
        }
        Ok(Self { schema, width, values, labels })
    }

    /// What these examples are.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Numbers in one example.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Examples held.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of each example.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The values of one example.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// All values, example after example.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Copies of the examples at these places, in this order.
    pub fn pick(&self, places: &[usize]) -> Self {
        let mut values = Vec::with_capacity(places.len() * self.width);
        let mut labels = Vec::with_capacity(places.len());
        for &at in places {
            values.extend_from_slice(self.row(at));
            labels.push(self.labels[at]);
        }
        Self { schema: self.schema.clone(), width: self.width, values, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(classes: usize) -> Schema {
        Schema { shape: Shape::Flat(2), classes }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        let said = |values, labels, classes| {
            Examples::new(schema(classes), values, labels).err().map(|e| e.to_string())
        };
        assert!(said(vec![1.0, 2.0], vec![0], 2).is_none());
        let short = said(vec![1.0], vec![0], 2).unwrap_or_default();
        assert!(short.contains("2 values each"), "{short}");
        let beyond = said(vec![1.0; 4], vec![0, 2], 2).unwrap_or_default();
        assert!(beyond.contains("example 1 has the label 2"), "{beyond}");
        let nan = said(vec![0.0, 0.0, 0.0, f32::NAN], vec![0, 1], 2).unwrap_or_default();
        assert!(nan.contains("example 1 has NaN for value 1"), "{nan}");
        let large = said(vec![0.0, MAX_VALUE, -2.0 * MAX_VALUE, 0.0], vec![0, 1], 2);
        assert!(large.unwrap_or_default().contains("example 1 has -2097152 for value 0; only"));
        assert!(said(vec![MAX_VALUE, -MAX_VALUE], vec![0], 2).is_none());
        assert!(said(vec![1.0, 2.0], vec![0], 1).unwrap_or_default().contains("2 to 4096"));
    }

    #[test]
    fn shapes_too_large_to_count_have_no_values() {
        let huge = Shape::Image { channels: usize::MAX, height: 2, width: 1 };
        assert_eq!(huge.values(), None);
        assert_eq!(Shape::Flat(0).values(), None);
        assert_eq!(Shape::Image { channels: 3, height: 2, width: 2 }.values(), Some(12));
    }

    #[test]
    fn picked_examples_keep_their_labels() -> Result<(), TrainError> {
        let all = Examples::new(schema(3), vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![0, 1, 2])?;
        let picked = all.pick(&[2, 0]);
        assert_eq!(picked.labels(), [2, 0]);
        assert_eq!(picked.values(), [4.0, 5.0, 0.0, 1.0]);
        Ok(())
    }
}
