//! A model that a job trained, with where it comes from: what the model file says beside weights.
//!
//! Owns the notes of the file and the way from a round's integers to the file's floats, which is
//! the same on every machine. The form of the file is [`selvedge_train`]'s; whether its notes are
//! true is `verify`'s.

use std::collections::BTreeMap;

use selvedge_federated::fixed::MODEL_BITS;
use selvedge_federated::round::{Digest, Tip};
use selvedge_train::{Adapter, Learned, Saved, SavedError, Subject};
use thiserror::Error;

use super::disk::hex;
use super::spec::JobSpec;
use super::task::Announced;

/// The note with the name that people gave the job.
pub(super) const NAME: &str = "job";
/// The note with the job's digest.
pub(super) const JOB: &str = "job_digest";
/// The note with the rounds that are folded into the model.
const ROUND: &str = "round";
/// The note with the digest of the record after them.
const RECORD: &str = "record";

/// The note with the rounds that were in the common model which a personal one drifted from.
pub(super) const PERSONAL: &str = "personal_round";

/// A model of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// What people called the job. The job's digest does not bind it.
    pub name: String,
    /// The job.
    pub job: Digest,
    /// Rounds that are folded into the model; 0 is the first weights.
    pub round: u64,
    /// The record after them.
    pub record: Digest,
    /// What was learned.
    pub subject: Subject,
    /// The weights, in the model's flat order.
    pub weights: Vec<f32>,
}

/// Why a model is not written or read.
#[derive(Debug, Error)]
pub enum TrainedError {
    /// The file is none of a model.
    #[error("the model file: {0}")]
    File(#[from] SavedError),
    /// The file does not say where the model comes from.
    #[error(
        "the model file does not say from which job and round it is: its note '{0}' is not right"
    )]
    Note(&'static str),
    /// It is a node's own model.
    #[error(
        "the model is a personal one, which a node made while no round ended: no chain proves it"
    )]
    Personal,
    /// The chain is of another job.
    #[error("the model is of another job")]
    OtherJob,
    /// The file says more or other things than its model: no chain would prove them.
    #[error(
        "byte {0} of the model file (the first is 0) is not what an export of this model has \
         there: somebody changed it, or another program wrote it again; `selvedge fed model \
         export` writes it anew"
    )]
    Bytes(usize),
}

impl TrainedModel {
    /// The model at the end of a job's chain so far; `name` is what people call the job.
    ///
    /// # Errors
    /// [`TrainedError::OtherJob`], [`TrainedError::Note`] for what is no name of a job.
    pub fn of(name: &str, told: &Announced, tip: &Tip) -> Result<Self, TrainedError> {
        if tip.job != told.job.digest() {
            return Err(TrainedError::OtherJob);
        }
        if !JobSpec::is_name(name) {
            return Err(TrainedError::Note(NAME));
        }
        Ok(Self {
            name: name.to_owned(),
            job: tip.job,
            round: tip.round,
            record: tip.record,
            subject: told.task.subject.clone(),
            weights: tip.server.model().iter().map(|units| weight(*units)).collect(),
        })
    }

    /// The bytes of its file, a safetensors file; the same model is the same bytes on every node.
    ///
    /// # Errors
    /// [`TrainedError::File`] for weights that are not those of the layers.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TrainedError> {
        let notes = [
            (NAME, self.name.clone()),
            (JOB, hex(&self.job)),
            (ROUND, self.round.to_string()),
            (RECORD, hex(&self.record)),
        ];
        let notes = notes.map(|(name, note)| (name.to_owned(), note)).into();
        let weights = self.weights.clone();
        Ok(match self.subject.clone() {
            Subject::Model(model) => Saved { model, weights, notes }.to_bytes()?,
            Subject::Tuning(tuning) => Adapter { tuning, weights, notes }.to_bytes()?,
        })
    }

    /// The model in a file of at most [`selvedge_train::MAX_LEARNED_BYTES`]. What it says of itself
    /// is read and not proven. The file has to be what [`Self::to_bytes`] makes of it, byte for
    /// byte: what people are told in it, as how to run the model, is then proven with the rest.
    ///
    /// # Errors
    /// [`TrainedError`], the first thing that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TrainedError> {
        let (subject, weights, notes) = match Learned::from_bytes(bytes)? {
            Learned::Model(Saved { model, weights, notes }) => {
                (Subject::Model(model), weights, notes)
            }
            Learned::Adapter(Adapter { tuning, weights, notes }) => {
                (Subject::Tuning(tuning), weights, notes)
            }
        };
        if notes.contains_key(PERSONAL) {
            return Err(TrainedError::Personal);
        }
        let name = notes.get(NAME).filter(|name| JobSpec::is_name(name));
        let round = notes.get(ROUND).and_then(|round| round.parse().ok());
        let read = Self {
            name: name.ok_or(TrainedError::Note(NAME))?.clone(),
            job: digest(&notes, JOB)?,
            round: round.ok_or(TrainedError::Note(ROUND))?,
            record: digest(&notes, RECORD)?,
            subject,
            weights,
        };
        match other_at(bytes, &read.to_bytes()?) {
            Some(at) => Err(TrainedError::Bytes(at)),
            None => Ok(read),
        }
    }
}

/// The first place at which two files differ; where one only goes on, the end of the other.
fn other_at(one: &[u8], other: &[u8]) -> Option<usize> {
    let differ = one.iter().zip(other).position(|(one, other)| one != other);
    let shorter = one.len().min(other.len());
    differ.or_else(|| (one.len() != other.len()).then_some(shorter))
}

/// A weight of a round as the float that is nearest to it: halves go to the even one, on every
/// machine. From 16 on a float has fewer digits than the round's integer.
pub(super) fn weight(units: i32) -> f32 {
    (f64::from(units) / f64::from(1_u32 << MODEL_BITS)) as f32
}

fn digest(notes: &BTreeMap<String, String>, name: &'static str) -> Result<Digest, TrainedError> {
    let hash = notes.get(name).and_then(|text| blake3::Hash::from_hex(text).ok());
    hash.map(Into::into).ok_or(TrainedError::Note(name))
}
