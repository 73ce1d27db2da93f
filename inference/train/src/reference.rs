//! The same model on Candle's tensors, which differentiates it by itself: what tests hold `net`
//! against.

use candle_core::{Device, Tensor, Var};

use crate::model::{FILTER, Parameter};
use crate::{Layer, Model, Shape, TrainError};

/// A model whose weights are variables.
pub(crate) struct Reference {
    model: Model,
    weights: Vec<Var>,
}

impl Reference {
    /// A net with these weights in the flat order of [`Model::parameters`].
    pub(crate) fn new(model: &Model, flat: &[f32]) -> Result<Self, TrainError> {
        let parameters = model.parameters()?;
        let expected: usize = parameters.iter().map(Parameter::len).sum();
        if flat.len() != expected {
            return Err(TrainError::Model(format!(
                "it has {expected} parameters, and {} were given",
                flat.len()
            )));
        }
        let weights =
            cut(&parameters, flat)?.iter().map(Var::from_tensor).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { model: model.clone(), weights })
    }

    /// The variables, in the order of the parameters.
    pub(crate) fn weights(&self) -> &[Var] {
        &self.weights
    }

    /// Scores before softmax, `[examples, classes]`, for values of `[examples, values]`.
    pub(crate) fn scores(&self, batch: &Tensor) -> Result<Tensor, TrainError> {
        let count = batch.dim(0)?;
        let mut values = match self.model.schema.shape {
            Shape::Image { channels, height, width } if self.reads_images() => {
                batch.reshape((count, channels, height, width))?
            }
            Shape::Image { .. } | Shape::Flat(_) => batch.clone(),
        };
        let last = Layer::Dense(self.model.schema.classes);
        let pairs = self.weights.chunks_exact(2);
        let layers = self.model.hidden.iter().chain([&last]);
        let end = self.model.hidden.len();
        for (at, (layer, pair)) in layers.zip(pairs).enumerate() {
            let [weight, bias] = pair else { continue };
            values = match layer {
                Layer::Dense(_) => {
                    let flat = if values.rank() > 2 { values.flatten_from(1)? } else { values };
                    flat.matmul(&weight.t()?)?.broadcast_add(bias)?
                }
                Layer::Convolution(filters) => {
                    let bias = bias.reshape((1, *filters, 1, 1))?;
                    values.conv2d(weight, FILTER / 2, 1, 1, 1)?.broadcast_add(&bias)?
                }
            };
            if at < end {
                values = values.relu()?;
            }
            if matches!(layer, Layer::Convolution(_)) {
                values = pooled(&values)?;
            }
        }
        Ok(values)
    }

    fn reads_images(&self) -> bool {
        matches!(self.model.hidden.first(), Some(Layer::Convolution(_)))
    }
}

/// The largest of each 2 × 2, without the last row or column of an odd image. Not by `max_pool2d`,
/// whose gradient is a quarter of what it should be (candle 0.11).
fn pooled(image: &Tensor) -> Result<Tensor, TrainError> {
    let (count, filters, height, width) = image.dims4()?;
    let (rows, columns) = (height / 2, width / 2);
    let even = image.narrow(2, 0, rows * 2)?.narrow(3, 0, columns * 2)?.contiguous()?;
    Ok(even
        .reshape((count * filters, rows, 2, columns, 2))?
        .max(4)?
        .max(2)?
        .reshape((count, filters, rows, columns))?)
}

fn cut(parameters: &[Parameter], flat: &[f32]) -> Result<Vec<Tensor>, TrainError> {
    let mut rest = flat;
    let mut tensors = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let Some((own, after)) = rest.split_at_checked(parameter.len()) else {
            return Err(TrainError::Model(format!("{} numbers are too few", flat.len())));
        };
        tensors.push(Tensor::from_slice(own, parameter.shape.as_slice(), &Device::Cpu)?);
        rest = after;
    }
    Ok(tensors)
}
