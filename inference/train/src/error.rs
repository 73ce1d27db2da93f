//! What can go wrong with examples, models and training. Branch on the variant, show the message.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why examples cannot be read or a model cannot be trained.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A file cannot be opened or read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its kind promises.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what would be right.
        reason: String,
        /// The same without anything of the file.
        wrong: Wrong,
    },
    /// The examples do not fit what the job says of them.
    #[error("the examples do not fit the job: {0}")]
    Schema(String),
    /// More than this node reads into memory.
    #[error("{what} is more than the limit of {limit}; use fewer examples or split the file")]
    TooLarge {
        /// What was counted, with its number.
        what: String,
        /// The most that is taken.
        limit: usize,
    },
    /// A model that cannot be built.
    #[error("this model cannot be built: {0}")]
    Model(String),
    /// Steps that cannot be taken.
    #[error("training cannot run: {0}")]
    Plan(String),
    /// Training left the numbers: a loss or a weight that is infinite or not a number.
    #[error("training diverged at step {step}: the {what} is not finite; lower the learning rate")]
    Diverged {
        /// The step it was seen at, from 0.
        step: usize,
        /// The loss or a weight.
        what: &'static str,
    },
    /// Nobody wants the result any more: the job was taken away, or its node ends.
    #[error("training was stopped")]
    Stopped,
    /// The language model that is tuned cannot be read.
    #[error("the base model: {0}")]
    Base(#[from] selvedge_engine::EngineError),
    /// The probabilities of an example left the numbers.
    #[error(
        "example {example} has values so large that its probabilities are no numbers; send values \
         of the size that the model was trained on"
    )]
    Unclear {
        /// Which, from 0.
        example: usize,
    },
    /// The arithmetic failed.
    #[error("computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}

/// What is wrong with a file, in a word that may be told to others: nothing of the file is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Something in it.
    Content,
    /// Which columns or sides its examples have.
    Columns,
    /// Which classes there are.
    Classes,
    /// There are no examples in it.
    Empty,
}

impl TrainError {
    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::wrong(Wrong::Content, path, reason)
    }

    pub(crate) fn wrong(wrong: Wrong, path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.into(), wrong }
    }

    /// The same of a file, by another word.
    pub(crate) fn named(self, wrong: Wrong) -> Self {
        match self {
            Self::Malformed { path, reason, .. } => Self::Malformed { path, reason, wrong },
            other => other,
        }
    }
}
