//! A client's part of a round: steps of gradient descent from the round's base on its own data.
//!
//! Owns the steps of FedAvg, FedProx and SCAFFOLD, and what a client hands on. Clipping, noise,
//! fixed point and secrecy come after, elsewhere.

use rand::seq::SliceRandom;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::net::{Net, Room};
use crate::random::{Purpose, stream};
use crate::{Examples, Model, TrainError};

/// Passes over the data in one round: what is learned in more drifts from what others learn.
const MAX_EPOCHS: usize = 1_000;

/// Examples in one step: beyond this a step is one pass for every small node.
const MAX_BATCH: usize = 4_096;

/// How a client trains in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Passes over the client's examples.
    pub epochs: usize,
    /// Examples in one step; the last of a pass may have fewer.
    pub batch: usize,
    /// Length of a step.
    pub learning_rate: f32,
    /// FedProx's µ (Li et al. 2020, arXiv 1812.06127): pulls the weights to the round's base.
    /// 0 leaves FedAvg.
    pub proximal: f32,
    /// The order of the examples is drawn from this.
    pub seed: u64,
}

impl Plan {
    fn check(&self) -> Result<(), TrainError> {
        let wrong = |said: String| Err(TrainError::Plan(said));
        if self.epochs == 0 || self.epochs > MAX_EPOCHS {
            return wrong(format!("{} epochs; a round takes 1 to {MAX_EPOCHS}", self.epochs));
        }
        if self.batch == 0 || self.batch > MAX_BATCH {
            return wrong(format!("a batch of {}; a step takes 1 to {MAX_BATCH}", self.batch));
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return wrong(format!("a learning rate of {}; it is above 0", self.learning_rate));
        }
        if !(self.proximal.is_finite() && self.proximal >= 0.0) {
            return wrong(format!("a proximal term of {}; it is 0 or more", self.proximal));
        }
        Ok(())
    }
}

/// SCAFFOLD's control variates (Karimireddy et al. 2020, arXiv 1910.06378), each as long as the
/// model.
#[derive(Clone, Copy, Debug)]
pub struct Control<'a> {
    /// c, which all clients share.
    pub global: &'a [f32],
    /// c_i, which is this client's own.
    pub own: &'a [f32],
}

/// What a client learned in one round.
#[derive(Clone, Debug)]
pub struct Update {
    /// Weights after less weights before, in the model's flat order.
    pub delta: Vec<f32>,
    /// With SCAFFOLD: what c_i changed by (option II of the paper).
    pub control: Option<Vec<f32>>,
    /// Examples it was learned from.
    pub examples: usize,
    /// Steps taken.
    pub steps: usize,
    /// Mean loss of the last pass, in nats.
    pub loss: f32,
}

/// Threads that train, apart from those that answer requests.
pub struct Local {
    threads: ThreadPool,
}

impl Local {
    /// One thread: small matrices are multiplied faster by one than by two, and a node's other
    /// cores have requests to answer.
    pub fn new() -> Result<Self, TrainError> {
        Self::called("train")
    }

    /// The same under another name: what answers must not wait for what trains.
    ///
    /// # Errors
    /// [`TrainError::Plan`] where no thread can be started.
    pub fn called(name: &'static str) -> Result<Self, TrainError> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| name.to_owned())
            .build()
            .map_err(|error| TrainError::Plan(format!("no thread can be started: {error}")))?;
        Ok(Self { threads })
    }

    /// Trains from `base` on `data`. The same arguments on the same kind of processor give the
    /// same update.
    pub fn train(
        &self,
        model: &Model,
        base: &[f32],
        data: &Examples,
        plan: &Plan,
        control: Option<Control<'_>>,
    ) -> Result<Update, TrainError> {
        self.threads.install(|| train(model, base, data, plan, control))
    }

    /// Runs something else on these threads, as measuring.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }
}

/// What is trained, with what it is trained on.
pub(crate) trait Learner {
    /// Numbers in the flat vector.
    fn size(&self) -> usize;

    /// One step of this length on the examples at these places; their mean loss before it.
    fn step(&mut self, places: &[usize], rate: f32, pull: &Pull<'_>) -> Result<f32, TrainError>;

    /// The weights, in the flat order.
    fn weights(&self) -> Result<Vec<f32>, TrainError>;
}

/// A small model on labelled examples.
struct Labelled<'a> {
    net: Net,
    room: Room,
    data: &'a Examples,
    /// The examples of one step.
    values: Vec<f32>,
    labels: Vec<u32>,
}

impl Learner for Labelled<'_> {
    fn size(&self) -> usize {
        self.net.weights().len()
    }

    fn step(&mut self, places: &[usize], rate: f32, pull: &Pull<'_>) -> Result<f32, TrainError> {
        self.values.clear();
        self.labels.clear();
        for &at in places {
            self.values.extend_from_slice(self.data.row(at));
            self.labels.push(self.data.labels()[at]);
        }
        let loss = self.net.blame(&self.values, &self.labels, &mut self.room)?;
        pull.apply(0, self.net.weights_mut(), rate);
        self.net.descend(&self.values, rate, &mut self.room);
        Ok(loss)
    }

    fn weights(&self) -> Result<Vec<f32>, TrainError> {
        Ok(self.net.weights().to_vec())
    }
}

fn train(
    model: &Model,
    base: &[f32],
    data: &Examples,
    plan: &Plan,
    control: Option<Control<'_>>,
) -> Result<Update, TrainError> {
    if data.schema() != &model.schema {
        return Err(TrainError::Schema(format!(
            "the model reads {:?}, and the examples are {:?}",
            model.schema,
            data.schema()
        )));
    }
    plan.check()?;
    fits(model.size()?, base, control)?;
    let net = Net::new(model, base)?;
    let at_once = plan.batch.min(data.len());
    let room = net.room_to_learn(at_once);
    let values = Vec::with_capacity(at_once * data.width());
    let labels = Vec::with_capacity(at_once);
    let mut learner = Labelled { net, room, data, values, labels };
    descend(&mut learner, base, data.len(), plan, control)
}

/// The steps of a plan on so many examples.
pub(crate) fn descend(
    learner: &mut impl Learner,
    base: &[f32],
    examples: usize,
    plan: &Plan,
    control: Option<Control<'_>>,
) -> Result<Update, TrainError> {
    plan.check()?;
    if examples == 0 {
        return Err(TrainError::Plan("this client has no examples".to_owned()));
    }
    fits(learner.size(), base, control)?;
    let pull = Pull::new(base, plan, control);
    let mut order: Vec<usize> = (0..examples).collect();
    let mut rng = stream(plan.seed, Purpose::Order);
    let mut steps = 0;
    let mut loss = 0.0;
    for _ in 0..plan.epochs {
        order.shuffle(&mut rng);
        loss = 0.0;
        for places in order.chunks(plan.batch) {
            loss += learner.step(places, plan.learning_rate, &pull)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { step: steps, what: "loss" });
            }
            steps += 1;
        }
    }
    let after = learner.weights()?;
    if after.iter().any(|weight| !weight.is_finite()) {
        return Err(TrainError::Diverged { step: steps, what: "weight" });
    }
    let delta: Vec<f32> = after.iter().zip(base).map(|(after, before)| after - before).collect();
    let control = control.map(|control| change(&delta, control, steps, plan.learning_rate));
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
    let loss = loss / examples.div_ceil(plan.batch) as f32;
    Ok(Update { delta, control, examples, steps, loss })
}

/// Whether what comes with a round is as long as the model.
fn fits(length: usize, base: &[f32], control: Option<Control<'_>>) -> Result<(), TrainError> {
    let wrong = |name: &str, flat: &[f32]| {
        let said = format!("{name} has {} numbers, and the model {length}", flat.len());
        if flat.len() == length { Ok(()) } else { Err(TrainError::Plan(said)) }
    };
    wrong("the base", base)?;
    if let Some(control) = control {
        wrong("the shared control", control.global)?;
        wrong("the client's control", control.own)?;
    }
    Ok(())
}

/// What is added to each gradient.
pub(crate) struct Pull<'a> {
    /// SCAFFOLD's c − c_i.
    correction: Option<Vec<f32>>,
    /// FedProx's µ; 0 for none.
    proximal: f32,
    /// The round's base.
    base: &'a [f32],
}

impl<'a> Pull<'a> {
    fn new(base: &'a [f32], plan: &Plan, control: Option<Control<'_>>) -> Self {
        let correction = control.map(|Control { global, own }| {
            global.iter().zip(own).map(|(global, own)| global - own).collect()
        });
        Self { correction, proximal: plan.proximal, base }
    }

    /// Moves weights, of which the first is the flat vector's `from`-th, by `rate` against it. The
    /// gradient itself was taken at the weights as they are before, and is the caller's to follow.
    pub(crate) fn apply(&self, from: usize, weights: &mut [f32], rate: f32) {
        if self.proximal > 0.0 {
            let strength = rate * self.proximal;
            for (weight, base) in weights.iter_mut().zip(&self.base[from..]) {
                *weight -= strength * (*weight - base);
            }
        }
        if let Some(correction) = &self.correction {
            for (weight, correction) in weights.iter_mut().zip(&correction[from..]) {
                *weight -= rate * correction;
            }
        }
    }
}

/// c_i after less c_i before: −c + (x − y) / (K · η).
fn change(delta: &[f32], control: Control<'_>, steps: usize, rate: f32) -> Vec<f32> {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
    let scale = 1.0 / (steps as f32 * rate);
    delta.iter().zip(control.global).map(|(delta, global)| -delta * scale - global).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layer, Schema, Shape, measure};

    /// Two clouds that a line tells apart.
    fn clouds() -> Examples {
        let mut values = Vec::new();
        let mut labels = Vec::new();
        for at in 0..64_u32 {
            let side = at % 2;
            #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
            let noise = (at * 37 % 11) as f32 / 11.0 - 0.5;
            let center = if side == 0 { -1.0 } else { 1.0 };
            values.extend([center + noise, noise]);
            labels.push(side);
        }
        let schema = Schema { shape: Shape::Flat(2), classes: 2 };
        Examples::new(schema, values, labels).expect("examples that fit")
    }

    fn plan() -> Plan {
        Plan { epochs: 5, batch: 8, learning_rate: 0.1, proximal: 0.0, seed: 3 }
    }

    fn model(hidden: Vec<Layer>) -> Model {
        Model { schema: clouds().schema().clone(), hidden }
    }

    #[test]
    fn training_learns_and_repeats() -> Result<(), TrainError> {
        let (local, model, data) = (Local::new()?, model(vec![Layer::Dense(8)]), clouds());
        let base = model.first(1)?;
        let update = local.train(&model, &base, &data, &plan(), None)?;
        let again = local.train(&model, &base, &data, &plan(), None)?;
        assert_eq!(update.delta, again.delta);
        assert_eq!((update.examples, update.steps), (64, 40));
        let after: Vec<f32> = base.iter().zip(&update.delta).map(|(a, b)| a + b).collect();
        let measured = measure(&local, &model, &after, &data)?;
        assert_eq!(measured.right, 64, "{measured:?}");
        Ok(())
    }

    /// One step of a linear model, against the gradient worked out by hand.
    #[test]
    fn a_step_is_the_gradient_by_hand() -> Result<(), TrainError> {
        let (local, model) = (Local::new()?, model(vec![]));
        let one = clouds().pick(&[0]);
        let plan = Plan { epochs: 1, batch: 1, ..plan() };
        let update = local.train(&model, &[0.0; 6], &one, &plan, None)?;
        // Both classes are equally likely; the gradient of a score is its probability, less 1
        // for the right class 0.
        let x = one.row(0);
        let by_hand = [0.5 * x[0], 0.5 * x[1], -0.5 * x[0], -0.5 * x[1], 0.5, -0.5];
        for (got, gradient) in update.delta.iter().zip(by_hand) {
            assert!((got - 0.1 * gradient).abs() < 1e-6, "{got} {gradient}");
        }
        assert!((update.loss - 2.0_f32.ln()).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn a_proximal_term_keeps_near_the_base() -> Result<(), TrainError> {
        let (local, model, data) = (Local::new()?, model(vec![]), clouds());
        let length = |proximal| -> Result<f32, TrainError> {
            let plan = Plan { proximal, ..plan() };
            let update = local.train(&model, &[0.0; 6], &data, &plan, None)?;
            Ok(update.delta.iter().map(|d| d * d).sum::<f32>().sqrt())
        };
        assert!(length(1.0)? < 0.8 * length(0.0)?);
        Ok(())
    }

    /// With c = c_i the correction vanishes, and c_i becomes the mean gradient of the round.
    #[test]
    fn control_variates_follow_the_paper() -> Result<(), TrainError> {
        let (local, model, data) = (Local::new()?, model(vec![]), clouds());
        let zeros = [0.0; 6];
        let plain = local.train(&model, &zeros, &data, &plan(), None)?;
        let same = Control { global: &[0.5; 6], own: &[0.5; 6] };
        let with = local.train(&model, &zeros, &data, &plan(), Some(same))?;
        assert_eq!(plain.delta, with.delta);
        let change = with.control.unwrap_or_default();
        for (change, delta) in change.iter().zip(&with.delta) {
            assert!((change - (-0.5 - delta / (40.0 * 0.1))).abs() < 1e-5);
        }
        let apart = Control { global: &[0.5; 6], own: &zeros };
        let moved = local.train(&model, &zeros, &data, &plan(), Some(apart))?;
        assert_ne!(plain.delta, moved.delta);
        Ok(())
    }

    #[test]
    fn what_cannot_run_is_refused() -> Result<(), TrainError> {
        let (local, model, data) = (Local::new()?, model(vec![]), clouds());
        let said = |plan: Plan, base: &[f32]| {
            local.train(&model, base, &data, &plan, None).err().map(|e| e.to_string())
        };
        let zeros = [0.0; 6];
        for plan in [
            Plan { epochs: 0, ..plan() },
            Plan { batch: 0, ..plan() },
            Plan { learning_rate: f32::NAN, ..plan() },
            Plan { proximal: -1.0, ..plan() },
        ] {
            assert!(said(plan, &zeros).is_some(), "{plan:?}");
        }
        assert!(said(plan(), &zeros[..5]).unwrap_or_default().contains("5 numbers"));
        let wild = Plan { learning_rate: f32::MAX, ..plan() };
        // The same points with both labels: no step ends the error.
        let (values, labels) = (data.values().repeat(2), [data.labels(), &[1, 0].repeat(32)]);
        let torn = Examples::new(data.schema().clone(), values, labels.concat())?;
        let told = local.train(&model, &zeros, &torn, &wild, None).err().map(|e| e.to_string());
        let told = told.unwrap_or_default();
        assert!(told.ends_with("is not finite; lower the learning rate"), "{told}");
        let none = data.pick(&[]);
        assert!(local.train(&model, &zeros, &none, &plan(), None).is_err());
        let other = Model { schema: Schema { classes: 3, ..model.schema.clone() }, ..model };
        assert!(local.train(&other, &[0.0; 9], &data, &plan(), None).is_err());
        Ok(())
    }
}
