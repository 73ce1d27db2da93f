//! One request for embeddings and its answer.
//!
//! Plain data. Nothing here crosses the wire: vectors are made at the node that has the model.

use selvedge_base::{ModelDigest, Refusal, RequestId};

use crate::tensors::CLIP;

/// Architectures of models that make vectors of texts and write none.
const ENCODERS: [&str; 2] = ["bert", CLIP];

/// Whether models of an architecture, as a card names it, make vectors and write no text.
pub fn embeds(architecture: &str) -> bool {
    ENCODERS.contains(&architecture)
}

/// A request for the vectors of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedRequest {
    /// Unique per request.
    pub id: RequestId,
    /// Which model, by content.
    pub model: ModelDigest,
    /// The texts, in order; each gives one vector.
    pub texts: Vec<String>,
    /// Whether a text that is longer than the model reads is cut; otherwise it is refused.
    pub cut: bool,
}

/// The vectors of a request's texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedded {
    /// One per text, in order. A text's vector does not depend on the others.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that the model has read, its own marks around each text included.
    pub tokens: u64,
}

/// What hears the end of a request, on the engine's thread: it must not block. Dropped unheard,
/// something panicked.
pub type EmbedSink = Box<dyn FnOnce(Result<Embedded, Refusal>) + Send>;
