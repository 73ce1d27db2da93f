//! A small model's own arithmetic: scores, losses, and steps of gradient descent in place.
//!
//! Owns the weights as one flat vector and the way of values and gradients through the layers that
//! `model` knows. Products of matrices are in `product`, filters in `convolution`; which steps are
//! taken, and what is added to a gradient, is `local`'s. Buffers are made once for a number of
//! examples, a [`Room`]; a step allocates nothing of its own.

mod convolution;
mod product;

use std::ops::Range;

use convolution::{Convolution, Scratch};
use product::{Before, Matrix, product};

use crate::{Layer, Model, Shape, TrainError};

/// A model with its weights.
pub(crate) struct Net {
    layers: Vec<Placed>,
    weights: Vec<f32>,
    width: usize,
    classes: usize,
}

/// A layer, and where its parameters are.
struct Placed {
    kind: Kind,
    weight: Range<usize>,
    bias: Range<usize>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Units that see all values.
    Dense {
        inputs: usize,
        units: usize,
    },
    Filters(Convolution),
}

/// Buffers for examples that go through a net together.
pub(crate) struct Room {
    /// Examples that it has room for.
    examples: usize,
    layers: Vec<Values>,
    scratch: Scratch,
    /// What a dense layer gives, unit after unit.
    turned: Vec<f32>,
}

/// What a layer made of examples.
struct Values {
    /// After ReLU, but for the scores.
    values: Vec<f32>,
    /// Of filters: where each value was.
    chosen: Vec<u32>,
    /// The gradient of the loss by each value before ReLU; none where nothing is learned.
    blame: Vec<f32>,
}

impl Kind {
    const fn inputs(&self) -> usize {
        match self {
            Self::Dense { inputs, .. } => *inputs,
            Self::Filters(filters) => filters.inputs(),
        }
    }

    const fn outputs(&self) -> usize {
        match self {
            Self::Dense { units, .. } => *units,
            Self::Filters(filters) => filters.outputs(),
        }
    }
}

impl Net {
    /// A net with these weights in the flat order of [`Model::parameters`].
    pub(crate) fn new(model: &Model, flat: &[f32]) -> Result<Self, TrainError> {
        let parameters = model.parameters()?;
        let lengths: Vec<usize> = parameters.iter().map(|parameter| parameter.len()).collect();
        let expected: usize = lengths.iter().sum();
        if flat.len() != expected {
            return Err(TrainError::Model(format!(
                "it has {expected} parameters, and {} were given",
                flat.len()
            )));
        }
        let width = model.schema.check()?;
        let mut image = match model.schema.shape {
            Shape::Image { channels, height, width } => (channels, height, width),
            Shape::Flat(_) => (0, 0, 0),
        };
        let (mut inputs, mut at) = (width, 0);
        let last = Layer::Dense(model.schema.classes);
        let mut layers = Vec::with_capacity(model.hidden.len() + 1);
        for (layer, lengths) in model.hidden.iter().chain([&last]).zip(lengths.chunks_exact(2)) {
            let kind = match *layer {
                Layer::Dense(units) => Kind::Dense { inputs, units },
                Layer::Convolution(filters) => {
                    let (channels, height, width) = image;
                    image = (filters, height / 2, width / 2);
                    Kind::Filters(Convolution { channels, height, width, filters })
                }
            };
            let middle = at + lengths[0];
            let end = middle + lengths[1];
            layers.push(Placed { kind, weight: at..middle, bias: middle..end });
            (inputs, at) = (kind.outputs(), end);
        }
        let classes = model.schema.classes;
        Ok(Self { layers, weights: flat.to_vec(), width, classes })
    }

    /// The weights, in the flat order.
    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The weights, to be changed.
    pub(crate) fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.weights
    }

    /// Room for so many examples at once, for asking.
    pub(crate) fn room(&self, examples: usize) -> Room {
        self.make_room(examples, 0)
    }

    /// Room for so many examples at once, for learning.
    pub(crate) fn room_to_learn(&self, examples: usize) -> Room {
        self.make_room(examples, examples)
    }

    fn make_room(&self, examples: usize, blamed: usize) -> Room {
        let (mut scratch, mut turned) = (Scratch::default(), 0);
        let mut layers = Vec::with_capacity(self.layers.len());
        for Placed { kind, .. } in &self.layers {
            let chosen = if let Kind::Filters(filters) = kind {
                scratch.grow(filters);
                vec![0; examples * kind.outputs()]
            } else {
                turned = turned.max(examples.min(kind.outputs()) * kind.outputs());
                Vec::new()
            };
            layers.push(Values {
                values: vec![0.0; examples * kind.outputs()],
                chosen,
                blame: vec![0.0; blamed * kind.outputs()],
            });
        }
        Room { examples, layers, scratch, turned: vec![0.0; turned] }
    }

    /// Scores before softmax, example after example, for values that lie the same way.
    ///
    /// # Errors
    /// [`TrainError::Schema`] for values that are no whole examples, or more than there is room
    /// for.
    pub(crate) fn scores<'a>(
        &self,
        input: &[f32],
        room: &'a mut Room,
    ) -> Result<&'a [f32], TrainError> {
        let count = input.len() / self.width;
        if count * self.width != input.len() || count > room.examples {
            return Err(TrainError::Schema(format!(
                "{} values are not {} examples of {}",
                input.len(),
                room.examples,
                self.width
            )));
        }
        if count == 0 {
            return Ok(&[]);
        }
        let end = self.layers.len() - 1;
        for (at, layer) in self.layers.iter().enumerate() {
            let Room { layers, scratch, turned, .. } = &mut *room;
            let (below, own) = layers.split_at_mut(at);
            let read = below.last().map_or(input, |below| below.values.as_slice());
            let Some(own) = own.first_mut() else { continue };
            self.forward(layer, &read[..count * layer.kind.inputs()], own, (scratch, turned));
            if at < end && matches!(layer.kind, Kind::Dense { .. }) {
                for value in &mut own.values[..count * layer.kind.outputs()] {
                    *value = value.max(0.0);
                }
            }
        }
        Ok(&room.layers[end].values[..count * self.classes])
    }

    fn forward(
        &self,
        layer: &Placed,
        input: &[f32],
        own: &mut Values,
        (scratch, turned): (&mut Scratch, &mut [f32]),
    ) {
        let weight = &self.weights[layer.weight.clone()];
        let bias = &self.weights[layer.bias.clone()];
        match &layer.kind {
            Kind::Dense { inputs, units } => {
                let count = input.len() / inputs;
                let (input, weight) =
                    (Matrix::new(input, count, *inputs), Matrix::new(weight, *units, *inputs));
                let values = &mut own.values[..count * units];
                // gemm copies the matrix whose rows become those of the product's columns into an
                // order of its own: the smaller one shall be that.
                if count < *units {
                    product(turned, Before::Gone, 1.0, weight, input.turned());
                    for (unit, bias) in bias.iter().enumerate() {
                        let row = &turned[unit * count..][..count];
                        let column = values[unit..].iter_mut().step_by(*units);
                        column.zip(row).for_each(|(value, sum)| *value = sum + bias);
                    }
                } else {
                    values.chunks_exact_mut(*units).for_each(|row| row.copy_from_slice(bias));
                    product(values, Before::Kept, 1.0, input, weight.turned());
                }
            }
            Kind::Filters(filters) => {
                let outputs = filters.outputs();
                let values = own.values.chunks_exact_mut(outputs);
                let given = values.zip(own.chosen.chunks_exact_mut(outputs));
                for (image, (values, chosen)) in input.chunks_exact(filters.inputs()).zip(given) {
                    filters.forward((weight, bias), image, scratch, values, chosen);
                }
            }
        }
    }

    /// The mean loss of labelled examples, in nats, and the gradients by all values in `room`,
    /// which [`Self::descend`] takes.
    ///
    /// # Errors
    /// [`TrainError::Schema`] for examples that do not fit the net or the room.
    pub(crate) fn blame(
        &self,
        input: &[f32],
        labels: &[u32],
        room: &mut Room,
    ) -> Result<f32, TrainError> {
        self.scores(input, room)?;
        let count = labels.len();
        let last = self.layers.len() - 1;
        let Values { values, blame, .. } = &mut room.layers[last];
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
        let share = 1.0 / count as f32;
        let mut sum = 0.0;
        let rows = values.chunks_exact(self.classes).zip(blame.chunks_exact_mut(self.classes));
        for ((scores, blame), &label) in rows.zip(labels) {
            sum += loss(scores, label);
            softmax(scores, blame);
            // Examples have no label beyond their classes.
            blame[label as usize] -= 1.0;
            blame.iter_mut().for_each(|value| *value *= share);
        }
        for at in (1..self.layers.len()).rev() {
            let (below, own) = room.layers.split_at_mut(at);
            let (Some(below), Some(own)) = (below.last_mut(), own.first()) else { continue };
            self.backward(&self.layers[at], count, own, below, &mut room.scratch);
        }
        Ok(sum * share)
    }

    /// The gradient of what a layer reads, which is what the layer below it gave.
    fn backward(
        &self,
        layer: &Placed,
        count: usize,
        own: &Values,
        below: &mut Values,
        scratch: &mut Scratch,
    ) {
        let weight = &self.weights[layer.weight.clone()];
        match &layer.kind {
            Kind::Dense { inputs, units } => {
                let blame = Matrix::new(&own.blame, count, *units);
                let weight = Matrix::new(weight, *units, *inputs);
                product(&mut below.blame, Before::Gone, 1.0, blame, weight);
            }
            Kind::Filters(filters) => {
                let (inputs, outputs) = (filters.inputs(), filters.outputs());
                let own = own.blame.chunks_exact(outputs).zip(own.chosen.chunks_exact(outputs));
                let below = below.blame.chunks_exact_mut(inputs);
                for ((blame, chosen), below) in own.zip(below).take(count) {
                    filters.backward(weight, blame, chosen, scratch, below);
                }
            }
        }
        // What ReLU kept back has no part in the loss.
        let length = count * layer.kind.inputs();
        for (blame, value) in below.blame[..length].iter_mut().zip(&below.values) {
            *blame = if *value > 0.0 { *blame } else { 0.0 };
        }
    }

    /// Moves the weights by `rate` against the gradient that [`Self::blame`] found for these
    /// examples.
    pub(crate) fn descend(&mut self, input: &[f32], rate: f32, room: &mut Room) {
        let count = input.len() / self.width;
        for (at, layer) in self.layers.iter().enumerate() {
            let (below, own) = room.layers.split_at(at);
            let read = below.last().map_or(input, |below| below.values.as_slice());
            let Some(own) = own.first() else { continue };
            let whole = &mut self.weights[layer.weight.start..layer.bias.end];
            let (weight, bias) = whole.split_at_mut(layer.weight.len());
            match &layer.kind {
                Kind::Dense { inputs, units } => {
                    let blame = Matrix::new(&own.blame, count, *units).turned();
                    let read = Matrix::new(read, count, *inputs);
                    product(weight, Before::Kept, -rate, blame, read);
                    for row in own.blame[..count * units].chunks_exact(*units) {
                        bias.iter_mut().zip(row).for_each(|(bias, blame)| *bias -= rate * blame);
                    }
                }
                Kind::Filters(filters) => {
                    let (inputs, outputs) = (filters.inputs(), filters.outputs());
                    let back =
                        own.blame.chunks_exact(outputs).zip(own.chosen.chunks_exact(outputs));
                    for (image, back) in read.chunks_exact(inputs).zip(back).take(count) {
                        let weights = (&mut *weight, &mut *bias);
                        filters.learn(weights, -rate, image, back, &mut room.scratch);
                    }
                }
            }
        }
    }
}

/// The loss of one example's scores, in nats: how unlikely they call its label.
pub(crate) fn loss(scores: &[f32], label: u32) -> f32 {
    let greatest = greatest(scores);
    let sum: f32 = scores.iter().map(|score| (score - greatest).exp()).sum();
    // Examples have no label beyond their classes.
    let own = scores.get(label as usize).copied().unwrap_or(f32::NAN);
    sum.ln() + greatest - own
}

/// A probability for each class, from its scores.
pub(crate) fn softmax(scores: &[f32], out: &mut [f32]) {
    let greatest = greatest(scores);
    let mut sum = 0.0;
    for (out, score) in out.iter_mut().zip(scores) {
        *out = (score - greatest).exp();
        sum += *out;
    }
    out.iter_mut().for_each(|out| *out /= sum);
}

/// The place of the greatest score, the first one of equals.
pub(crate) fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (at, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = at;
        }
    }
    // A job has at most 4,096 classes.
    best as u32
}

fn greatest(scores: &[f32]) -> f32 {
    scores.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "net_tests.rs"]
mod tests;
