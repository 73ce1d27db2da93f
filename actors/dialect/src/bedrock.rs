//! Bedrock's Converse and ConverseStream, and InvokeModel for embeddings.
//!
//! Owns the client side. Source: the Amazon Bedrock runtime API reference. The sender signs what is
//! rendered here; streams come in Amazon's binary framing ([`crate::frame::aws`]).

mod answer;
mod embed;
mod render;

pub use answer::{Parser, WholeParser};
pub use embed::{embed_inputs, read_embed, render_embed};
pub use render::render;

use selvedge_base::Micros;
use serde::Deserialize;

use crate::chat::Failure;
use crate::failure::{Words, classify};
use crate::limits::ERROR_BYTES;

#[derive(Deserialize)]
struct ErrorField {
    #[serde(alias = "Message")]
    message: Option<String>,
    #[serde(rename = "__type")]
    kind: Option<String>,
}

/// Classifies an error answer, `{"message":"…"}`. `kind` is the header `x-amzn-errortype` or the
/// name of an exception inside a stream (whose status is 0); `retry_after` comes from
/// [`crate::failure::retry_after`].
pub fn failure(
    status: u16,
    kind: Option<&str>,
    retry_after: Option<Micros>,
    body: &[u8],
) -> Failure {
    let body = &body[..body.len().min(ERROR_BYTES)];
    let Ok(field) = serde_json::from_slice::<ErrorField>(body) else {
        return crate::openai::failure(status, retry_after, body);
    };
    // Either may carry an address after its name.
    let named = kind.map(str::to_owned).or(field.kind);
    let kind = named.map(|kind| {
        let kind = kind.rsplit('#').next().unwrap_or_default();
        kind.split(':').next().unwrap_or_default().to_owned()
    });
    classify(status, retry_after, Words { kind, message: field.message, ..Words::default() })
}

#[cfg(test)]
#[path = "bedrock/tests.rs"]
mod tests;
