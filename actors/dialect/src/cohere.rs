//! Cohere's chat and embed, version 2.
//!
//! Owns the client side. Source: the Cohere API reference, `v2`. Usage is what is billed, where the
//! two counts that this API tells differ.

mod answer;
mod embed;
mod render;

pub use answer::{Parser, WholeParser};
pub use embed::{EMBED_INPUTS, read_embed, render_embed};
pub use render::render;

pub(crate) use embed::embed_fields;

use selvedge_base::Micros;

use crate::chat::Failure;

/// Classifies an error answer, `{"message":"…"}`. `retry_after` comes from
/// [`crate::failure::retry_after`].
pub fn failure(status: u16, retry_after: Option<Micros>, body: &[u8]) -> Failure {
    // A body without the envelope is read there too.
    crate::openai::failure(status, retry_after, body)
}

#[cfg(test)]
#[path = "cohere/tests.rs"]
mod tests;
