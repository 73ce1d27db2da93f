//! Client side: embeddings.
//!
//! Owns `POST /v2/embed`.

use selvedge_base::Refusal;
use serde::Deserialize;

use crate::cannot;
use crate::chat::Usage;
use crate::embed::{EmbedRequest, Embeddings};
use crate::exchange::{Dialect, Outgoing};
use crate::json::Object;
use crate::number::{Component, Number};

const SELF: Dialect = Dialect::Cohere;
/// Inputs of one request, as the API takes them.
pub const EMBED_INPUTS: usize = 96;
/// What the vectors are for when the client does not say, which this dialect requires: comparing
/// any text with any other.
const PURPOSE: &str = "clustering";

/// What to send for embeddings.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render_embed(request: &EmbedRequest) -> Result<Outgoing, Refusal> {
    if let Some(other) = request.extensions.iter().find(|field| field.dialect != SELF) {
        return Err(cannot::say(SELF, &other.name));
    }
    let Some(texts) = request.texts() else {
        return Err(cannot::because(SELF, "input", "takes texts, not tokens"));
    };
    let mut body = Vec::with_capacity(256);
    Object::write(&mut body, |object| {
        object.field("model", &request.model);
        embed_fields(object, request, &texts);
        request.extensions.iter().for_each(|own| object.raw(&own.name, own.value.text()));
    });
    let headers = vec![("content-type", "application/json".to_owned())];
    Ok(Outgoing { method: "POST", path: "/v2/embed".to_owned(), headers, body })
}

/// What a request says besides its model.
pub(crate) fn embed_fields(object: &mut Object<'_>, request: &EmbedRequest, texts: &[&str]) {
    object.field("texts", texts);
    object.field("input_type", request.purpose.as_deref().unwrap_or(PURPOSE));
    object.field("embedding_types", &["float"]);
    object.maybe("output_dimension", request.dimensions.as_ref());
    if let Some(truncate) = request.truncate {
        object.field("truncate", if truncate { "END" } else { "NONE" });
    }
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Typed,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Typed {
    float: Vec<Vec<Component>>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Billed>,
}

#[derive(Deserialize)]
struct Billed {
    input_tokens: Option<Number>,
}

/// Reads a whole answer with embeddings; see [`crate::embed::EmbedParser`].
///
/// # Errors
/// What is wrong with it.
pub fn read_embed(bytes: &[u8]) -> Result<Embeddings, &'static str> {
    let answer = serde_json::from_slice::<Answer>(bytes);
    let Answer { embeddings, meta } = answer.map_err(|_| "it holds no embeddings")?;
    let billed = meta.and_then(|meta| meta.billed_units?.input_tokens?.whole());
    let usage = billed.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
    Ok(Embeddings { vectors: embeddings.float, usage, ..Embeddings::default() })
}
