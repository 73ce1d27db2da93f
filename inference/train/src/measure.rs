//! How well a model does on examples it was not trained on.

use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;

use crate::net::Net;
use crate::{Examples, Local, Model, TrainError};

/// Examples computed at once: their hidden values fit the second-level cache of small machines.
const BATCH: usize = 256;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Examples that were given their own label.
    pub right: usize,
    /// Examples in all.
    pub examples: usize,
    /// Mean loss, in nats.
    pub loss: f32,
}

impl Measured {
    /// Share of examples that were right, between 0 and 1; 0 when there were none.
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
    pub fn accuracy(&self) -> f64 {
        if self.examples == 0 { 0.0 } else { self.right as f64 / self.examples as f64 }
    }
}

/// Measures a model with these weights.
pub fn measure(
    local: &Local,
    model: &Model,
    weights: &[f32],
    data: &Examples,
) -> Result<Measured, TrainError> {
    local.run(|| on_this_thread(model, weights, data))
}

fn on_this_thread(model: &Model, weights: &[f32], data: &Examples) -> Result<Measured, TrainError> {
    if data.schema() != &model.schema {
        return Err(TrainError::Schema("the model reads other examples".to_owned()));
    }
    let net = Net::new(model, weights)?;
    let width = data.width();
    let mut right = 0;
    let mut loss = 0.0;
    for (values, labels) in data.values().chunks(BATCH * width).zip(data.labels().chunks(BATCH)) {
        let values = Tensor::from_slice(values, (labels.len(), width), &Device::Cpu)?;
        let scores = net.scores(&values)?.detach();
        let best = scores.argmax(1)?.to_vec1::<u32>()?;
        right += best.iter().zip(labels).filter(|(best, label)| best == label).count();
        let labels = Tensor::from_slice(labels, labels.len(), &Device::Cpu)?;
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
        let share = labels.elem_count() as f32 / data.len() as f32;
        loss += cross_entropy(&scores, &labels)?.to_scalar::<f32>()? * share;
    }
    Ok(Measured { right, examples: data.len(), loss })
}
