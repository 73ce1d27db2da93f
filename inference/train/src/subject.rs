//! What is learned in a round: a small model from nothing, or small matrices beside a large one.

use serde::{Deserialize, Serialize};

use crate::{Model, TrainError, Tuning};

/// What one flat vector of a round stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// A small model, all of it.
    Model(Model),
    /// What is added to a language model.
    Tuning(Tuning),
}

impl Subject {
    /// Numbers in the flat vector.
    ///
    /// # Errors
    /// [`TrainError`] for what cannot be built.
    pub fn size(&self) -> Result<usize, TrainError> {
        match self {
            Self::Model(model) => model.size(),
            Self::Tuning(tuning) => tuning.size(),
        }
    }

    /// The flat vector before the first round: drawn weights, or nothing added.
    ///
    /// # Errors
    /// [`TrainError`] for what cannot be built.
    pub fn first(&self, seed: u64) -> Result<Vec<f32>, TrainError> {
        match self {
            Self::Model(model) => model.first(seed),
            Self::Tuning(tuning) => Ok(vec![0.0; tuning.size()?]),
        }
    }

    /// The small model, if it is one.
    pub const fn as_model(&self) -> Option<&Model> {
        match self {
            Self::Model(model) => Some(model),
            Self::Tuning(_) => None,
        }
    }

    /// How a language model is tuned, if that is what is done.
    pub const fn as_tuning(&self) -> Option<&Tuning> {
        match self {
            Self::Model(_) => None,
            Self::Tuning(tuning) => Some(tuning),
        }
    }
}
