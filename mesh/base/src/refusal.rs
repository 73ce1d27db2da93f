//! How Selvedge says no: which stage, whose fault, whether to try again.
//!
//! Owns the vocabulary only. Mapping to HTTP status codes belongs to the surface that speaks HTTP,
//! and retrying belongs to the request flow.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// The stage of a request's life that refused it, in the order of the request path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Size, time and concurrency limits.
    Admit,
    /// Who is calling.
    Authenticate,
    /// Whether the request makes sense.
    Validate,
    /// Which node answers.
    Route,
    /// Handing the request to a peer.
    HandOff,
    /// Loading or running the model.
    Execute,
    /// Replaying a stream on another node.
    Resume,
    /// Whether a budget allows it: before routing, and again while a long answer grows. (Last,
    /// since wire version 2 added it and older frames count by position.)
    Reserve,
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Blame {
    /// The caller must change the request.
    Client,
    /// Another node of the mesh.
    Peer,
    /// An upstream provider.
    Provider,
    /// This node.
    Us,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retry {
    /// The same request will fail again.
    Never,
    /// Here, after this long.
    After(Micros),
    /// At once, but at another node.
    Elsewhere,
}

/// What exactly went wrong; programs branch on this, people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The request is malformed or asks for something impossible.
    InvalidRequest,
    /// The request asks for something this version does not do.
    Unsupported,
    /// The prompt and the answer do not fit the model's context.
    ContextLengthExceeded,
    /// The body or frame is larger than the limit.
    TooLarge,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The credentials are good but do not allow this.
    Forbidden,
    /// No node of the mesh has the model.
    ModelNotFound,
    /// A node has the model but cannot use it now.
    ModelUnavailable,
    /// Every place that could answer is full.
    Overloaded,
    /// The deadline passed.
    Timeout,
    /// The peer went away, froze or was cut off.
    PeerLost,
    /// The caller went away; nobody reads this.
    Cancelled,
    /// The work needs more memory than there is.
    OutOfMemory,
    /// A file is damaged or hostile.
    Corrupt,
    /// A fault of ours that needs a bug report.
    Internal,
    /// A budget has nothing left. (Since wire version 2.)
    QuotaExhausted,
}

impl Code {
    /// The stable name programs see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unsupported => "unsupported",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model_not_found",
            Self::ModelUnavailable => "model_unavailable",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::PeerLost => "peer_lost",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out_of_memory",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
            Self::QuotaExhausted => "quota_exhausted",
        }
    }
}

/// A refusal that says enough to act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Where in the request's life it happened.
    pub stage: Stage,
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong and what to do, for people. Never holds a secret.
    pub message: String,
    /// The request field at fault, when there is one.
    pub param: Option<String>,
}

impl Refusal {
    /// The caller's fault: the same request will fail again.
    pub fn client(stage: Stage, code: Code, message: impl Into<String>) -> Self {
        Self::new(stage, Blame::Client, Retry::Never, code, message)
    }

    /// Any other refusal.
    pub fn new(
        stage: Stage,
        blame: Blame,
        retry: Retry,
        code: Code,
        message: impl Into<String>,
    ) -> Self {
        Self { stage, blame, retry, code, message: message.into(), param: None }
    }

    /// The same refusal in words that wire version `version` has.
    #[must_use]
    pub fn spoken_at(mut self, version: u8) -> Self {
        if version < 2 {
            if self.stage == Stage::Reserve {
                self.stage = Stage::Admit;
            }
            if self.code == Code::QuotaExhausted {
                self.code = Code::Overloaded;
            }
        }
        self
    }

    /// The same refusal, naming the request field at fault.
    #[must_use]
    pub fn param(mut self, field: impl Into<String>) -> Self {
        self.param = Some(field.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} at {:?})", self.message, self.code.as_str(), self.stage)
    }
}

impl std::error::Error for Refusal {}
