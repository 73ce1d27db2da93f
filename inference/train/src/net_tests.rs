//! The net against Candle's own differentiation, against differences of losses, and by hand.

use candle_core::{Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::Schema;
use crate::random::{Purpose, stream};
use crate::reference::Reference;

const CLASSES: usize = 5;
/// Length of the steps that are compared.
const RATE: f32 = 0.1;

/// A model with weights, and labelled examples for it.
struct Given {
    model: Model,
    weights: Vec<f32>,
    values: Vec<f32>,
    labels: Vec<u32>,
}

fn draw(count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn given(shape: Shape, hidden: Vec<Layer>, examples: usize, seed: u64) -> Given {
    let model = Model { schema: Schema { shape, classes: CLASSES }, hidden };
    let mut rng = stream(seed, Purpose::Order);
    let mut weights = model.first(seed).expect("a model that can be built");
    // So that no bias is zero: where a value before ReLU is, two derivatives are as good.
    weights
        .iter_mut()
        .zip(draw(1 << 16, &mut rng))
        .for_each(|(weight, more)| *weight += more / 8.0);
    let width = model.schema.check().expect("a shape with values");
    let values = draw(examples * width, &mut rng);
    let labels = (0..examples).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    Given { model, weights, values, labels }
}

/// Any model of up to three hidden layers: of images with odd sides too, or of rows.
fn models() -> impl Strategy<Value = (Shape, Vec<Layer>)> {
    let rows =
        (1usize..40, proptest::collection::vec(1usize..40, 0..3)).prop_map(|(width, units)| {
            (Shape::Flat(width), units.into_iter().map(Layer::Dense).collect::<Vec<_>>())
        });
    let sides = (1usize..3, 4usize..12, 4usize..12);
    let filters = proptest::collection::vec(1usize..6, 1..3);
    let images = (sides, filters, proptest::option::of(1usize..20)).prop_map(
        |((channels, height, width), filters, units)| {
            let layers = filters.into_iter().map(Layer::Convolution);
            let layers = layers.chain(units.map(Layer::Dense)).collect::<Vec<_>>();
            (Shape::Image { channels, height, width }, layers)
        },
    );
    prop_oneof![rows, images]
}

/// Losses of some steps of Candle's, and the weights after them.
fn by_candle(given: &Given, steps: usize) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
    let net = Reference::new(&given.model, &given.weights)?;
    let count = given.labels.len();
    let values =
        Tensor::from_slice(&given.values, (count, given.values.len() / count), &Device::Cpu)?;
    let labels = Tensor::from_slice(&given.labels, count, &Device::Cpu)?;
    let mut losses = Vec::new();
    for _ in 0..steps {
        let loss = cross_entropy(&net.scores(&values)?, &labels)?;
        losses.push(loss.to_scalar::<f32>()?);
        let gradients = loss.backward()?;
        let step = |weight: &Var| -> candle_core::Result<()> {
            let gradient = gradients.get(weight).expect("each parameter has a part in the loss");
            weight.set(&(weight.as_tensor() - (gradient * f64::from(RATE))?)?)
        };
        net.weights().iter().try_for_each(step)?;
    }
    let mut flat = Vec::new();
    for weight in net.weights() {
        flat.extend(weight.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((losses, flat))
}

/// The gradient by every weight: what a step of length one takes off.
fn gradient(given: &Given) -> Result<Vec<f32>, TrainError> {
    let mut net = Net::new(&given.model, &given.weights)?;
    let mut room = net.room_to_learn(given.labels.len());
    net.blame(&given.values, &given.labels, &mut room)?;
    net.descend(&given.values, 1.0, &mut room);
    Ok(given.weights.iter().zip(net.weights()).map(|(before, after)| before - after).collect())
}

fn mean_loss(given: &Given, weights: &[f32]) -> Result<f64, TrainError> {
    let net = Net::new(&given.model, weights)?;
    let mut room = net.room(given.labels.len());
    let scores = net.scores(&given.values, &mut room)?.chunks_exact(CLASSES);
    let losses = scores.zip(&given.labels).map(|(scores, &label)| f64::from(loss(scores, label)));
    Ok(losses.sum::<f64>() / given.labels.len() as f64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn steps_are_those_of_automatic_differentiation(
        (shape, hidden) in models(), examples in 1usize..40, spare in 0usize..3, seed: u64,
    ) {
        let given = given(shape, hidden, examples, seed);
        let (losses, wanted) = by_candle(&given, 3).expect("candle computes it");
        let mut net = Net::new(&given.model, &given.weights).expect("a net");
        // Room for more than there is, as the last batch of a pass has.
        let mut room = net.room_to_learn(examples + spare);
        for wanted in losses {
            let loss = net.blame(&given.values, &given.labels, &mut room).expect("a loss");
            prop_assert!((loss - wanted).abs() < 1e-4, "loss {loss} {wanted}");
            net.descend(&given.values, RATE, &mut room);
        }
        for (at, (got, wanted)) in net.weights().iter().zip(&wanted).enumerate() {
            prop_assert!((got - wanted).abs() < 2e-4, "weight {at}: {got} {wanted}");
        }
    }

    /// Along any direction the loss changes as the gradient says.
    #[test]
    fn gradients_are_those_of_differences(
        (shape, hidden) in models(), examples in 1usize..12, seed: u64,
    ) {
        let given = given(shape, hidden, examples, seed);
        let gradient = gradient(&given).expect("a gradient");
        let mut direction = draw(gradient.len(), &mut stream(seed, Purpose::Division));
        let norm = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
        direction.iter_mut().for_each(|d| *d /= norm);
        let moved = |by: f32| -> Vec<f32> {
            given.weights.iter().zip(&direction).map(|(weight, d)| weight + by * d).collect()
        };
        let told: f64 =
            gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        // A value that crosses zero within a step bends the loss: within a shorter one it does not.
        // The shortest is long enough for what 32 bits tell of a loss.
        let by_difference = |step: f32| {
            let ahead = mean_loss(&given, &moved(step)).expect("a loss");
            let behind = mean_loss(&given, &moved(-step)).expect("a loss");
            (ahead - behind) / (2.0 * f64::from(step))
        };
        let found = [2e-3, 5e-4, 1e-4].map(by_difference);
        let is_told = |one: &f64| (told - one).abs() < 0.02 + 0.02 * told.abs();
        prop_assert!(found.iter().any(is_told), "{} {:?}", told, found);
    }
}

/// One filter on an image of 2 × 2 with three pixels that are not the largest: only what the
/// largest saw moves the filter.
#[test]
fn only_the_largest_of_a_square_is_learned_from() -> Result<(), TrainError> {
    let shape = Shape::Image { channels: 1, height: 2, width: 2 };
    let model = Model { schema: Schema { shape, classes: 2 }, hidden: vec![Layer::Convolution(1)] };
    let mut weights = vec![0.0; model.size()?];
    // The filter passes its middle on; class 0 gets the value, class 1 nothing.
    weights[12] = 1.0;
    weights[26] = 1.0;
    let given = Given { model, weights, values: vec![0.5, 2.0, 1.0, 0.25], labels: vec![1] };
    let gradient = gradient(&given)?;
    // The score's gradient is the probability of class 0.
    let chance = 2.0_f32.exp() / (2.0_f32.exp() + 1.0);
    // The largest is at the top right: its left neighbour is 0.5, below it 0.25, and 1 across.
    let mut wanted = [0.0; 25];
    (wanted[12], wanted[11], wanted[17], wanted[16]) = (2.0, 0.5, 0.25, 1.0);
    for (at, (got, seen)) in gradient.iter().zip(wanted).enumerate() {
        assert!((got - chance * seen).abs() < 1e-5, "{at}: {got} {seen}");
    }
    assert!((gradient[25] - chance).abs() < 1e-5);
    Ok(())
}

#[test]
fn what_does_not_fit_the_room_is_refused() -> Result<(), TrainError> {
    let given = given(Shape::Flat(3), vec![Layer::Dense(4)], 2, 1);
    let net = Net::new(&given.model, &given.weights)?;
    assert!(net.scores(&given.values[..5], &mut net.room(2)).is_err());
    assert!(net.scores(&given.values, &mut net.room(1)).is_err());
    assert_eq!(net.scores(&given.values, &mut net.room(2))?.len(), 2 * CLASSES);
    assert_eq!(net.scores(&[], &mut net.room(0))?.len(), 0);
    assert!(Net::new(&given.model, &given.weights[1..]).is_err());
    Ok(())
}

#[test]
fn scores_say_what_is_likeliest() {
    let mut chances = [0.0; 3];
    softmax(&[1_000.0, 1_000.0, -1_000.0], &mut chances);
    assert_eq!(chances, [0.5, 0.5, 0.0]);
    assert_eq!((likeliest(&[1.0, 3.0, 3.0]), likeliest(&[2.0, 1.0])), (1, 0));
    assert!((loss(&[0.0, 0.0], 1) - 2.0_f32.ln()).abs() < 1e-6);
    assert!(!loss(&[f32::NAN, 0.0], 1).is_finite());
}
