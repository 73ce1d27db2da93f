//! Ollama's own API.
//!
//! Owns both roles of chat and embed, and the server side of generate, tags and show. Source: the
//! Ollama API reference. Streams are lines of JSON; a chat streams unless it says otherwise. This
//! dialect joins the parts of a message: several texts are paragraphs of one.

mod answer;
mod embed;
mod fields;
mod messages;
mod models;
mod render;
mod write;

pub use answer::Parser;
pub use embed::{
    embed_body, embed_schema, embeddings_body, embeddings_schema, parse_embed, parse_embeddings,
    read_embed, render_embed,
};
pub use fields::{chat_schema, generate_schema, parse, parse_generate};
pub use models::{Card, parse_show, read_tags, show_body, show_schema, tags, tags_body};
pub use render::render;
pub use write::{Shape, Writer, whole};

use selvedge_base::{Micros, Refusal};

use crate::chat::Failure;
use crate::json::Object;

/// Classifies an error answer, `{"error":"…"}`. `retry_after` comes from
/// [`crate::failure::retry_after`].
pub fn failure(status: u16, retry_after: Option<Micros>, body: &[u8]) -> Failure {
    // The same envelope, with a text in it.
    crate::openai::failure(status, retry_after, body)
}

/// Our own refusal as this dialect's error object.
pub fn error_body(refusal: &Refusal) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| object.field("error", &refusal.message));
    out
}

#[cfg(test)]
#[path = "ollama/tests.rs"]
mod tests;
