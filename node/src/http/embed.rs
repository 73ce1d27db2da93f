//! How clients ask for embeddings here, by surface.
//!
//! Owns the table from endpoints to a dialect's server side. What a dialect says is
//! `selvedge-dialect`'s, and who answers is decided behind the backend.

use selvedge_base::Refusal;
use selvedge_dialect::embed::{EmbedRequest, Embeddings, Encoding};
use selvedge_dialect::{ollama, openai};

/// How one endpoint speaks.
#[derive(Clone, Copy)]
pub(super) struct Speech {
    /// Reads a body.
    pub(super) parse: fn(&[u8]) -> Result<EmbedRequest, Refusal>,
    /// The dialect's name in the cache of answers.
    pub(super) cache: &'static str,
    /// Writes an answer.
    pub(super) whole: fn(&Embeddings, Encoding) -> Vec<u8>,
}

/// OpenAI's embeddings.
pub(super) const OPENAI: Speech =
    Speech { parse: openai::parse_embed, cache: "openai.embeddings", whole: openai::embed_body };

/// Ollama's embeddings of one or more texts.
pub(super) const OLLAMA: Speech = Speech {
    parse: ollama::parse_embed,
    cache: "ollama.embed",
    whole: |answer, _| ollama::embed_body(answer),
};

/// Ollama's older endpoint: one text.
pub(super) const OLLAMA_OLDER: Speech = Speech {
    parse: ollama::parse_embeddings,
    cache: "ollama.embeddings",
    whole: |answer, _| ollama::embeddings_body(answer),
};
