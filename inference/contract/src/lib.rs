//! What an engine must do, in plain data: requests, tokens, usage, state, batching policy.
//!
//! Owns the contract between the request path and whatever runs models, and the pure decisions of
//! an engine (what to run in the next step, when a request would finish here, which of a model's
//! files suits a machine). Deliberately lacks tensors, files, threads and channels: those are in
//! `inference/engine`.

pub mod carried;
mod constraint;
pub mod cost;
pub mod draft;
pub mod embed;
pub mod fair;
pub mod hardware;
mod pace;
pub mod prefix;
pub mod request;
pub mod residence;
pub mod schedule;
mod sequence;
pub mod speech;
pub mod status;
pub mod tensors;
pub mod tools;
pub mod variants;
mod worth;

pub use constraint::Constraint;
pub use cost::CostModel;
pub use embed::{EmbedRequest, EmbedSink, Embedded};
pub use fair::{Asker, Claim, Priority, Tenant};
pub use hardware::{Card, Condition, Hardware, Machine};
pub use prefix::Scope;
pub use request::{
    Answer, ChatMessage, Details, Emitted, EventSink, FinishReason, Further, GenerateRequest,
    Input, Limits, LogProbs, Role, Sampling, TokenEvent, TokenLogProb, Usage,
};
pub use speech::{
    Chunk, Heard, Samples, Segment, SpeechRequest, SpeechSink, SpeechTask, Transcript,
};
pub use status::{EngineStatus, ModelCard, ModelState, ModelStatus};
pub use tensors::{Datatype, InferRequest, InferSink, Signature, Tensor, TensorSpec};
pub use tools::{Tool, ToolCall, ToolChoice, Tooled, Turn, TurnKind};

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_base::{Blame, Code, ModelDigest, Refusal, RequestId, Retry, Stage};

/// Something that answers generation requests.
///
/// Many sequences share one model: an engine interleaves them step by step.
pub trait Engine: Send + Sync {
    /// Queues somebody's request. Answers arrive at `sink` from the engine's own thread, ending
    /// with exactly one [`Answer::Finished`] or [`Answer::Failed`]. What the engine has computed
    /// for the beginning of a prompt serves requests of the same scope only, and whose request is
    /// begun first follows from what their tenants have had.
    ///
    /// # Errors
    /// A refusal when the request cannot be queued at all: unknown model, full queue, too long.
    fn submit_as(
        &self,
        asker: &Asker<'_>,
        request: GenerateRequest,
        sink: Box<dyn EventSink>,
    ) -> Result<(), Refusal>;

    /// Queues a request of a tenant of which nothing else is known.
    ///
    /// # Errors
    /// As [`Engine::submit_as`].
    fn submit(
        &self,
        tenant: &str,
        request: GenerateRequest,
        sink: Box<dyn EventSink>,
    ) -> Result<(), Refusal> {
        self.submit_as(&Asker::new(tenant), request, sink)
    }

    /// Frees a request's work within one step. Unknown ids are ignored.
    fn cancel(&self, id: RequestId);

    /// What the engine holds and does now.
    fn status(&self) -> EngineStatus;

    /// How many other nodes that can be asked have which models in memory. One that goes to make
    /// room for another is taken from these first.
    fn copied(&self, _copies: &BTreeMap<ModelDigest, u32>) {}

    /// The prompt's tokens as the model would see them, without running it.
    ///
    /// # Errors
    /// A refusal when the model is unknown or the prompt cannot be rendered.
    fn count_tokens(&self, model: ModelDigest, input: &Input) -> Result<u32, Refusal>;

    /// The tokens of a prompt whose answer begins with this text, which another model wrote: as a
    /// prompt of [`Input::Tokens`] they make this model go on with it.
    ///
    /// # Errors
    /// As [`Engine::count_tokens`].
    fn begun(&self, model: ModelDigest, input: &Input, text: &str) -> Result<Vec<u32>, Refusal>;

    /// Numbers of the vectors that a model makes of texts; `None` where it makes none.
    fn dimensions(&self, _model: ModelDigest) -> Option<u32> {
        None
    }

    /// Queues a request for vectors. Only once it is queued is the sink heard of again.
    ///
    /// # Errors
    /// A refusal when the request cannot be queued at all, or the model makes no vectors.
    fn embed(&self, _request: EmbedRequest, _sink: EmbedSink) -> Result<(), Refusal> {
        let (stage, blame) = (Stage::Execute, Blame::Us);
        let message = "this engine makes no embeddings";
        Err(Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message))
    }

    /// What a model takes and gives that is asked with tensors; `None` where it is not.
    fn signature(&self, _model: ModelDigest) -> Option<Arc<Signature>> {
        None
    }

    /// Queues a request for an inference. Only once it is queued is the sink heard of again.
    ///
    /// # Errors
    /// A refusal when the request cannot be queued at all, does not fit the model, or the model is
    /// not asked with tensors.
    fn infer(&self, _request: InferRequest, _sink: InferSink) -> Result<(), Refusal> {
        let (stage, blame) = (Stage::Execute, Blame::Us);
        let message = "this engine runs no models that are asked with tensors";
        Err(Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message))
    }

    /// Queues sound for a model that writes down what is said. Only once it is queued is the sink
    /// heard of again.
    ///
    /// # Errors
    /// A refusal when the request cannot be queued at all, or the model hears nothing.
    fn hear(
        &self,
        _request: SpeechRequest,
        _sound: Samples,
        _sink: SpeechSink,
    ) -> Result<(), Refusal> {
        let (stage, blame) = (Stage::Execute, Blame::Us);
        let message = "this engine hears nothing";
        Err(Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message))
    }
}
