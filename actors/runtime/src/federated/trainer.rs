//! This node's part of a round: its own examples, the steps on them, and how well a model does.
//!
//! Owns which examples (labelled ones, or windows of text) are trained on and which are only
//! measured on, and what of an update is handed to the round's machine. Everything here takes
//! seconds of a core, or hours where a language model is tuned: it is called on threads that may
//! block.

use std::path::Path;
use std::sync::Arc;

use selvedge_federated::fixed::{Clip, LEVEL_MAX, MODEL_BITS};
use selvedge_federated::round::{Digest, Job, Pending, Tip};
use selvedge_federated::server::Strategy;
use selvedge_train::{
    Control, Examples, Local, Plan, Source, Subject, TrainError, Tuner, Update, Windows, measure,
    read,
};

use super::disk::RoundMeasured;
use super::labelled::Lessons;
use super::task::Task;

/// What thousandths are of.
const THOUSAND: usize = 1_000;
/// What rates are counted in.
const MILLION: f32 = 1e6;

/// A node's examples for one job.
pub(super) enum Data {
    /// For a small model.
    Labelled(Parted<Examples>),
    /// For a language model that is tuned.
    Text(Arc<Tuner>, Parted<Windows>),
}

/// What is trained on and what is held out.
pub(super) struct Parted<T> {
    train: T,
    /// Never trained on; nothing where the job holds none out.
    held_out: Option<T>,
}

/// What a client learned, as the round's machine takes it.
pub(super) struct Learned {
    pub(super) delta: Vec<f32>,
    pub(super) examples: u32,
}

impl Data {
    /// Reads the examples of a source, and holds some of them out. `base` is the file of the model
    /// that the job tunes, if it does; other data of the node for the same job share its weights.
    ///
    /// # Errors
    /// [`TrainError`] for what does not fit the job.
    pub(super) fn read(
        source: &Source,
        task: &Task,
        base: Option<&Path>,
        other: Option<&Self>,
    ) -> Result<Self, TrainError> {
        let permille = task.held_out_permille;
        match (&task.subject, base) {
            (Subject::Model(model), _) => {
                let all = read(source, &model.schema)?;
                Ok(Self::Labelled(Parted::of(all.len(), permille, |at| all.pick(at))?))
            }
            (Subject::Tuning(tuning), Some(base)) => {
                let tuner = match other {
                    Some(Self::Text(tuner, _)) => Arc::clone(tuner),
                    Some(Self::Labelled(_)) | None => Arc::new(Tuner::open(base, tuning)?),
                };
                let all = tuner.read(source)?;
                let parted = Parted::of(all.len(), permille, |at| all.pick(at))?;
                Ok(Self::Text(tuner, parted))
            }
            (Subject::Tuning(_), None) => Err(no_base()),
        }
    }

    /// Labelled requests, of which those are held out whose draws say so: an example is on one side
    /// for ever, whatever else comes or goes.
    ///
    /// # Errors
    /// [`TrainError`] for what does not fit the job, and where none are left to train on.
    pub(super) fn of(task: &Task, lessons: Lessons) -> Result<Self, TrainError> {
        let Lessons { values, labels, draws, .. } = lessons;
        let all = labelled(&task.subject, values, labels)?;
        let is_held_out = |at: &usize| draws.get(*at).is_some_and(|d| *d < task.held_out_permille);
        Ok(Self::Labelled(Parted::by(all.len(), is_held_out, |at| all.pick(at))?))
    }

    /// Ends what takes hours, since nobody wants it any more. What labelled examples teach takes
    /// seconds a round, and is let be.
    pub(super) fn stop(&self) {
        if let Self::Text(tuner, _) = self {
            tuner.stop();
        }
    }

    /// Examples that are trained on.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Labelled(parted) => parted.train.len(),
            Self::Text(_, parted) => parted.train.len(),
        }
    }
}

/// Reads all of a source as a job would, and keeps nothing.
///
/// # Errors
/// [`TrainError`] for what does not fit the job.
pub(super) fn try_out(
    source: &Source,
    subject: &Subject,
    base: Option<&Path>,
) -> Result<(), TrainError> {
    match (subject, base) {
        (Subject::Model(model), _) => read(source, &model.schema).map(drop),
        (Subject::Tuning(tuning), Some(base)) => Tuner::open(base, tuning)?.read(source).map(drop),
        (Subject::Tuning(_), None) => Err(no_base()),
    }
}

/// Examples that are in memory already, held against what is learned.
///
/// # Errors
/// [`TrainError`] for what does not fit.
pub(super) fn labelled(
    subject: &Subject,
    values: Vec<f32>,
    labels: Vec<u32>,
) -> Result<Examples, TrainError> {
    match subject {
        Subject::Model(model) => Examples::new(model.schema.clone(), values, labels),
        Subject::Tuning(_) => Err(TrainError::Schema(
            "it holds labelled requests, and the job learns from texts".to_owned(),
        )),
    }
}

fn no_base() -> TrainError {
    TrainError::Plan("there is no file of the model that is tuned".to_owned())
}

impl<T> Parted<T> {
    /// Parts so many examples; spread evenly, however they are sorted.
    fn of(count: usize, permille: u16, pick: impl Fn(&[usize]) -> T) -> Result<Self, TrainError> {
        let permille = usize::from(permille);
        let is_held_out = |at: &usize| (at + 1) * permille / THOUSAND > at * permille / THOUSAND;
        Self::by(count, is_held_out, pick)
    }

    /// Parts so many examples as is decided of each.
    fn by(
        count: usize,
        is_held_out: impl FnMut(&usize) -> bool,
        pick: impl Fn(&[usize]) -> T,
    ) -> Result<Self, TrainError> {
        let (out, kept): (Vec<usize>, Vec<usize>) = (0..count).partition(is_held_out);
        if kept.is_empty() {
            let why = match out.len() {
                0 => "this node has no examples for the job".to_owned(),
                out => format!(
                    "this node has no examples for the job but {out} that are held out of training"
                ),
            };
            return Err(TrainError::Plan(why));
        }
        let held_out = (!out.is_empty()).then(|| pick(&out));
        Ok(Self { train: pick(&kept), held_out })
    }
}

/// Trains from the model of a tip.
///
/// # Errors
/// [`TrainError`], among others when the weights go astray.
pub(super) fn train(
    local: &Local,
    job: &Job,
    task: &Task,
    data: &Data,
    from: (&Tip, &[f32]),
    seed: &Digest,
) -> Result<Learned, TrainError> {
    let (tip, own) = from;
    let base = floats(tip.server.model().iter().map(|weight| i64::from(*weight)));
    let global = floats(tip.server.control().iter().copied());
    let fresh = vec![0.0; global.len()];
    let own = if own.len() == global.len() { own } else { &fresh };
    let scaffold = matches!(job.strategy, Strategy::Scaffold { .. });
    let control = scaffold.then_some(Control { global: &global, own });
    let update = steps(local, (task, data), &base, &plan(task, seed), control)?;
    let mut delta = update.delta;
    delta.extend(update.control.into_iter().flatten());
    let clip = largest(job.clip);
    delta.iter_mut().for_each(|value| *value = value.clamp(-clip, clip));
    Ok(Learned { delta, examples: u32::try_from(update.examples).unwrap_or(u32::MAX) })
}

/// How a task is trained once; the order of the examples is drawn from a seed.
pub(super) fn plan(task: &Task, seed: &Digest) -> Plan {
    let training = &task.training;
    let mut order = [0; 8];
    order.copy_from_slice(&seed[..8]);
    Plan {
        epochs: training.epochs as usize,
        batch: training.batch as usize,
        learning_rate: training.rate_millionths as f32 / MILLION,
        proximal: training.proximal_permille as f32 / THOUSAND as f32,
        seed: u64::from_le_bytes(order),
    }
}

/// What a client's control variate is once a contribution counts: its change as it was sent.
pub(super) fn moved(job: &Job, own: &[f32], pending: &Pending) -> Option<Vec<f32>> {
    if !matches!(job.strategy, Strategy::Scaffold { .. }) {
        return None;
    }
    let step = f64::from(job.clip.units()) / f64::from(1_u32 << MODEL_BITS) / f64::from(LEVEL_MAX);
    let changes = pending.levels.get(job.dim..job.trained_len())?.iter();
    let before = own.iter().copied().chain(std::iter::repeat(0.0));
    Some(before.zip(changes).map(|(own, level)| own + (f64::from(*level) * step) as f32).collect())
}

/// How well the model of a tip does on what is held out; nothing where nothing is.
///
/// # Errors
/// [`TrainError`].
pub(super) fn judge(
    local: &Local,
    task: &Task,
    data: &Data,
    tip: &Tip,
) -> Result<Option<RoundMeasured>, TrainError> {
    measured(local, task, data, tip.server.model(), tip.round)
}

/// The steps of training from some weights, on what this node has.
///
/// # Errors
/// [`TrainError`], among others when the weights go astray.
pub(super) fn steps(
    local: &Local,
    (task, data): (&Task, &Data),
    base: &[f32],
    plan: &Plan,
    control: Option<Control<'_>>,
) -> Result<Update, TrainError> {
    match (data, &task.subject) {
        (Data::Labelled(parted), Subject::Model(model)) => {
            local.train(model, base, &parted.train, plan, control)
        }
        (Data::Text(tuner, parted), _) => tuner.train(local, base, &parted.train, plan, control),
        (Data::Labelled(_), Subject::Tuning(_)) => Err(others()),
    }
}

/// How well weights, in units of 2^-20, do on what is held out; nothing where nothing is.
///
/// # Errors
/// [`TrainError`].
pub(super) fn measured(
    local: &Local,
    task: &Task,
    data: &Data,
    weights: &[i32],
    round: u64,
) -> Result<Option<RoundMeasured>, TrainError> {
    let weights = floats(weights.iter().map(|weight| i64::from(*weight)));
    let (right, examples, loss) = match (data, &task.subject) {
        (Data::Labelled(Parted { held_out: Some(held_out), .. }), Subject::Model(model)) => {
            let found = measure(local, model, &weights, held_out)?;
            (found.right, found.examples, None)
        }
        (Data::Text(tuner, Parted { held_out: Some(held_out), .. }), _) => {
            let found = tuner.measure(local, &weights, held_out)?;
            // A loss that is no number is not shown.
            let micronats = (found.loss * f64::from(MILLION)).round();
            (found.right, found.tokens, micronats.is_finite().then_some(micronats as u64))
        }
        (Data::Labelled(Parted { held_out: Some(_), .. }), Subject::Tuning(_)) => {
            return Err(others());
        }
        (Data::Labelled(_) | Data::Text(..), _) => return Ok(None),
    };
    let (right, examples) = (right as u64, examples as u64);
    Ok(Some(RoundMeasured { round, right, examples, loss_micronats: loss }))
}

fn others() -> TrainError {
    TrainError::Plan("the examples are of another job".to_owned())
}

/// What a client's work needs, to be handed to another thread.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) local: Arc<Local>,
    pub(super) job: Arc<Job>,
    pub(super) task: Arc<Task>,
    pub(super) data: Arc<Data>,
}

pub(super) fn floats(units: impl Iterator<Item = i64>) -> Vec<f32> {
    let unit = f64::from(1_u32 << MODEL_BITS);
    units.map(|value| (value as f64 / unit) as f32).collect()
}

/// The largest value that the clip takes: rounding to 32 bits must not lift it over.
pub(super) fn largest(clip: Clip) -> f32 {
    let exact = f64::from(clip.units()) / f64::from(1_u32 << MODEL_BITS);
    let near = exact as f32;
    if f64::from(near) > exact { near.next_down() } else { near }
}
