//! A job as it is told to the mesh: its rules, and what is trained on what.
//!
//! Owns the signed content of a job's setting and the digest that binds its rules to its task: a
//! node that has another model, other layers or other steps has another job. The rules are the
//! round's own ([`Job`]); what the words mean is the trainer's.

use selvedge_base::NodeId;
use selvedge_base::codec;
use selvedge_federated::epidemic::{Epidemic, EpidemicError};
use selvedge_federated::fixed::MODEL_BITS;
use selvedge_federated::privacy::adaptive::Adaptive;
use selvedge_federated::round::{Digest, Guard, Job, JobError, Tip};
use selvedge_proto::seal::sealing_key;
use selvedge_proto::settings::{MAX_CONTENT_BYTES, SettingKey};
use selvedge_train::{Subject, TrainError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::spec::{JobSpec, MAX_ROUND_BYTES, Training, known_since, round_bytes};

/// The kind of settings that are jobs. Names of routes and models have 1 and 2.
const KIND: u8 = 3;
/// The kind of settings that say who a job's anchors are to be from some round on.
const KIND_SEATS: u8 = 4;
/// The version of the shape of a job's setting, where a small model is trained.
const VERSION: u8 = 1;
/// The version of what the first one has no place for: a language model that is tuned, a norm that
/// follows the updates, epidemic mode. All others stay in the first one, which older programs know.
const VERSION_MORE: u8 = 2;
/// The version of jobs that count several clients of a node.
const VERSION_PARTS: u8 = 3;
/// The version of jobs with a guard: whose shares are proven, and whose sums are in groups.
const VERSION_GUARDED: u8 = 4;
/// The codec's version for what is inside: the one that all versions of a setting are read with.
const CODEC_VERSION: u8 = 1;
/// Examples of a thousand that are only measured on, at most: half.
pub(super) const MAX_HELD_OUT: u16 = 500;

/// What is trained on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The source of the data, by the name that nodes' configurations give it.
    pub data: String,
    /// What is learned.
    pub subject: Subject,
    /// How a client trains.
    pub training: Training,
    /// The first weights are drawn from this.
    pub seed: u64,
    /// The digest of the first weights, in units of 2^-20: where they come out differently a node
    /// could not follow.
    pub first: Digest,
    /// Of a thousand examples of a node so many are never trained on, only measured on.
    pub held_out_permille: u16,
}

/// A job as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The rules; `task` is the digest of the task.
    pub job: Job,
    /// What is trained.
    pub task: Task,
    /// The node that it was submitted at.
    pub by: NodeId,
    /// What nodes do while no round ends, if they do something; bound to the rules as the task is.
    /// Told after the rest, in a version of its own.
    pub epidemic: Option<Epidemic>,
}

/// A job in one version of a setting's shape, which differ in what is learned.
#[derive(Serialize, Deserialize)]
struct Written<S> {
    job: Job,
    task: WrittenTask<S>,
    by: NodeId,
}

/// A task in one version.
#[derive(Serialize, Deserialize)]
struct WrittenTask<S> {
    data: String,
    subject: S,
    training: Training,
    seed: u64,
    first: Digest,
    held_out_permille: u16,
}

impl<S: Clone> WrittenTask<S> {
    fn of(task: &Task, subject: &S) -> Self {
        let Task { data, training, seed, first, held_out_permille, .. } = task.clone();
        Self { data, subject: subject.clone(), training, seed, first, held_out_permille }
    }

    fn read(self, subject: impl Fn(S) -> Subject) -> Task {
        let Self { data, subject: own, training, seed, first, held_out_permille } = self;
        Task { data, subject: subject(own), training, seed, first, held_out_permille }
    }
}

/// Why a job that was told is not taken.
#[derive(Debug, Error)]
pub enum AnnouncedError {
    /// Only a newer program understands it.
    #[error("it is told in version {0}, which this build does not know: update selvedge here")]
    Version(u8),
    /// Nobody understands it.
    #[error("it cannot be read: {0}")]
    Bytes(String),
    /// Rules and task do not belong together.
    #[error("its rules are of another task")]
    Unbound,
    /// One round does not fit a message.
    #[error("one round of its {0} weights does not fit a message")]
    Wide(usize),
    /// An anchor could not open what is sealed to it.
    #[error("the key of its anchor {} is not that node's", .0.short())]
    Key(NodeId),
    /// The rules cannot be.
    #[error("its rules cannot be: {0}")]
    Job(#[from] JobError),
    /// The epidemic mode cannot be.
    #[error("its epidemic mode {0}")]
    Epidemic(#[from] EpidemicError),
    /// The model cannot be.
    #[error("its model cannot be: {0}")]
    Model(#[from] TrainError),
    /// The first weights are others.
    #[error(
        "its first weights come out differently on this node's processor, so that it could not \
         follow the rounds"
    )]
    First,
    /// A first weight is no number, or too large.
    #[error("first weight {0} is too large")]
    Weight(usize),
}

/// Where a job is kept.
pub(crate) fn key_of(name: &str) -> SettingKey {
    SettingKey { kind: KIND, name: name.to_owned() }
}

/// Whether a setting is a job.
pub(crate) const fn is_job(key: &SettingKey) -> bool {
    key.kind == KIND
}

/// Where it is kept who a job's anchors are to be.
pub(crate) fn seats_of(name: &str) -> SettingKey {
    SettingKey { kind: KIND_SEATS, name: name.to_owned() }
}

/// Whether a setting says who a job's anchors are to be.
pub(crate) const fn is_seats(key: &SettingKey) -> bool {
    key.kind == KIND_SEATS
}

impl Task {
    /// What rules are bound to: this task, and the job's epidemic mode if it has one.
    pub fn digest(&self, epidemic: Option<&Epidemic>) -> Result<Digest, AnnouncedError> {
        let (version, bytes) = match (&self.subject, epidemic) {
            (Subject::Model(model), None) => {
                (VERSION, postcard::to_stdvec(&WrittenTask::of(self, model)))
            }
            (subject, epidemic) => {
                let both = (WrittenTask::of(self, subject), epidemic);
                (VERSION_MORE, postcard::to_stdvec(&both))
            }
        };
        let bytes = bytes.map_err(|why| AnnouncedError::Bytes(why.to_string()))?;
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated task");
        hasher.update(&[version]);
        hasher.update(&bytes);
        Ok(*hasher.finalize().as_bytes())
    }

    /// The first weights of what is learned, in units of 2^-20.
    ///
    /// # Errors
    /// [`AnnouncedError::Model`] for one that cannot be built.
    pub fn weights(subject: &Subject, seed: u64) -> Result<Vec<i32>, AnnouncedError> {
        let unit = f64::from(1_u32 << MODEL_BITS);
        let whole = |(at, weight): (usize, &f32)| {
            let units = (f64::from(*weight) * unit).round();
            // What is not a number is within nothing.
            let is_within = units.abs() <= f64::from(i32::MAX);
            is_within.then_some(units as i32).ok_or(AnnouncedError::Weight(at))
        };
        subject.first(seed)?.iter().enumerate().map(whole).collect()
    }

    /// The digest of first weights.
    pub fn digest_of(weights: &[i32]) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated first weights");
        for weight in weights {
            hasher.update(&weight.to_be_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

fn encoded(version: u8, written: &impl Serialize) -> Result<Vec<u8>, AnnouncedError> {
    let body = codec::encode_datagram_at(CODEC_VERSION, written, MAX_CONTENT_BYTES - 1);
    let mut bytes = vec![version];
    bytes.extend(body.map_err(|why| AnnouncedError::Bytes(why.to_string()))?);
    Ok(bytes)
}

fn decoded<T: DeserializeOwned>(rest: &[u8]) -> Result<T, AnnouncedError> {
    codec::decode_body(rest).map_err(|why| AnnouncedError::Bytes(why.to_string()))
}

impl Announced {
    /// The content that is signed.
    ///
    /// # Errors
    /// [`AnnouncedError::Bytes`] when it is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, AnnouncedError> {
        let adaptive = self.job.privacy.and_then(|privacy| privacy.adaptive);
        let subject = &self.task.subject;
        if let Some(guard) = self.job.guard {
            let (epidemic, per_node) = (self.epidemic, self.job.per_node);
            let told = (self.written(subject), adaptive, epidemic, per_node, guard);
            return encoded(VERSION_GUARDED, &told);
        }
        if self.job.per_node > 1 {
            let told = (self.written(subject), adaptive, self.epidemic, self.job.per_node);
            return encoded(VERSION_PARTS, &told);
        }
        match (&self.task.subject, adaptive, self.epidemic) {
            (Subject::Model(model), None, None) => encoded(VERSION, &self.written(model)),
            (subject, how, epidemic) => {
                encoded(VERSION_MORE, &(self.written(subject), how, epidemic))
            }
        }
    }

    /// The job in such content, with all that can be checked without building its model.
    ///
    /// # Errors
    /// [`AnnouncedError`], the first thing that is wrong.
    pub fn from_bytes(content: &[u8]) -> Result<Self, AnnouncedError> {
        let (mut told, how) = Self::read_version(content)?;
        if let Some(how) = how {
            let privacy = told.job.privacy.as_mut();
            privacy.ok_or(AnnouncedError::Unbound)?.adaptive = Some(how);
        }
        told.job.check()?;
        if let Some(rules) = &told.epidemic {
            rules.check(&told.job)?;
        }
        let bound = told.task.digest(told.epidemic.as_ref())?;
        if bound != told.job.task || told.task.held_out_permille > MAX_HELD_OUT {
            return Err(AnnouncedError::Unbound);
        }
        if told.task.subject.size()? != told.job.dim || !JobSpec::is_name(&told.task.data) {
            return Err(AnnouncedError::Unbound);
        }
        if told.task.subject.as_tuning().is_some_and(|tuning| tuning.seed != told.task.seed) {
            return Err(AnnouncedError::Unbound);
        }
        if round_bytes(&told.job) > MAX_ROUND_BYTES {
            return Err(AnnouncedError::Wide(told.job.dim));
        }
        let seats = &told.job.committee.seats;
        if let Some(seat) = seats.iter().find(|seat| sealing_key(&seat.node) != Some(seat.key)) {
            return Err(AnnouncedError::Key(seat.node));
        }
        Ok(told)
    }

    /// What a setting says in whichever version, and how a norm follows.
    fn read_version(content: &[u8]) -> Result<(Self, Option<Adaptive>), AnnouncedError> {
        let empty = || AnnouncedError::Bytes("it is empty".to_owned());
        let (version, rest) = content.split_first().ok_or_else(empty)?;
        let any = |subject: Subject| subject;
        let (told, how, epidemic, per_node, guard) = match *version {
            VERSION => (Self::read(decoded(rest)?, Subject::Model), None, None, 1, None),
            VERSION_MORE => {
                let (written, how, epidemic): (_, Option<Adaptive>, Option<Epidemic>) =
                    decoded(rest)?;
                (Self::read(written, any), how, epidemic, 1, None)
            }
            VERSION_PARTS => {
                let (written, how, epidemic, per_node): (_, Option<Adaptive>, _, u8) =
                    decoded(rest)?;
                // A job has one form: those with one client of a node are told as they were.
                if per_node < 2 {
                    return Err(AnnouncedError::Unbound);
                }
                (Self::read(written, any), how, epidemic, per_node, None)
            }
            VERSION_GUARDED => {
                let (written, how, epidemic, per_node, guard): (_, Option<Adaptive>, _, u8, Guard) =
                    decoded(rest)?;
                (Self::read(written, any), how, epidemic, per_node, Some(guard))
            }
            other => return Err(AnnouncedError::Version(other)),
        };
        let job = Job { per_node, guard, ..told.job };
        Ok((Self { epidemic, job, ..told }, how))
    }

    /// The first wire version whose nodes can be its anchors.
    pub(super) fn since(&self) -> u8 {
        known_since(&self.job, self.epidemic.is_some(), &self.task.subject)
    }

    fn written<S: Clone>(&self, subject: &S) -> Written<S> {
        Written { job: self.job.clone(), task: WrittenTask::of(&self.task, subject), by: self.by }
    }

    fn read<S: Clone>(written: Written<S>, subject: impl Fn(S) -> Subject) -> Self {
        let Written { job, task, by } = written;
        Self { job, task: task.read(subject), by, epidemic: None }
    }

    /// The beginning of its chain.
    ///
    /// # Errors
    /// [`AnnouncedError::First`] where the weights come out differently.
    pub fn first(&self) -> Result<Tip, AnnouncedError> {
        let weights = Task::weights(&self.task.subject, self.task.seed)?;
        if Task::digest_of(&weights) != self.task.first {
            return Err(AnnouncedError::First);
        }
        Ok(Tip::first(&self.job, weights)?)
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
