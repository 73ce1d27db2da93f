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
use selvedge_federated::round::{Digest, Job, JobError, Tip};
use selvedge_proto::seal::sealing_key;
use selvedge_proto::settings::{MAX_CONTENT_BYTES, SettingKey};
use selvedge_train::{Model, TrainError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::spec::{JobSpec, MAX_ROUND_BYTES, Training, round_bytes};

/// The kind of settings that are jobs. Names of routes and models have 1 and 2.
const KIND: u8 = 3;
/// The version of the shape of a job's setting.
const VERSION: u8 = 1;
/// The version where the norm of updates follows them: the same, and how, which the form of rules
/// in the first version has no place for.
const VERSION_FOLLOWING: u8 = 2;
/// The version of a job with epidemic mode: the first, and the mode. Who does not know it could not
/// follow the rules that are bound to it.
const VERSION_EPIDEMIC: u8 = 3;
/// The codec's version for what is inside: the one that all versions of a setting are read with.
const CODEC_VERSION: u8 = 1;
/// Examples of a thousand that are only measured on, at most: half.
pub(super) const MAX_HELD_OUT: u16 = 500;

/// What is trained on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The source of the data, by the name that nodes' configurations give it.
    pub data: String,
    /// The model.
    pub model: Model,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The rules; `task` is the digest of the task.
    pub job: Job,
    /// What is trained.
    pub task: Task,
    /// The node that it was submitted at.
    pub by: NodeId,
    /// What nodes do while no round ends, if they do something; bound to the rules as the task is.
    /// Told after the rest, in a version of its own.
    #[serde(skip)]
    pub epidemic: Option<Epidemic>,
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

impl Task {
    /// What rules are bound to: this task, and the job's epidemic mode if it has one.
    pub fn digest(&self, epidemic: Option<&Epidemic>) -> Result<Digest, AnnouncedError> {
        let bytes = match epidemic {
            None => postcard::to_stdvec(self),
            Some(rules) => postcard::to_stdvec(&(self, rules)),
        };
        let bytes = bytes.map_err(|why| AnnouncedError::Bytes(why.to_string()))?;
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated task");
        hasher.update(&[if epidemic.is_some() { VERSION_EPIDEMIC } else { VERSION }]);
        hasher.update(&bytes);
        Ok(*hasher.finalize().as_bytes())
    }

    /// The first weights of a model, in units of 2^-20.
    ///
    /// # Errors
    /// [`AnnouncedError::Model`] for one that cannot be built.
    pub fn weights(model: &Model, seed: u64) -> Result<Vec<i32>, AnnouncedError> {
        let unit = f64::from(1_u32 << MODEL_BITS);
        let whole = |(at, weight): (usize, &f32)| {
            let units = (f64::from(*weight) * unit).round();
            // What is not a number is within nothing.
            let is_within = units.abs() <= f64::from(i32::MAX);
            is_within.then_some(units as i32).ok_or(AnnouncedError::Weight(at))
        };
        model.first(seed)?.iter().enumerate().map(whole).collect()
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

impl Announced {
    /// The content that is signed.
    ///
    /// # Errors
    /// [`AnnouncedError::Bytes`] when it is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, AnnouncedError> {
        let adaptive = self.job.privacy.and_then(|privacy| privacy.adaptive);
        let most = MAX_CONTENT_BYTES - 1;
        let (version, body) = match (adaptive, self.epidemic) {
            (None, None) => (VERSION, codec::encode_datagram_at(CODEC_VERSION, self, most)),
            (Some(how), None) => {
                let both = (self, how);
                (VERSION_FOLLOWING, codec::encode_datagram_at(CODEC_VERSION, &both, most))
            }
            // A job with this mode has no privacy, and so no norm that follows.
            (_, Some(rules)) => {
                let both = (self, rules);
                (VERSION_EPIDEMIC, codec::encode_datagram_at(CODEC_VERSION, &both, most))
            }
        };
        let mut bytes = vec![version];
        bytes.extend(body.map_err(|why| AnnouncedError::Bytes(why.to_string()))?);
        Ok(bytes)
    }

    /// The job in such content, with all that can be checked without building its model.
    ///
    /// # Errors
    /// [`AnnouncedError`], the first thing that is wrong.
    pub fn from_bytes(content: &[u8]) -> Result<Self, AnnouncedError> {
        let bad = |why: String| AnnouncedError::Bytes(why);
        let (version, rest) = content.split_first().ok_or_else(|| bad("it is empty".to_owned()))?;
        let unread = |why: codec::CodecError| bad(why.to_string());
        let told: Self = match *version {
            VERSION => codec::decode_body(rest).map_err(unread)?,
            VERSION_FOLLOWING => {
                let (mut told, how): (Self, Adaptive) = codec::decode_body(rest).map_err(unread)?;
                let privacy = told.job.privacy.as_mut();
                privacy.ok_or(AnnouncedError::Unbound)?.adaptive = Some(how);
                told
            }
            VERSION_EPIDEMIC => {
                let (mut told, rules): (Self, Epidemic) =
                    codec::decode_body(rest).map_err(unread)?;
                told.epidemic = Some(rules);
                told
            }
            other => return Err(AnnouncedError::Version(other)),
        };
        told.job.check()?;
        if let Some(rules) = &told.epidemic {
            rules.check(&told.job)?;
        }
        let bound = told.task.digest(told.epidemic.as_ref())?;
        if bound != told.job.task || told.task.held_out_permille > MAX_HELD_OUT {
            return Err(AnnouncedError::Unbound);
        }
        if told.task.model.size()? != told.job.dim || !JobSpec::is_name(&told.task.data) {
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

    /// The beginning of its chain.
    ///
    /// # Errors
    /// [`AnnouncedError::First`] where the weights come out differently.
    pub fn first(&self) -> Result<Tip, AnnouncedError> {
        let weights = Task::weights(&self.task.model, self.task.seed)?;
        if Task::digest_of(&weights) != self.task.first {
            return Err(AnnouncedError::First);
        }
        Ok(Tip::first(&self.job, weights)?)
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
