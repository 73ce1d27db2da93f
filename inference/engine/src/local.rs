//! The engine that the rest of a node talks to.

use std::path::Path;
use std::sync::Arc;

use selvedge_base::{ModelDigest, Mono, Refusal, RequestId};
use selvedge_contract::{Engine, EngineStatus, EventSink, GenerateRequest, Input, ModelCard};

use crate::{EngineConfig, EngineError};

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The name in the file, if any.
    pub name: Option<String>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Architecture, as the file names it.
    pub architecture: String,
    /// Quantization, as people write it.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Tokens the model can attend to.
    pub context_length: u32,
    /// Whether it has a chat template.
    pub chat: bool,
}

impl Inspected {
    /// The card under which the mesh knows the model.
    pub fn card(&self, name: &str, digest: ModelDigest) -> ModelCard {
        ModelCard {
            name: name.to_owned(),
            digest,
            bytes: self.bytes,
            architecture: self.architecture.clone(),
            quantization: self.quantization.clone(),
            parameters: self.parameters,
            context_length: self.context_length,
            chat: self.chat,
        }
    }
}

/// Reads a model file's header, within bounds, and says what it is.
///
/// # Errors
/// [`EngineError`] when the file is unreadable, damaged or of an unknown kind.
pub fn inspect(path: &Path) -> Result<Inspected, EngineError> {
    Err(EngineError::unsupported(format!("{}", path.display())))
}

/// Runs models on this machine.
pub struct LocalEngine {
    _config: EngineConfig,
}

impl LocalEngine {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// [`EngineError`] when the device cannot be used or a thread cannot be started.
    pub fn start(
        config: EngineConfig,
        _clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    ) -> Result<Self, EngineError> {
        Ok(Self { _config: config })
    }

    /// Adds a model file: reads its header only; the weights are loaded in the background.
    ///
    /// # Errors
    /// [`EngineError`] when the file cannot be a model here.
    pub fn add_model(
        &self,
        path: &Path,
        name: &str,
        digest: ModelDigest,
    ) -> Result<ModelCard, EngineError> {
        Ok(inspect(path)?.card(name, digest))
    }

    /// Forgets a model; its running requests fail. Unknown names are ignored.
    pub fn remove_model(&self, _name: &str) {}

    /// Why a model's loading failed, if it did.
    pub fn failure(&self, _digest: ModelDigest) -> Option<String> {
        None
    }

    /// Ends the engine's threads; running requests fail.
    pub fn shutdown(self) {}
}

impl Engine for LocalEngine {
    fn submit(&self, _: GenerateRequest, _: Box<dyn EventSink>) -> Result<(), Refusal> {
        Err(EngineError::unsupported("no model").to_refusal())
    }

    fn cancel(&self, _id: RequestId) {}

    fn status(&self) -> EngineStatus {
        EngineStatus::default()
    }

    fn count_tokens(&self, _model: ModelDigest, _input: &Input) -> Result<u32, Refusal> {
        Err(EngineError::unsupported("no model").to_refusal())
    }
}
