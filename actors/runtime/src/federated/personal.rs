//! Personal models at this node: what carries out the orders of epidemic mode's machine.
//!
//! Owns a personal model on the disk, as people see it and as a file, and the steps of training
//! from it. Decides nothing: when the mode begins, what is mixed and who is told is
//! [`selvedge_federated::epidemic`]'s.

use std::collections::BTreeMap;

use selvedge_base::{Machine as _, Now, Wall};
use selvedge_federated::epidemic::{
    Base, Mixer, MixerEffect, MixerEvent, MixerInput, MixerStored, Told,
};
use selvedge_federated::round::{Digest, Job, Tip};
use selvedge_train::{Adapter, Saved, Subject, TrainError};
use serde::{Deserialize, Serialize};

use super::RoundMeasured;
use super::disk::hex;
use super::spec::JobSpec;
use super::task::Announced;
use super::trained::{JOB, NAME, PERSONAL, TrainedError, weight};
use super::trainer::{Bench, floats, largest, plan, steps};

/// The note with the digest of the record that the model drifted from.
const RECORD: &str = "personal_record";
/// The note with the steps that are in the model.
const AGE: &str = "personal_age";

/// A personal model on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// What the machine begins from.
    pub(super) stored: MixerStored,
    /// The weights of its model, in units of 2^-20: the common model that it drifted from may be
    /// gone when somebody wants it.
    pub(super) weights: Vec<i32>,
}

/// A personal model, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonalProgress {
    /// Since when this node has seen no end of a round, while it mixes.
    pub no_quorum_since: Option<Wall>,
    /// Rounds that are in the common model it is, or was, a drift from.
    pub round: u64,
    /// Steps that are in it.
    pub age: u32,
    /// Models of peers that this node mixed, since its start.
    pub mixed: u64,
    /// Models of peers that it did not, by the reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// How well it does on what this node holds out.
    pub measured: Option<RoundMeasured>,
}

impl PersonalProgress {
    /// Notes what the machine reported; what people should read of it.
    pub(super) fn happened(&mut self, event: &MixerEvent, now: Wall) -> Option<String> {
        match event {
            MixerEvent::Began { round, waited } => {
                self.no_quorum_since = Some(now.minus(*waited));
                self.round = *round;
                Some(format!(
                    "no end of round {} for {} s: this node mixes with peers",
                    round + 1,
                    waited.as_millis() / 1_000
                ))
            }
            MixerEvent::Ended { round } => {
                self.no_quorum_since = None;
                Some(format!("round {round} is over: the common model counts again"))
            }
            MixerEvent::Stepped { age, mixed, .. } => {
                self.age = *age;
                self.mixed += *mixed as u64;
                None
            }
            MixerEvent::Unmixed { by, why } => {
                *self.refused.entry(why.kind()).or_default() += 1;
                why.is_misdeed().then(|| format!("{} sent a personal model: {why}", by.short()))
            }
            MixerEvent::BadTraining => {
                Some("what was trained for this node's own model does not fit the job".to_owned())
            }
        }
    }

    /// What is on the disk at the start.
    pub(super) fn of(kept: &Kept) -> Self {
        let told = kept.stored.told.as_ref();
        let (round, age) = told.map_or((0, 0), |told| (told.base.round, told.age));
        Self { round, age, ..Self::default() }
    }
}

impl Kept {
    /// What is stored, with the model's weights; `base` is the newest common model.
    pub(super) fn new(stored: &MixerStored, base: &[i32]) -> Self {
        let drift = stored.told.iter().flat_map(|told| &told.drift);
        let weights = base.iter().zip(drift).map(|(base, drift)| base.saturating_add(*drift));
        Self { stored: stored.clone(), weights: weights.collect() }
    }

    /// The bytes of its model's file, a safetensors file; none where there is no model.
    ///
    /// # Errors
    /// [`TrainedError`] for weights that are not those of the job.
    pub(super) fn to_file(
        &self,
        name: &str,
        told: &Announced,
    ) -> Result<Option<Vec<u8>>, TrainedError> {
        let Some(Told { base, age, .. }) = &self.stored.told else { return Ok(None) };
        if !JobSpec::is_name(name) {
            return Err(TrainedError::Note(NAME));
        }
        let notes = [
            (NAME, name.to_owned()),
            (JOB, hex(&told.job.digest())),
            (PERSONAL, base.round.to_string()),
            (RECORD, hex(&base.record)),
            (AGE, age.to_string()),
        ];
        let notes = notes.map(|(name, note)| (name.to_owned(), note)).into();
        let weights = self.weights.iter().map(|units| weight(*units)).collect();
        let bytes = match told.task.subject.clone() {
            Subject::Model(model) => Saved { model, weights, notes }.to_bytes()?,
            Subject::Tuning(tuning) => Adapter { tuning, weights, notes }.to_bytes()?,
        };
        Ok(Some(bytes))
    }
}

/// Tells the machine how far the chain was followed.
pub(super) fn follow(
    mixer: &mut Mixer,
    job: &Job,
    tip: &Tip,
    now: Now,
    effects: &mut Vec<MixerEffect>,
) {
    let input = MixerInput::Followed {
        base: Base { round: tip.round, record: tip.record },
        clients: tip.done.keys().map(|client| client.node).collect(),
        is_over: tip.round >= job.rounds,
    };
    mixer.step(now, input, effects);
}

/// Trains from a personal model: what changed, in levels, and on how many examples.
///
/// # Errors
/// [`TrainError`], among others when the weights go astray.
pub(super) fn practise(
    bench: &Bench,
    (tip, drift): (&Tip, &[i32]),
    seed: &Digest,
) -> Result<(u32, Vec<i32>), TrainError> {
    let Bench { local, job, task, data } = bench;
    let base = drifted(tip, drift);
    // SCAFFOLD's control variates belong to rounds: here its steps are those of FedAvg.
    let update = steps(local, (task, data), &base, &plan(task, seed), None)?;
    let clip = largest(job.clip);
    let delta: Vec<f32> = update.delta.iter().map(|value| value.clamp(-clip, clip)).collect();
    let levels = job.clip.encode(&delta, job.dim);
    let levels = levels.map_err(|error| TrainError::Plan(error.to_string()))?;
    Ok((u32::try_from(update.examples).unwrap_or(u32::MAX), levels))
}

fn drifted(tip: &Tip, drift: &[i32]) -> Vec<f32> {
    let model = tip.server.model().iter().zip(drift);
    floats(model.map(|(base, drift)| i64::from(*base) + i64::from(*drift)))
}
