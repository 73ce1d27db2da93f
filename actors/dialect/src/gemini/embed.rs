//! Client side: embeddings.
//!
//! Owns `batchEmbedContents`. Only newer models tell the usage of them.

use selvedge_base::Refusal;
use serde::Deserialize;

use crate::cannot;
use crate::chat::Usage;
use crate::embed::{EmbedInput, EmbedRequest, Embeddings};
use crate::exchange::{Dialect, Outgoing, encode};
use crate::json::Object;
use crate::number::Component;

const SELF: Dialect = Dialect::Gemini;
/// Inputs of one request, as the API takes them.
pub const EMBED_INPUTS: usize = 100;

/// What to send for embeddings.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render_embed(request: &EmbedRequest) -> Result<Outgoing, Refusal> {
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != SELF) {
        return Err(cannot::say(SELF, &other.name));
    }
    if request.inputs.iter().any(|input| matches!(input, EmbedInput::Tokens(_))) {
        return Err(cannot::because(SELF, "input", "takes texts, not tokens"));
    }
    cannot::any(SELF, &[("truncate", request.truncate == Some(false))])?;
    let model = request.model.trim_start_matches("models/");
    let mut body = Vec::with_capacity(256);
    Object::write(&mut body, |object| {
        object.array("requests", |array| {
            for input in &request.inputs {
                let EmbedInput::Text(text) = input else { continue };
                array.object(|object| {
                    object.field("model", &format!("models/{model}"));
                    object.object("content", |object| {
                        object.array("parts", |array| {
                            array.object(|object| object.field("text", text));
                        });
                    });
                    object.maybe("taskType", request.purpose.as_ref());
                    object.maybe("outputDimensionality", request.dimensions.as_ref());
                });
            }
        });
    });
    let path = format!("/v1beta/models/{}:batchEmbedContents", encode(model));
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path, headers, body })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    embeddings: Vec<Vector>,
    usage_metadata: Option<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    prompt_token_count: Option<u64>,
}

#[derive(Deserialize)]
struct Vector {
    values: Vec<Component>,
}

/// Reads a whole answer with embeddings; see [`crate::embed::EmbedParser`].
///
/// # Errors
/// What is wrong with it.
pub fn read_embed(bytes: &[u8]) -> Result<Embeddings, &'static str> {
    let answer = serde_json::from_slice::<Answer>(bytes);
    let answer = answer.map_err(|_| "it holds no embeddings")?;
    let vectors = answer.embeddings.into_iter().map(|vector| vector.values).collect();
    let count = answer.usage_metadata.and_then(|told| told.prompt_token_count);
    let usage = count.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
    Ok(Embeddings { vectors, usage, ..Embeddings::default() })
}
