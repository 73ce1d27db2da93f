//! What can go wrong with a model, and how it is said to whoever asked.
//!
//! Owns the error type and its translation to refusals. Branch on the variant, show the message.

use std::path::PathBuf;

use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage};
use thiserror::Error;

/// Why a model cannot be read, loaded or run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is damaged, cut short or hostile.
    #[error("damaged model file: {0}")]
    Corrupt(String),
    /// The file is well-formed but asks for something this engine does not do.
    #[error("unsupported model: {0}")]
    Unsupported(String),
    /// A model is to be quantized that was quantized before.
    #[error(
        "tensor '{tensor}' is {form} already, and what that lost stays lost: begin with a file of \
         F16 or F32"
    )]
    Quantized {
        /// The first such tensor.
        tensor: String,
        /// The form it has.
        form: String,
    },
    /// A file cannot be written.
    #[error("cannot write the model: {0}")]
    Written(std::io::Error),
    /// The model does not fit the memory the engine may use.
    #[error("the model needs {needed} bytes of memory and {free} of the budget are free")]
    OutOfMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes of the budget that are free.
        free: u64,
    },
    /// The model does not fit the memory the engine may use, whatever goes for it.
    #[error(
        "the model needs {needed} bytes of memory, more than the whole budget of {budget}: raise \
         memory_budget_bytes in [engine], or take a smaller model or a type of fewer bits"
    )]
    OverBudget {
        /// Bytes needed.
        needed: u64,
        /// Bytes of the budget.
        budget: u64,
    },
    /// What is never unloaded leaves less than the model needs.
    #[error(
        "the model needs {needed} bytes of memory and what stays loaded leaves {left} of the \
         budget: raise memory_budget_bytes in [engine], or take a model off keep_loaded (loaded \
         now: {names})"
    )]
    KeptOut {
        /// Bytes needed.
        needed: u64,
        /// Bytes that could be free.
        left: u64,
        /// The models that stay.
        names: String,
    },
    /// All models that could make room were at work.
    #[error(
        "the model is not in memory, needs {needed} bytes there, and those that could make room \
         were answering for {seconds} s: ask again in a while, or raise memory_budget_bytes in \
         [engine]"
    )]
    Occupied {
        /// Bytes needed.
        needed: u64,
        /// How long it waited.
        seconds: u64,
    },
    /// Nobody waits for the model any more.
    #[error("the model is not loaded: it was removed, or nobody waits for it any more")]
    Unwanted,
    /// The compute device cannot be used.
    #[error("device {name} cannot be used: {reason}")]
    Device {
        /// As configured.
        name: String,
        /// What the driver or the build said.
        reason: String,
    },
    /// Another file already has this name.
    #[error("a different model is already called '{0}'")]
    NameTaken(String),
    /// More models than an engine keeps track of.
    #[error("no more than {0} models can be added to one engine")]
    TooManyModels(usize),
    /// A thread of the engine could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// Chat templates cannot be rendered in a process of their own.
    #[error("cannot render chat templates: {0}")]
    Renderer(String),
    /// An ONNX model cannot be run in a process of its own.
    #[error("cannot run the model: {0}")]
    Runner(String),
    /// The arithmetic failed.
    #[error("computation failed: {0}")]
    Compute(String),
}

/// Characters of what is said of a file: names in it may be as long as its writer likes, and a
/// person reads no more than some lines.
const MOST_SAID: usize = 1_000;

/// The beginning of a message, where it is long.
fn shortened(message: String) -> String {
    match message.char_indices().nth(MOST_SAID) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message,
    }
}

impl EngineError {
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::Corrupt(shortened(message.into()))
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(shortened(message.into()))
    }

    /// Whether it may be over in a moment: the system had no thread, process or file to spare.
    pub(crate) fn passes(&self) -> bool {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
        match self {
            // What stays loaded may be less by then.
            Self::Thread(_) | Self::Renderer(_) | Self::Runner(_) | Self::KeptOut { .. } => true,
            Self::Io { source, .. } => {
                !matches!(source.kind(), NotFound | PermissionDenied | NotADirectory | IsADirectory)
            }
            _ => false,
        }
    }

    /// The refusal for a request that needed this model.
    pub fn to_refusal(&self) -> Refusal {
        let code = match self {
            Self::Corrupt(_) => Code::Corrupt,
            Self::OutOfMemory { .. } | Self::OverBudget { .. } | Self::KeptOut { .. } => {
                Code::OutOfMemory
            }
            Self::Occupied { .. } => Code::Overloaded,
            Self::Compute(_) => Code::Internal,
            Self::Io { .. }
            | Self::Unsupported(_)
            | Self::Quantized { .. }
            | Self::Written(_)
            | Self::Device { .. }
            | Self::Unwanted
            | Self::NameTaken(_)
            | Self::TooManyModels(_)
            | Self::Thread(_)
            | Self::Renderer(_)
            | Self::Runner(_) => Code::ModelUnavailable,
        };
        Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, code, self.to_string())
    }
}

impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(error.to_string())
    }
}

/// A refusal for work that this node cannot take now, with when to come back.
pub(crate) fn overloaded(message: impl Into<String>, retry_after: Micros) -> Refusal {
    let retry = Retry::After(retry_after);
    Refusal::new(Stage::Execute, Blame::Us, retry, Code::Overloaded, message)
}

/// A refusal for work of somebody who has as much here as may be beside others, with when to come
/// back.
pub(crate) fn over_share(message: impl Into<String>, retry_after: Micros) -> Refusal {
    let retry = Retry::After(retry_after);
    Refusal::new(Stage::Execute, Blame::Client, retry, Code::Overloaded, message)
}

/// A refusal that another node may not have to give.
pub(crate) fn elsewhere(code: Code, message: impl Into<String>) -> Refusal {
    Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, code, message)
}
