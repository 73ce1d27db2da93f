//! Gemini's generateContent, streamGenerateContent and batchEmbedContents.
//!
//! Owns the client side. Source: the Gemini API reference, `v1beta`. Newer models want the
//! signature of a thought back with the call that followed it; no other dialect has a place for it
//! there, so it travels within the call's id, which clients return unchanged (see [`sign`]).

mod answer;
mod embed;
mod error;
mod render;

pub use answer::{Parser, WholeParser};
pub use embed::{EMBED_INPUTS, read_embed, render_embed};
pub use error::failure;
pub use render::render;

/// Stands between a call's own id and the signature of the thought before it. No id or signature
/// (base64) holds it.
const SIGNED: &str = "~thought~";

/// A call's id together with a signature.
fn sign(id: &str, signature: Option<&str>) -> String {
    match signature {
        Some(signature) => format!("{id}{SIGNED}{signature}"),
        None => id.to_owned(),
    }
}

/// The own id and the signature of a call's id.
fn unsign(id: &str) -> (&str, Option<&str>) {
    match id.split_once(SIGNED) {
        Some((own, signature)) => (own, Some(signature)),
        None => (id, None),
    }
}

#[cfg(test)]
#[path = "gemini/tests.rs"]
mod tests;
