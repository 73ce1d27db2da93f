//! A model's arithmetic on tensors: the flat vector cut into parameters, and the forward pass.
//!
//! Owns nothing but the way of the values. What the layers are is in `model`; steps are in
//! `local`.

use candle_core::{Device, Tensor, Var};

use crate::model::{FILTER, Parameter};
use crate::{Layer, Model, Shape, TrainError};

/// A model with weights that can be trained.
pub(crate) struct Net {
    model: Model,
    parameters: Vec<Parameter>,
    weights: Vec<Var>,
}

impl Net {
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
        Ok(Self { model: model.clone(), parameters, weights })
    }

    /// The variables, in the order of the parameters.
    pub(crate) fn weights(&self) -> &[Var] {
        &self.weights
    }

    /// Tensors of the parameters' shapes from a flat vector of their length.
    pub(crate) fn shaped(&self, flat: &[f32]) -> Result<Vec<Tensor>, TrainError> {
        cut(&self.parameters, flat)
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
                values = even(&values)?.max_pool2d(2)?;
            }
        }
        Ok(values)
    }

    fn reads_images(&self) -> bool {
        matches!(self.model.hidden.first(), Some(Layer::Convolution(_)))
    }
}

/// Without the last row or column of an odd image: pooling by two then leaves nothing over.
fn even(image: &Tensor) -> Result<Tensor, TrainError> {
    let (_, _, height, width) = image.dims4()?;
    Ok(image.narrow(2, 0, height / 2 * 2)?.narrow(3, 0, width / 2 * 2)?)
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
