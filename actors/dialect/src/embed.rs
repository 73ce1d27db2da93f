//! The canonical form of a request for embeddings and of its answer.
//!
//! Owns plain data. Vectors are kept in the precision models compute in; a dialect that sends them
//! as base64 gets little-endian 32-bit floats, as the OpenAI API defines.

use crate::chat::{Extension, Usage};
use crate::number::Component;

/// A request for embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedRequest {
    /// The model as whoever asks names it.
    pub model: String,
    /// What to embed, in order; each gives one vector.
    pub inputs: Vec<EmbedInput>,
    /// Components wanted per vector, where the model can shorten them.
    pub dimensions: Option<u32>,
    /// How the vectors are to be written.
    pub encoding: Encoding,
    /// What the vectors are for, in dialects that ask (`search_query`, `RETRIEVAL_DOCUMENT`…).
    pub purpose: Option<String>,
    /// Whether inputs that are too long may be cut; `None` = as the target does by itself.
    pub truncate: Option<bool>,
    /// The end user, as the caller names them. A hint.
    pub user: Option<String>,
    /// Fields of the body that only one dialect has.
    pub extensions: Vec<Extension>,
}

/// One thing to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbedInput {
    /// Text.
    Text(String),
    /// Tokens of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As JSON numbers.
    #[default]
    Float,
    /// As base64 of little-endian 32-bit floats.
    Base64,
}

/// The answer to a request for embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// The model that answered, as it names itself.
    pub model: String,
    /// One vector per input, in the order of the inputs.
    pub vectors: Vec<Vec<Component>>,
    /// What it took; only the prompt's counts are used.
    pub usage: Option<Usage>,
}
