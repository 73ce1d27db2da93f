//! How well a model does on examples it was not trained on.

use crate::net::{Net, likeliest, loss};
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
    let mut room = net.room(BATCH.min(data.len()));
    let (width, classes) = (data.width(), model.schema.classes);
    let mut right = 0;
    let mut sum = 0.0;
    for (values, labels) in data.values().chunks(BATCH * width).zip(data.labels().chunks(BATCH)) {
        let scores = net.scores(values, &mut room)?;
        for (scores, &label) in scores.chunks_exact(classes).zip(labels) {
            right += usize::from(likeliest(scores) == label);
            sum += f64::from(loss(scores, label));
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    #[allow(clippy::cast_possible_truncation, reason = "a mean of single precision")]
    let mean = (sum / data.len().max(1) as f64) as f32;
    Ok(Measured { right, examples: data.len(), loss: mean })
}
