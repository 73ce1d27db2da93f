//! Models that clients train: their layers, and their parameters as one flat vector.
//!
//! Owns which layers there are, the order and shapes of their parameters and the first weights.
//! Computing with them is in `net`. The flat order is a format: joined updates, stored models and
//! hash chains rely on it, so it only ever grows by new kinds of layers.

use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::random::{Purpose, stream};
use crate::{Schema, Shape, TrainError};

/// Parameters a trained model may have: what one update of a round holds. Larger models are to be
/// tuned by low-rank updates.
pub(crate) const MAX_PARAMETERS: usize = 1 << 20;

/// Values that a convolution computes of one image, 1 GiB of f32: filters over an image of 1,024
/// by 1,024 stay below, and places in a plane are counted in 32 bits.
const MAX_PLANES: usize = 1 << 28;
/// Layers a model may have: deeper ones need normalisation that these have not.
pub(crate) const MAX_LAYERS: usize = 16;

/// One hidden layer of a model; a last dense layer to the classes is always added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// So many units that see every value, then ReLU.
    Dense(usize),
    /// So many 5 × 5 filters with stride 1 and padding 2, ReLU, then the largest of each 2 × 2
    /// (LeCun et al. 1998, LeNet). Only for images, before any dense layer.
    Convolution(usize),
}

/// Pixels along each side of a filter.
pub(crate) const FILTER: usize = 5;

/// A model: what it reads, its hidden layers, and the classes it tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What it reads and the classes.
    pub schema: Schema,
    /// The hidden layers, first to last. None: a linear classifier.
    pub hidden: Vec<Layer>,
}

/// The shape of one parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Output first: `[units, inputs]`, `[filters, channels, 5, 5]`, or `[units]` for a bias.
    pub(crate) shape: Vec<usize>,
    /// Inputs that meet in one output, which first weights are scaled by; 0 for a bias.
    fan_in: usize,
}

impl Parameter {
    /// Numbers in this tensor.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Model {
    /// The parameters in the order of the flat vector, or why this model cannot be built.
    pub(crate) fn parameters(&self) -> Result<Vec<Parameter>, TrainError> {
        let mut inputs = self.schema.check()?;
        if self.hidden.len() >= MAX_LAYERS {
            return Err(TrainError::Model(format!("more than {MAX_LAYERS} layers")));
        }
        let mut image = match self.schema.shape {
            Shape::Image { channels, height, width } => Some((channels, height, width)),
            Shape::Flat(_) => None,
        };
        let mut list = Vec::with_capacity(2 * self.hidden.len() + 2);
        let mut total = 0_usize;
        let last = Layer::Dense(self.schema.classes);
        for (at, layer) in self.hidden.iter().chain([&last]).enumerate() {
            let (weight, outputs) = match (*layer, image) {
                (Layer::Dense(units), _) => {
                    image = None;
                    (vec![units, inputs], units)
                }
                (Layer::Convolution(filters), Some((channels, height, width))) => {
                    if height < 2 || width < 2 {
                        return Err(TrainError::Model(format!(
                            "layer {at} would halve an image of {height} × {width}"
                        )));
                    }
                    // Each neighbourhood is written out, and each filter's plane is kept.
                    let row = channels.checked_mul(FILTER * FILTER);
                    let values = row
                        .and_then(|row| row.checked_add(filters)?.checked_mul(height * width))
                        .filter(|values| *values <= MAX_PLANES);
                    if values.is_none() {
                        return Err(TrainError::TooLarge {
                            what: format!("what layer {at} computes of one image"),
                            limit: MAX_PLANES,
                        });
                    }
                    image = Some((filters, height / 2, width / 2));
                    (vec![filters, channels, FILTER, FILTER], filters)
                }
                (Layer::Convolution(_), None) => {
                    return Err(TrainError::Model(format!(
                        "layer {at} is a convolution, which needs an image before it"
                    )));
                }
            };
            total = product(&weight)
                .and_then(|w| total.checked_add(w)?.checked_add(outputs))
                .ok_or(TrainError::Model(format!("layer {at} has no units, or too many")))?;
            if total > MAX_PARAMETERS {
                let what = format!("a model of {total} parameters");
                return Err(TrainError::TooLarge { what, limit: MAX_PARAMETERS });
            }
            let fan_in = weight.iter().skip(1).product();
            list.push(Parameter { shape: weight, fan_in });
            list.push(Parameter { shape: vec![outputs], fan_in: 0 });
            inputs = image.map_or(outputs, |(channels, height, width)| channels * height * width);
        }
        Ok(list)
    }

    /// Numbers in the flat vector.
    pub fn size(&self) -> Result<usize, TrainError> {
        Ok(self.parameters()?.iter().map(Parameter::len).sum())
    }

    /// First weights: normal with variance 2 / inputs (He et al. 2015, arXiv 1502.01852), biases
    /// zero.
    pub fn first(&self, seed: u64) -> Result<Vec<f32>, TrainError> {
        let mut rng = stream(seed, Purpose::Weights);
        let mut flat = Vec::with_capacity(self.size()?);
        for parameter in self.parameters()? {
            #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
            let scale = (2.0 / parameter.fan_in.max(1) as f32).sqrt();
            flat.extend((0..parameter.len()).map(|_| {
                let draw: f32 = StandardNormal.sample(&mut rng);
                if parameter.fan_in == 0 { 0.0 } else { draw * scale }
            }));
        }
        Ok(flat)
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side)).filter(|&n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(hidden: Vec<Layer>) -> Model {
        let shape = Shape::Image { channels: 1, height: 28, width: 28 };
        Model { schema: Schema { shape, classes: 10 }, hidden }
    }

    #[test]
    fn the_known_models_have_the_known_sizes() -> Result<(), TrainError> {
        assert_eq!(digits(vec![Layer::Dense(100)]).size()?, 79_510);
        assert_eq!(digits(vec![]).size()?, 7_850);
        let lenet = digits(vec![
            Layer::Convolution(6),
            Layer::Convolution(16),
            Layer::Dense(120),
            Layer::Dense(84),
        ]);
        let parts = [156, 2_416, 784 * 120 + 120, 120 * 84 + 84, 850];
        assert_eq!(lenet.size()?, parts.iter().sum::<usize>());
        Ok(())
    }

    #[test]
    fn what_cannot_be_built_is_said() {
        let said = |model: Model| model.size().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said(digits(vec![Layer::Dense(0)])).contains("no units"));
        assert!(said(digits(vec![Layer::Dense(usize::MAX)])).contains("too many"));
        assert!(said(digits(vec![Layer::Dense(1 << 20)])).contains("more than the limit"));
        let late = vec![Layer::Dense(5), Layer::Convolution(2)];
        assert!(said(digits(late)).contains("needs an image"));
        assert!(said(digits(vec![Layer::Convolution(1); 6])).contains("halve an image of 1"));
        assert!(said(digits(vec![Layer::Dense(3); 16])).contains("16 layers"));
        let shape = Shape::Image { channels: 1, height: 1 << 14, width: 1 << 14 };
        let vast =
            Model { schema: Schema { shape, classes: 2 }, hidden: vec![Layer::Convolution(17)] };
        assert!(said(vast).contains("what layer 0 computes of one image"));
    }

    #[test]
    fn first_weights_repeat_and_differ_by_seed() -> Result<(), TrainError> {
        let model = digits(vec![Layer::Dense(100)]);
        let first = model.first(1)?;
        assert_eq!(first, model.first(1)?);
        assert_ne!(first, model.first(2)?);
        let weights = &first[..78_400];
        let mean_square = weights.iter().map(|w| w * w).sum::<f32>() / 78_400.0;
        assert!((mean_square * 784.0 - 2.0).abs() < 0.05, "{mean_square}");
        assert!(first[78_400..78_500].iter().all(|&bias| bias == 0.0));
        Ok(())
    }
}
